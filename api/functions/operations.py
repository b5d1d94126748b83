"""What `ctx` asks of the platform beside HTTP: `ctx.queue.send`, `ctx.idempotency.claim`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from butterbase.api.functions.errors import InvalidOperationError, QueueNotFoundError
from butterbase.api.functions.model import Name
from butterbase.api.functions.runtime.model import CallContext, FunctionVersion
from butterbase.api.functions.versions import QUERIES
from butterbase.sql.pipeline import Executor, Statement

T = TypeVar("T")

MESSAGE_BYTES_MAX: Final = 256 * 1024
DELAY_S_MAX: Final = 90 * 24 * 3600
CLAIM_TTL_S: Final = 7 * 24 * 3600.0
CLAIM_TTL_S_MAX: Final = 366 * 24 * 3600


class Send(Struct, frozen=True, forbid_unknown_fields=True):
    queue: Name
    body: Any = None
    delay_s: Annotated[float, Meta(ge=0, le=DELAY_S_MAX)] | None = None
    key: Annotated[str, Meta(max_length=200)] | None = None
    """Messages with the same one are worked on in order."""


class Claim(Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[str, Meta(min_length=1, max_length=500)]
    ttl_s: Annotated[float, Meta(gt=0, le=CLAIM_TTL_S_MAX)] | None = None


class PlatformOperations:
    """The runtime's Operations, for all apps."""

    def __init__(
        self,
        executor_of: Callable[[str], Awaitable[Executor]],
        *,
        on_queued: Callable[[str], None],
    ) -> None:
        """`on_queued` gets the app for which something is to be worked on."""
        self._executor_of = executor_of
        self._on_queued = on_queued

    async def perform(
        self, version: FunctionVersion, context: CallContext, name: str, arguments: Any
    ) -> Any:
        """Raises InvalidOperationError, QueueNotFoundError, DatabaseUnavailableError."""
        executor = await self._executor_of(version.app_id)
        match name:
            case "queue.send":
                sent = await self._send(executor, _read(arguments, Send))
                self._on_queued(version.app_id)
                return sent
            case "idempotency.claim":
                return await self._claim(executor, version, context, _read(arguments, Claim))
            case _:
                raise InvalidOperationError(f"there is no operation {name[:100]!r}")

    async def _send(self, executor: Executor, send: Send) -> dict[str, Any]:
        payload = msgspec.json.encode({"type": "queue", "queue": send.queue, "body": send.body})
        if len(payload) > MESSAGE_BYTES_MAX:
            raise InvalidOperationError(f"a message has {MESSAGE_BYTES_MAX} bytes at most")
        if send.key and "\0" in send.key:
            raise InvalidOperationError("a key has no NUL")
        (result,) = await executor.run(
            Statement.of(QUERIES["send"], send.queue, payload, send.delay_s or 0.0, send.key)
        )
        ids = [row[0].decode() for row in result.rows() if row[0] is not None]
        if not ids:
            raise QueueNotFoundError(
                f"no function consumes the queue {send.queue}",
                hint='deploy one with a trigger {"type": "queue", "queue": …}',
            )
        return {"id": ids[0], "ids": ids}

    async def _claim(
        self, executor: Executor, version: FunctionVersion, context: CallContext, claim: Claim
    ) -> dict[str, bool]:
        if "\0" in claim.key:
            raise InvalidOperationError("a key has no NUL")
        (result,) = await executor.run(
            Statement.of(
                QUERIES["claim_key"],
                version.name,
                claim.key,
                context.invocation_id,
                claim.ttl_s or CLAIM_TTL_S,
            )
        )
        return {"claimed": result.row_count > 0}


def _read(arguments: Any, type_: type[T]) -> T:
    try:
        return msgspec.convert(arguments, type_)
    except msgspec.ValidationError as error:
        raise InvalidOperationError(str(error)) from error
