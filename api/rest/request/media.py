"""`Accept`, `Content-Type` and what is answered with: media types as text and as values. Pure.

https://docs.postgrest.org/en/stable/references/api/resource_representation.html
"""

import re
from typing import Literal

from msgspec import Struct

from butterbase.sql.memo import memoized

JSON = "application/json"
ANY = "*/*"
OCTETS = "application/octet-stream"

_PLAN = "application/vnd.pgrst.plan"
_OBJECT = "application/vnd.pgrst.object"
_ARRAY = "application/vnd.pgrst.array"
_VENDORED = frozenset({f"{_PLAN}+json", f"{_PLAN}+text", f"{_OBJECT}+json", f"{_ARRAY}+json"})

_OURS = frozenset(
    {
        JSON,
        ANY,
        "application/geo+json",
        "application/openapi+json",
        "application/x-www-form-urlencoded",
        OCTETS,
        "text/csv",
        "text/plain",
        "text/xml",
    }
)
"""Of these the parameters say nothing; what is unknown here is known with its parameters."""

_PLAN_OPTIONS = ("analyze", "verbose", "settings", "buffers", "wal")

_PARAMETER = r'\s*;\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([\w|-]+))'
_PARAMETERS = re.compile(_PARAMETER, re.ASCII)
_MEDIA_TYPE = re.compile(rf"([\w.*]+/[\w.*+-]+)((?:{_PARAMETER})*)", re.ASCII)
_QUALITY = re.compile(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]{1,2})?", re.ASCII)


class MediaType(Struct, frozen=True):
    name: str
    """In lowercase; without parameters, but for a type that is not ours."""
    strips_nulls: bool = False
    """`nulls=stripped`: members that are null are left out."""
    plan: "PlanOptions | None" = None
    """What is answered is not the result but how Postgres would get it."""


class PlanOptions(Struct, frozen=True):
    of: MediaType = MediaType(JSON)
    format: Literal["text", "json"] = "text"
    options: tuple[str, ...] = ()
    """Of EXPLAIN, in a fixed order."""


_ANYTHING = (MediaType(ANY),)


@memoized
def parse_media_type(text: str) -> MediaType:
    """Any text is one; what cannot be read is a type of that name."""
    match = _MEDIA_TYPE.match(text)
    name = (match[1] if match else text).lower()
    if name in _OURS:
        return MediaType(name)
    parameters = _parameters(match[2]) if match else {}
    strips_nulls = parameters.get("nulls") == "stripped"
    kind, _, suffix = name.partition("+")
    if kind == _PLAN and suffix in ("", "text", "json"):
        options = parameters.get("options", "").split("|")
        plan = PlanOptions(
            parse_media_type(parameters.get("for", JSON)),
            "json" if suffix == "json" else "text",
            tuple(option for option in _PLAN_OPTIONS if option in options),
        )
        return MediaType(f"{_PLAN}+{plan.format}", plan=plan)
    if kind == _OBJECT and suffix in ("", "json"):
        return MediaType(f"{_OBJECT}+json", strips_nulls)
    if kind == _ARRAY and suffix in ("", "json"):
        return MediaType(f"{_ARRAY}+json", strips_nulls=True) if strips_nulls else MediaType(JSON)
    return MediaType(text.lower())


ACCEPTED_COUNT_MAX = 64
"""Of a header; what follows is not heard."""


def parse_accept(header: str | None) -> tuple[MediaType, ...]:
    """What is accepted, the best first: by quality, and then by how much it says."""
    return _ANYTHING if header is None else _parse_accept(header)


@memoized
def _parse_accept(header: str) -> tuple[MediaType, ...]:
    weighed = []
    for part in header.replace(" ", "").split(",")[:ACCEPTED_COUNT_MAX]:
        text, _, rest = part.partition(";q=")
        quality = _QUALITY.match(rest)
        weight = float(quality[0]) if quality else 1.0
        weighed.append((weight, text.count(";") - text.count("*"), text))
    weighed.sort(key=lambda entry: entry[:2], reverse=True)  # stable: then as they were written
    return tuple(parse_media_type(text) for _, _, text in weighed)


def mime(media: MediaType) -> str:
    """As it stands in a header, with its parameters."""
    if media.plan is not None:
        options = "|".join(media.plan.options)
        return f'{media.name}; for="{mime(media.plan.of)}"' + (options and f"; options={options}")
    return f"{media.name};nulls=stripped" if media.strips_nulls else media.name


def content_type(media: MediaType) -> str:
    """Text of ours is in UTF-8; of what is not ours we cannot say."""
    is_text = media.name in _OURS or media.name in _VENDORED
    charset = "; charset=utf-8" if is_text and media.name != OCTETS else ""
    return mime(media) + charset


def _parameters(text: str) -> dict[str, str]:
    """Names in lowercase; of doubles the last counts."""
    return {
        name.lower(): in_quotes or plain for name, in_quotes, plain in _PARAMETERS.findall(text)
    }
