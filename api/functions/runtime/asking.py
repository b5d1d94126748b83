"""The requests and operations of one process that are under way."""

import asyncio
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from butterbase.api.functions.runtime.call import Call
from butterbase.api.functions.runtime.egress import Egress
from butterbase.api.functions.runtime.egress_requests import Origin
from butterbase.api.functions.runtime.exchanges import (
    Exchange,
    Operation,
    parse_operation,
    parse_request,
    perform,
    refused_operation,
)
from butterbase.api.functions.runtime.frames import (
    Frame,
    FrameError,
    FrameType,
    decode_credit,
    encode,
)
from butterbase.api.functions.runtime.hosts import AllowList
from butterbase.api.functions.runtime.seams import Operations

COUNT_MAX: Final = 64
"""Of each kind, of one process; more are refused."""
_TOO_MANY: Final = f"more than {COUNT_MAX} requests at a time"
_ENDED: Final = "the call that asks has ended"


class Services(Struct, frozen=True):
    """What functions may ask."""

    egress: Egress
    operations: Operations
    request_bytes_max: int


class Requests:
    """Each belongs to a call, and ends with it at the latest."""

    def __init__(
        self,
        services: Services,
        write: Callable[[bytes], None],
        find_call: Callable[[int], Call | None],
    ) -> None:
        self._services = services
        self._write = write
        self._find_call = find_call
        self._exchanges: dict[int, Exchange] = {}
        self._operating: dict[int, tuple[int, asyncio.Task[None]]] = {}
        self.allowed = AllowList(())

    def take(self, frame: Frame) -> None:
        """Raises FrameError."""
        match frame.type:
            case FrameType.OPEN:
                self._open(frame)
            case FrameType.OPERATION:
                self._operate(frame)
            case FrameType.DATA | FrameType.END | FrameType.CREDIT | FrameType.RESET:
                if exchange := self._exchanges.get(frame.stream):
                    _pass_to(exchange, frame)
            case _:
                raise FrameError(f"{frame.type.name} of a request")

    def end_call(self, number: int) -> None:
        for exchange in list(self._exchanges.values()):
            if exchange.call == number and exchange.task is not None:
                exchange.task.cancel()
                exchange.refuse(_ENDED)

    def close(self) -> None:
        """The process is gone. What an operation has begun is still brought to its end."""
        for exchange in self._exchanges.values():
            if exchange.task is not None:
                exchange.task.cancel()

    def _open(self, frame: Frame) -> None:
        asked = parse_request(frame.payload)
        if frame.stream in self._exchanges:
            raise FrameError("a stream was opened twice")
        call = self._find_call(asked.call)
        services = self._services
        exchange = Exchange(
            frame.stream,
            call.id if call else 0,
            self._write,
            bytes_max=services.request_bytes_max,
        )
        if call is None or len(self._exchanges) >= COUNT_MAX:
            exchange.refuse(_TOO_MANY if call else _ENDED)
            return
        self._exchanges[frame.stream] = exchange
        context = call.context
        origin = Origin(call.version.app_id, context.depth, context.service_token)
        exchange.task = asyncio.get_running_loop().create_task(
            exchange.carry(services.egress, asked, self.allowed, origin=origin)
        )
        exchange.task.add_done_callback(lambda _: self._exchanges.pop(frame.stream, None))

    def _operate(self, frame: Frame) -> None:
        try:
            asked = parse_operation(frame.payload)
        except RecursionError:
            refused = refused_operation("what is asked with is nested too deeply")
            self._write(encode(FrameType.RESULT, frame.stream, refused))
            return
        call = self._find_call(asked.call)
        if call is None or len(self._operating) >= COUNT_MAX or frame.stream in self._operating:
            refused = refused_operation(_TOO_MANY if call else _ENDED)
            self._write(encode(FrameType.RESULT, frame.stream, refused))
            return
        task = asyncio.get_running_loop().create_task(self._perform(frame.stream, call, asked))
        self._operating[frame.stream] = call.id, task
        task.add_done_callback(lambda _: self._operating.pop(frame.stream, None))

    async def _perform(self, stream: int, call: Call, asked: Operation) -> None:
        result = await perform(self._services.operations, call.version, call.context, asked)
        self._write(encode(FrameType.RESULT, stream, result))


def _pass_to(exchange: Exchange, frame: Frame) -> None:
    match frame.type:
        case FrameType.DATA:
            exchange.incoming.push(frame.payload)
        case FrameType.END:
            exchange.incoming.end()
        case FrameType.CREDIT:
            exchange.outgoing.grant(decode_credit(frame.payload))
        case _:
            exchange.outgoing.close()
            if exchange.task is not None:
                exchange.task.cancel()
