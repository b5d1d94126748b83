"""What can be wrong with a prompt, stored or called.

AiError
├── PromptNotFoundError
├── AiRequestError
│   └── PromptCallError        how a request calls it
└── PromptTemplateError        what is to be stored
"""

from butterbase.ai.errors import AiError, AiRequestError


class PromptNotFoundError(AiError):
    """The app has no such prompt, or no such version of it."""

    code = "ai_prompt_not_found"
    param = "prompt"


class PromptCallError(AiRequestError):
    """The prompt cannot be called like this."""

    code = "ai_prompt_call_invalid"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, param="prompt", hint=hint)


class PromptTemplateError(AiError):
    """This is no prompt template."""

    code = "ai_prompt_invalid"

    def __init__(
        self, message: str = "", *, param: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.param = param
