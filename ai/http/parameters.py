"""Parameters of a query string, read and checked."""

import re
from uuid import UUID

from falcon.asgi import Request

from butterbase.ai.errors import AiRequestError

_NUMBER = re.compile(r"[0-9]{1,9}")

# Each raises AiRequestError; None: the parameter is not there.


def check_known(req: Request, names: set[str]) -> None:
    """A misspelt filter must not delete everything."""
    for name in set(req.params) - names:
        raise AiRequestError(f"it is none of {', '.join(sorted(names))}", param=name[:100])


def read_number(req: Request, name: str, *, most: int) -> int | None:
    text = req.get_param(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise AiRequestError(f"it must be a number from 1 to {most}", param=name)
    return int(text)


def read_text(req: Request, name: str) -> str | None:
    text = req.get_param(name)
    if text is not None and "\0" in text:
        raise AiRequestError("it has characters that are none", param=name)
    return text


def read_id(req: Request, name: str, whose: str) -> UUID | None:
    text = req.get_param(name)
    try:
        return None if text is None else UUID(text)
    except ValueError as error:
        raise AiRequestError(f"it must be a {whose}'s id", param=name) from error
