"""Tokens of a call whose provider did not tell them: counted here, by the length of the texts.

A token is about four bytes of English. Where the bill depends on it, this is an estimate and no
bound: it stands for what was used, and not for what might have been.
"""

from collections.abc import Iterable, Sequence

from butterbase.ai.calls.asked import Asked, Endpoint
from butterbase.ai.errors import AiError
from butterbase.ai.providers.exchange import decode_whole
from butterbase.ai.wire.assembly import Assembly
from butterbase.ai.wire.form import (
    ChatAnswer,
    File,
    Image,
    Part,
    Reasoning,
    Refusal,
    Stamp,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from butterbase.ai.wire.wires import TARGET_WIRES

BYTES_PER_TOKEN = 4
MEDIA_TOKENS = 1_000
"""Of an image or a file, whose tokens nobody here can count."""

_MESSAGE_TOKENS = 4
"""That stand around each message."""

_STAMP = Stamp("", 0)


def count_prompt(asked: Asked) -> int:
    if asked.endpoint is Endpoint.EMBEDDINGS:
        return _tokens(len(asked.body))
    try:
        request = asked.form
    except AiError:  # it passed as it was
        return _tokens(len(asked.body))
    tokens = sum(_MESSAGE_TOKENS + _count(message.parts) for message in request.messages)
    return tokens + sum(
        _tokens(len(tool.schema) + len(tool.description or "") + len(tool.name))
        for tool in request.tools
    )


def count_answer(answer: ChatAnswer) -> int:
    return sum(_count(choice.parts) for choice in answer.choices)


def estimate(asked: Asked, answer: ChatAnswer | None) -> Usage:
    prompt = count_prompt(asked)
    completion = 0 if answer is None else count_answer(answer)
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def read_answer(asked: Asked, body: bytes) -> ChatAnswer | None:
    """A whole answer in the client's wire; None for one that cannot be read."""
    if asked.endpoint is Endpoint.EMBEDDINGS:
        return None
    try:
        return decode_whole(TARGET_WIRES[asked.endpoint.wire], body, _STAMP)
    except AiError:
        return None


def read_stream(asked: Asked, parts: Sequence[bytes]) -> ChatAnswer:
    """What a stream in the client's wire has told, whole or not."""
    assembly = Assembly()
    decoder = TARGET_WIRES[asked.endpoint.wire].stream_decoder(_STAMP)
    try:
        for part in parts:
            for event in decoder.feed(part):
                assembly.add(event)
    except (AiError, KeyError):
        pass
    return assembly.answer()


def _count(parts: Iterable[Part]) -> int:
    tokens = 0
    for part in parts:
        match part:
            case Text() | Refusal() | Reasoning():
                tokens += _tokens(len(part.text.encode("utf-8", "replace")))
            case ToolCall():
                tokens += _tokens(len(part.name) + len(part.arguments))
            case ToolResult():
                tokens += _count(part.parts)
            case Image() | File():
                tokens += MEDIA_TOKENS
    return tokens


def _tokens(byte_count: int) -> int:
    return -(-byte_count // BYTES_PER_TOKEN)
