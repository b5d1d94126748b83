"""Functions in processes of a test's own."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from butterbase.api.functions.runtime.egress import Address, ApiUrls
from butterbase.api.functions.runtime.model import (
    CallContext,
    CallRequest,
    Completed,
    FunctionVersion,
    LogLine,
    Outcome,
)
from butterbase.api.functions.runtime.runtime import Runtime
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.sql.errors import ButterbaseError

API = "http://127.0.0.1:9"
SETTINGS = FunctionsSettings(functions_ready=1, functions_boots=1)

_numbers = itertools.count(1)


class Notes:
    """The runtime's recorder and operations, which keep what they are told."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.outcomes: list[Outcome] = []
        self.asked: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {}

    def log(self, _version: FunctionVersion, _context: CallContext, line: LogLine) -> None:
        self.lines.append(line)

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    async def perform(
        self, _version: FunctionVersion, _context: CallContext, name: str, arguments: Any
    ) -> Any:
        self.asked.append((name, arguments))
        answer = self.answers[name]
        if isinstance(answer, ButterbaseError):
            raise answer
        return answer


class Gated(Notes):
    """Operations that wait until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def perform(
        self, version: FunctionVersion, context: CallContext, name: str, arguments: Any
    ) -> Any:
        self.asked.append((name, arguments))
        await self.gate.wait()
        return {}


@asynccontextmanager
async def running(
    settings: FunctionsSettings = SETTINGS,
    notes: Notes | None = None,
    *,
    api: str = API,
    refused: tuple[Address, ...] = (),
) -> AsyncIterator[Runtime]:
    notes = notes or Notes()
    async with Runtime(
        settings, recorder=notes, operations=notes, api_urls=ApiUrls(api, api), refused=refused
    ) as runtime:
        yield runtime


def bundle(body: str) -> bytes:
    """A function whose handler has this body, with `req` and `ctx`."""
    return module(f"({{ default: async (req, ctx) => {{ {body} }} }})")


def module(exports: str) -> bytes:
    """A function whose module has these exports, as the bundler writes it."""
    return f"var __fn = {exports};".encode()


def version_of(code: str | bytes, **fields: Any) -> FunctionVersion:
    """Of another revision each time. `code` is a handler's body, or a whole bundle."""
    number = next(_numbers)
    given = {
        "app_id": "main",
        "name": "f",
        "revision": f"r{number}",
        "version_id": f"v{number}",
        "bundle": bundle(code) if isinstance(code, str) else code,
    }
    return FunctionVersion(**{**given, **fields})


def request(
    method: str = "POST",
    path: str = "/f",
    headers: tuple[tuple[str, str], ...] = (),
    **context: Any,
) -> CallRequest:
    number = next(_numbers)
    of_call = {"invocation_id": f"i{number}", "request_id": f"q{number}", **context}
    return CallRequest(method, f"http://functions.test{path}", headers, CallContext(**of_call))


async def call(
    runtime: Runtime,
    function: FunctionVersion | str,
    given: CallRequest | None = None,
    body: bytes | AsyncIterator[bytes] = b"",
) -> Completed:
    version = version_of(function) if isinstance(function, str) else function
    return await runtime.invoke(version, given or request(), body)


def json_of(completed: Completed) -> Any:
    assert completed.status == 200, completed.outcome.failure
    return msgspec.json.decode(completed.body)


def thrown_by(completed: Completed) -> str:
    """What the function threw, with its name."""
    failure = completed.outcome.failure
    assert failure is not None, completed
    # Some of Node's modules throw outside of the call.
    assert failure.code in ("function_failed", "function_unhandled"), failure
    return failure.message
