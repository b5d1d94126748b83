import pytest
from psycopg.conninfo import conninfo_to_dict

from butterbase.sql.cluster import Cluster, LoginRole
from butterbase.sql.dsn import kept_alive
from butterbase.sql.secrets import MasterKey

LIMITS = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


@pytest.mark.parametrize("dsn", ["", "host=a dbname=b", "postgresql://a,c/b?application_name=x"])
def test_a_silent_network_is_found_out(dsn: str) -> None:
    assert conninfo_to_dict(kept_alive(dsn)) == conninfo_to_dict(dsn) | LIMITS


def test_what_is_stated_stays() -> None:
    given = "postgresql://a/b?tcp_user_timeout=5&keepalives_idle=6"
    found = conninfo_to_dict(kept_alive(given))
    assert (found["tcp_user_timeout"], found["keepalives_idle"]) == ("5", "6")
    assert kept_alive(kept_alive(given)) == kept_alive(given)


def test_our_login_roles_connect_so() -> None:
    cluster = Cluster("host=a", MasterKey(b"x" * 32))
    assert LIMITS.items() <= conninfo_to_dict(cluster.dsn(LoginRole.SERVICE, "b")).items()
