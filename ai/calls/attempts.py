"""From a planned chain of targets to the one answer that begins: attempts, one after another.

A stream counts as begun with its first event. Until then nothing of it was shown to the client, so
that another target can still be asked; afterwards never.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from butterbase.ai.calls.asked import Asked
from butterbase.ai.calls.call import Call
from butterbase.ai.errors import (
    AiError,
    UpstreamCutError,
    UpstreamError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
    WireUnsupportedError,
)
from butterbase.ai.metering.charging import Tariff
from butterbase.ai.metering.metering import meter_lost
from butterbase.ai.providers.exchange import Exchange, Guarding, exchange_with
from butterbase.ai.providers.reading import Reader, Whole
from butterbase.ai.providers.upstream import Upstream, UpstreamAnswer
from butterbase.ai.routing.health import Health
from butterbase.ai.routing.resolution import Chain, Target
from butterbase.ai.routing.retries import (
    Failure,
    FailureKind,
    FallBack,
    NextTarget,
    Retry,
    Step,
    Stop,
    cooldown_s,
    decide,
    is_unhealthy,
    retry_after_s,
)
from butterbase.ai.settings import AiSettings
from butterbase.ai.wire.form import Stamp, Usage
from butterbase.ai.wire.protocols import Kind, UpstreamRequest, WireName
from butterbase.ai.wire.wires import TARGET_WIRES
from butterbase.sql.errors import ButterbaseError

_log = logging.getLogger(__name__)


class Opinion:
    """What an attempt tells of its target, once it has ended."""

    def __init__(self, health: Health, key: Hashable, *, is_streamed: bool) -> None:
        self._health = health
        self._key = key
        self._is_streamed = is_streamed
        self._began_s = self._now_s()
        self._latency_s = 0.0
        health.began(key, self._began_s)

    def answered(self) -> None:
        """The answer is here, or the first of a stream."""
        self._latency_s = self._now_s() - self._began_s

    def good(self) -> None:
        self._health.succeeded(
            self._key, self._now_s(), latency_s=self._latency_s, is_streamed=self._is_streamed
        )

    def bad(self, failure: Failure) -> None:
        if is_unhealthy(failure):
            self._health.failed(self._key, self._now_s(), cooldown_s=cooldown_s(failure))
        else:
            self.none()

    def none(self) -> None:
        """The client left, for example."""
        self._health.ended(self._key)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


class Begun(Struct, frozen=True):
    """A stream of which the first bytes are here."""

    first: bytes
    reader: Reader
    answer: UpstreamAnswer
    is_closed: bool
    """The provider sends no more."""
    deadline_s: float
    """Of the loop's clock: when all of it must be here."""
    opinion: Opinion
    """To be told how it ended."""


