"""A request → what tells it apart from all others whose answer may differ; without IO.

The key is made from the client's whole body, and not from what our decoders know of it: a field
that passes untouched to a provider of the same wire can change the answer as well.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from butterbase.ai.cache.policy import CachePolicy
from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.form import ChatRequest, File, Image, Part, ToolResult
from butterbase.ai.wire.protocols import WireName
from butterbase.ai.wire.trees import Tree, read_tree, write_sorted
from butterbase.sql.claims import SERVICE_ROLE

VERSION: Final = 1
"""Of the keys; another one finds nothing that was kept before."""

BODY_BYTES_MAX = 1024**2
QUESTION_LOAD_MAX = 250
"""How long a question may be to be compared by its meaning: the local model reads 256 pieces of
words, and two texts that differ behind them would be the same to it. A character of ASCII counts
half, since a piece has two of them and more; any other counts whole."""

Reason: TypeAlias = Literal[
    "anonymous", "body", "choices", "content", "stored", "too_large", "tools"
]
"""Why a request's answer is not kept. `stored`: it leans on what its provider keeps, or does
something there; `content`: a picture or file is named and not sent, so that it may change."""


class Asker(Struct, frozen=True):
    app_id: str
    role: str
    user_id: UUID | None
    key_id: UUID | None
    beta: str = ""
    """The client's `anthropic-beta`."""


class Canonical(Struct, frozen=True):
    key: bytes
    """SHA-256 over all that can change the answer, and whose answers are asked for."""
    space: bytes | None = None
    """The same without the last question's text, but with its figures: questions of one space may
    be compared by their meaning. None: this one must not be."""
    question: str = ""


class Uncacheable(Struct, frozen=True):
    reason: Reason


# What changes how an answer is told, or nothing at all. An answer of OpenAI's Responses repeats
# who asked, so there it counts.
_STREAM_FIELDS = ("model", "stream", "stream_options")
_SILENT_FIELDS: dict[WireName, tuple[str, ...]] = {
    WireName.CHAT: (
        *_STREAM_FIELDS,
        "user",
        "safety_identifier",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
    ),
    WireName.ANTHROPIC: (*_STREAM_FIELDS, "metadata", "cache_control"),
    WireName.RESPONSES: _STREAM_FIELDS,
}

# By what else a request reaches for something outside of itself.
_REACHING_FIELDS = (
    "audio",
    "background",
    "container",
    "conversation",
    "mcp_servers",
    "plugins",
    "previous_response_id",
    "prompt",
    "search_parameters",
    "store",
    "web_search_options",
)


def canonical(
    asker: Asker,
    wire: WireName,
    body: bytes,
    request: ChatRequest,
    targets: Sequence[Sequence[str]],
    policy: CachePolicy,
) -> Canonical | Uncacheable:
    """`request` is what the body says; `targets` are all models that may answer."""
    owner = _owner(asker, request, policy)
    reason = "anonymous" if owner is None else _obstacle(body, request, policy)
    if reason is not None:
        return Uncacheable(reason)
    try:
        tree = read_tree(body)
        if _reaches_out(wire, tree):
            return Uncacheable("stored")
        for name in _SILENT_FIELDS[wire]:
            tree.pop(name, None)
        asked = {name: value for name, value in tree.items() if value is not None}
        place = [VERSION, asker.app_id, policy.scope, owner, wire, asker.beta]
        place.append(sorted(map(list, targets)))
        key = _digest(["key", *place, asked])
        question = None if policy.threshold is None else _take_question(wire, asked)
        if question is None or not 0 < _load(question) <= QUESTION_LOAD_MAX:
            return Canonical(key)
        return Canonical(key, _digest(["space", *place, asked, _figures(question)]), question)
    except AiRequestError:
        return Uncacheable("body")


def _digest(parts: Sequence[object]) -> bytes:
    return hashlib.sha256(write_sorted(parts)).digest()


def _owner(asker: Asker, request: ChatRequest, policy: CachePolicy) -> str | None:
    """Whose answers these are; None is nobody's, who has no name to be told apart by."""
    if policy.scope == "app":
        return ""
    if asker.user_id is not None:
        return f"user:{asker.user_id}"
    if asker.role != SERVICE_ROLE:
        return None
    # A backend may ask for many people, and name them.
    backend = f"key:{asker.key_id}" if asker.key_id is not None else f"role:{asker.role}"
    return f"{backend}:{request.user or ''}"


def _obstacle(body: bytes, request: ChatRequest, policy: CachePolicy) -> Reason | None:
    if len(body) > BODY_BYTES_MAX:
        return "too_large"
    if request.choice_count > 1:
        return "choices"
    if not {tool.name for tool in request.tools} <= set(policy.tools):
        return "tools"
    if any(not _is_whole(part) for message in request.messages for part in message.parts):
        return "content"
    return None


def _reaches_out(wire: WireName, tree: Tree) -> bool:
    if any(tree.get(name) for name in _REACHING_FIELDS):
        return True
    # OpenAI keeps what its Responses answer, for later requests to refer to, unless told not to.
    return wire is WireName.RESPONSES and tree.get("store") is not False


def _is_whole(part: Part) -> bool:
    """Whether all of it is in the body, and so in the key."""
    if isinstance(part, ToolResult):
        return all(_is_whole(inner) for inner in part.parts)
    if isinstance(part, Image):
        return part.data is not None
    if isinstance(part, File):
        return part.data is not None or part.text is not None
    return True


# The question


def _take_question(wire: WireName, asked: Tree) -> str | None:
    """The text of the last turn, taken out of the tree; None unless it is a user's, of text alone.

    What stays keeps its place and shape.
    """
    name = "input" if wire is WireName.RESPONSES else "messages"
    turns = asked.get(name)
    if wire is WireName.RESPONSES and isinstance(turns, str):
        asked[name] = ""
        return turns
    if not isinstance(turns, list) or not turns:
        return None
    last = turns[-1]
    if not isinstance(last, dict) or last.get("role") != "user":
        return None
    content = last.get("content")
    if isinstance(content, str):
        last["content"] = ""
        return content
    if not isinstance(content, list) or len(content) != 1:
        return None
    return _take_text(content[0])


def _take_text(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type") not in {"text", "input_text"}:
        return None
    text = part.get("text")
    if not isinstance(text, str):
        return None
    part["text"] = ""
    return text


def _load(text: str) -> float:
    ascii_count = sum(map(str.isascii, text))
    return ascii_count / 2 + (len(text) - ascii_count)


_FIGURE = re.compile(r"\d+")


def _figures(question: str) -> list[str]:
    """Its numbers in their order: models of meaning hardly see them."""
    return _FIGURE.findall(question)
