"""What can go wrong with a call of a function.

ButterbaseError
└── FunctionError
    ├── FunctionTimeoutError         it did not answer within its time
    ├── FunctionCpuError             it used up its processor time
    ├── FunctionMemoryError          it used up its memory
    ├── FunctionFailedError          it threw
    │   ├── FunctionLoadError        it threw as it was loaded, or has no handler
    │   ├── FunctionUnhandledError   it left a rejection or an error unhandled
    │   ├── FunctionResponseError    what it answered is no response
    │   └── FunctionExitedError      it ended its own process
    ├── FunctionCrashedError         its process died, by no fault of this call that we know of
    ├── FunctionRequestTooLargeError
    ├── FunctionResponseTooLargeError
    ├── FunctionMethodError          a method that cannot be passed on
    ├── FunctionLoopError            functions call each other without end
    ├── FunctionsBusyError           no process is free, and enough calls wait for one
    ├── FunctionsUnavailableError    the process that runs functions is away
    ├── FunctionClientLeftError      nobody reads this
    ├── InvalidNetPermissionError    what is to be a host is none
    └── JailError                    the jail cannot be built here
"""

from typing import Any, Final

from butterbase.sql.errors import ButterbaseError


class FunctionError(ButterbaseError):
    """The function could not be called."""

    code = "function_error"
    is_retryable = False
    """Whether the same call may succeed at another time, by no change of the function."""


class FunctionTimeoutError(FunctionError):
    """The function did not end within its time."""

    code = "function_timeout"


class FunctionCpuError(FunctionError):
    """The function used more processor time than it may."""

    code = "function_cpu_exceeded"


class FunctionMemoryError(FunctionError):
    """The function used more memory than it may."""

    code = "function_memory_exceeded"


class FunctionFailedError(FunctionError):
    """The function threw an error."""

    code = "function_failed"

    def __init__(
        self, message: str = "", *, thrown: str | None = None, stack: str | None = None
    ) -> None:
        """`thrown` and `stack` are for the function's owner, in its logs."""
        super().__init__(message, hint="the function's logs have the error")
        self.thrown = thrown
        self.stack = stack


class FunctionLoadError(FunctionFailedError):
    """The function cannot be loaded."""

    code = "function_load_failed"


class FunctionUnhandledError(FunctionFailedError):
    """The function left an error unhandled."""

    code = "function_unhandled"


class FunctionResponseError(FunctionFailedError):
    """What the function answered is no response."""

    code = "function_response_invalid"


class FunctionExitedError(FunctionFailedError):
    """The function ended its process."""

    code = "function_exited"


class FunctionCrashedError(FunctionError):
    """The process of the function died."""

    code = "function_crashed"
    is_retryable = True


class FunctionRequestTooLargeError(FunctionError):
    """The request is larger than the function accepts."""

    code = "function_request_too_large"


class FunctionResponseTooLargeError(FunctionError):
    """The function answered more than it may."""

    code = "function_response_too_large"


class FunctionMethodError(FunctionError):
    """Functions cannot be called with this method."""

    code = "function_method_unsupported"


class FunctionLoopError(FunctionError):
    """Functions call each other without end."""

    code = "function_loop"


class FunctionsBusyError(FunctionError):
    """All processes for functions are in use."""

    code = "functions_busy"
    is_retryable = True


class FunctionsUnavailableError(FunctionError):
    """Functions are not running."""

    code = "functions_unavailable"
    is_retryable = True


class FunctionClientLeftError(FunctionError):
    """The client left."""

    code = "function_client_left"


class InvalidNetPermissionError(FunctionError):
    """A host that a function may reach is not valid."""

    code = "function_net_invalid"


class JailError(ButterbaseError):
    """Functions cannot be run on this machine."""

    code = "functions_jail_failed"


STATUS: Final[dict[type, int]] = {
    FunctionError: 500,
    FunctionTimeoutError: 504,
    FunctionCpuError: 504,
    FunctionCrashedError: 502,
    FunctionRequestTooLargeError: 413,
    FunctionMethodError: 405,
    FunctionLoopError: 508,
    FunctionsBusyError: 503,
    FunctionsUnavailableError: 502,
    FunctionClientLeftError: 499,
    InvalidNetPermissionError: 400,
}
"""For callers; read along the MRO."""


def _classes(base: type[Any]) -> list[type[Any]]:
    return [base, *(found for below in base.__subclasses__() for found in _classes(below))]


BY_CODE: Final[dict[str, type[FunctionError]]] = {cls.code: cls for cls in _classes(FunctionError)}
