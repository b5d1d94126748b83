"""`NOTIFY pgrst`: what the database wants reloaded.

https://docs.postgrest.org/en/stable/references/listener.html
"""

import logging
from collections.abc import Callable

from psycopg.conninfo import make_conninfo

from butterbase.sql.listening import Listener

logger = logging.getLogger(__name__)


def schema_listener(
    dsn: str,
    channel: str,
    *,
    on_schema: Callable[[], None],
    on_config: Callable[[], None],
    on_failure: Callable[[], None] = lambda: None,
) -> Listener:
    def hear(payload: str) -> None:
        match payload:
            case "" | "reload schema":
                logger.info("asked to reload the schema on %s", channel)
                on_schema()
            case "reload config":
                logger.info("asked to reload the configuration on %s", channel)
                on_config()
            case _:  # the channel is the user's too
                pass

    return Listener(
        # Of several hosts the primary: a replica neither listens nor is notified.
        make_conninfo(dsn, target_session_attrs="read-write"),
        channel,
        hear=hear,
        on_listening=on_schema,
        on_failure=on_failure,
    )
