"""One REST API over one database: a request is read, planned, run as its caller, and answered.

A second request of a shape finds its plan by that shape: nothing is planned and no SQL is made.
https://docs.postgrest.org/en/stable/references/api.html
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import LiteralString, Protocol, get_args

import msgspec
from msgspec import Struct
from psycopg.sql import SQL, Identifier

from butterbase.api.rest import options
from butterbase.api.rest.errors import (
    NotInSchemaError,
    OpenApiDisabledError,
    SchemaCacheMissingError,
)
from butterbase.api.rest.openapi import root
from butterbase.api.rest.plan.model import Plan
from butterbase.api.rest.plan.planner import Planner
from butterbase.api.rest.plan.plans import Plans
from butterbase.api.rest.plan.values import values_of
from butterbase.api.rest.request.headers import Headers
from butterbase.api.rest.request.incoming import (
    HttpRequest,
    Incoming,
    Target,
    read_request,
    schema_of,
    target_of,
)
from butterbase.api.rest.request.parser import is_keepable, shape_of
from butterbase.api.rest.request.payload import LARGE_BYTES
from butterbase.api.rest.response import Answer, Asked, Outcome, check, explained, respond
from butterbase.api.rest.settings import RestSettings
from butterbase.api.rest.sql.parameters import fill
from butterbase.api.rest.sql.transaction import become
from butterbase.api.rest.stopwatch import Stopwatch
from butterbase.sql.claims import Claims
from butterbase.sql.pipeline import Executor, Isolation, Result, Statement
from butterbase.sql.relations.model import SchemaCache

IDEMPOTENCY_KEY = "butterbase-idempotency-key"
"""The header of a write that is to happen once."""

_ISOLATIONS: dict[str, Isolation] = {level: level for level in get_args(Isolation)}


class Holder(Protocol):
    @property
    def current(self) -> SchemaCache | None: ...

    async def catch_up(self) -> bool: ...


class RestService:
    def __init__(self, executor: Executor, holder: Holder, settings: RestSettings) -> None:
        self.settings = settings
        self._executor = executor
        self._holder = holder
        self._plans = Plans()
        self._search_paths = {
            schema: _names(", ", (schema, *settings.extra_search_path))
            for schema in settings.schemas
        }

    async def answer(self, http: HttpRequest, claims: Claims, body: bytes = b"") -> Answer:
        """Raises RestError, DatabaseError, DatabaseUnavailableError."""
        stopwatch = Stopwatch(http.admission_s) if self.settings.server_timing_enabled else None
        try:
            answer = await self._answer(self._cache(), http, claims, body, stopwatch)
        except NotInSchemaError:
            # Nothing was run yet. It may have been made a moment ago.
            if not await self._holder.catch_up():
                raise
            answer = await self._answer(self._cache(), http, claims, body, stopwatch)
        if stopwatch is not None:
            stopwatch.lap("response")
            answer.headers.append(stopwatch.header())
        return answer

    def _cache(self) -> SchemaCache:
        cache = self._holder.current
        if cache is None:
            raise SchemaCacheMissingError
        return cache

    async def _answer(
        self,
        cache: SchemaCache,
        http: HttpRequest,
        claims: Claims,
        body: bytes,
        stopwatch: Stopwatch | None,
    ) -> Answer:
        headers = Headers(http.headers)
        target = self._root(target_of(http.path))
        schema, tells_schema = schema_of(http.method, headers, self.settings)
        if http.method == "OPTIONS":
            return options.answer(cache, schema, target, http.query_string)
        if not target.name:
            profile = schema if tells_schema else None
            return await self._describe(cache, http, headers, schema, claims, profile)
        read = partial(read_request, http, headers, target, schema, body, tells_schema=tells_schema)
        incoming = await asyncio.to_thread(read) if len(body) > LARGE_BYTES else read()
        if stopwatch is not None:
            stopwatch.lap("parse")
        plan = self._plan(cache, incoming)
        if stopwatch is not None:
            stopwatch.lap("plan")
        results = await self._run(cache, plan, incoming, claims)
        if stopwatch is not None:
            stopwatch.lap("transaction")
        return self._respond(plan, incoming, results)

    def _root(self, target: Target) -> Target:
        """Raises OpenApiDisabledError."""
        if target.name:
            return target
        if self.settings.openapi_mode == "disabled":
            raise OpenApiDisabledError
        if self.settings.root_spec is None:
            return target
        return Target(self.settings.root_spec, is_function=True)

    async def _describe(
        self,
        cache: SchemaCache,
        http: HttpRequest,
        headers: Headers,
        schema: str,
        claims: Claims,
        profile: str | None,
    ) -> Answer:
        root.refuse(http.method, headers.get("accept"))
        before = self._opening(cache, http, headers, schema, claims, self.settings.app_settings)
        results = await self._executor.run(
            *before,
            *root.statements(schema, self.settings),
            isolation=_isolation(cache, None, claims.role),
        )
        return root.answer(
            cache,
            schema,
            self.settings,
            results[len(before) :],
            profile=profile,
            is_head=http.method == "HEAD",
        )

    def _plan(self, cache: SchemaCache, incoming: Incoming) -> Plan:
        plan = self._plans.get(cache, incoming.request)
        if plan is None:
            planner = Planner(cache, self.settings)
            plan = planner.plan(incoming.request, shape_of(incoming.query))
            if is_keepable(incoming.query):
                self._plans.keep(cache, incoming.request, plan)
        return plan

    async def _run(
        self, cache: SchemaCache, plan: Plan, incoming: Incoming, claims: Claims
    ) -> list[Result]:
        """The results of the main statement and, where there is one, of the planned count."""
        statements = self._before(cache, plan, incoming, claims)
        before = len(statements)

        def refuse(results: Sequence[Result]) -> None:
            check(plan, _outcome(plan, results[before]))

        results = await self._executor.run(
            *statements,
            *self._statements(plan, incoming),
            check=refuse if plan.is_checked else None,
            is_rolled_back=self._is_rolled_back(plan),
            isolation=_isolation(cache, plan, claims.role),
        )
        return results[before:]

    def _respond(self, plan: Plan, incoming: Incoming, results: list[Result]) -> Answer:
        asked = Asked(incoming.query.canonical, incoming.range, incoming.profile)
        if plan.is_explained:
            return explained(plan, _lines(results[0]), asked)
        outcome = _outcome(plan, results[0])
        if plan.is_read_only:
            check(plan, outcome)
        if plan.planned_count is not None:
            outcome = _with_planned_count(plan, outcome, results[1])
        return respond(plan, outcome, asked)

    def _opening(
        self,
        cache: SchemaCache,
        http: HttpRequest,
        headers: Headers,
        schema: str,
        claims: Claims,
        after_role: tuple[tuple[str, str], ...],
        *,
        is_read_only: bool = True,
    ) -> list[Statement]:
        """What makes the transaction the caller's."""
        found = [
            become(
                claims,
                method=http.method,
                path=http.path,
                headers=headers.as_json(),
                cookies=headers.cookies_as_json(),
                search_path=self._search_paths[schema],
                is_read_only=is_read_only,
                before_role=cache.role_settings.get(claims.role, ()),
                after_role=after_role,
            )
        ]
        if self.settings.pre_request is not None:
            name = _names(".", filter(None, self.settings.pre_request))
            found.append(Statement(b"select " + name + b"()"))
        return found

    def _before(
        self, cache: SchemaCache, plan: Plan, incoming: Incoming, claims: Claims
    ) -> list[Statement]:
        """What is run before the request itself."""
        found = self._opening(
            cache,
            incoming.http,
            incoming.headers,
            incoming.request.schema,
            claims,
            self._transaction_settings(plan),
            is_read_only=plan.is_read_only,
        )
        key = incoming.headers.get(IDEMPOTENCY_KEY)
        if key is not None and self.settings.once is not None and not plan.is_read_only:
            name = _names(".", self.settings.once)
            found.append(Statement.of(b"select " + name + b"($1)", key))
        return found

    def _statements(self, plan: Plan, incoming: Incoming) -> list[Statement]:
        row = values_of(incoming, plan)
        found = [Statement(plan.main.text, fill(plan.recipe, row), plan.main.is_chunked)]
        if plan.planned_count is not None:
            text, recipe = plan.planned_count
            found.append(Statement(text, fill(recipe, row)))
        return found

    def _transaction_settings(self, plan: Plan) -> tuple[tuple[str, str], ...]:
        found = self.settings.app_settings
        if plan.routine is not None:
            found = (*plan.routine.settings, *found)
        if plan.preferences.timezone is not None:
            found = (("timezone", plan.preferences.timezone), *found)
        return found

    def _is_rolled_back(self, plan: Plan) -> bool:
        asked = plan.preferences.transaction
        return asked == "rollback" or (self.settings.rolls_back and asked != "commit")


