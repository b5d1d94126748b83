"""Errors as each wire tells them ↔ WireError.

Providers borrow from each other: an "OpenAI-compatible" one may answer with a list, a text, or
Anthropic's types. So one reader takes them all; only telling differs by wire.
https://platform.openai.com/docs/guides/error-codes
https://platform.claude.com/docs/en/api/errors
https://ai.google.dev/gemini-api/docs/troubleshooting
"""

import math
import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.wire.events import (
    ErrorKind,
    WireError,
)
from butterbase.ai.wire.protocols import EncodedError, WireName

RETRY_HEADERS = ("retry-after", "retry-after-ms")
"""Headers of a refusal that are passed on."""
MESSAGE_LENGTH_MAX = 1000
_STATUS_MAX = 599
OVERLOADED = 529
"""Anthropic's own status; others say 503."""


class _Detail(Struct, frozen=True, rename="camel"):
    reason: str | None = None
    retry_delay: str | None = None


class _Told(Struct, frozen=True):
    """The fields of all wires; the values that are not of these types count as absent."""

    message: Raw = Raw(b"null")
    type: Raw = Raw(b"null")
    code: Raw = Raw(b"null")
    param: Raw = Raw(b"null")
    status: Raw = Raw(b"null")
    details: Raw = Raw(b"null")


class _Body(Struct, frozen=True):
    error: Raw = Raw(b"null")
    message: Raw = Raw(b"null")
    detail: Raw = Raw(b"null")


_BODY = msgspec.json.Decoder(_Body)
_BODIES = msgspec.json.Decoder(list[_Body])
_TOLD = msgspec.json.Decoder(_Told)
_TEXT = msgspec.json.Decoder(str)
_NUMBER_OR_TEXT = msgspec.json.Decoder(int | str)
_DETAILS = msgspec.json.Decoder(list[_Detail])

_CONTEXT = re.compile(
    r"context.?(?:length|window)|prompt is too long|input.{0,30}too long"
    r"|token count.{0,40}exceeds|too many (?:input )?tokens|reduce the length",
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"content.?(?:policy|filter|management)|responsible.?ai|safety system|flagged|moderation"
    r"|content filtering policy",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"insufficient.?(?:quota|balance|credits|funds)|billing|credit balance|spend.?limit",
    re.IGNORECASE,
)

# By the type, the code or the status that a body names; where it names none, by HTTP's status.
_BY_NAME: dict[str, tuple[ErrorKind, int]] = {
    "context_length_exceeded": ("context_window", 400),
    "content_policy_violation": ("content_policy", 400),
    "content_filter": ("content_policy", 400),
    "insufficient_quota": ("quota", 429),
    "rate_limit_exceeded": ("rate_limit", 429),
    "invalid_api_key": ("authentication", 401),
    "model_not_found": ("not_found", 404),
    "server_error": ("server", 500),
    "invalid_request_error": ("invalid_request", 400),
    "authentication_error": ("authentication", 401),
    "billing_error": ("quota", 402),
    "permission_error": ("permission", 403),
    "not_found_error": ("not_found", 404),
    "request_too_large": ("too_large", 413),
    "rate_limit_error": ("rate_limit", 429),
    "api_error": ("server", 500),
    "timeout_error": ("timeout", 504),
    "overloaded_error": ("overloaded", OVERLOADED),
    "INVALID_ARGUMENT": ("invalid_request", 400),
    "FAILED_PRECONDITION": ("invalid_request", 400),
    "OUT_OF_RANGE": ("invalid_request", 400),
    "API_KEY_INVALID": ("authentication", 401),
    "UNAUTHENTICATED": ("authentication", 401),
    "PERMISSION_DENIED": ("permission", 403),
    "NOT_FOUND": ("not_found", 404),
    "RESOURCE_EXHAUSTED": ("rate_limit", 429),
    "INTERNAL": ("server", 500),
    "UNAVAILABLE": ("overloaded", 503),
    "DEADLINE_EXCEEDED": ("timeout", 504),
}
_BY_STATUS: dict[int, ErrorKind] = {
    401: "authentication",
    402: "quota",
    403: "permission",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    429: "rate_limit",
    503: "overloaded",
    504: "timeout",
    OVERLOADED: "overloaded",
}
# What a text may tell more exactly than the name beside it.
_VAGUE: frozenset[ErrorKind] = frozenset(
    {"invalid_request", "rate_limit", "permission", "too_large", "server"}
)


