"""What an app says of caching with `ai/config`, for all of its calls or those of one route."""

import math
import re
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Scope: TypeAlias = Literal["user", "app", "off"]

THRESHOLD_MIN = 0.8
TTL_S_MAX = 30 * 86_400


class CachePolicy(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """Answers are kept where a route has one of these; there is none by default."""

    scope: Scope = "user"
    """`user`: an answer is for whoever got it. `app`: for everybody who may call the app."""
    ttl_s: Annotated[int, Meta(ge=1, le=TTL_S_MAX)] = 3600
    threshold: Annotated[float, Meta(ge=THRESHOLD_MIN, le=1)] | None = None
    """Cosine similarity from which on a question counts as the same; None takes equal ones only.
    0.95 is a good begin."""
    tools: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=1000)] = []
    """Tools that may be called again with no harm. Requests with others are not kept."""


class CacheControl(Struct, frozen=True):
    """What the client's `Cache-Control` asks for."""

    is_read: bool = True
    is_stored: bool = True
    age_s_max: float = math.inf


_NUMBER = re.compile(r"[0-9]{1,9}")


def parse_cache_control(header: str | None) -> CacheControl:
    """https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1; what is not known there is ignored."""
    if not header:
        return CacheControl()
    is_read = is_stored = True
    age_s_max = math.inf
    for directive in header.lower().split(","):
        name, _, value = (part.strip() for part in directive.partition("="))
        if name == "no-store":
            is_read = is_stored = False
        elif name == "no-cache":
            is_read = False
        elif name == "max-age" and _NUMBER.fullmatch(value := value.strip('"')):
            age_s_max = min(age_s_max, float(value))
    return CacheControl(is_read, is_stored, age_s_max)
