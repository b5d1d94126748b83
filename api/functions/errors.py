"""What is refused of functions' deployment and administration; calls are in runtime/errors.py.

ButterbaseError
├── NotFoundError
│   ├── FunctionNotFoundError, FunctionVersionNotFoundError
│   ├── InvocationNotFoundError
│   └── QueueNotFoundError          nothing consumes the queue
├── RequestError
│   ├── InvalidFunctionError        a name, file, variable or limit is none
│   │   ├── FunctionSyntaxError     with file, line and column
│   │   └── FunctionImportError     the same, of an import that cannot be had
│   ├── InvalidTriggerError
│   ├── InvalidOperationError       what `ctx` asked of the platform
│   └── InvocationNotRetryableError
├── FunctionTooLargeError
├── FunctionAdminRequiredError
├── FunctionGrantError              a key gives away what it has not
└── BundlerError                    what makes scripts of files is not there, or fails
"""

from msgspec import Struct
from msgspec.structs import asdict

from butterbase.api.errors import NotFoundError, RequestError
from butterbase.sql.errors import ButterbaseError


class FunctionNotFoundError(NotFoundError):
    """There is no such function."""

    code = "function_not_found"


class FunctionVersionNotFoundError(NotFoundError):
    """The function has no such version."""

    code = "function_version_not_found"


class InvocationNotFoundError(NotFoundError):
    """There is no record of such an invocation."""

    code = "invocation_not_found"


class QueueNotFoundError(NotFoundError):
    """No function consumes the queue."""

    code = "queue_not_found"


class InvalidFunctionError(RequestError):
    """The function cannot be deployed as it is."""

    code = "function_invalid"


class Place(Struct, frozen=True):
    """In a file that was deployed; line and column count from 1."""

    file: str
    line: int
    column: int


class FunctionSyntaxError(InvalidFunctionError):
    """The function's code cannot be read."""

    code = "function_syntax_error"

    def __init__(
        self, message: str = "", *, place: Place | None = None, hint: str | None = None
    ) -> None:
        where = f"{place.file}:{place.line}:{place.column}: " if place else ""
        super().__init__(where + message, hint=hint)
        self.place = place

    @property
    def details(self) -> dict[str, str | int] | None:
        """What a program reads."""
        return None if self.place is None else asdict(self.place)


class FunctionImportError(FunctionSyntaxError):
    """The function imports what it cannot have."""

    code = "function_import_refused"


class InvalidTriggerError(RequestError):
    """The trigger cannot be made as it is."""

    code = "trigger_invalid"


class InvalidOperationError(RequestError):
    """What the function asked of the platform cannot be done."""

    code = "function_operation_invalid"


class InvocationNotRetryableError(RequestError):
    """The invocation cannot be run again."""

    code = "invocation_not_retryable"


class FunctionTooLargeError(ButterbaseError):
    """The function is larger than this server accepts."""

    code = "function_too_large"


class FunctionAdminRequiredError(ButterbaseError):
    """Functions are managed with the service_role key, or a key with the scope functions."""

    code = "function_admin_required"


class FunctionGrantError(ButterbaseError):
    """A key cannot give a function more than it has."""

    code = "function_grant_refused"


class BundlerError(ButterbaseError):
    """The function cannot be made ready here."""

    code = "function_bundler_failed"
