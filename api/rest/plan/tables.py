"""Which table or view a request names."""

from butterbase.api.rest.errors import NoTableError
from butterbase.sql.relations.hints import table_hint
from butterbase.sql.relations.model import SchemaCache, Table


def find_table(cache: SchemaCache, schema: str, name: str) -> Table:
    """Raises NoTableError."""
    table = cache.tables.get((schema, name))
    if table is None:
        raise NoTableError(
            f"Could not find the table '{schema}.{name}' in the schema cache",
            hint=table_hint(cache, schema, name),
        )
    return table
