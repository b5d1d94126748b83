"""A whole chat completion ↔ ChatAnswer.

https://platform.openai.com/docs/api-reference/chat/object
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from butterbase.ai.errors import UpstreamInvalidError, UpstreamRefusedError
from butterbase.ai.wire.decoding import decode_upstream, present, raw_text, read, try_decode
from butterbase.ai.wire.failures import decode_stream_error
from butterbase.ai.wire.form import (
    NULL,
    ChatAnswer,
    Choice,
    Citation,
    Finish,
    Image,
    Part,
    Reasoning,
    Refusal,
    Signature,
    Stamp,
    Text,
    ToolCall,
)
from butterbase.ai.wire.media import data_url, parse_data_url
from butterbase.ai.wire.openai_chat.reasoning import (
    ExtraContent,
    ReasoningDetail,
    ThinkingBlock,
    google_signature,
    read_reasoning,
    render_google_signature,
    render_reasoning,
)
from butterbase.ai.wire.openai_chat.target import render_tool_call
from butterbase.ai.wire.usage import ChatUsage, render_chat_usage

FINISHES: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    # Of others who speak this form.
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "end_turn": "stop",
    "eos": "stop",
    "max_tokens": "length",
    "safety": "content_filter",
}
_RENDERED: dict[Finish, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "pause": "stop",
    "context_window": "length",
}


class WireFunction(Struct, frozen=True):
    name: str | None = None
    arguments: Raw = NULL
    """A text; some servers write the object itself."""

    def read_arguments(self) -> str:
        if bytes(self.arguments)[:1] in {b'"', b"n"}:
            return try_decode(_ARGUMENTS, self.arguments) or ""
        return raw_text(self.arguments)


class WireCustom(Struct, frozen=True):
    name: str | None = None
    input: str | None = None


class WireUrlCitation(Struct, frozen=True):
    url: str = ""
    title: str = ""
    start_index: int = 0
    end_index: int = 0


class WireAnnotation(Struct, frozen=True):
    type: str = ""
    url_citation: WireUrlCitation | None = None

    def read(self) -> list[Citation]:
        cited = self.url_citation
        if cited is None:
            return []
        return [Citation(cited.url, cited.title, cited.start_index, cited.end_index)]


class _ToolCall(Struct, frozen=True):
    id: str | None = None
    function: WireFunction | None = None
    custom: WireCustom | None = None
    extra_content: ExtraContent | None = None


class _ContentPart(Struct, frozen=True):
    type: str = ""
    text: str | None = None


class WireImageUrl(Struct, frozen=True):
    url: str = ""


class WireImage(Struct, frozen=True):
    image_url: WireImageUrl | None = None

    def read(self) -> list[Image]:
        if self.image_url is None or not self.image_url.url:
            return []
        if (found := parse_data_url(self.image_url.url)) is not None:
            return [Image(media_type=found[0], data=found[1])]
        return [Image(url=self.image_url.url)]


class _Message(Struct, frozen=True):
    images: list[WireImage] | None = None
    content: str | list[_ContentPart] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[ReasoningDetail] | None = None
    thinking_blocks: list[ThinkingBlock] | None = None
    annotations: list[WireAnnotation] | None = None
    extra_content: ExtraContent | None = None


class _Choice(Struct, frozen=True):
    message: _Message = _Message()
    error: Raw = NULL
    index: int = 0
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    """vLLM's: the stop text that was met."""
    logprobs: Raw = NULL


class _Answer(Struct, frozen=True):
    choices: list[_Choice] = []
    error: Raw = NULL
    id: str | None = None
    model: str | None = None
    created: int | float | None = None
    usage: ChatUsage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None


_ANSWER = msgspec.json.Decoder(_Answer)
_ARGUMENTS = msgspec.json.Decoder(str | None)


def decode_answer(body: bytes, stamp: Stamp) -> ChatAnswer:
    """Raises UpstreamInvalidError, UpstreamRefusedError."""
    wire = decode_upstream(_ANSWER, body)
    failed = [choice.error for choice in wire.choices if choice.error != NULL]
    if wire.error != NULL or failed:
        # OpenRouter answers 200 before it knows.
        raise UpstreamRefusedError(decode_stream_error(failed[0] if failed else body))
    if not wire.choices:
        raise UpstreamInvalidError("the answer has no choices")
    return ChatAnswer(
        id=wire.id or stamp.id,
        model=wire.model or stamp.model,
        created_s=int(wire.created or stamp.at_s),
        choices=tuple(_choice(choice, stamp) for choice in wire.choices),
        usage=read(wire.usage),
        service_tier=wire.service_tier,
        fingerprint=wire.system_fingerprint,
    )


