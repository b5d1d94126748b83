"""Reading a request's body: never more of it than is allowed, and JSON or a refusal.

It lies in the lower of the two folders that read bodies; api/ uses it as well.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from butterbase.sql.errors import ButterbaseError

if TYPE_CHECKING:  # the stream process decodes JSON as well, and has no use for Falcon
    from falcon.asgi import Request

T = TypeVar("T")


class BodyTooLargeError(ButterbaseError):
    """The body is larger than this server accepts."""

    code = "body_too_large"


async def read_body(req: "Request", *, bytes_max: int) -> bytes:
    """The whole body. Raises BodyTooLargeError before more than `bytes_max` is held."""
    body = bytearray()
    if (req.content_length or 0) <= bytes_max:
        async for part in req.stream:
            body += part
            if len(body) > bytes_max:
                break
        else:
            return bytes(body)
    raise BodyTooLargeError(f"the body is larger than {bytes_max} bytes")


def decode_json(
    decoder: "msgspec.json.Decoder[T]",
    body: bytes | msgspec.Raw,
    refusal: Callable[[str], Exception],
) -> T:
    """The decoded body. Raises what `refusal` makes of the reason why it cannot be read."""
    try:
        return decoder.decode(body)
    # Neither text that is not UTF-8 nor deep nesting is a DecodeError.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal(str(error)) from error
