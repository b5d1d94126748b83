"""Filters → SQL: comparisons of columns with values, which are parameters."""

from collections.abc import Callable

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from butterbase.api.rest.sql.nodes import Column, Condition, EmbedTest, Group, Test
from butterbase.api.rest.sql.parameters import Parameters

_OPERATORS = {
    "eq": "=",
    "neq": "<>",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "like": "like",
    "ilike": "ilike",
    "match": "~",
    "imatch": "~*",
    "cs": "@>",
    "cd": "<@",
    "ov": "&&",
    "sl": "<<",
    "sr": ">>",
    "nxr": "&<",
    "nxl": "&>",
    "adj": "-|-",
    "isdistinct": "is distinct from",
}

_TEXT_SEARCHES = {
    "fts": "to_tsquery",
    "plfts": "plainto_tsquery",
    "phfts": "phraseto_tsquery",
    "wfts": "websearch_to_tsquery",
}

_WORDS = {
    "null": "null",
    "not_null": "not null",
    "true": "true",
    "false": "false",
    "unknown": "unknown",
}


def condition_on(
    alias: Composable,
    condition: Condition,
    parameters: Parameters,
    test_embedded: Callable[[EmbedTest], Composable] | None = None,
) -> Composable:
    """`test_embedded`: how to ask whether an embedded relation is there, where there are any."""
    match condition:
        case Group():
            terms = [
                condition_on(alias, term, parameters, test_embedded) for term in condition.terms
            ]
            joined = SQL(" or " if condition.is_or else " and ").join(terms)
            return SQL("not ({})" if condition.is_negated else "({})").format(joined)
        case EmbedTest():
            assert test_embedded is not None
            return test_embedded(condition)
        case Test():
            test = _test(alias, condition, parameters)
            return SQL("not {}").format(test) if condition.operation.is_negated else test


def column_of(alias: Composable, column: Column) -> Composable:
    """The column as an expression, its path and text search included."""
    if column.is_row:
        return alias
    expression: Composable = (
        alias + SQL(".*") if column.name == "*" else alias + SQL(".") + Identifier(column.name)
    )
    if column.path:
        if not column.is_json:
            expression = SQL("to_jsonb({})").format(expression)
        steps = [expression]
        for step in column.path:
            key = SQL("{}::int" if step.is_index else "{}").format(Literal(step.key))
            steps += [SQL("->>" if step.as_text else "->"), key]
        expression = Composed(steps)
    return expression


def call(function: str, argument: Composable) -> Composable:
    # The function's name comes from the catalogs, quoted by Postgres (regproc).
    return SQL(function) + SQL("({})").format(argument)


def _test(alias: Composable, test: Test, parameters: Parameters) -> Composable:
    operation, column = test.operation, column_of(alias, test.column)
    if operation.operator == "is":
        return column + SQL(" is " + _WORDS[operation.word or "null"])
    value: Composable = parameters.value(test.place)
    if operation.operator in _TEXT_SEARCHES:
        return _text_search(column, test, value)
    convert = test.column.convert
    if operation.operator == "in":
        if convert is not None:
            each = call(convert, SQL("unnest({}::text[])").format(value))
            return column + SQL(" = any (select {})").format(each)
        return column + SQL(" = any ({})").format(value)
    if convert is not None and operation.operator not in ("like", "ilike", "isdistinct"):
        value = call(convert, value + SQL("::text"))
    if operation.quantifier is not None:
        value = SQL(operation.quantifier + " ({})").format(value)
    return column + SQL(f" {_OPERATORS[operation.operator]} ") + value


def _text_search(column: Composable, test: Test, value: Composable) -> Composable:
    language: Composable = SQL("")
    if test.operation.language is not None:
        language = Literal(test.operation.language) + SQL(", ")
    if test.column.parses_text:
        column = SQL("to_tsvector({}{})").format(language, column)
    query = SQL(_TEXT_SEARCHES[test.operation.operator])
    return column + SQL(" @@ ") + query + SQL("({}{})").format(language, value)
