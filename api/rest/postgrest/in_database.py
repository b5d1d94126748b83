"""Settings that the database itself holds: `alter role … set pgrst.*`, and a pre-config function.

https://docs.postgrest.org/en/stable/references/configuration.html#in-database-configuration
"""

from psycopg.sql import SQL, Identifier

from butterbase.api.rest.postgrest.config import IN_DATABASE, PostgrestConfig, split_name
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement

PREFIX = "pgrst."

_QUERIES = load_queries("postgrest")
_NAMES = sorted(PREFIX + name.replace("-", "_") for name in IN_DATABASE)


async def read_settings(executor: Executor, config: PostgrestConfig) -> dict[str, str]:
    """Values by the settings' names with dashes. Raises what `Executor.run` raises."""
    function = config.db_pre_config
    calls = [] if function is None else [Statement(_call(*split_name(function)))]
    *_, result = await executor.run(
        Statement(_QUERIES["be_read_only"]),
        *calls,
        Statement(
            _QUERIES["settings"],
            (("{" + ",".join(_NAMES) + "}").encode(), b"t" if function else b"f"),
        ),
    )
    return {
        (name or b"").decode().removeprefix(PREFIX).replace("_", "-"): (value or b"").decode()
        for name, value in result.rows()
    }


def _call(schema: str, name: str) -> bytes:
    """Not `select f()`, so that a function that returns rows is called to its end."""
    function = Identifier(*filter(None, (schema, name)))
    return SQL("select count(*) from {}() as called").format(function).as_bytes(None)
