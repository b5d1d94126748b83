"""What every DSN of ours says about a network that goes silent.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES
"""

from psycopg.conninfo import conninfo_to_dict, make_conninfo

# A peer that is gone is found after a minute, whether we listen (keepalives) or have sent something
# (tcp_user_timeout, in milliseconds). Not sooner: a server that does not read a large body because
# an earlier statement waits for a lock looks the same.
_LIVELINESS = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


def kept_alive(dsn: str) -> str:
    """The DSN with our limits where it states none."""
    given = conninfo_to_dict(dsn)
    return make_conninfo(dsn, **{k: v for k, v in _LIVELINESS.items() if k not in given})
