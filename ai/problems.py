"""Errors as OpenAI's API tells them, so that its clients raise their own classes for ours.

https://platform.openai.com/docs/guides/error-codes
"""

import msgspec
from msgspec import Struct

from butterbase.ai.body import BodyTooLargeError
from butterbase.ai.errors import (
    AccountingError,
    AiConfigError,
    AiRequestError,
    AiRoleDeniedError,
    AnonymousAiDeniedError,
    ClientLeftError,
    ModelDeniedError,
    ProviderMissingError,
    UpstreamError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
)
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
    ModelDeniedError: 403,
    AnonymousAiDeniedError: 403,
    AiRoleDeniedError: 403,
    ClientLeftError: 499,
    ProviderMissingError: 503,
    AccountingError: 503,
    DatabaseUnavailableError: 503,
    UpstreamError: 502,
    UpstreamTimeoutError: 504,
    ButterbaseError: 500,
}

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


class _Error(Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str
    hint: str | None


class _Body(Struct, frozen=True):
    error: _Error


def render_error(error: ButterbaseError) -> tuple[int, bytes]:
    """Status and body. A provider's own error passes as it came."""
    if isinstance(error, UpstreamRefusedError):
        status = error.status
        if error.body is not None:
            return status, error.body
    else:
        status = nearest(_STATUSES, type(error))
    param: str | None = getattr(error, "param", None)
    type_ = _TYPES.get(status, "server_error")
    return status, msgspec.json.encode(
        _Body(_Error(error.public_message, type_, param, error.code, error.hint))
    )
