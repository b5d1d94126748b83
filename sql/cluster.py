"""Where Postgres is, and how each of our login roles reaches each database."""

from enum import StrEnum

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from butterbase.sql.dsn import kept_alive
from butterbase.sql.secrets import MasterKey

# In an app's database the developer owns `public`, and may set the database's search path. What we
# run there ourselves must find nothing of theirs, whatever it is called (CVE-2018-1058).
_PINNED = "-c search_path=pg_catalog,extensions,pg_temp"


class LoginRole(StrEnum):
    """The roles our processes connect as, besides each app's; none is a superuser."""

    SERVICE = "butterbase_service"
    """The api's own tables in the control database."""
    OPERATORS = "butterbase_operators"
    """Auth of those who run the platform, in the control database."""
    STREAM = "butterbase_stream"
    """Reads the log and writes projections, in every database."""


class Cluster:
    """A Postgres server, addressed by its administrator's DSN; role passwords are derived.

    Roles belong to the whole server, so a server holds one installation.
    """

    def __init__(
        self, admin_dsn: str, master_key: MasterKey, *, control_database: str = "butterbase"
    ) -> None:
        self._admin_dsn = admin_dsn
        self.master_key = master_key
        self.control_database = control_database

    def admin_dsn(self, database: str | None = None) -> str:
        """The administrator's DSN, for migrations only; by default to its own database."""
        given = conninfo_to_dict(self._admin_dsn)
        options = f"{given.get('options', '')} {_PINNED}".strip()
        return make_conninfo(self._admin_dsn, dbname=database, options=options)

    def dsn(self, role: str, database: str, *, statement_timeout_ms: int | None = None) -> str:
        """The DSN of a login role of ours. Its search path cannot be changed from outside."""
        options = _PINNED
        if statement_timeout_ms is not None:
            options += f" -c statement_timeout={statement_timeout_ms}"
        return make_conninfo(
            kept_alive(self._admin_dsn),
            user=str(role),
            password=self.password(role),
            dbname=database,
            options=options,
            application_name=f"butterbase {role}",
        )

    def owner_dsn(self, app_id: str, database: str) -> str:
        """The developer's DSN."""
        role = app_owner(app_id)
        return make_conninfo(
            self._admin_dsn, user=role, password=self.password(role), dbname=database
        )

    def password(self, role: str) -> str:
        return self.master_key.derive(f"role:{role}")


def app_database(app_id: str) -> str:
    return f"app_{app_id}"


# Each app has login roles of its own, which reach its database alone: a developer's trigger runs as
# whoever fires it, and may change that role's password.


def app_owner(app_id: str) -> str:
    """The role a developer connects as: it owns the app's database and nothing beyond."""
    return f"app_{app_id}_owner"


def app_authenticator(app_id: str) -> str:
    """The data path's role: it may become the three roles of a request, and nothing else."""
    return f"app_{app_id}_authenticator"


def app_service(app_id: str) -> str:
    """The role of auth: it reads and writes the app's users and sessions."""
    return f"app_{app_id}_service"