def _outcome(plan: Plan, result: Result) -> Outcome:
    if result.row_count == 0:  # a function that answers no row
        return Outcome(b"", 0)
    count, total, headers, status, location, inserted, position, *body = result.rows()[0]
    return Outcome(
        result.body if plan.main.is_chunked else body[0] or b"",
        int(count or 0),
        None if total is None else int(total),
        headers,
        status,
        location,
        None if inserted is None else int(inserted),
        position,
    )


class _PlannedRows(Struct, rename={"rows": "Plan Rows"}):
    rows: int


class _Planned(Struct, rename={"plan": "Plan"}):
    plan: _PlannedRows


_PLANNED = msgspec.json.Decoder(list[_Planned])


def _with_planned_count(plan: Plan, outcome: Outcome, result: Result) -> Outcome:
    """What the planner expects, where that was asked for or there are too many rows to count."""
    planned = _PLANNED.decode(result.value() or b"[]")[0].plan.rows
    total = outcome.total_count
    if total is not None:
        if total <= plan.exact_count_max:
            return outcome
        planned = max(planned, total)
    return msgspec.structs.replace(outcome, total_count=planned)


def _lines(result: Result) -> bytes:
    return b"".join((row[0] or b"") + b"\n" for row in result.rows())


def _isolation(cache: SchemaCache, plan: Plan | None, role: str) -> Isolation | None:
    level = cache.role_isolation.get(role)
    if plan is not None and plan.routine and plan.routine.isolation_level is not None:
        level = plan.routine.isolation_level
    return _ISOLATIONS.get(level or "")


def _names(separator: LiteralString, names: Iterable[str]) -> bytes:
    return SQL(separator).join(map(Identifier, names)).as_bytes(None)
