"""Reading bodies: never more than is allowed."""

from falcon.asgi import Request

from butterbase.api.errors import BodyTooLargeError


async def read_body(req: Request, *, bytes_max: int) -> bytes:
    """The whole body. Raises BodyTooLargeError before more than `bytes_max` is held."""
    if (req.content_length or 0) > bytes_max:
        raise BodyTooLargeError(f"the body is larger than {bytes_max} bytes")
    body = bytearray()
    async for part in req.stream:
        body += part
        if len(body) > bytes_max:
            raise BodyTooLargeError(f"the body is larger than {bytes_max} bytes")
    return bytes(body)