def _choice(wire: _Choice, stamp: Stamp) -> Choice:
    message = wire.message
    parts: list[Part] = list(
        read_reasoning(
            details=message.reasoning_details,
            blocks=message.thinking_blocks,
            text=message.reasoning_content or message.reasoning,
        )
    )
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text or "" for part in content)
    if content:
        citations = [c for a in message.annotations or () for c in a.read()]
        signature = google_signature(message.extra_content)
        parts.append(Text(content, signature=signature, citations=tuple(citations)))
    parts += [image for wired in message.images or () for image in wired.read()]
    if message.refusal:
        parts.append(Refusal(message.refusal))
    calls = [
        _tool_call(call, missing_id(stamp, wire.index, number))
        for number, call in enumerate(message.tool_calls or ())
    ]
    finish = read_finish(wire.finish_reason, has_calls=bool(calls))
    stop = wire.stop_reason if isinstance(wire.stop_reason, str) else None
    return Choice(wire.index, (*parts, *calls), finish, stop, wire.logprobs)


def _tool_call(wire: _ToolCall, missing: str) -> ToolCall:
    signature = google_signature(wire.extra_content)
    if wire.custom is not None:
        name, text = wire.custom.name or "", wire.custom.input or ""
        return ToolCall(wire.id or missing, name, text, is_custom=True)
    function = wire.function or WireFunction()
    arguments = function.read_arguments()
    return ToolCall(wire.id or missing, function.name or "", arguments, signature=signature)


def missing_id(stamp: Stamp, choice: int, number: int) -> str:
    """The id of a call whose provider gave it none: no other of the conversation has it."""
    return f"call_{stamp.id}_{choice}_{number}"


def read_finish(reason: str | None, *, has_calls: bool) -> Finish | None:
    """Some servers say `stop` of an answer that calls tools."""
    if reason is None:
        return None
    finish = FINISHES.get(reason.lower(), "stop")
    return "tool_calls" if finish == "stop" and has_calls else finish


def render_finish(finish: Finish | None) -> str | None:
    return None if finish is None else _RENDERED[finish]


def encode_answer(answer: ChatAnswer) -> bytes:
    body = {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created_s,
        "model": answer.model,
        "choices": [
            {
                "index": choice.index,
                "message": _render_message(choice.parts),
                "logprobs": choice.logprobs,
                "finish_reason": render_finish(choice.finish or "stop"),
            }
            for choice in answer.choices
        ],
        **present({"service_tier": answer.service_tier, "system_fingerprint": answer.fingerprint}),
    }
    if answer.usage is not None:
        body["usage"] = render_chat_usage(answer.usage)
    return msgspec.json.encode(body)


def _render_message(parts: tuple[Part, ...]) -> dict[str, Any]:
    texts = [part for part in parts if isinstance(part, Text)]
    refusals = [part.text for part in parts if isinstance(part, Refusal)]
    calls = [render_tool_call(part) for part in parts if isinstance(part, ToolCall)]
    made: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(text.text for text in texts) if texts else None,
        "refusal": "".join(refusals) if refusals else None,
    }
    if calls:
        made["tool_calls"] = calls
    images = [render_image(part) for part in parts if isinstance(part, Image)]
    if images:
        made["images"] = images
    citations = _render_citations(texts)
    if citations:
        made["annotations"] = citations
    signatures: list[Signature] = [text.signature for text in texts if text.signature]
    if signatures:
        made |= render_google_signature(signatures[-1])
    return made | render_reasoning([part for part in parts if isinstance(part, Reasoning)])


def render_image(image: Image) -> dict[str, Any]:
    """As OpenRouter tells the pictures of a model; OpenAI's own models make none in this form."""
    url = image.url or data_url(image.media_type, image.data or "")
    return {"type": "image_url", "image_url": {"url": url}}


def _render_citations(texts: list[Text]) -> list[dict[str, Any]]:
    """Their places count from where all of the text begins."""
    rendered, offset = [], 0
    for text in texts:
        rendered += [render_citation(c, offset=offset) for c in text.citations]
        offset += len(text.text)
    return rendered


def render_citation(citation: Citation, *, offset: int = 0) -> dict[str, Any]:
    cited = {
        "url": citation.url,
        "title": citation.title,
        "start_index": citation.start + offset,
        "end_index": citation.end + offset,
    }
    return {"type": "url_citation", "url_citation": cited}
