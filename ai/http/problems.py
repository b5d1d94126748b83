"""Errors as the client's wire tells them, so that its clients raise their own classes for ours.

https://platform.openai.com/docs/guides/error-codes
https://platform.claude.com/docs/en/api/errors
"""

from collections.abc import Mapping

import msgspec

from butterbase.ai.errors import (
    AccountingError,
    AiConfigError,
    AiRequestError,
    AiRoleDeniedError,
    AiStoppingError,
    AnonymousAiDeniedError,
    ClientLeftError,
    ContentNotFoundError,
    ModelDeniedError,
    ModelUnknownError,
    ProviderMissingError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
from butterbase.ai.guards.errors import GuardError, InputTooLargeError
from butterbase.ai.http.body import BodyTooLargeError
from butterbase.ai.money.errors import BudgetExceededError, RateLimitedError
from butterbase.ai.prompts.errors import PromptNotFoundError, PromptTemplateError
from butterbase.ai.tools.errors import ToolStepsError
from butterbase.ai.wire.events import ErrorKind, WireError
from butterbase.ai.wire.failures import (
    encode_anthropic_error,
    encode_openai_error,
)
from butterbase.ai.wire.protocols import EncodedError, WireName
from butterbase.sql.errors import (
    ButterbaseError,
    DatabaseUnavailableError,
    InvalidTokenError,
    nearest,
)

# Read along the class's MRO; what only the last entry names is a fault of ours.
_STATUSES: dict[type, int] = {
    AiRequestError: 400,
    BodyTooLargeError: 413,
    AiConfigError: 400,
    InvalidTokenError: 401,
    BudgetExceededError: 402,
    ModelDeniedError: 403,
    AnonymousAiDeniedError: 403,
    AiRoleDeniedError: 403,
    GuardError: 403,
    InputTooLargeError: 413,
    PromptTemplateError: 400,
    PromptNotFoundError: 404,
    ModelUnknownError: 404,
    ToolStepsError: 502,
    ContentNotFoundError: 404,
    RateLimitedError: 429,
    ClientLeftError: 499,
    ProviderMissingError: 503,
    AccountingError: 503,
    AiStoppingError: 503,
    DatabaseUnavailableError: 503,
    UpstreamError: 502,
    UpstreamTimeoutError: 504,
    ButterbaseError: 500,
}

_KINDS: dict[int, ErrorKind] = {
    400: "invalid_request",
    401: "authentication",
    402: "quota",
    403: "permission",
    404: "not_found",
    413: "too_large",
    429: "rate_limit",
    504: "timeout",
}

# Clients of OpenAI and Anthropic try a 503 again, and a 429.
_FINAL = (ProviderMissingError, BudgetExceededError)
_NO_RETRY = {"x-should-retry": "false"}


def status_of(error: ButterbaseError) -> int:
    """What a client is answered; a provider's own refusal keeps its status."""
    if isinstance(error, UpstreamRefusedError) and hasattr(error, "error"):
        return error.error.status
    return nearest(_STATUSES, type(error))


def add_headers(error: ButterbaseError, headers: Mapping[str, str]) -> None:
    """Of the answer that tells the error. A provider's own, as `retry-after`, stay."""
    if isinstance(error, UpstreamRefusedError):
        told = {**error.error.headers, **headers}
        error.error = msgspec.structs.replace(error.error, headers=told)
    else:
        error.headers = {**getattr(error, "headers", {}), **headers}  # type: ignore[attr-defined]


def forbid_retry(error: ButterbaseError) -> None:
    """Clients would make the request again by themselves, and what it has done a second time."""
    add_headers(error, _NO_RETRY)


def wire_error(error: ButterbaseError, *, status: int | None = None) -> WireError:
    """The error for any wire. `status` is that of an error that is not of this folder."""
    if isinstance(error, UpstreamRefusedError):
        told = error.error
        return msgspec.structs.replace(told, code=told.code or error.code)
    status = status_of(error) if status is None else status
    headers: dict[str, str] = dict(getattr(error, "headers", {}))
    if isinstance(error, _FINAL):
        headers |= _NO_RETRY
    return WireError(
        _KINDS.get(status, "server"),
        status,
        error.public_message,
        code=error.code,
        param=getattr(error, "param", None),
        headers=headers,
        hint=error.hint,
    )


def encode_error(
    error: ButterbaseError, wire: WireName = WireName.CHAT, *, status: int | None = None
) -> EncodedError:
    told = wire_error(error, status=status)
    if isinstance(error, UpstreamRefusedError) and error.body is not None:
        return EncodedError(told.status, told.headers, error.body)
    encode = encode_anthropic_error if wire is WireName.ANTHROPIC else encode_openai_error
    encoded = encode(told)
    if isinstance(error, BudgetExceededError):
        body = msgspec.json.decode(encoded.body)
        body["error"]["budget"] = error.budget
        return EncodedError(encoded.status, encoded.headers, msgspec.json.encode(body))
    return encoded


def render_error(error: ButterbaseError) -> tuple[int, bytes]:
    """Status and body, in OpenAI's form."""
    encoded = encode_error(error)
    return encoded.status, encoded.body
