"""What is run, what it is called with, and what is known of the call afterwards."""

from typing import Any, TypeAlias

from msgspec import Struct

from butterbase.api.functions.settings import MEMORY_MB

Headers: TypeAlias = tuple[tuple[str, str], ...]

DEPTH_HEADER = "x-butterbase-depth"
"""How many functions a request has come through."""

FUNCTION_HEADER = "x-butterbase-function-token"
"""Of a function's request to the platform: its own token, which tells whose request it is also
where that is made in the name of a user."""


class Permissions(Struct, frozen=True):
    net: tuple[str, ...] = ()
    """Hosts as hosts.py reads them."""


class Limits(Struct, frozen=True):
    """Of a function. What happens at each is said beside it."""

    wall_ms: int = 60_000
    """From the call to the end of its answer and of `waitUntil`: 504, or the answer is cut."""
    cpu_ms: int = 10_000
    """Of one call: the process is ended, 504."""
    memory_mb: int = MEMORY_MB
    """Of a process: it is ended, 500. No more than `functions_memory_mb_max`."""
    request_bytes_max: int = 16 * 1024**2
    """413."""
    response_bytes_max: int = 64 * 1024**2
    """The answer is cut."""
    log_count_max: int = 200
    """Lines of one call; a last one says that more were left out."""
    log_bytes_max: int = 64 * 1024
    """The same in bytes."""
    concurrency_max: int = 16
    """Calls of one process at a time; more get a further one."""


class FunctionVersion(Struct, frozen=True):
    """A function as it was deployed. Its repr shows no secrets."""

    app_id: str
    name: str
    revision: str
    """Another with each deploy, rollback, and change of env, permissions or limits."""
    version_id: str
    bundle: bytes
    """A classic script that leaves the module's exports, or a promise of them, in `__fn`."""
    source_map: bytes | None = None
    env: dict[str, str] = {}
    permissions: Permissions = Permissions()
    limits: Limits = Limits()

    @property
    def key(self) -> "FunctionKey":
        return FunctionKey(self.app_id, self.name, self.revision)

    def __repr__(self) -> str:
        return f"FunctionVersion({self.app_id}/{self.name}@{self.revision})"


class FunctionKey(Struct, frozen=True):
    """A process serves one of these for its whole life."""

    app_id: str
    name: str
    revision: str


class CallContext(Struct, frozen=True):
    """Beside the request. Its repr shows no tokens."""

    invocation_id: str
    request_id: str
    trigger: str = "http"
    user: dict[str, Any] | None = None
    """The caller's verified claims."""
    token: str | None = None
    """The caller's own."""
    service_token: str | None = None
    attempt: int = 1
    depth: int = 0
    env: dict[str, str] = {}
    """Added to the function's, for this call."""
    ip: str | None = None

    def __repr__(self) -> str:
        return f"CallContext({self.trigger} {self.invocation_id})"


class CallRequest(Struct, frozen=True):
    method: str
    url: str
    """Absolute, as the function is to see it."""
    headers: Headers
    context: CallContext

    def __repr__(self) -> str:
        return f"CallRequest({self.method} {self.context})"


class LogLine(Struct, frozen=True):
    at: float
    """Seconds since 1970."""
    level: str
    """debug, info, warn or error."""
    message: str


class Failure(Struct, frozen=True):
    """Why a call did not succeed, for its owner's eyes: callers are told the code alone."""

    code: str
    message: str
    stack: str | None = None


class Outcome(Struct, frozen=True):
    """A call after its end, `waitUntil` included."""

    app_id: str
    name: str
    version_id: str
    revision: str
    invocation_id: str
    request_id: str
    trigger: str
    attempt: int
    status: int
    """499 when the client left before it was answered."""
    started_at: float
    duration_ms: float
    cpu_ms: float
    memory_bytes: int
    is_cold: bool
    logs: tuple[LogLine, ...] = ()
    failure: Failure | None = None
    is_retryable: bool = False
    """Whether it failed by no fault of the function."""


class Completed(Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes
    outcome: Outcome
