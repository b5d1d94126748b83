"""Which overload of a function a call means: its name and its arguments' names. Pure.

https://docs.postgrest.org/en/stable/references/api/functions.html
"""

from butterbase.api.rest.errors import AmbiguousFunctionError, NoFunctionError
from butterbase.sql.relations.hints import routine_hint
from butterbase.sql.relations.model import Routine, SchemaCache

_JSON = "application/json"
_WHOLE_BODIES = {
    _JSON: ("json", "jsonb"),
    "text/plain": ("text",),
    "text/xml": ("xml",),
    "application/octet-stream": ("bytea",),
}
"""Media type of a body → types of a single unnamed parameter that takes it whole."""


def find_routine(
    cache: SchemaCache, schema: str, name: str, keys: frozenset[str], *, body_type: str | None
) -> Routine:
    """`body_type`: the media type of a POST's body, None when the query string has the arguments.

    Raises NoFunctionError, AmbiguousFunctionError.
    """
    overloads = cache.routines.get((schema, name), ())
    found = [r for r in overloads if _takes(r, keys, body_type)]
    if not found:
        found = [r for r in overloads if takes_whole_body(r, body_type)]
    if len(found) == 1:
        return found[0]
    if found:
        candidates = ", ".join(_signature(r) for r in found)
        raise AmbiguousFunctionError(
            f"Could not choose the best candidate function between: {candidates}",
            hint="Try renaming the parameters or the function itself in the database "
            "so function overloading can be resolved",
        )
    raise _not_found(cache, schema, name, sorted(keys), body_type)


def takes_whole_body(routine: Routine, body_type: str | None) -> bool:
    if len(routine.parameters) != 1 or routine.parameters[0].name or body_type is None:
        return False
    return routine.parameters[0].type in _WHOLE_BODIES.get(body_type, ())


def _takes(routine: Routine, keys: frozenset[str], body_type: str | None) -> bool:
    if not routine.parameters:
        is_raw = body_type is not None and body_type != _JSON and body_type in _WHOLE_BODIES
        return not keys and not is_raw
    required = {p.name for p in routine.parameters if p.is_required}
    optional = {p.name for p in routine.parameters if not p.is_required}
    return keys - optional == required


def _signature(routine: Routine) -> str:
    parameters = ", ".join(f"{p.name} => {p.type}" for p in routine.parameters)
    return f"{routine.schema}.{routine.name}({parameters})"


def _not_found(
    cache: SchemaCache, schema: str, name: str, keys: list[str], body_type: str | None
) -> NoFunctionError:
    function = f"{schema}.{name}"
    joined = ", ".join(keys)
    if body_type is not None and body_type != _JSON and body_type in _WHOLE_BODIES:
        kind = _WHOLE_BODIES[body_type][0]
        return NoFunctionError(
            f"Could not find the function {function} in the schema cache",
            details=f"Searched for the function {function} with a single unnamed {kind} "
            "parameter, but no matches were found in the schema cache.",
        )
    short = f"({joined})" if keys else " without parameters"
    long = f" with parameter{'s' if len(keys) > 1 else ''} {joined}" if keys else short
    if body_type == _JSON:
        long += " or with a single unnamed json/jsonb parameter"
    return NoFunctionError(
        f"Could not find the function {function}{short} in the schema cache",
        details=f"Searched for the function {function}{long}, "
        "but no matches were found in the schema cache.",
        hint=routine_hint(cache, schema, name, keys),
    )
