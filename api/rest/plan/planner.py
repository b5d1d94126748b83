"""A request and the schema cache → a plan: the statement's text, and how to read its answer. Pure.

A plan depends on a request's shape, not on its values, and is kept for the next of that shape.
"""

from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from butterbase.api.rest.errors import (
    InvalidPreferencesError,
    MaxAffectedRpcError,
)
from butterbase.api.rest.plan.changes import Change, needed_columns
from butterbase.api.rest.plan.headers import plan_headers
from butterbase.api.rest.plan.levels import Level, legacy_names, levels_of
from butterbase.api.rest.plan.model import Argument, Plan
from butterbase.api.rest.plan.negotiation import OBJECT, negotiate
from butterbase.api.rest.plan.reading import Reader
from butterbase.api.rest.plan.routines import find_routine, takes_whole_body
from butterbase.api.rest.plan.tables import find_table
from butterbase.api.rest.request.media import MediaType, parse_accept
from butterbase.api.rest.request.model import CALLS, READS, Page, Request
from butterbase.api.rest.request.preferences import Preferences, parse_preferences
from butterbase.api.rest.request.syntax import Shape
from butterbase.api.rest.settings import RestSettings
from butterbase.api.rest.sql import call, statement
from butterbase.api.rest.sql.handlers import Builtin, Handler
from butterbase.api.rest.sql.nodes import Node
from butterbase.api.rest.sql.parameters import Parameters
from butterbase.sql.relations.model import Name, Routine, SchemaCache, Table, Volatility

