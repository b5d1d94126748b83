"""What runs a tool: the app's data and functions, as the caller. api/ has it; here is its shape."""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from butterbase.sql.relations.model import SchemaCache


class DataRequest(Struct, frozen=True):
    """A request to the app's REST API."""

    method: str
    path: str
    """Below the API's prefix, percent-encoded."""
    query: str = ""
    prefer: str = ""
    body: bytes = b""
    schema: str | None = None


class Invocation(Struct, frozen=True):
    """A call of one of the app's functions."""

    name: str
    body: bytes


class BackendAnswer(Struct, frozen=True):
    status: int
    body: bytes
    """Of an error a JSON object."""
    byte_count: int
    """Of the whole body, of which there may be less here."""
    row_count: int | None = None
    """That were changed, where the answer has none of them."""


class Exposed(Struct, frozen=True):
    """What the app's REST API serves."""

    cache: SchemaCache
    schemas: tuple[str, ...]
    """The default first."""


class Backend(Protocol):
    """Nothing is done that the caller could not do with a request of their own: each time the
    headers are verified anew, and the database runs it as their role and with their claims."""

    async def exposed(self, app_id: str, *, is_fresh: bool = False) -> Exposed:
        """`is_fresh`: the schema as it is now; else as it was a moment ago.

        Raises DatabaseUnavailableError.
        """
        ...

    async def request(
        self,
        app_id: str,
        headers: Mapping[bytes, bytes],
        request: DataRequest,
        *,
        bytes_max: int,
    ) -> BackendAnswer:
        """Refusals and failures are answers as well. At most `bytes_max` of a body are read."""
        ...

    async def invoke(
        self,
        app_id: str,
        headers: Mapping[bytes, bytes],
        invocation: Invocation,
        *,
        request_id: str,
        bytes_max: int,
    ) -> BackendAnswer: ...
