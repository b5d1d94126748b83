"""The items of OpenAI's Responses API: a conversation is a list of them, and so is an answer.

What is one message in other wires is several items here: thoughts, texts and calls.
https://platform.openai.com/docs/api-reference/responses
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.decoding import try_decode
from butterbase.ai.wire.form import (
    NULL,
    CacheMark,
    Citation,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Signature,
    Text,
    ToolCall,
    ToolResult,
)
from butterbase.ai.wire.media import AUDIO_TYPES, guess_media_type, parse_data_url
from butterbase.ai.wire.signatures import seal, unseal

NATIVE = "openai"
_REDACTED, _OF_CALL = "_redacted", "_call"
"""Ends of an origin that say what a sealed signature belongs to."""


class Breakpoint(Struct, frozen=True):
    ttl: str | None = None


class Audio(Struct, frozen=True):
    data: str
    format: str


class Annotation(Struct, frozen=True):
    type: str = ""
    url: str = ""
    title: str = ""
    start_index: int = 0
    end_index: int = 0

    def read(self) -> Citation:
        return Citation(self.url, self.title, self.start_index, self.end_index)


class Content(Struct, frozen=True):
    """A part of any type's content."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: Audio | None = None
    annotations: list[Annotation] | None = None
    logprobs: Raw = NULL
    prompt_cache_breakpoint: Breakpoint | None = None

    @property
    def cache(self) -> CacheMark | None:
        mark = self.prompt_cache_breakpoint
        return None if mark is None else CacheMark(mark.ttl)


class Item(Struct, frozen=True):
    """An item of any type."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: Raw = NULL
    output: Raw = NULL
    summary: list[Content] | None = None
    encrypted_content: str | None = None


_TEXT = msgspec.json.Decoder(str)
_CONTENTS = msgspec.json.Decoder(list[Content])


# Reading


def read_messages(items: Iterable[Item]) -> list[Message]:
    """Items of one side that follow each other become one message. Raises AiRequestError."""
    messages: list[Message] = []
    for item in items:
        role, parts = _read(item)
        is_more = role in {"assistant", "tool"} and messages and messages[-1].role == role
        if is_more:
            parts = join(messages.pop().parts, parts)
        messages.append(Message(role, tuple(parts)))  # type: ignore[arg-type]
    return messages


def join(before: Iterable[Part], parts: Iterable[Part]) -> list[Part]:
    """The parts together; a signature that came for a call is given to it."""
    joined = list(before)
    for part in parts:
        last = joined[-1] if joined else None
        carried = last.signature if isinstance(last, Reasoning) and last.is_redacted else None
        if isinstance(part, ToolCall) and carried and carried.origin.endswith(_OF_CALL):
            origin = carried.origin.removesuffix(_OF_CALL)
            signature = Signature(carried.value, origin)
            joined[-1] = msgspec.structs.replace(part, signature=signature)
        else:
            joined.append(part)
    return joined


def _read(item: Item) -> tuple[str, list[Part]]:
    match item.type or "message":
        case "message":
            return _role(item.role), list(_read_content(item.content))
        case "reasoning" | "function_call" | "custom_tool_call":
            return "assistant", list(read_output(item))
        case "function_call_output" | "custom_tool_call_output":
            return "tool", [_read_result(item)]
        case other:
            raise AiRequestError(
                f"an item of type {other!r} is known to OpenAI only", param="input"
            )


def _role(role: str | None) -> str:
    if role not in {"user", "assistant", "system", "developer"}:
        raise AiRequestError(f"a message of the role {role!r}", param="input")
    return role


def read_output(item: Item) -> Iterator[Part]:
    """Of an answer's item; those of tools that OpenAI runs itself are not read."""
    match item.type:
        case "message":
            contents = item.content if isinstance(item.content, list) else []
            yield from (_part(c) for c in contents if c.type in {"output_text", "refusal"})
        case "reasoning":
            yield _read_reasoning(item)
        case "function_call":
            yield ToolCall(item.call_id or "", item.name or "", item.arguments or "")
        case "custom_tool_call":
            text = try_decode(_TEXT, item.input) or ""
            yield ToolCall(item.call_id or "", item.name or "", text, is_custom=True)
        case _:
            pass


def _read_reasoning(item: Item) -> Reasoning:
    written = item.content if isinstance(item.content, list) else []
    texts = [part.text or "" for part in written] or [p.text or "" for p in item.summary or ()]
    return _unsealed("\n\n".join(texts), item.encrypted_content)


