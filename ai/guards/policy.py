"""What an app says of its guards with `ai/config`, for all of its calls or those of one route."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Kind: TypeAlias = Literal["secret", "email", "phone", "card"]


class GuardPolicy(
    Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    input_bytes_max: Annotated[int, Meta(ge=1)] | None = None
    """Of the request's body."""
    redact: Annotated[list[Kind], Meta(max_length=4)] = []
    """Kinds of values that the provider gets placeholders for; the client does not see them."""
    injection: Literal["off", "mark", "block"] = "off"
    """What becomes of texts that read as if they gave the model new orders."""
    tools: Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=1000)] | None = (
        None
    )
    """The tools that a request may offer, `*` at the end stands for any rest; None allows all."""
