"""The whole statement of a request: rows made into an answer, with what the headers need.

It answers one row: the columns of `HEADS`, as text, and behind them the body.
"""

from typing import Literal as Choice

from msgspec import Struct
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from butterbase.api.rest.request.media import PlanOptions
from butterbase.api.rest.sql.call import SCALAR
from butterbase.api.rest.sql.change import INSERTED
from butterbase.api.rest.sql.count import select_count
from butterbase.api.rest.sql.handlers import Builtin, Handler
from butterbase.api.rest.sql.nodes import Node
from butterbase.api.rest.sql.parameters import Parameters
from butterbase.api.rest.sql.select import select
from butterbase.sql.pipeline import in_pieces
from butterbase.sql.relations.model import MediaHandler, Routine, Table

HEADS = (
    "row_count",
    "total_count",
    "headers",
    "status",
    "location",
    "inserted_count",
    "position",
)
BODY = "body"

COUNTED_EXACTLY_MAX = 1000
"""`count=estimated` counts up to so many rows, where no `max-rows` says otherwise."""

_ROWS = Identifier("butterbase_rows")
_CSV_ROWS = Identifier("butterbase_csv")
SOURCE = "butterbase_source"
"""The CTE of changed or called rows."""

_HEADERS = SQL("nullif(current_setting('response.headers', true), '')")
_STATUS = SQL("nullif(current_setting('response.status', true), '')")
# Of the statement's own snapshot, so that who follows changes from here misses none and gets none
# twice; see realtime/window/position.py. A standby cannot say.
_POSITION = SQL(
    "case when not pg_is_in_recovery()"
    " then concat(pg_current_wal_insert_lsn(), '@', pg_current_snapshot()) end"
)
_NULL = SQL("null")
_COUNT = SQL("count(*)")

Count = Choice["exact", "planned", "estimated"]


class Counting(Struct, frozen=True):
    count: Count | None
    is_paged: bool
    """Whether there may be more rows than are answered."""
    row_count_max: int | None

    @property
    def exact_max(self) -> int:
        return self.row_count_max or COUNTED_EXACTLY_MAX


class Text(Struct, frozen=True):
    text: bytes
    is_chunked: bool = False
    """Whether the body is the result's `body`, not its row's last column."""


class Whole(Struct, frozen=True):
    """The parts of a statement, which is put together when its form is known."""

    rows: Composable
    handler: Handler
    source: Composable | None = None
    routine: Routine | None = None
    count: Composable = _COUNT
    total: Composable = _NULL
    location: Composable = _NULL
    inserted: Composable = _NULL
    position: Composable = _NULL

    def written(self, options: PlanOptions | None) -> Text:
        """With options, the query's plan, a line a row."""
        body = _body(self.handler, self.routine)
        if options is not None:
            words = ", ".join([f"format {options.format}", *options.options])
            explain = SQL("explain (" + words + ") ")
            return Text((explain + self._ctes() + self._query(body)).as_bytes(None))
        if isinstance(self.handler, MediaHandler):
            # Its body may be bytea, which comes as it is in a chunked statement's binary format.
            return Text((self._ctes() + self._query(body)).as_bytes(None), is_chunked=True)
        if self.handler is Builtin.NOTHING:
            return Text((self._ctes() + self._query(body)).as_bytes(None))
        text = in_pieces(
            self._query(SQL("convert_to({}, 'UTF8')").format(body)).as_bytes(None),
            columns=[name.encode() for name in HEADS],
            body=BODY.encode(),
            ctes=self._ctes().as_bytes(None),
        )
        return Text(text, is_chunked=True)

    def _ctes(self) -> Composable:
        found = []
        if self.source is not None:
            found.append(SQL("{} as ({})").format(Identifier(SOURCE), self.source))
        if self.handler is Builtin.CSV:  # its first line asks for the first row again
            found.append(SQL("{} as ({})").format(_CSV_ROWS, self.rows))
        return SQL("with {} ").format(SQL(", ").join(found)) if found else SQL("")

    def _query(self, body: Composable) -> Composed:
        is_csv = self.handler is Builtin.CSV
        relation = _CSV_ROWS if is_csv else SQL("({})").format(self.rows)
        heads = (
            self.count,
            self.total,
            _HEADERS,
            _STATUS,
            self.location,
            self.inserted,
            self.position,
        )
        columns = [
            SQL("({})::text as {}").format(value, Identifier(name))
            for name, value in zip(HEADS, heads, strict=True)
        ]
        columns.append(body + SQL(" as ") + Identifier(BODY))
        return SQL("select {} from {} as {}").format(SQL(", ").join(columns), relation, _ROWS)


