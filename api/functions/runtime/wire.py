"""What an api worker and the functions process say to each other, in frames of frames.py.

A connection carries one call at a time, on stream 1: OPEN DATA* END there, HEAD DATA* END back, or
a RESET instead of the rest. It has no credit: the socket itself holds back.
"""

from typing import Final

import msgspec
from msgspec import Struct

from butterbase.api.functions.runtime.errors import BY_CODE, FunctionError
from butterbase.api.functions.runtime.model import CallRequest, Headers
from butterbase.sql.errors import ButterbaseError

STREAM: Final = 1
HEAD_BYTES_MAX: Final = 1024**2


class Target(Struct, frozen=True):
    app_id: str
    name: str
    revision: str | None = None
    """None for the active one."""


class Opening(Struct, frozen=True):
    target: Target
    request: CallRequest


class AnswerHead(Struct, frozen=True):
    status: int
    headers: Headers


class Poke(Struct, frozen=True):
    """Something has changed that the functions process would else find out later."""

    app_id: str
    kind: str
    name: str = ""


class Refusal(Struct, frozen=True):
    """An error on its way to the worker."""

    code: str
    message: str
    hint: str | None
    status: int


class RelayedError(FunctionError):
    """The function could not be called."""

    status = 500

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, hint=refusal.hint)
        self.code = refusal.code  # type: ignore[misc]  # of whatever class it had over there
        self.status = refusal.status


OPENING: Final = msgspec.msgpack.Decoder(Opening)
HEAD: Final = msgspec.msgpack.Decoder(AnswerHead)
POKE: Final = msgspec.msgpack.Decoder(Poke)
REFUSAL: Final = msgspec.msgpack.Decoder(Refusal)
encode_struct: Final = msgspec.msgpack.encode


def refusal_of(error: ButterbaseError, *, status: int) -> Refusal:
    return Refusal(error.code, error.public_message, error.hint, status)


def error_of(refusal: Refusal) -> FunctionError:
    """Of its own class where that is one of calls, for which the worker has a status."""
    cls = BY_CODE.get(refusal.code)
    if cls is None or cls.__init__ is not FunctionError.__init__:
        return RelayedError(refusal)
    return cls(refusal.message, hint=refusal.hint)