def decode_error(status: int, headers: Mapping[str, str], body: bytes) -> WireError:
    """What a provider's answer of this status, 300 or more, means to the client."""
    kept = {name: headers[name] for name in RETRY_HEADERS if _is_plain(headers.get(name))}
    if status < 400:
        return WireError(
            "server",
            502,
            f"the AI provider redirects (status {status})",
            hint="check the base URL",
        )
    if status > _STATUS_MAX:
        # Some sites answer 999 to what they take for a robot; HTTP has no such status to pass on.
        return WireError("server", 502, f"the AI provider answered {status}")
    told, text = _read(body)
    kind, _ = _classify(status, told, text)
    if kind == "authentication":
        # It is our key that was refused, and its text may quote a part of it.
        return WireError(
            kind,
            401,
            "the AI provider refused the key of this server or app",
            code="upstream_refused",
            hint="set byokKey with PUT ai/config, or BUTTERBASE_AI_API_KEY",
        )
    if not kept and (delay_s := _delay_s(told)) is not None:
        kept = {"retry-after": str(delay_s)}
    return WireError(
        kind,
        status,
        (text or f"the AI provider answered {status}")[:MESSAGE_LENGTH_MAX],
        code=_text(told.code) or _text(told.type),
        param=_text(told.param),
        headers=kept,
    )


def _is_plain(value: str | None) -> bool:
    """Whether a header may go on: other bytes than ASCII's cannot be written as they came."""
    return value is not None and value.isascii() and value.isprintable()


def decode_stream_error(data: bytes | Raw) -> WireError:
    """An error in the midst of a stream, which has no status of its own."""
    told, text = _read(bytes(data))
    kind, status = _classify(None, told, text)
    if kind == "authentication":
        return decode_error(401, {}, b"")
    return WireError(
        kind,
        status,
        (text or "the AI provider failed")[:MESSAGE_LENGTH_MAX],
        code=_text(told.code) or _text(told.type),
        param=_text(told.param),
    )


def _read(body: bytes) -> tuple[_Told, str | None]:
    """The error of a body, and its message."""
    try:
        outer = _BODIES.decode(body)[0] if body[:1] == b"[" else _BODY.decode(body)
        told = _TOLD.decode(outer.error if bytes(outer.error)[:1] == b"{" else body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, IndexError):
        return _Told(), None
    return told, _text(told.message) or _text(outer.error) or _text(outer.detail)


def _text(raw: Raw) -> str | None:
    try:
        return str(_NUMBER_OR_TEXT.decode(raw)) or None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _classify(status: int | None, told: _Told, text: str | None) -> tuple[ErrorKind, int]:
    names = [_text(told.code), _text(told.type), _text(told.status), *_reasons(told)]
    found = [_BY_NAME[name] for name in names if name in _BY_NAME]
    # The most exact first: a key's reason stands beside the vague INVALID_ARGUMENT.
    found.sort(key=lambda entry: entry[0] in _VAGUE)
    if status is None:
        # OpenRouter puts the status that it would have answered into `code`.
        numbers = [int(name) for name in names if name and re.fullmatch(r"[45]\d\d", name)]
        status = numbers[0] if numbers else (found[0][1] if found else 502)
    kind = found[0][0] if found else _BY_STATUS.get(status)
    if kind is None:
        kind = "server" if status >= 500 else "invalid_request"
    # Google writes of quotas and billing also where waiting helps, but then it says how long.
    is_plain = _delay_s(told) is not None
    return kind if is_plain else _refine(kind, status, f"{names} {text}"), status


