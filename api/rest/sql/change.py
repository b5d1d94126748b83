"""Changes → SQL: the CTE whose rows a read then selects from."""

from msgspec import Struct
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from butterbase.api.rest.errors import NoColumnError
from butterbase.api.rest.sql.conditions import condition_on
from butterbase.api.rest.sql.nodes import Condition
from butterbase.api.rest.sql.parameters import Parameters
from butterbase.sql.relations.model import Name, SchemaCache, Table

INSERTED = "butterbase.inserted_count"
"""A setting of the transaction: rows that an upsert inserted, not updated."""

BODY = Identifier("butterbase_body")


class Written(Struct, frozen=True):
    """A column that the body gives a value for."""

    name: str
    type: str
    """What the body's member is read as."""
    convert: str | None = None
    """A domain's function from JSON."""
    default: str | None = None


class Body(Struct, frozen=True):
    columns: tuple[Written, ...]
    is_object: bool
    fills_defaults: bool = False


def written_columns(
    cache: SchemaCache, table: Table, names: tuple[str, ...]
) -> tuple[Written, ...]:
    """Raises NoColumnError."""
    found = []
    for name in names:
        column = table.columns.get(name)
        if column is None:
            raise NoColumnError(
                f"Could not find the '{name}' column of '{table.name}' in the schema cache"
            )
        convert = cache.representations.get(("json", column.nominal_type))
        kind = "json" if convert else column.nominal_type
        found.append(Written(name, kind, convert, column.default))
    return tuple(found)


class Conflict(Struct, frozen=True):
    columns: tuple[str, ...]
    merges: bool


def insert(
    table: Name,
    body: Body,
    conflict: Conflict | None,
    conditions: tuple[Condition, ...],
    returning: tuple[str, ...],
    parameters: Parameters,
) -> Composed:
    """`conditions`: of PUT, on the row of the body."""
    names = [Identifier(c.name) for c in body.columns]
    into = SQL(" ({})").format(SQL(", ").join(names)) if names else SQL("")
    columns = [BODY + SQL(".") + name for name in names]
    merges = conflict is not None and conflict.merges
    where: list[Composable] = [
        condition_on(BODY, condition, parameters) for condition in conditions
    ]
    if merges:
        where.insert(0, _counted(1))
    return (
        SQL("insert into {}{} select {} from {}").format(
            Identifier(*table), into, SQL(", ").join(columns), body_rows(body, parameters)
        )
        + (SQL(" where ") + SQL(" and ").join(where) if where else SQL(""))
        + _on_conflict(conflict, names)
        + _returning(table, returning)
    )


def update(
    table: Name,
    body: Body,
    conditions: tuple[Condition, ...],
    returning: tuple[str, ...],
    parameters: Parameters,
) -> Composed:
    if not body.columns:
        # Nothing to set; no row, but with the columns that are selected from it.
        columns = [column(Identifier(table[1]), name) for name in returning] or [SQL("null")]
        return SQL("select {} from {} where false").format(
            SQL(", ").join(columns), Identifier(*table)
        )
    assignments = [SQL("{0} = {1}.{0}").format(Identifier(c.name), BODY) for c in body.columns]
    return (
        SQL("update {} set {} from {}").format(
            Identifier(*table), SQL(", ").join(assignments), body_rows(body, parameters)
        )
        + _where(table, conditions, parameters)
        + _returning(table, returning)
    )


def delete(
    table: Name,
    conditions: tuple[Condition, ...],
    returning: tuple[str, ...],
    parameters: Parameters,
) -> Composed:
    return (
        SQL("delete from {}").format(Identifier(*table))
        + _where(table, conditions, parameters)
        + _returning(table, returning)
    )


def body_rows(body: Body, parameters: Parameters) -> Composed:
    """The body as a relation with a typed column for each member."""
    if not body.columns and body.is_object:
        return SQL("(values (1)) as {}").format(BODY)
    given: Composable = parameters.body()
    if not body.columns:
        return SQL("json_array_elements({}::json) as {}").format(given, BODY)
    if body.fills_defaults:
        given = _with_defaults(body, given)
        function = "jsonb_to_record" if body.is_object else "jsonb_to_recordset"
    else:
        given = given + SQL("::json")
        function = "json_to_record" if body.is_object else "json_to_recordset"
    fields = SQL(", ").join(Identifier(c.name) + SQL(" ") + SQL(c.type) for c in body.columns)
    if not any(c.convert for c in body.columns):
        return SQL(function + "({}) as {}({})").format(given, BODY, fields)
    converted = [
        Identifier(c.name)
        if c.convert is None
        else SQL(c.convert) + SQL("({0}) as {0}").format(Identifier(c.name))
        for c in body.columns
    ]
    return SQL("(select {} from {}({}) as _({})) as {}").format(
        SQL(", ").join(converted), SQL(function), given, fields, BODY
    )


def _with_defaults(body: Body, given: Composable) -> Composed:
    """Members that are missing get their column's default, evaluated for each row."""
    pairs = [
        Literal(c.name) + SQL(", ") + SQL(c.default) for c in body.columns if c.default is not None
    ]
    defaults = SQL("jsonb_build_object({})").format(SQL(", ").join(pairs))
    if body.is_object:
        return SQL("{} || {}::jsonb").format(defaults, given)
    return SQL("(select jsonb_agg({} || _) from jsonb_array_elements({}::jsonb) as _)").format(
        defaults, given
    )


def _counted(change: int) -> Composable:
    """True, with the row counted (+1) or, since it was a conflict, counted off again (-1)."""
    setting = Literal(INSERTED)
    return SQL(
        "set_config({0}, (coalesce(nullif(current_setting({0}, true), '')::int, 0) + {1})::text, "
        "true) is not null"
    ).format(setting, SQL(f"({change:d})"))


def _on_conflict(conflict: Conflict | None, names: list[Identifier]) -> Composable:
    if conflict is None or not conflict.columns:
        return SQL("")
    target = SQL(" on conflict ({})").format(SQL(", ").join(map(Identifier, conflict.columns)))
    if not conflict.merges or not names:
        return target + SQL(" do nothing")
    assignments = SQL(", ").join(SQL("{0} = excluded.{0}").format(name) for name in names)
    return target + SQL(" do update set {} where {}").format(assignments, _counted(-1))


def _where(table: Name, conditions: tuple[Condition, ...], parameters: Parameters) -> Composable:
    if not conditions:
        return SQL("")
    found = [condition_on(Identifier(*table), c, parameters) for c in conditions]
    return SQL(" where ") + SQL(" and ").join(found)


def _returning(table: Name, columns: tuple[str, ...]) -> Composable:
    if not columns:
        return SQL(" returning 1")
    return SQL(" returning ") + SQL(", ").join(column(Identifier(*table), n) for n in columns)


def column(relation: Composable, name: str) -> Composable:
    return relation + SQL(".") + (SQL("*") if name == "*" else Identifier(name))
