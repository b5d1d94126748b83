"""What a call has used, and what it is charged for it.

What the provider tells counts. Where it tells nothing, as of a call that is cancelled, what was
sent to it and what came back are counted here. Nothing that a client or a provider has sent may
keep a call from being recorded: what cannot be counted is left out.
"""

import logging
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from butterbase.ai.calls.asked import Asked
from butterbase.ai.calls.call import Call
from butterbase.ai.metering.charging import Tariff
from butterbase.ai.metering.counting import estimate, read_answer, read_stream
from butterbase.ai.providers.reading import Whole
from butterbase.ai.wire.form import ChatAnswer, Usage
from butterbase.ai.wire.usage import add

_log = logging.getLogger(__name__)


def meter_whole(call: Call, asked: Asked, tariff: Tariff, whole: Whole) -> None:
    usage = whole.usage
    if usage is None:
        call.usage_source = "estimated"
        usage = _counted(asked, lambda: read_answer(asked, whole.body))
    else:
        call.usage_source = "reported"
    _charge(call, tariff, usage)


def meter_stream(
    call: Call,
    asked: Asked,
    tariff: Tariff,
    told: Usage | None,
    parts: Sequence[bytes],
    *,
    is_whole: bool,
    share: tuple[int, int] = (1, 1),
) -> None:
    """`parts` are what the client was sent; `share`: of so many bytes, these have so many."""
    if told is not None and is_whole:
        call.usage_source = "reported"
        _charge(call, tariff, told)
        return
    counted = _grown(_counted(asked, lambda: read_stream(asked, parts)), *share)
    if told is None:
        call.usage_source = "estimated"
        _charge(call, tariff, counted)
        return
    # Anthropic tells the prompt's tokens first, and those of the answer last.
    call.usage_source = "reported"
    if counted.completion_tokens > told.completion_tokens:
        call.usage_source = "estimated"
        completion = counted.completion_tokens
        told = replace(
            told,
            completion_tokens=completion,
            total_tokens=told.prompt_tokens + completion,
            cost=None,
        )
    _charge(call, tariff, told)


def _grown(usage: Usage, sent_bytes: int, kept_bytes: int) -> Usage:
    if sent_bytes <= kept_bytes:
        return usage
    completion = -(-usage.completion_tokens * sent_bytes // max(1, kept_bytes))
    total = usage.prompt_tokens + completion
    return replace(usage, completion_tokens=completion, total_tokens=total)


def meter_unanswered(call: Call, asked: Asked, tariff: Tariff) -> None:
    """The client left, or the server stopped, and the provider was at work."""
    call.usage_source = "estimated"
    _charge(call, tariff, _counted(asked, lambda: None))


def meter_lost(call: Call, asked: Asked, tariff: Tariff) -> None:
    """An attempt that failed while its provider was at work; another may follow."""
    assert call.target is not None
    usage = _counted(asked, lambda: None)
    call.lost = add(call.lost, usage)
    call.lost_nanos += tariff.charge(call.target, usage).nanos
    if call.usage is None:
        call.usage_source = "estimated"


def _counted(asked: Asked, answer: Callable[[], ChatAnswer | None]) -> Usage:
    try:
        return estimate(asked, answer())
    except Exception:
        _log.exception("the tokens of a call could not be counted")
        return Usage()


def _charge(call: Call, tariff: Tariff, usage: Usage) -> None:
    assert call.target is not None
    call.usage = usage
    call.charge = tariff.charge(call.target, usage)