def _refine(kind: ErrorKind, status: int, text: str) -> ErrorKind:
    if kind not in _VAGUE or status >= 500:
        return kind
    if _CONTEXT.search(text):
        return "context_window"
    if _QUOTA.search(text):
        return "quota"
    if status != 429 and _POLICY.search(text):
        return "content_policy"
    return kind


def _reasons(told: _Told) -> list[str]:
    return [detail.reason for detail in _details(told) if detail.reason]


def _delay_s(told: _Told) -> int | None:
    """Google tells it in the body: `"retryDelay": "17.4s"`."""
    for detail in _details(told):
        if found := re.fullmatch(r"(\d{1,6}(?:\.\d{1,9})?)s", detail.retry_delay or ""):
            return math.ceil(float(found[1]))
    return None


def _details(told: _Told) -> list[_Detail]:
    try:
        return _DETAILS.decode(told.details)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []


# To the client

_OPENAI_TYPES: dict[ErrorKind, str] = {
    "invalid_request": "invalid_request_error",
    "context_window": "invalid_request_error",
    "content_policy": "invalid_request_error",
    "too_large": "invalid_request_error",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "quota": "insufficient_quota",
    "not_found": "not_found_error",
    "rate_limit": "rate_limit_error",
    "timeout": "server_error",
    "overloaded": "server_error",
    "server": "server_error",
}
_OPENAI_CODES: dict[ErrorKind, str] = {
    "context_window": "context_length_exceeded",
    "content_policy": "content_policy_violation",
}
_ANTHROPIC_TYPES: dict[ErrorKind, str] = {
    "invalid_request": "invalid_request_error",
    "context_window": "invalid_request_error",
    "content_policy": "invalid_request_error",
    "too_large": "request_too_large",
    "authentication": "authentication_error",
    "permission": "permission_error",
    "quota": "billing_error",
    "not_found": "not_found_error",
    "rate_limit": "rate_limit_error",
    "timeout": "timeout_error",
    "overloaded": "overloaded_error",
    "server": "api_error",
}


def encode_openai_error(error: WireError) -> EncodedError:
    status = 503 if error.status == OVERLOADED else error.status
    body = msgspec.json.encode({"error": openai_error(error)})
    return EncodedError(status, dict(error.headers), body)


def openai_error(error: WireError) -> dict[str, str | None]:
    return {
        "message": error.message,
        "type": _OPENAI_TYPES[error.kind],
        "param": error.param,
        "code": _OPENAI_CODES.get(error.kind) or error.code,
        "hint": error.hint,
    }


def encode_anthropic_error(error: WireError) -> EncodedError:
    status = OVERLOADED if error.kind == "overloaded" else error.status
    body = msgspec.json.encode(anthropic_error(error))
    return EncodedError(status, dict(error.headers), body)


def anthropic_error(error: WireError) -> dict[str, object]:
    told = {"type": _ANTHROPIC_TYPES[error.kind], "message": error.message}
    more = {"code": error.code, "param": error.param, "hint": error.hint}
    return {"type": "error", "error": told | {k: v for k, v in more.items() if v is not None}}


def stream_error(wire: WireName, error: WireError, *, sequence_number: int = 0) -> bytes:
    """The event that ends a client's stream in place of its end."""
    if wire is WireName.ANTHROPIC:
        return b"event: error\ndata: %b\n\n" % msgspec.json.encode(anthropic_error(error))
    told = openai_error(error)
    if wire is not WireName.RESPONSES:
        return b"data: %b\n\n" % msgspec.json.encode({"error": told})
    # Its clients know the outer fields; `error` makes the official ones raise.
    event = {
        "type": "error",
        "sequence_number": sequence_number,
        "code": told["code"],
        "message": error.message,
        "param": error.param,
        "error": told,
    }
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode(event)
