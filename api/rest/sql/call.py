"""Calls of functions → SQL: the CTE whose rows a read then selects from.

https://docs.postgrest.org/en/stable/references/api/functions.html
"""

from psycopg.sql import SQL, Composable, Composed, Identifier

from butterbase.api.rest.sql.change import BODY, Body, Written, body_rows, column
from butterbase.api.rest.sql.parameters import Parameters
from butterbase.sql.relations.model import Parameter, Routine

_CALL = Identifier("butterbase_call")
SCALAR = Identifier("butterbase_scalar")
"""What a function's answer is called that is no row."""


def call_with_arguments(
    routine: Routine,
    names: tuple[str, ...],
    columns: tuple[str, ...],
    parameters: Parameters,
) -> Composed:
    """`names`: of the parameters that have an argument, in the order of those."""
    named = {parameter.name: parameter for parameter in routine.parameters}
    given: list[Composable] = [
        _argument(named[name], parameters.argument(ordinal) + SQL(f"::{named[name].call_type}"))
        for ordinal, name in enumerate(names)
    ]
    return _select_call(routine, SQL(", ").join(given), columns, source=None)


def call_with_body(
    routine: Routine,
    keys: tuple[str, ...],
    columns: tuple[str, ...],
    parameters: Parameters,
    *,
    is_object: bool,
) -> Composed:
    """The body's members are the arguments; of an array, the first object's."""
    given = [parameter for parameter in routine.parameters if parameter.name in keys]
    if not given:
        return _select_call(routine, SQL(""), columns, source=None)
    fields = tuple(Written(parameter.name, parameter.call_type) for parameter in given)
    source = (
        body_rows(Body(fields, is_object), parameters)
        if is_object
        else SQL("(select * from {} limit 1) as {}").format(
            body_rows(Body(fields, is_object), parameters), BODY
        )
    )
    arguments = [
        _argument(parameter, BODY + SQL(".") + Identifier(parameter.name)) for parameter in given
    ]
    return _select_call(routine, SQL(", ").join(arguments), columns, source=source)


def call_with_whole_body(
    routine: Routine, columns: tuple[str, ...], parameters: Parameters
) -> Composed:
    """The body is the one unnamed argument."""
    kind = routine.parameters[0].type
    return _select_call(routine, parameters.body() + SQL(f"::{kind}"), columns, source=None)


def _select_call(
    routine: Routine,
    arguments: Composable,
    columns: tuple[str, ...],
    source: Composable | None,
) -> Composed:
    call = SQL("{}({})").format(Identifier(routine.schema, routine.name), arguments)
    answered: Composable
    if routine.returns_scalar or routine.returns_set_of_scalar:
        call = SQL("(select {} as {})").format(call, SCALAR)
        answered = _CALL + SQL(".") + SCALAR
    else:
        answered = SQL(", ").join(column(_CALL, name) for name in columns) if columns else SQL("*")
        if source is not None and not columns:
            answered = _CALL + SQL(".*")
    before = source + SQL(", lateral ") if source is not None else SQL("")
    return SQL("select {} from {}{} as {}").format(answered, before, call, _CALL)


def _argument(parameter: Parameter, value: Composable) -> Composable:
    variadic = SQL("variadic " if parameter.is_variadic else "")
    return variadic + Identifier(parameter.name) + SQL(" := ") + value
