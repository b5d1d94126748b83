"""What the resources of collections share: statements as the caller, bodies, answers."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias, TypeVar
from uuid import UUID

import falcon
import msgspec
from falcon.asgi import Request, Response
from msgspec import Meta

from butterbase.ai.http.body import BodyTooLargeError, decode_json, read_body
from butterbase.ai.rag.errors import DocumentNotFoundError, RagRequestError
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Result, Statement

QUERIES = load_queries("rag")

FIELDS_HINT = "docs/rag.md and docs/documents.md list the fields"

BODY_BYTES_MAX = 16 * 1024**2
"""As much text as a document may have; a long book has one million characters."""

Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")]

Body = TypeVar("Body")

CheckModel: TypeAlias = Callable[[str, object], Awaitable[None]]
"""App id, the embedding model that is asked for, if any. Raises RagModelError."""


async def run(req: Request, name: str, *values: bytes | None, read_only: bool = False) -> Result:
    """A statement of sql/queries/rag.sql, as the caller."""
    (result,) = await run_all(req, Statement(QUERIES[name], values), read_only=read_only)
    return result


async def run_all(req: Request, *statements: Statement, read_only: bool = False) -> list[Result]:
    """In one transaction, as the caller."""
    executor: Executor = req.context.app.data
    return await executor.run_as(req.context.claims, *statements, read_only=read_only)


async def read(req: Request, decoder: "msgspec.json.Decoder[Body]") -> Body:
    """Raises BodyTooLargeError, RagRequestError."""
    try:
        body = await read_body(req, bytes_max=BODY_BYTES_MAX)
    except BodyTooLargeError as error:
        raise BodyTooLargeError(
            error.message, hint="send a long text in several documents"
        ) from None
    return decode(decoder, body)


def decode(decoder: "msgspec.json.Decoder[Body]", body: bytes) -> Body:
    """Raises RagRequestError."""
    return decode_json(decoder, body, _refusal)


def document_id(text: str) -> bytes:
    """Raises DocumentNotFoundError: what is no id is no document's."""
    try:
        return str(UUID(text)).encode()
    except ValueError:
        raise DocumentNotFoundError from None


def answer(resp: Response, body: bytes | None, status: int = 200) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = body


def _refusal(reason: str) -> RagRequestError:
    return RagRequestError(f"the body cannot be read: {reason}", hint=FIELDS_HINT)
