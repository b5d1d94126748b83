"""Where Postgres is, and how each of our login roles reaches each database."""

from enum import StrEnum

from psycopg.conninfo import make_conninfo

from butterbase.sql.secrets import MasterKey


class LoginRole(StrEnum):
    """The roles our processes connect as; none is a superuser (sql/migrations/control)."""

    AUTHENTICATOR = "authenticator"
    SERVICE = "butterbase_service"
    STREAM = "butterbase_stream"


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
        if database is None:
            return self._admin_dsn
        return make_conninfo(self._admin_dsn, dbname=database)

    def dsn(self, role: LoginRole | str, database: str) -> str:
        return make_conninfo(
            self._admin_dsn,
            user=str(role),
            password=self.password(role),
            dbname=database,
            application_name=f"butterbase {role}",
        )

    def password(self, role: LoginRole | str) -> str:
        return self.master_key.derive(f"role:{role}")


def app_database(app_id: str) -> str:
    return f"app_{app_id}"


def app_owner(app_id: str) -> str:
    """The role a developer connects as: it owns the app's database and nothing beyond."""
    return f"app_{app_id}_owner"
