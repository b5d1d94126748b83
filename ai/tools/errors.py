"""What can go wrong with tools that the gateway runs itself.

AiError
└── ToolError
    ├── ToolUnknownError      the request names one that the app does not offer
    ├── ToolUnavailableError  what the tool is of is not there
    ├── ToolStepsError        the model does not stop calling tools
    └── ToolCallError         one call failed; told to the model, which may try again
        ├── ToolArgumentsError
        ├── ToolRefusedError
        └── ToolTimeoutError
"""

from butterbase.ai.errors import AiError, AiRequestError


class ToolError(AiError):
    """A tool could not be run."""

    code = "ai_tool_error"


class ToolUnknownError(AiRequestError, ToolError):
    """The app offers no such tool."""

    code = "ai_tool_unknown"


class ToolUnavailableError(AiRequestError, ToolError):
    """What the tool reads or calls is not in the app's schema."""

    code = "ai_tool_unavailable"


class ToolStepsError(ToolError):
    """The model went on calling tools after its last step."""

    code = "ai_tool_steps_exceeded"


class ToolCallError(ToolError):
    """One call of a tool failed."""

    code = "ai_tool_call_failed"


class ToolArgumentsError(ToolCallError):
    """The arguments of the call are not what the tool takes."""

    code = "ai_tool_arguments_invalid"


class ToolRefusedError(ToolCallError):
    """The call may not be made."""

    code = "ai_tool_refused"


class ToolTimeoutError(ToolCallError):
    """The tool did not answer in time."""

    code = "ai_tool_timeout"
