"""One request on its way through its steps: calls to a model, and the tools between them."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from msgspec.structs import replace

from butterbase.ai.calls.call import Call, Caller
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.calls.passage import Answer, Client, Given
from butterbase.ai.errors import AiStoppingError
from butterbase.ai.http.body import BodyTooLargeError
from butterbase.ai.tools.errors import ToolStepsError
from butterbase.ai.tools.steps import Asker, Steps
from butterbase.ai.tools.talk import Talk, Turn
from butterbase.ai.tools.totals import Totals
from butterbase.ai.tools.turns import Result
from butterbase.ai.wire.form import ToolCall

CALLS_MAX = 16
"""Of tools, in one turn; the model is told that the others were not made."""

_TRACEPARENT: Final = b"traceparent"

CLOSE_TIMEOUT_S = 5.0
"""For clients that do not read what they are told at the end."""


class Workshop:
    """What all requests of a worker share."""

    def __init__(self, gateway: Gateway, steps: Steps) -> None:
        self.gateway = gateway
        self.steps = steps
        self._waiting: set[asyncio.Task[object]] = set()
        """Requests that wait for a tool."""
        self._is_closed = False

    async def close(self) -> None:
        """Cancel the tools that run, and wait until each is recorded."""
        self._is_closed = True
        tasks = list(self._waiting)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        await self.steps.close()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the task waits for tools. Raises AiStoppingError."""
        self.check_open()
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            yield
        finally:
            self._waiting.discard(task)

    def check_open(self) -> None:
        """Raises AiStoppingError."""
        if self._is_closed:
            raise AiStoppingError(hint="try again")


class Course:
    def __init__(
        self,
        workshop: Workshop,
        talk: Talk,
        caller: Caller,
        client: Client,
        given: Given,
        deadline_s: float,
    ) -> None:
        self.talk = talk
        self.totals = Totals()
        self._workshop = workshop
        self._caller = caller
        self._client = client
        self._given = given
        self._deadline_s = deadline_s

    def check_step(self) -> None:
        """Raises ToolStepsError."""
        if self.totals.step_count >= self._step_count_max:
            raise ToolStepsError(hint="ask for less at once, or raise ai_tool_steps_max")

    async def use(self, calls: Sequence[ToolCall], ai_call: Call | None) -> list[Result]:
        """The results, in the order of the calls. Raises AiStoppingError."""
        try:
            with self._workshop.at_work():
                return await self._use(calls, ai_call)
        except asyncio.CancelledError:
            if self._client.has_left:
                raise
            raise AiStoppingError(hint="try again") from None

    async def ask(self, turn: Turn) -> Answer:
        """The model's next answer. Raises what a call does, and BodyTooLargeError."""
        self._workshop.check_open()
        gateway, step = self._workshop.gateway, self.totals.step_count + 1
        self.talk.go_on(turn, is_last=step >= self._step_count_max)
        body = self.talk.body
        if len(body) > gateway.settings.ai_request_bytes_max:
            raise BodyTooLargeError("with the results of tools the request is too large")
        return await gateway.call(
            self._caller,
            self.talk.endpoint,
            _Said(self._client, body),
            self._continued,
            step=step,
            deadline_s=self._deadline_s,
        )

    @property
    def _continued(self) -> Given:
        """All steps of a request are of one trace, also where the client has begun none."""
        trace = self.totals.trace
        if trace is None or _TRACEPARENT in self._given.headers:
            return self._given
        return replace(self._given, headers={**self._given.headers, **trace.carried})

    async def _use(self, calls: Sequence[ToolCall], ai_call: Call | None) -> list[Result]:
        # One after another, as the model has said them: a later one may lean on an earlier.
        assert ai_call is not None
        asker, results = Asker(self._caller, self._given.headers), []
        for number, call in enumerate(calls):
            self.totals.tool_call_count += 1
            result = await self._workshop.steps.run(
                asker,
                call,
                self.talk.offers.get(call.name),
                step=self.totals.step_count,
                ai_call=ai_call,
                deadline_s=self._deadline_s,
                is_too_many=number >= CALLS_MAX,
            )
            self.totals.has_changed |= result.may_have_changed
            results.append(result)
        return results

    @property
    def _step_count_max(self) -> int:
        return self._workshop.gateway.settings.ai_tool_steps_max


class _Said:
    """A client that has said this."""

    def __init__(self, client: Client, body: bytes) -> None:
        self._client = client
        self._body = body

    @property
    def has_left(self) -> bool:
        return self._client.has_left

    async def read(self) -> bytes:
        return self._body
