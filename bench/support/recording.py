"""The SQL that the server runs for a request, taken from the server's own code, for pgbench.

pgbench asks for text where the server asks for the pieces of a body as bytes; but for that its
statements are the server's, byte by byte, with the parameters that the server sends.
"""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from butterbase.api.apps import rest_settings
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.service import RestService
from butterbase.api.settings import ApiSettings
from butterbase.sql.claims import AUTHENTICATED, Claims
from butterbase.sql.pipeline import Check, Executor, Isolation, Result, Statement
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.relations.model import SchemaCache

from .cases import Case, fill
from .pgbench import Script

PREFIX = "/rest/v1"
_PIECE = re.compile(r"(pg_catalog\.substr\(b\..*?\))(?= from \(select \* from \()")


class Recorder(Executor):
    """Runs what it is given, and keeps it."""

    recorded: tuple[Statement, ...] = ()

    async def run(
        self,
        *statements: Statement,
        check: Check | None = None,
        is_rolled_back: bool = False,
        isolation: Isolation | None = None,
    ) -> list[Result]:
        self.recorded = statements
        return await super().run(
            *statements, check=check, is_rolled_back=is_rolled_back, isolation=isolation
        )


class Loaded(Struct, frozen=True):
    current: SchemaCache


class RecordingService:
    """The REST service of an app, in this process."""

    def __init__(self, dsn: str, claims_json: str) -> None:
        self._recorder = Recorder(dsn, connection_count_max=1)
        self._claims = Claims(AUTHENTICATED, claims_json)
        self._service: RestService | None = None

    async def script_of(self, case: Case, headers: Mapping[str, str]) -> Script:
        """Raises RuntimeError when the answer is not the case's."""
        ids = case.ids or (0,)
        one = await self._record(case, headers, ids[0])
        # The parameter that another id changes is the id.
        another = await self._record(case, headers, ids[-1])
        return _script(one, another, case)

    async def close(self) -> None:
        await self._recorder.close()

    async def _record(
        self, case: Case, headers: Mapping[str, str], number: int
    ) -> Sequence[Statement]:
        if self._service is None:
            settings = rest_settings(ApiSettings())
            cache = await load_schema_cache(
                self._recorder,
                schemas=settings.schemas,
                extra_search_path=settings.extra_search_path,
                hoisted_settings=settings.hoisted_settings,
            )
            self._service = RestService(self._recorder, Loaded(cache), settings)
        path, _, query = fill(case.rest.path, number).removeprefix(PREFIX).partition("?")
        given = [
            (name.lower().encode(), value.encode())
            for name, value in (headers | dict(case.rest.headers)).items()
        ]
        http = HttpRequest(case.rest.method, path, query, given)
        body = fill(case.rest.body or "", number).encode()
        answer = await self._service.answer(http, self._claims, body)
        content = answer.body if isinstance(answer.body, bytes) else answer.body.read()
        if answer.status >= 300 or fill(case.marker, number).encode() not in content:
            raise RuntimeError(f"{case.name}: {answer.status} {content[:200]!r}")
        return self._recorder.recorded


def _script(one: Sequence[Statement], another: Sequence[Statement], case: Case) -> Script:
    variables: dict[str, str] = {}
    lines = []
    if case.ids is not None:
        first, step = case.ids.start, case.ids.step
        lines.append(f"\\set id {first} + {step} * random(0, {len(case.ids) - 1})")
    lines.append("begin;")
    for statement, changed in zip(one, another, strict=True):
        names = []
        pairs = zip(statement.parameters, changed.parameters, strict=True)
        for parameter, other in pairs:
            if parameter is None:
                names.append("null")
            elif parameter != other:
                names.append(_of_id(parameter, case))
            else:
                name = f"p{len(variables)}"
                variables[name] = parameter.decode()
                names.append(f":{name}")
        lines.append(_substituted(statement.text.decode(), names) + ";")
    lines.append("commit;")
    return Script("\n".join(lines), variables)


def _of_id(parameter: bytes, case: Case) -> str:
    """The SQL of a parameter that holds the id."""
    assert case.ids is not None
    text = parameter.decode()
    if text == str(case.ids[0]):
        return ":id"
    before, _, after = text.partition(str(case.ids[0]))
    return f"('{before}' || (:id)::int || '{after}')"


def _substituted(text: str, names: Sequence[str]) -> str:
    text = _PIECE.sub(r"convert_from(\1, 'UTF8')", text)
    return re.sub(r"\$(\d+)", lambda found: names[int(found[1]) - 1], text).replace("\n", " ")
