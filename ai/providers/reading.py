"""A provider's answer as the client gets it: whole, or a stream that is read on its way."""

from typing import Protocol

from msgspec import Struct

from butterbase.ai.wire.events import WireError
from butterbase.ai.wire.form import Usage


class Whole(Struct, frozen=True):
    """An answer that is not streamed."""

    body: bytes
    """For the client."""
    usage: Usage | None
    """None where the provider tells none."""
    is_stream: bool = False
    """`body` is a stream's, whole."""
    model: str | None = None
    """That answered, as the provider names it."""
    finish: str | None = None
    """Why the first choice ended."""


class Reader(Protocol):
    """A stream on its way: provider's bytes → client's bytes."""

    @property
    def usage(self) -> Usage | None: ...
    @property
    def model(self) -> str | None:
        """That answers, as the provider names it."""
        ...

    @property
    def finish(self) -> str | None:
        """Why the answer ended."""
        ...

    @property
    def has_begun(self) -> bool:
        """An event of the answer came."""
        ...

    @property
    def is_done(self) -> bool: ...
    @property
    def error(self) -> WireError | None:
        """What the provider says went wrong; it is not passed on."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Raises UpstreamInvalidError."""
        ...

    def close(self) -> bytes:
        """The provider sends no more. Raises UpstreamCutError when its answer is not whole."""
        ...

    def ending(self) -> bytes:
        """What tells the client that the answer is whole."""
        ...

    def failure(self, error: WireError) -> bytes:
        """What tells the client in place of an ending."""
        ...
