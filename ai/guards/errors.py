"""Why a guard refuses a call.

AiError
└── GuardError
    ├── InputTooLargeError
    ├── InjectionError
    └── ToolDeniedError
"""

from collections.abc import Mapping

from butterbase.ai.errors import AiError


class GuardError(AiError):
    """A guard of the app refuses the call."""

    code = "ai_guard_refused"

    def __init__(
        self,
        message: str = "",
        *,
        verdicts: Mapping[str, str],
        param: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.verdicts = verdicts
        """For the call's event."""
        self.param = param


class InputTooLargeError(GuardError):
    """The request is larger than the app's guards allow."""

    code = "ai_input_too_large"


class InjectionError(GuardError):
    """The request reads as if it gave the model new orders."""

    code = "ai_injection_refused"


class ToolDeniedError(GuardError):
    """The request offers a tool that the app's guards do not allow."""

    code = "ai_tool_denied"
