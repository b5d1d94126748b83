"""The gateway's seam `Filter`: a streamed answer with the values that were redacted."""

from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from butterbase.ai.guards.redaction import Redaction, Restorer
from butterbase.ai.guards.rewriting import escape_json
from butterbase.ai.wire.events import (
    Finished,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from butterbase.ai.wire.form import NULL

_Piece: TypeAlias = TextDelta | RefusalDelta | ToolCallDelta


class _Channel(Struct):
    """One text of a choice that comes in pieces."""

    restorer: Restorer
    last: _Piece
    """Whose form a rest has."""


class RestoringFilter:
    """What may be the begin of a placeholder waits for the next piece of its text, or the end."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._channels: dict[tuple[int, str], _Channel] = {}
        self._custom: set[tuple[int, int]] = set()
        """Calls whose arguments are no JSON."""

    def feed(self, event: StreamEvent) -> list[StreamEvent]:
        match event:
            case TextDelta():
                return self._restored(event, "text", event.text)
            case RefusalDelta():
                return self._restored(event, "refusal", event.text)
            case ToolCallDelta():
                return self._restored(event, f"call {event.index}", event.arguments)
            case ToolCallStarted():
                if event.is_custom:
                    self._custom.add((event.choice, event.index))
                # What follows the text does not go before its end.
                return [*self._rest(event.choice, "text"), event]
            case Finished():
                return [*self._rest(event.choice), event]
            case _:
                return [event]

    def close(self) -> list[StreamEvent]:
        return self._rest()

    def _restored(self, event: _Piece, name: str, text: str) -> list[StreamEvent]:
        channel = self._channels.get((event.choice, name))
        if channel is None:
            escape = str if name in {"text", "refusal"} or self._is_custom(event) else escape_json
            channel = _Channel(Restorer(self._redaction, escape), event)
            self._channels[event.choice, name] = channel
        channel.last = event
        sure = channel.restorer.feed(text)
        if isinstance(event, TextDelta) and (event.signature is not None or event.logprobs != NULL):
            return [replace(event, text=sure)]
        return [_with(event, sure)] if sure or not text else []

    def _is_custom(self, event: _Piece) -> bool:
        return isinstance(event, ToolCallDelta) and (event.choice, event.index) in self._custom

    def _rest(self, choice: int | None = None, name: str | None = None) -> list[StreamEvent]:
        rest: list[StreamEvent] = []
        for key, channel in self._channels.items():
            if choice in {None, key[0]} and name in {None, key[1]}:
                held = channel.restorer.close()
                if held:
                    rest.append(_with(channel.last, held))
        return rest


def _with(piece: _Piece, text: str) -> _Piece:
    if isinstance(piece, ToolCallDelta):
        return ToolCallDelta(piece.index, text, piece.choice)
    if isinstance(piece, RefusalDelta):
        return RefusalDelta(text, piece.choice)
    return TextDelta(text, piece.choice)
