"""What a function asks of the host while it runs: requests to the outside, and operations."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from butterbase.api.functions.runtime.bodies import IncomingBody, OutgoingBody
from butterbase.api.functions.runtime.egress import Egress, EgressAnswer
from butterbase.api.functions.runtime.egress_requests import (
    Body,
    EgressError,
    EgressRequest,
    Origin,
)
from butterbase.api.functions.runtime.errors import FunctionError
from butterbase.api.functions.runtime.frames import FrameError, FrameType, encode
from butterbase.api.functions.runtime.hosts import AllowList
from butterbase.api.functions.runtime.model import CallContext, FunctionVersion
from butterbase.api.functions.runtime.seams import Operations
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

_WHOLE_BYTES_MAX: Final = 1024**2
"""A body of a known size up to this is gathered first, so that it can follow a redirect."""
_ARGUMENTS_BYTES_MAX: Final = 320 * 1024
"""Of an operation: a message of a queue, escaped."""


class Operation(Struct, frozen=True):
    call: int
    name: str
    arguments: Raw = Raw(b"null")


_REQUEST: Final = msgspec.json.Decoder(EgressRequest)
_OPERATION: Final = msgspec.json.Decoder(Operation)


def parse_request(payload: bytes) -> EgressRequest:
    """Raises FrameError."""
    try:
        return _REQUEST.decode(payload)
    except msgspec.MsgspecError as error:
        raise FrameError(f"a request: {error}") from error


def parse_operation(payload: bytes) -> Operation:
    """Raises FrameError."""
    try:
        return _OPERATION.decode(payload)
    except msgspec.MsgspecError as error:
        raise FrameError(f"an operation: {error}") from error


class Exchange:
    """One request of a function."""

    def __init__(
        self, stream: int, call: int, write: Callable[[bytes], None], *, bytes_max: int
    ) -> None:
        self.stream = stream
        self.call = call
        self._write = write
        self._bytes_max = bytes_max
        self.incoming = IncomingBody(
            stream, write, bytes_max=bytes_max, too_large=_RequestTooLargeError
        )
        self.outgoing = OutgoingBody(stream, write)
        self.task: asyncio.Task[None] | None = None

    async def carry(
        self, egress: Egress, asked: EgressRequest, allowed: AllowList, *, origin: Origin
    ) -> None:
        """Until the answer was sent, or its error."""
        answer: EgressAnswer | None = None
        try:
            body = await self._body(asked)
            answer = await egress.request(asked, body, allowed, origin=origin)
            self._write(encode(FrameType.HEAD, self.stream, msgspec.json.encode(answer.head)))
            if asked.method != "HEAD":
                await self._pass_on(answer)
            self.outgoing.end()
        except EgressError as error:
            self.refuse(error.message, is_permission=error.is_permission)
        except FunctionError as error:
            self.refuse(error.message)
        except Exception:
            logger.exception("a function's request failed")
            self.refuse("the request failed")
        finally:
            self.incoming.drop()
            if answer is not None:
                answer.close()

    def refuse(self, message: str, *, is_permission: bool = False) -> None:
        told = msgspec.json.encode({"message": message, "is_permission": is_permission})
        self._write(encode(FrameType.RESET, self.stream, told))

    async def _body(self, asked: EgressRequest) -> Body:
        if asked.length is None or asked.length > _WHOLE_BYTES_MAX:
            return self._parts()
        return b"".join([part async for part in self._parts()])

    async def _parts(self) -> AsyncIterator[bytes]:
        while part := await self.incoming.read():
            yield part

    async def _pass_on(self, answer: EgressAnswer) -> None:
        size = 0
        while part := await answer.read():
            size += len(part)
            if size > self._bytes_max:
                raise EgressError(f"the answer is larger than {self._bytes_max} bytes")
            if not await self.outgoing.write(part):
                return


class FunctionOperationError(FunctionError):
    """The operation is refused."""

    code = "function_operation_refused"


class _RequestTooLargeError(FunctionError):
    """The request of the function is too large."""

    code = "function_egress_too_large"


async def perform(
    operations: Operations, version: FunctionVersion, context: CallContext, asked: Operation
) -> bytes:
    """The payload of the result."""
    try:
        value = await operations.perform(version, context, asked.name, _arguments(asked.arguments))
        return msgspec.json.encode({"value": value})
    except ButterbaseError as error:
        return _failed(error.code, error.public_message, error.hint)
    except Exception:
        logger.exception("%s of a function failed", asked.name)
        return _failed("internal_error", "the operation failed", None)


def _arguments(told: Raw) -> Any:
    """Raises FunctionOperationError."""
    if len(told) > _ARGUMENTS_BYTES_MAX:
        raise FunctionOperationError(f"more than {_ARGUMENTS_BYTES_MAX} bytes are asked with")
    try:
        return msgspec.json.decode(told)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise FunctionOperationError(f"what is asked cannot be read: {error}") from error


def _failed(code: str, message: str, hint: str | None) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message, "hint": hint}})


def refused_operation(message: str) -> bytes:
    return _failed(FunctionOperationError.code, message, None)
