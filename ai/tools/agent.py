"""Calls to models in which the gateway runs the app's own tools, until the model has its answer.

It stands before the gateway: each request to a model is a call of its own there, with its own
guards, cache, admission and event. A request that names no tool of the app's passes as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.call import Caller
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.calls.passage import NOTHING_GIVEN, Answer, Client, Given
from butterbase.ai.calls.refusals import call_of, tell_headers
from butterbase.ai.errors import AiError
from butterbase.ai.http.problems import forbid_retry
from butterbase.ai.providers.exchange import decode_whole
from butterbase.ai.tools.course import Course, Workshop
from butterbase.ai.tools.errors import ToolUnavailableError
from butterbase.ai.tools.ports import Backend
from butterbase.ai.tools.steps import Steps
from butterbase.ai.tools.streams import TalkStream
from butterbase.ai.tools.talk import Talk, Turn, named_tools
from butterbase.ai.tools.turns import TURNS
from butterbase.ai.wire.form import ChatAnswer, Stamp
from butterbase.ai.wire.wires import TARGET_WIRES
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor

_STAMP = Stamp("", 0)


class Agent:
    """Of one worker; `call` is the gateway's, and does what it does."""

    def __init__(self, gateway: Gateway, backend: Backend, control: Executor) -> None:
        """`control` is the control database's, as butterbase_service."""
        self._gateway = gateway
        self._backend = backend
        self._workshop = Workshop(gateway, Steps(backend, control))

    async def close(self) -> None:
        """Before the gateway's: cancel the tools that run, and wait until each is recorded."""
        await self._workshop.close()

    async def call(
        self, caller: Caller, endpoint: Endpoint, client: Client, given: Given = NOTHING_GIVEN
    ) -> Answer:
        """Raises AiError and other ButterbaseErrors."""
        opening = _Opening(client, lambda body: self._open(caller.app_id, endpoint, body))
        deadline_s = asyncio.get_running_loop().time() + self._gateway.settings.ai_total_timeout_s
        first = await self._gateway.call(caller, endpoint, opening, given)
        if opening.talk is None:
            return first
        course = Course(self._workshop, opening.talk, caller, client, given, deadline_s)
        if opening.talk.is_streamed:
            stream = TalkStream(course)
            return Answer(200, stream.headers(first), await stream.start(first))
        try:
            return await _whole(course, first)
        except ButterbaseError as error:
            course.totals.begun(call_of(error))
            tell_headers(error, course.totals.headers_now)
            if course.totals.has_changed:
                forbid_retry(error)
            raise

    async def _open(self, app_id: str, endpoint: Endpoint, body: bytes) -> Talk | None:
        """Raises AiRequestError, DatabaseUnavailableError."""
        named = named_tools(endpoint, body)
        if not named:
            return None
        app = await self._gateway.configs.of(app_id)
        try:
            exposed = await self._backend.exposed(app_id)
            return Talk(endpoint, body, named, app.tools, exposed)
        except ToolUnavailableError:
            # It may have been made a moment ago.
            exposed = await self._backend.exposed(app_id, is_fresh=True)
            return Talk(endpoint, body, named, app.tools, exposed)


class _Opening:
    """A client whose request is read with the app's tools in place of their names."""

    def __init__(self, client: Client, open_: Callable[[bytes], Awaitable[Talk | None]]) -> None:
        self._client = client
        self._open = open_
        self.talk: Talk | None = None

    @property
    def has_left(self) -> bool:
        return self._client.has_left

    async def read(self) -> bytes:
        """Raises what reading and opening raise."""
        body = await self._client.read()
        self.talk = await self._open(body)
        return body if self.talk is None else self.talk.body


async def _whole(course: Course, answer: Answer) -> Answer:
    """Raises what calls do, and ToolStepsError."""
    talk, totals = course.talk, course.totals
    while True:
        totals.begun(answer.call)
        assert isinstance(answer.body, bytes)
        told = _decoded(talk.endpoint, answer.body)
        if told is None:
            return answer
        totals.told(told.usage)
        calls = talk.calls(told)
        if not calls.are_to_be_made:
            break
        course.check_step()
        results = await course.use(calls.ours, answer.call)
        answer = await course.ask(Turn(answer.body, told, results, is_as_told=True))
    usage = totals.usage if totals.step_count > 1 and told.usage is not None else None
    body = TURNS[talk.endpoint].without(answer.body, {call.id for call in calls.ours}, usage)
    return Answer(answer.status, totals.headers(answer.headers), body, answer.call)


def _decoded(endpoint: Endpoint, body: bytes) -> ChatAnswer | None:
    """None: it goes to the client as it is."""
    try:
        return decode_whole(TARGET_WIRES[endpoint.wire], body, _STAMP)
    except AiError:
        return None
