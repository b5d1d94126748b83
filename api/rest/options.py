"""`OPTIONS`: which methods a relation or a function answers to, whoever asks."""

from butterbase.api.rest.plan.routines import find_routine
from butterbase.api.rest.plan.tables import find_table
from butterbase.api.rest.request.incoming import Target
from butterbase.api.rest.request.parser import read_query
from butterbase.api.rest.response import Answer
from butterbase.sql.relations.model import SchemaCache, Table, Volatility


def answer(cache: SchemaCache, schema: str, target: Target, query_string: str) -> Answer:
    """Raises NoTableError, NoFunctionError, AmbiguousFunctionError."""
    if not target.name:
        methods = ["OPTIONS", "GET", "HEAD"]
    elif target.is_function:
        query = read_query(query_string, is_call=True)
        keys = frozenset(name for name, _ in query.arguments)
        routine = find_routine(cache, schema, target.name, keys, body_type=None)
        is_volatile = routine.volatility is Volatility.VOLATILE
        methods = ["OPTIONS", "POST"] if is_volatile else ["OPTIONS", "GET", "HEAD", "POST"]
    else:
        methods = _of_table(find_table(cache, schema, target.name))
    return Answer(200, [(b"allow", ",".join(methods).encode())], b"")


def _of_table(table: Table) -> list[str]:
    allowed: dict[str, bool] = {
        "OPTIONS": True,
        "GET": True,
        "HEAD": True,
        "POST": table.is_insertable,
        "PUT": table.is_insertable and table.is_updatable and bool(table.primary_key),
        "PATCH": table.is_updatable,
        "DELETE": table.is_deletable,
    }
    return [method for method, is_allowed in allowed.items() if is_allowed]
