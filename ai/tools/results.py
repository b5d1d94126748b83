"""What the app answered a tool's call → what the model is told, within its limit; pure."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.tools.errors import ToolCallError, ToolRefusedError
from butterbase.ai.tools.ports import BackendAnswer
from butterbase.ai.wire.decoding import try_decode

ERROR_LENGTH_MAX = 1_000

_ROWS = msgspec.json.Decoder(list[Raw])
_ANY = msgspec.json.Decoder(Raw)


class Output(Struct, frozen=True):
    """Of one call of a tool."""

    text: str
    """For the model."""
    row_count: int | None = None


class _Problem(Struct, frozen=True):
    code: str = ""
    message: str = ""
    details: Any = None
    hint: str | None = None


_PROBLEM = msgspec.json.Decoder(_Problem)


def read_rows(answer: BackendAnswer, *, limit: int, bytes_max: int) -> Output:
    """Rows, of which the request asked for one more than the limit. Raises ToolRefusedError."""
    check_status(answer)
    rows = None if _is_cut(answer) else try_decode(_ROWS, answer.body)
    if rows is None:
        return _as_text(answer, bytes_max)
    shown = _fitting(rows[:limit], bytes_max)
    told: dict[str, object] = {"rows": shown, "hasMore": len(shown) < len(rows)}
    if len(shown) < min(len(rows), limit):
        told["note"] = f"cut to {bytes_max} bytes: ask for fewer columns"
    return Output(msgspec.json.encode(told).decode("utf-8", "replace"), len(shown))


def read_change(answer: BackendAnswer, *, bytes_max: int) -> Output:
    """Raises ToolRefusedError."""
    check_status(answer)
    rows = None if _is_cut(answer) else try_decode(_ROWS, answer.body)
    count = answer.row_count if answer.row_count is not None else len(rows or ())
    told: dict[str, object] = {"changed": count}
    if rows:
        told["rows"] = _fitting(rows, bytes_max)
    return Output(msgspec.json.encode(told).decode("utf-8", "replace"), count)


def read_any(answer: BackendAnswer, *, bytes_max: int) -> Output:
    """Raises ToolRefusedError."""
    check_status(answer)
    if not answer.body:
        return Output('{"done":true}')
    if _is_cut(answer) or len(answer.body) > bytes_max or try_decode(_ANY, answer.body) is None:
        return _as_text(answer, bytes_max)
    return Output(answer.body.decode("utf-8", "replace"))


def check_status(answer: BackendAnswer) -> None:
    """Raises ToolRefusedError."""
    if 200 <= answer.status < 300:
        return
    problem = try_decode(_PROBLEM, answer.body) or _Problem()
    message = problem.message or f"it answered {answer.status}"
    parts = [problem.code, message]
    if isinstance(problem.details, str):
        parts.append(problem.details)
    raise ToolRefusedError(": ".join(filter(None, parts))[:ERROR_LENGTH_MAX], hint=problem.hint)


def tell_error(error: ToolCallError) -> str:
    told = {"code": error.code, "message": error.public_message, "hint": error.hint}
    found = {name: value[:ERROR_LENGTH_MAX] for name, value in told.items() if value}
    return msgspec.json.encode({"error": found}).decode()


def _is_cut(answer: BackendAnswer) -> bool:
    return len(answer.body) < answer.byte_count


def _as_text(answer: BackendAnswer, bytes_max: int) -> Output:
    text = answer.body[:bytes_max].decode("utf-8", "replace")
    is_cut = answer.byte_count > bytes_max
    told = {"text": text, "isCut": is_cut, "byteCount": answer.byte_count}
    return Output(msgspec.json.encode(told).decode())


def _fitting(rows: list[Raw], bytes_max: int) -> list[Raw]:
    """As many as have room together."""
    left = bytes_max
    for number, row in enumerate(rows):
        left -= len(bytes(row)) + 1
        if left < 0:
            return rows[:number]
    return rows
