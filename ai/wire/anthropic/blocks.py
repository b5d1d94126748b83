"""The blocks of Anthropic's messages, as they are written in requests and read from answers.

https://platform.claude.com/docs/en/api/messages
"""

from typing import Any, Literal, TypeAlias

from msgspec import Raw, Struct

from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.decoding import raw_text
from butterbase.ai.wire.form import (
    NULL,
    CacheMark,
    File,
    Image,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from butterbase.ai.wire.signatures import unseal

NATIVE = "anthropic"


class CacheControl(Struct, frozen=True):
    ttl: str | None = None

    def read(self) -> CacheMark:
        return CacheMark(self.ttl)


class Source(Struct, frozen=True):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: "str | list[TextBlock | ImageBlock] | None" = None


class Citations(Struct, frozen=True):
    enabled: bool | None = None


class _Block(Struct, frozen=True, kw_only=True):
    cache_control: CacheControl | None = None

    @property
    def cache(self) -> CacheMark | None:
        return None if self.cache_control is None else self.cache_control.read()


class TextBlock(_Block, frozen=True, tag="text"):
    text: str


class ImageBlock(_Block, frozen=True, tag="image"):
    source: Source


class DocumentBlock(_Block, frozen=True, tag="document"):
    source: Source
    title: str | None = None
    context: str | None = None
    citations: Citations | None = None


class SearchResultBlock(_Block, frozen=True, tag="search_result"):
    source: str
    title: str
    content: list[TextBlock]
    citations: Citations | None = None


class ThinkingBlock(Struct, frozen=True, tag="thinking"):
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Struct, frozen=True, tag="redacted_thinking"):
    data: str


class ToolUseBlock(_Block, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: Raw = NULL


ResultContent: TypeAlias = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock


class ToolResultBlock(_Block, frozen=True, tag="tool_result"):
    tool_use_id: str
    content: str | list[ResultContent] | None = None
    is_error: bool | None = None


RequestBlock: TypeAlias = (
    ResultContent | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock
)


def read_block(block: RequestBlock) -> Part:
    """Raises AiRequestError."""
    match block:
        case TextBlock():
            return Text(block.text, block.cache)
        case ImageBlock():
            return _image(block)
        case DocumentBlock():
            return _document(block)
        case SearchResultBlock():
            return _search_result(block)
        case ThinkingBlock():
            return Reasoning(block.thinking, unseal(block.signature, native=NATIVE))
        case RedactedThinkingBlock():
            signature = unseal(block.data, native=NATIVE)
            return Reasoning(signature=signature, is_redacted=signature is not None)
        case ToolUseBlock():
            return ToolCall(block.id, block.name, arguments(block.input), cache=block.cache)
        case ToolResultBlock():
            return _tool_result(block)


def arguments(given: Raw) -> str:
    return "{}" if given == NULL else raw_text(given)


def _image(block: ImageBlock) -> Image:
    source = block.source
    match source.type:
        case "base64" if source.data is not None:
            return Image(data=source.data, media_type=source.media_type, cache=block.cache)
        case "url" if source.url is not None:
            return Image(url=source.url, cache=block.cache)
        case "file" if source.file_id is not None:
            return Image(file_id=source.file_id, cache=block.cache)
    raise AiRequestError(f"an image with a source of type {source.type!r}", param="messages")


def _document(block: DocumentBlock) -> File:
    source = block.source
    common: dict[str, Any] = {
        "name": block.title,
        "context": block.context,
        "is_cited": bool(block.citations and block.citations.enabled),
        "cache": block.cache,
    }
    match source.type:
        case "base64" if source.data is not None:
            return File(data=source.data, media_type=source.media_type, **common)
        case "text" if source.data is not None:
            return File(text=source.data, media_type="text/plain", **common)
        case "url" if source.url is not None:
            return File(url=source.url, **common)
        case "file" if source.file_id is not None:
            return File(file_id=source.file_id, **common)
        case "content" if (text := _text(source.content)) is not None:
            return File(text=text, media_type="text/plain", **common)
    raise AiRequestError(f"a document with a source of type {source.type!r}", param="messages")


def _text(content: str | list[TextBlock | ImageBlock] | None) -> str | None:
    """None where it is more than texts."""
    if content is None or isinstance(content, str):
        return content
    texts = [block.text for block in content if isinstance(block, TextBlock)]
    return "\n\n".join(texts) if len(texts) == len(content) else None


def _search_result(block: SearchResultBlock) -> File:
    return File(
        text="\n\n".join(part.text for part in block.content),
        media_type="text/plain",
        name=block.title,
        context=f"Source: {block.source}",
        is_cited=bool(block.citations and block.citations.enabled),
        cache=block.cache,
    )


def _tool_result(block: ToolResultBlock) -> ToolResult:
    parts: list[Text | Image | File] = []
    if isinstance(block.content, str):
        parts.append(Text(block.content))
    for inner in () if isinstance(block.content, str) else block.content or ():
        part = read_block(inner)
        assert isinstance(part, Text | Image | File)
        parts.append(part)
    return ToolResult(
        block.tool_use_id, tuple(parts), is_error=bool(block.is_error), cache=block.cache
    )


Role: TypeAlias = Literal["user", "assistant", "system"]