class Attempts:
    """One worker's: it knows how targets have done."""

    def __init__(
        self,
        upstream: Upstream,
        settings: AiSettings,
        *,
        health: Health,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._upstream = upstream
        self._settings = settings
        self._health = health
        self._chance = chance

    async def perform(
        self,
        call: Call,
        asked: Asked,
        chain: Chain,
        targets: Sequence[Target],
        *,
        tariff: Tariff,
        deadline_s: float,
        guarding: Guarding | None = None,
    ) -> Whole | Begun:
        """The first answer that a target gives.

        Raises what the last one failed with: UpstreamError, WireUnsupportedError.
        """
        loop = asyncio.get_running_loop()
        journey = _Journey(chain, targets)
        while True:
            target = journey.target
            try:
                return await self._attempt(call, asked, target, tariff, deadline_s, guarding)
            except (UpstreamError, WireUnsupportedError) as error:
                step = journey.after(failure_of(error), deadline_s - loop.time(), self._chance)
                if isinstance(step, Stop):
                    raise
                self._log_step(call, target, error, step)
            if isinstance(step, Retry):
                await asyncio.sleep(step.delay_s)

    async def _attempt(
        self,
        call: Call,
        asked: Asked,
        target: Target,
        tariff: Tariff,
        deadline_s: float,
        guarding: Guarding | None,
    ) -> Whole | Begun:
        stamp = Stamp(f"{call.id.hex}{call.attempt_count}", int(time.time()))
        exchange = exchange_with(
            asked, target, stamp, guarding=guarding, cost_of=partial(_cost, call, tariff, target)
        )
        request = exchange.request()
        call.target = target
        call.attempt_count += 1
        if call.trace is not None:
            carried = call.trace.attempt(target, asked)
            request = replace(request, headers={**request.headers, **carried})
        key = (call.caller.app_id, *target.key)
        opinion = Opinion(self._health, key, is_streamed=asked.is_streamed)
        try:
            call.is_sent = True
            result = await self._exchange(exchange, request, asked, target, deadline_s, opinion)
        except UpstreamError as error:
            call.is_sent = False
            opinion.bad(failure_of(error))
            if error.was_at_work:
                meter_lost(call, asked, tariff)
            if call.trace is not None:
                call.trace.failed(error)
            raise
        except BaseException:
            opinion.none()
            raise
        if isinstance(result, Begun):
            call.first_token_s = time.monotonic()
            if call.trace is not None:
                call.trace.began()
        else:
            opinion.good()
        return result

    async def _exchange(
        self,
        exchange: Exchange,
        request: UpstreamRequest,
        asked: Asked,
        target: Target,
        deadline_s: float,
        opinion: Opinion,
    ) -> Whole | Begun:
        """One request and its answer. Raises UpstreamError."""
        now_s, timeouts = asyncio.get_running_loop().time(), target.timeouts
        settings, provider = self._settings, target.provider
        deadline_s = min(deadline_s, now_s + (timeouts.total or settings.ai_total_timeout_s))
        first_s = deadline_s
        if asked.is_streamed:
            wait_s = timeouts.first_token or settings.ai_first_token_timeout_s
            first_s = min(deadline_s, now_s + wait_s)
        connect_s = timeouts.connect or settings.ai_connect_timeout_s
        headers = {
            **TARGET_WIRES[_key_wire(target)].headers(provider.api_key),
            **provider.headers,
            **request.headers,
        }
        answer: UpstreamAnswer | None = None
        try:
            async with asyncio.timeout_at(first_s) as timer:
                answer = await self._upstream.ask(
                    f"{provider.base_url}/{request.path}",
                    request.body,
                    headers=headers,
                    provider=provider.name,
                    is_private_allowed=provider.is_operators,
                    connect_timeout_s=connect_s,
                )
                if not 200 <= answer.status < 300:
                    body = await answer.read_error()
                    raise exchange.refusal(answer.status, _lower(answer), body)
                if asked.is_streamed and answer.is_event_stream:
                    begun = await _begin(exchange.reader(), answer)
                    opinion.answered()
                    return Begun(*begun, deadline_s=deadline_s, opinion=opinion)
                if first_s != deadline_s:
                    timer.reschedule(deadline_s)
                whole = await answer.read_whole(bytes_max=settings.ai_response_bytes_max)
                opinion.answered()
                return exchange.read_whole(whole)
        except BaseException as error:
            if answer is not None:
                answer.close()
            # Later than this it was connected to.
            is_connected = asyncio.get_running_loop().time() > now_s + connect_s
            if isinstance(error, TimeoutError):
                late = UpstreamTimeoutError()
                late.was_at_work = is_connected or answer is not None
                raise late from error
            if isinstance(error, UpstreamInvalidError | UpstreamCutError) and not asked.is_streamed:
                error.was_at_work = True
            raise

    def _log_step(self, call: Call, target: Target, error: AiError, step: Step) -> None:
        _log.info(
            "request %s: %s at %s: %s; %s",
            call.caller.request_id,
            target.model,
            target.provider.name,
            error.code,
            type(step).__name__,
        )


def _cost(call: Call, tariff: Tariff, target: Target, usage: Usage) -> int:
    return call.cost_with(tariff.charge(target, usage).nanos)


async def _begin(
    reader: Reader, answer: UpstreamAnswer
) -> tuple[bytes, Reader, UpstreamAnswer, bool]:
    """The beginning of a Begun, with the first event. Raises UpstreamError."""
    parts, is_closed = [], False
    while not reader.has_begun and not reader.is_done and reader.error is None:
        chunk = await answer.read()
        if not chunk:
            is_closed = True
            parts.append(reader.close())
            break
        parts.append(reader.feed(chunk))
    if reader.error is not None:
        # Nothing of it was shown to the client yet.
        raise UpstreamRefusedError(reader.error)
    return b"".join(parts), reader, answer, is_closed


class _Journey:
    """Where a call is on its way through its targets."""

    def __init__(self, chain: Chain, targets: Sequence[Target]) -> None:
        self._chain = chain
        self._targets = list(targets)
        self._at = 0
        self._try_count = 1
        self._has_fallen_back = False

    @property
    def target(self) -> Target:
        return self._targets[self._at]

    def after(self, failure: Failure, left_s: float, chance: Callable[[], float]) -> Step:
        chain, may = self._chain, not self._has_fallen_back
        step = decide(
            failure,
            chain.retries,
            try_count=self._try_count,
            is_last=self._at + 1 == len(self._targets),
            has_context_window=may and bool(chain.context_window),
            has_content_policy=may and bool(chain.content_policy),
            left_s=left_s,
            random=chance,
        )
        match step:
            case Retry():
                self._try_count += 1
            case NextTarget():
                self._at, self._try_count = self._at + 1, 1
            case FallBack(to):
                self._targets = list(getattr(chain, to))
                self._at, self._try_count, self._has_fallen_back = 0, 1, True
            case Stop():
                pass
        return step


def failure_of(error: ButterbaseError) -> Failure:
    """What of an error decides about the next step."""
    kind: FailureKind
    match error:
        case UpstreamRefusedError():
            told = error.error
            kind = "conflict" if told.status == 409 else told.kind
            return Failure(kind, retry_after_s(told.headers, time.time()))
        case UpstreamTimeoutError():
            kind = "timeout"
        case UpstreamUnreachableError():
            kind = "unreachable"
        case UpstreamCutError():
            kind = "cut"
        case UpstreamInvalidError():
            kind = "invalid_answer"
        case WireUnsupportedError():
            kind = "unsupported"
        case _:
            kind = "server"
    return Failure(kind)


def _key_wire(target: Target) -> WireName:
    """Whose headers carry the key."""
    kinds = {Kind.ANTHROPIC: WireName.ANTHROPIC, Kind.GEMINI: WireName.GEMINI}
    return kinds.get(target.provider.kind, WireName.CHAT)


def _lower(answer: UpstreamAnswer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}
