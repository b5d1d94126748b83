"""An app's `logContent`: that the texts of its calls are kept, and for how long."""

from typing import Annotated

from msgspec import Meta, Struct


class ContentRules(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    days: Annotated[int, Meta(ge=1, le=90)] = 7
