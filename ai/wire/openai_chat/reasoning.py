"""Thoughts in OpenAI's chat form, which has no place for them but by custom.

`reasoning_content` (DeepSeek, vLLM, LiteLLM) and `reasoning` (OpenRouter, Ollama) are their text.
`reasoning_details` (OpenRouter) has their signatures too, and `format` says whose; it is what we
write beside the text. `thinking_blocks` (LiteLLM) has them as well. Google's own endpoint in this
form has the signature of a call in `extra_content`.
https://openrouter.ai/docs/use-cases/reasoning-tokens
https://ai.google.dev/gemini-api/docs/openai
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from butterbase.ai.wire.decoding import present
from butterbase.ai.wire.form import (
    Reasoning,
    Signature,
)

_FORMATS = {
    "anthropic": "anthropic-claude-v1",
    "gemini": "google-gemini-v1",
    "openai": "openai-responses-v1",
}
_ORIGINS = {name: origin for origin, name in _FORMATS.items()}


class ReasoningDetail(Struct, frozen=True):
    type: str = "reasoning.text"
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    format: str | None = None
    index: int | None = None

    @property
    def origin(self) -> str:
        return _ORIGINS.get(self.format or "", self.format or "unknown")


class ThinkingBlock(Struct, frozen=True):
    type: str = "thinking"
    thinking: str = ""
    signature: str | None = None
    data: str | None = None


class _Google(Struct, frozen=True):
    thought_signature: str | None = None


class ExtraContent(Struct, frozen=True):
    google: _Google | None = None


def google_signature(extra: ExtraContent | None) -> Signature | None:
    if extra is None or extra.google is None or not extra.google.thought_signature:
        return None
    return Signature(extra.google.thought_signature, "gemini")


def render_google_signature(signature: Signature | None) -> dict[str, Any]:
    """The field `extra_content`, or nothing."""
    if signature is None or signature.origin != "gemini":
        return {}
    return {"extra_content": {"google": {"thought_signature": signature.value}}}


def read_reasoning(
    *,
    details: Sequence[ReasoningDetail] | None,
    blocks: Sequence[ThinkingBlock] | None,
    text: str | None,
) -> list[Reasoning]:
    """The most exact of the three; they say the same."""
    if details:
        return list(merge(map(_detail, details)))
    if blocks:
        return [_block(block) for block in blocks]
    return [Reasoning(text)] if text else []


def _detail(detail: ReasoningDetail) -> Reasoning:
    if detail.type == "reasoning.encrypted" and detail.data:
        return Reasoning(signature=Signature(detail.data, detail.origin), is_redacted=True)
    signature = Signature(detail.signature, detail.origin) if detail.signature else None
    return Reasoning(detail.text or detail.summary or "", signature)


def _block(block: ThinkingBlock) -> Reasoning:
    if block.data:
        return Reasoning(signature=Signature(block.data, "anthropic"), is_redacted=True)
    signature = Signature(block.signature, "anthropic") if block.signature else None
    return Reasoning(block.thinking, signature)


def merge(thoughts: Iterable[Reasoning]) -> Iterable[Reasoning]:
    """Pieces of a stream that a client gives back one by one, joined up to their signature."""
    text = ""
    for thought in thoughts:
        if thought.is_redacted:
            if text:
                yield Reasoning(text)
            text = ""
            yield thought
        elif thought.signature is not None:
            yield Reasoning(text + thought.text, thought.signature)
            text = ""
        else:
            text += thought.text
    if text:
        yield Reasoning(text)


def render_detail(thought: Reasoning, index: int) -> dict[str, Any]:
    signature = thought.signature
    origin = signature.origin if signature else None
    form = None if origin is None else _FORMATS.get(origin, origin)
    if thought.is_redacted and signature is not None:
        return present(
            {
                "type": "reasoning.encrypted",
                "data": signature.value,
                "format": form,
                "index": index,
            }
        )
    return present(
        {
            "type": "reasoning.text",
            "text": thought.text,
            "signature": signature and signature.value,
            "format": form,
            "index": index,
        }
    )


def render_reasoning(thoughts: Sequence[Reasoning]) -> dict[str, Any]:
    """The fields of a message; the details only where they say more than the text."""
    if not thoughts:
        return {}
    fields: dict[str, Any] = {}
    if text := "".join(thought.text for thought in thoughts):
        fields["reasoning_content"] = text
    if any(thought.signature is not None for thought in thoughts):
        fields["reasoning_details"] = [render_detail(t, i) for i, t in enumerate(thoughts)]
    return fields
