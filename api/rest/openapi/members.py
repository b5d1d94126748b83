"""Pieces that stand all over the document: references, comments, media types."""

import re
from typing import Any, TypeAlias
from urllib.parse import quote

Json: TypeAlias = dict[str, Any]

JSON = "application/json"
_OBJECT = "application/vnd.pgrst.object+json"
ANSWERS = [JSON, f"{_OBJECT};nulls=stripped", _OBJECT]
CONSUMED = [JSON, "text/csv"]

_RESERVED_IN_PATH = re.compile(r"[%{}?#/ ]")


def given(**members: Any) -> Json:
    """Those that are there."""
    return {name: value for name, value in members.items() if value is not None}


def ref(section: str, *names: str) -> Json:
    """A JSON pointer in a URI fragment (RFC 6901, section 6)."""
    name = ".".join(names).replace("~", "~0").replace("/", "~1")
    return {"$ref": f"#/{section}/" + quote(name, safe="!$&'()*+,;=:@~")}


def path_of(name: str) -> str:
    """What would end a path, or begin a parameter in it, is percent-encoded."""
    return "/" + _RESERVED_IN_PATH.sub(lambda match: f"%{ord(match[0]):02X}", name)


def split(comment: str | None) -> tuple[str | None, str | None]:
    """A comment's first line, and what follows it."""
    first, _, rest = (comment or "").partition("\n")
    return first or None, rest.lstrip("\n") or None


def summed_up(comment: str | None) -> Json:
    """The comment as an operation has it."""
    summary, description = split(comment)
    return given(summary=summary, description=description)