# What of a relation's name stands in a header as it is.
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class Planner(Struct, frozen=True):
    cache: SchemaCache
    settings: RestSettings

    def plan(self, request: Request, shape: Shape) -> Plan:
        """Raises RestError."""
        if request.action in CALLS:
            return self._call(request, shape)
        table = find_table(self.cache, request.schema, request.name)
        if request.action == "read":
            return self._read(request, shape, table)
        return self._change(request, shape, table)

    def _read(self, request: Request, shape: Shape, table: Table) -> Plan:
        level = self._levels(request, shape)
        node = self._reader(request).plan(level, (table.schema, table.name))
        handler, media, preferences = self._agreed(request, (table.schema, table.name), node)
        parameters = _parameters(request)
        counting = self._counting(request, preferences)
        whole = statement.read_statement(
            node, handler, counting, parameters, tells_position=self.settings.tells_position
        )
        planned = None
        if preferences.count in ("planned", "estimated"):
            asked = _parameters(request)
            text = statement.count_statement(node, asked).as_bytes(None)
            planned = (text, asked.recipe)
        return Plan(
            request.action,
            whole.written(media.plan),
            parameters.recipe,
            media,
            preferences,
            location=b"/" + quote(table.name, safe=_PRINTABLE).encode(),
            headers=plan_headers(
                media,
                replace(
                    preferences,
                    resolution=None,
                    representation=None,
                    missing=None,
                    max_affected=None,
                ),
                legacy_names(level),
            ),
            is_read_only=True,
            is_singular=media.name == OBJECT,
            planned_count=planned,
            exact_count_max=counting.exact_max,
            row_count_max=self.settings.max_rows,
            is_explained=media.plan is not None,
        )

    def _change(self, request: Request, shape: Shape, table: Table) -> Plan:
        name = (table.schema, table.name)
        level = self._levels(request, shape)
        node = self._reader(request).plan(level, name, ("", statement.SOURCE))
        preferences = self._preferences(request)
        change = Change(self.cache, table, request, shape, preferences, node)
        parameters = _parameters(request)
        composed = change.compose(parameters)
        handler, media, preferences = self._agreed(request, name, node)
        if preferences.representation != "representation":
            handler = Builtin.NOTHING
        whole = statement.change_statement(
            composed,
            node,
            handler,
            parameters,
            located=table if change.tells_location else None,
            counts_inserted=change.counts_inserted,
        )
        is_explained = media.plan is not None
        return Plan(
            request.action,
            whole.written(media.plan),
            parameters.recipe,
            media if preferences.representation == "representation" else None,
            preferences,
            location=b"/" + quote(table.name, safe=_PRINTABLE).encode(),
            headers=plan_headers(
                media if is_explained or preferences.representation == "representation" else None,
                change.heard,
                legacy_names(level),
            ),
            key=table.primary_key,
            is_singular=media.name == OBJECT,
            is_checked=not is_explained
            and (request.action == "put" or media.name == OBJECT or _is_limited(preferences)),
            is_explained=is_explained,
        )

    def _call(self, request: Request, shape: Shape) -> Plan:
        body_type = None if request.action == "call_read" else request.content_type
        is_form = body_type == "application/x-www-form-urlencoded"
        has_arguments = request.action == "call_read" or is_form
        keys = frozenset(request.arguments if has_arguments else request.keys)
        routine = find_routine(self.cache, request.schema, request.name, keys, body_type=body_type)
        relation = routine.returns[1] if routine.returns_composite else routine.name
        target = (routine.schema, relation)
        level = self._levels(request, shape)
        node = self._reader(request).plan(level, target, ("", statement.SOURCE))
        handler, media, preferences = self._agreed(request, target, node)
        if _is_limited(preferences) and not routine.returns_set:
            raise MaxAffectedRpcError
        parameters = _parameters(request)
        columns = needed_columns(self.cache, node)
        arguments: dict[str, Argument] = {}
        if has_arguments:
            arguments = _arguments(routine, request.arguments)
            composed = call.call_with_arguments(routine, tuple(arguments), columns, parameters)
        elif takes_whole_body(routine, body_type):
            composed = call.call_with_whole_body(routine, columns, parameters)
        else:
            composed = call.call_with_body(
                routine, request.keys, columns, parameters, is_object=request.is_object
            )
        counting = self._counting(request, preferences)
        if counting.count == "estimated":
            counting = statement.Counting("exact", counting.is_paged, counting.row_count_max)
        whole = statement.call_statement(routine, composed, node, handler, counting, parameters)
        is_read_only = (
            request.action == "call_read" or routine.volatility is not Volatility.VOLATILE
        )
        is_explained = media.plan is not None
        heard = replace(preferences, resolution=None, representation=None, missing=None)
        return Plan(
            request.action,
            whole.written(media.plan),
            parameters.recipe,
            media,
            preferences,
            headers=plan_headers(
                None if routine.returns_void and not is_explained else media,
                heard,
                legacy_names(level),
            ),
            routine=routine,
            row_count_max=self.settings.max_rows,
            is_read_only=is_read_only,
            is_singular=media.name == OBJECT,
            is_checked=not is_read_only
            and not is_explained
            and (media.name == OBJECT or _is_limited(preferences)),
            is_explained=is_explained,
            arguments=tuple(arguments.values()),
        )

    def _levels(self, request: Request, shape: Shape) -> Level:
        return levels_of(
            shape,
            for_mutation=request.action not in READS and request.action not in CALLS,
            by_target_name=self.settings.uses_legacy_target_names,
            pages=request.pages,
        )

    def _reader(self, request: Request) -> Reader:
        reads = request.action in READS or request.action == "call"
        return Reader(
            self.cache,
            request.schema,
            aggregates_enabled=self.settings.aggregates_enabled,
            row_count_max=self.settings.max_rows if reads else None,
        )

    def _preferences(self, request: Request) -> Preferences:
        return parse_preferences(
            request.prefer, may_choose_transaction=self.settings.may_choose_transaction_end
        )

    def _agreed(
        self, request: Request, target: Name, node: Node
    ) -> tuple[Handler, MediaType, Preferences]:
        handler, media = negotiate(
            self.cache,
            target,
            parse_accept(request.accept),
            is_plain=node.is_plain,
            plan_enabled=self.settings.plan_enabled,
        )
        preferences = self._preferences(request)
        if preferences.invalid and preferences.handling == "strict":
            raise InvalidPreferencesError(
                details=f"Invalid preferences: {', '.join(preferences.invalid)}"
            )
        return Builtin.NOTHING if request.is_head else handler, media, preferences

    def _counting(self, request: Request, preferences: Preferences) -> statement.Counting:
        return statement.Counting(
            preferences.count, request.pages[0] != Page(), self.settings.max_rows
        )


def _arguments(routine: Routine, names: tuple[str, ...]) -> dict[str, Argument]:
    """By parameter. A name given twice means the last, but for a variadic parameter: all."""
    variadic = {p.name for p in routine.parameters if p.is_variadic}
    found: dict[str, Argument] = {}
    for place, name in enumerate(names):
        if name in variadic:
            before = found[name].places if name in found else ()
            found[name] = Argument((*before, place), is_list=True)
        else:
            found[name] = Argument((place,))
    return found


def _parameters(request: Request) -> Parameters:
    return Parameters(value_count=request.value_count, range_count=len(request.pages))


def _is_limited(preferences: Preferences) -> bool:
    return preferences.max_affected is not None and preferences.handling == "strict"