def read_statement(
    node: Node,
    handler: Handler,
    counting: Counting,
    parameters: Parameters,
    *,
    tells_position: bool = False,
) -> Whole:
    return Whole(
        select(node, parameters),
        handler,
        total=_total(node, counting, parameters),
        position=_POSITION if tells_position else _NULL,
    )


def call_statement(
    routine: Routine,
    call: Composed,
    node: Node,
    handler: Handler,
    counting: Counting,
    parameters: Parameters,
) -> Whole:
    return Whole(
        select(node, parameters),
        handler,
        source=call,
        routine=routine,
        count=_COUNT if routine.returns_set else SQL("1"),
        total=_total(node, counting, parameters),
    )


def change_statement(
    change: Composed,
    node: Node,
    handler: Handler,
    parameters: Parameters,
    *,
    located: Table | None = None,
    counts_inserted: bool = False,
) -> Whole:
    """`located`: the table whose primary key the `Location` header tells."""
    every = SQL("select * from {}").format(Identifier(SOURCE))
    setting = SQL("nullif(current_setting({}, true), '')").format(Literal(INSERTED))
    return Whole(
        every if handler is Builtin.NOTHING else select(node, parameters),
        handler,
        source=change,
        location=_location(located) if located is not None and located.primary_key else _NULL,
        inserted=setting if counts_inserted else _NULL,
    )


def count_statement(node: Node, parameters: Parameters) -> Composed:
    """What the planner expects; the source of calls is not there to be asked."""
    return SQL("explain (format json) ") + select_count(node, parameters)


def _body(handler: Handler, routine: Routine | None) -> Composable:
    row = _ROWS + SQL(".*")
    is_scalar = routine is not None and (routine.returns_scalar or routine.returns_set_of_scalar)
    value = _ROWS + SQL(".") + SCALAR if is_scalar else row
    is_single = routine is not None and not routine.returns_set
    match handler:
        case Builtin.NOTHING:
            return SQL("''")
        case Builtin.JSON:
            return _json(value, is_single=is_single, strips_nulls=False)
        case Builtin.JSON_WITHOUT_NULLS:
            return _json(value, is_single=is_single, strips_nulls=True)
        case Builtin.OBJECT:
            return _json(value, is_single=True, strips_nulls=False)
        case Builtin.OBJECT_WITHOUT_NULLS:
            return _json(value, is_single=True, strips_nulls=True)
        case Builtin.GEOJSON:
            return SQL(
                "json_build_object('type', 'FeatureCollection', 'features', "
                "coalesce(json_agg(ST_AsGeoJSON({})::json), '[]'))::text"
            ).format(row)
        case Builtin.CSV:
            return _CSV
        case _:
            if routine is not None and routine.returns_scalar:
                return SQL("{}({})").format(Identifier(*handler.function), value)
            kind = SQL("") if handler.target is None else SQL("::") + Identifier(*handler.target)
            # In a call `rows.*` is the row itself, which a cast would not take.
            whole = _ROWS if handler.target is not None else row
            return SQL("{}({}{})").format(Identifier(*handler.function), whole, kind)


_CSV = SQL(
    "coalesce((select string_agg(k, ',') from (select json_object_keys(row_to_json(r.*)) as k "
    "from (select * from butterbase_csv limit 1) as r) as keys), '') || E'\\n' || "
    "coalesce(string_agg(substring((butterbase_rows.*)::text, 2, "
    "length((butterbase_rows.*)::text) - 2), E'\\n'), '')"
)


def _json(value: Composable, *, is_single: bool, strips_nulls: bool) -> Composed:
    found: Composable = SQL("json_agg({})").format(value)
    if is_single:
        found = found + SQL(" -> 0")
    if strips_nulls:
        found = SQL("json_strip_nulls({})").format(found)
    return SQL("coalesce({}, {})::text").format(found, SQL("'null'" if is_single else "'[]'"))


def _total(node: Node, counting: Counting, parameters: Parameters) -> Composable:
    if counting.count is None or counting.count == "planned":
        return _NULL
    if counting.count == "exact":
        if not counting.is_paged and counting.row_count_max is None:
            return _COUNT
        counted: Composable = select_count(node, parameters)
    else:
        counted = select_count(node, parameters) + SQL(f" limit {counting.exact_max + 1:d}")
    return SQL("(select count(*) from ({}) as counted)").format(counted)


def _location(table: Table) -> Composed:
    keys = [
        SQL("to_json({}.{}) #>> '{{}}'").format(Identifier(SOURCE), Identifier(name))
        for name in table.primary_key
    ]
    return SQL("case when count(*) = 1 then (select json_build_array({}) from {}) end").format(
        SQL(", ").join(keys), Identifier(SOURCE)
    )
