"""Reading a request's body: never more of it than is allowed.

It lies in the lower of the two folders that read bodies; api/ uses it as well.
"""

from falcon.asgi import Request

from butterbase.sql.errors import ButterbaseError


class BodyTooLargeError(ButterbaseError):
    """The body is larger than this server accepts."""

    code = "body_too_large"


async def read_body(req: Request, *, bytes_max: int) -> bytes:
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
