"""What can go wrong with a call to a model, and with what the call may use.

ButterbaseError
└── AiError
    ├── AiRequestError              the request is not one we can pass on
    │   ├── ModelMissingError       neither the request nor the configuration names a model
    │   ├── WireUnsupportedError    the provider's wire cannot say what the request asks for
    │   └── TokenLimitError         more tokens asked for than the app allows
    ├── ModelUnknownError           no route of the app leads to the model
    ├── ModelDeniedError            the app does not allow this model
    ├── AnonymousAiDeniedError      an anonymous caller
    ├── AiRoleDeniedError           the caller's role may not do this
    ├── AiConfigError               a value of the app's configuration
    ├── ContentNotFoundError        the texts of this call are not kept
    ├── ProviderMissingError        no provider is configured
    ├── AccountingError             the call cannot be written down, so it is not made
    ├── ClientLeftError             the client did not wait; nobody reads this
    ├── AiStoppingError             the server stopped while the call ran
    ├── AiInternalError             a fault of ours that nobody foresaw
    └── UpstreamError               the provider failed
        ├── UpstreamRefusedError    it answered with an error of its own
        ├── UpstreamUnreachableError
        ├── UpstreamTimeoutError
        ├── UpstreamInvalidError    its answer is not one
        │   └── EventTooLongError
        └── UpstreamCutError        its stream ended before its answer did
"""

from butterbase.ai.wire.events import WireError
from butterbase.sql.errors import ButterbaseError


class AiError(ButterbaseError):
    """The AI gateway could not do this."""

    code = "ai_error"
    param: str | None = None
    """The field of the request that is at fault."""


class AiRequestError(AiError):
    """The request is not valid."""

    code = "ai_request_invalid"

    def __init__(
        self, message: str = "", *, param: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class ModelMissingError(AiRequestError):
    """The request names no model and there is no default."""

    code = "ai_model_missing"


class WireUnsupportedError(AiRequestError):
    """The provider that serves this model cannot be asked for this."""

    code = "ai_unsupported"


class TokenLimitError(AiRequestError):
    """The request asks for more tokens than the app allows."""

    code = "ai_token_limit_exceeded"


class ModelUnknownError(AiError):
    """No route of the app leads to this model."""

    code = "ai_model_unknown"
    param = "model"


class ModelDeniedError(AiError):
    """The app does not allow this model."""

    code = "ai_model_denied"
    param = "model"


class AnonymousAiDeniedError(AiError):
    """Anonymous callers may not use models."""

    code = "anonymous_ai_denied"


class AiRoleDeniedError(AiError):
    """The caller's role may not do this."""

    code = "ai_role_denied"


class AiConfigError(AiError):
    """The AI configuration is not valid."""

    code = "ai_config_invalid"

    def __init__(
        self, message: str = "", *, param: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class ContentNotFoundError(AiError):
    """The texts of this call are not kept."""

    code = "ai_content_not_found"


class ProviderMissingError(AiError):
    """No AI provider is configured."""

    code = "ai_provider_missing"


class AccountingError(AiError):
    """Calls cannot be recorded now, so none is made."""

    code = "ai_accounting_unavailable"


class ClientLeftError(AiError):
    """The client left before the answer."""

    code = "client_left"


class AiStoppingError(AiError):
    """The server stops."""

    code = "ai_stopping"


class AiInternalError(AiError):
    """The AI gateway failed."""

    code = "ai_internal_error"


class UpstreamError(AiError):
    """The AI provider failed."""

    code = "upstream_error"
    was_at_work: bool = False
    """It has taken the request, and may want money for what it did with it."""


class UpstreamRefusedError(UpstreamError):
    """The AI provider answered with an error."""

    code = "upstream_refused"

    def __init__(self, error: WireError, *, body: bytes | None = None) -> None:
        super().__init__(error.message, hint=error.hint)
        self.error = error
        self.body = body
        """The provider's own words, where the client's wire is the provider's."""


class UpstreamUnreachableError(UpstreamError):
    """The AI provider cannot be reached."""

    code = "upstream_unreachable"


class UpstreamTimeoutError(UpstreamError):
    """The AI provider did not answer in time."""

    code = "upstream_timeout"


class UpstreamInvalidError(UpstreamError):
    """The AI provider's answer is not in OpenAI's form."""

    code = "upstream_invalid_response"


class EventTooLongError(UpstreamInvalidError):
    """The AI provider sent an event that is too long."""

    code = "upstream_event_too_long"


class UpstreamCutError(UpstreamError):
    """The AI provider's stream ended before its answer did."""

    code = "upstream_stream_cut"
