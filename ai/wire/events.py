"""The form of a streamed answer: its events, and the error that may end it."""

from typing import Literal, TypeAlias

from msgspec import Raw, Struct

from butterbase.ai.wire.form import NULL, Citation, Finish, Image, Signature, Usage

# What went wrong

ErrorKind: TypeAlias = Literal[
    "invalid_request",
    "context_window",
    "content_policy",
    "too_large",
    "authentication",
    "permission",
    "quota",
    "not_found",
    "rate_limit",
    "timeout",
    "overloaded",
    "server",
]
"""`quota`: somebody must pay first; `rate_limit`: waiting helps."""


class WireError(Struct, frozen=True, tag="error"):
    """An error, whichever wire tells it."""

    kind: ErrorKind
    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = {}
    """Those that tell when to try again."""
    hint: str | None = None


# The events of a stream


class Started(Struct, frozen=True, tag=True):
    """Comes first, and once."""

    id: str
    model: str
    created_s: int
    service_tier: str | None = None
    fingerprint: str | None = None


class TextDelta(Struct, frozen=True, tag=True):
    text: str
    choice: int = 0
    signature: Signature | None = None
    logprobs: Raw = NULL


class RefusalDelta(Struct, frozen=True, tag=True):
    text: str
    choice: int = 0


class ImageAdded(Struct, frozen=True, tag=True):
    """A picture that the model made, whole."""

    image: Image
    choice: int = 0


class CitationAdded(Struct, frozen=True, tag=True):
    citation: Citation
    choice: int = 0


class ReasoningDelta(Struct, frozen=True, tag=True):
    """More of the thoughts; a signature ends one stretch of them."""

    text: str = ""
    choice: int = 0
    signature: Signature | None = None
    is_redacted: bool = False


class ToolCallStarted(Struct, frozen=True, tag=True):
    index: int
    """Counts the calls of a choice from 0."""
    id: str
    name: str
    choice: int = 0
    is_custom: bool = False
    signature: Signature | None = None


class ToolCallDelta(Struct, frozen=True, tag=True):
    index: int
    arguments: str
    choice: int = 0


class Finished(Struct, frozen=True, tag=True):
    """A choice ended; its usage may still come."""

    finish: Finish
    choice: int = 0
    stop_sequence: str | None = None


class Told(Struct, frozen=True, tag=True):
    """The usage so far; the last one counts."""

    usage: Usage


class Failed(Struct, frozen=True, tag=True):
    """Comes last, in place of an end."""

    error: WireError


StreamEvent: TypeAlias = (
    Started
    | TextDelta
    | RefusalDelta
    | ImageAdded
    | CitationAdded
    | ReasoningDelta
    | ToolCallStarted
    | ToolCallDelta
    | Finished
    | Told
    | Failed
)