def _unsealed(text: str, encrypted: str | None) -> Reasoning:
    signature = unseal(encrypted, native=NATIVE)
    if signature is not None and signature.origin.endswith(_REDACTED):
        origin = signature.origin.removesuffix(_REDACTED)
        return Reasoning(text, Signature(signature.value, origin), is_redacted=True)
    is_carrier = signature is not None and signature.origin.endswith(_OF_CALL)
    return Reasoning(text, signature, is_redacted=is_carrier)


def _read_result(item: Item) -> ToolResult:
    if item.call_id is None:
        raise AiRequestError("an output needs its call_id", param="input")
    text = try_decode(_TEXT, item.output)
    contents = [Content("input_text", text=text)] if text is not None else None
    if contents is None:
        contents = try_decode(_CONTENTS, item.output)
    if contents is None:
        raise AiRequestError("an output is a text or a list of contents", param="input")
    parts = [part for part in map(_part, contents) if isinstance(part, Text | Image | File)]
    is_custom = item.type == "custom_tool_call_output"
    return ToolResult(item.call_id, tuple(parts), is_custom=is_custom)


def _read_content(content: str | list[Content] | None) -> Iterator[Part]:
    if isinstance(content, str):
        yield Text(content)
    else:
        yield from map(_part, content or ())


def _part(content: Content) -> Part:
    match content.type:
        case "input_text" | "output_text" | "text":
            citations = [a.read() for a in content.annotations or () if a.type == "url_citation"]
            return Text(content.text or "", content.cache, citations=tuple(citations))
        case "refusal":
            return Refusal(content.refusal or "")
        case "input_image":
            return _image(content)
        case "input_file":
            return _file(content)
        case "input_audio" if content.input_audio is not None:
            audio = content.input_audio
            media_type = AUDIO_TYPES.get(audio.format, f"audio/{audio.format}")
            return File(data=audio.data, media_type=media_type)
        case other:
            raise AiRequestError(f"content of type {other!r} is not known", param="input")


def _image(content: Content) -> Image:
    detail = None if content.detail == "auto" else content.detail
    if content.image_url is None:
        if content.file_id is None:
            raise AiRequestError("input_image needs image_url or file_id", param="input")
        return Image(file_id=content.file_id, detail=detail, cache=content.cache)
    if (found := parse_data_url(content.image_url)) is not None:
        media_type, data = found
        return Image(data=data, media_type=media_type, detail=detail, cache=content.cache)
    return Image(url=content.image_url, detail=detail, cache=content.cache)


def _file(content: Content) -> File:
    name, cache = content.filename, content.cache
    if content.file_data is not None:
        found = parse_data_url(content.file_data)
        guessed = guess_media_type(name) or "application/pdf"
        media_type, data = found or (guessed, content.file_data)
        return File(data=data, media_type=media_type, name=name, cache=cache)
    if content.file_url is not None:
        return File(url=content.file_url, name=name, cache=cache)
    if content.file_id is None:
        raise AiRequestError("input_file needs file_data, file_url or file_id", param="input")
    return File(file_id=content.file_id, name=name, cache=cache)


# Writing


def render_text(text: Text) -> dict[str, Any]:
    return {
        "type": "output_text",
        "text": text.text,
        "annotations": [render_citation(citation) for citation in text.citations],
        "logprobs": [],
    }


def render_refusal(refusal: Refusal) -> dict[str, Any]:
    return {"type": "refusal", "refusal": refusal.text}


def render_citation(citation: Citation) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "url": citation.url,
        "title": citation.title,
        "start_index": citation.start,
        "end_index": citation.end,
    }


def render_message(item_id: str, contents: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {
        "type": "message",
        "id": item_id,
        "status": status,
        "role": "assistant",
        "content": contents,
    }


def render_reasoning(item_id: str, thought: Reasoning) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    made: dict[str, Any] = {"type": "reasoning", "id": item_id, "summary": summary}
    if thought.signature is not None:
        made["encrypted_content"] = sealed(thought)
    return made


def sealed(thought: Reasoning) -> str:
    signature = thought.signature
    if signature is not None and thought.is_redacted:
        signature = Signature(signature.value, signature.origin + _REDACTED)
    return seal(signature, native=NATIVE)


def render_call_signature(item_id: str, signature: Signature) -> dict[str, Any]:
    """An item of thoughts that carries it: calls have no place for one, and clients send back
    the thoughts that precede a call."""
    carried = Signature(signature.value, signature.origin + _OF_CALL)
    return render_reasoning(item_id, Reasoning("", carried))


def render_call(item_id: str, call: ToolCall, status: str) -> dict[str, Any]:
    common = {"id": item_id, "call_id": call.id, "name": call.name, "status": status}
    if call.is_custom:
        return {"type": "custom_tool_call", "input": call.arguments, **common}
    return {"type": "function_call", "arguments": call.arguments, **common}
