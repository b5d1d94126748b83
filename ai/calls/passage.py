"""A call on its way through the gateway: who asks, what it has come by so far, what is answered."""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Protocol

from msgspec import Struct

from butterbase.ai.calls.asked import Asked
from butterbase.ai.calls.call import Call, Header
from butterbase.ai.metering.charging import Tariff
from butterbase.ai.seams import Asking, Draft

_log = logging.getLogger(__name__)


class Client(Protocol):
    """The other end of a request."""

    @property
    def has_left(self) -> bool:
        """It is for this that the call's task was cancelled."""
        ...

    async def read(self) -> bytes:
        """The body. Raises BodyTooLargeError, ClientLeftError."""
        ...


class Given(Struct, frozen=True):
    """What the headers of a request say, and whoever calls in this process."""

    beta: str = ""
    """`anthropic-beta`"""
    cache_control: str = ""
    headers: Mapping[bytes, bytes] = {}
    """All of them, for whoever traces."""
    only_model: str | None = None
    """As its provider calls it: no other may answer, whatever the routes and budgets say."""


NOTHING_GIVEN = Given()


class Answer(Struct, frozen=True):
    status: int
    headers: list[Header]
    body: bytes | AsyncGenerator[bytes, None]
    """A stream is to be closed, whether it was read or not."""
    call: Call | None = None
    """What is known of it once all of the body was read."""


class Passage:
    """A call on its way, with what it has come by."""

    def __init__(self, call: Call, client: Client, given: Given) -> None:
        self.call = call
        self.client = client
        self.given = given
        self.began_s = asyncio.get_running_loop().time()
        self.deadline_s = math.inf
        self.asked: Asked | None = None
        self.asking: Asking | None = None
        self.tariff: Tariff | None = None
        self.on_end: Callable[[list[bytes] | None], None] | None = None
        self.draft: Draft | None = None

    def end(self, parts: list[bytes] | None) -> None:
        on_end, self.on_end = self.on_end, None
        draft, self.draft = self.draft, None
        try:
            if on_end is not None:
                on_end(parts)
            if draft is not None:
                draft.end(parts)
        except Exception:  # the call has ended, and has its event
            _log.exception("request %s: its answer could not be kept", self.call.caller.request_id)
