"""The parts of a message's content in OpenAI's chat form.

https://platform.openai.com/docs/api-reference/chat/create
"""

from typing import TypeAlias

from msgspec import Struct

from butterbase.ai.errors import AiRequestError
from butterbase.ai.wire.form import (
    CacheMark,
    File,
    Image,
    Part,
    Refusal,
    Text,
)
from butterbase.ai.wire.media import AUDIO_TYPES, parse_data_url


class CacheField(Struct, frozen=True):
    """Anthropic's mark, which OpenRouter and LiteLLM take in OpenAI's form, and OpenAI's own."""

    ttl: str | None = None

    def read(self) -> CacheMark:
        return CacheMark(self.ttl)


class _Marked(Struct, frozen=True, kw_only=True):
    cache_control: CacheField | None = None
    prompt_cache_breakpoint: CacheField | None = None

    @property
    def cache(self) -> CacheMark | None:
        mark = self.cache_control or self.prompt_cache_breakpoint
        return None if mark is None else mark.read()


class _TextPart(_Marked, frozen=True, tag="text"):
    text: str


class _RefusalPart(Struct, frozen=True, tag="refusal"):
    refusal: str


class _ImageUrl(Struct, frozen=True):
    url: str
    detail: str | None = None


class _ImagePart(_Marked, frozen=True, tag="image_url"):
    image_url: _ImageUrl | str


class _Audio(Struct, frozen=True):
    data: str
    format: str


class _AudioPart(_Marked, frozen=True, tag="input_audio"):
    input_audio: _Audio


class _FileField(Struct, frozen=True):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _FilePart(_Marked, frozen=True, tag="file"):
    file: _FileField


ContentPart: TypeAlias = _TextPart | _RefusalPart | _ImagePart | _AudioPart | _FilePart


def read_part(part: ContentPart) -> Part:
    match part:
        case _TextPart():
            return Text(part.text, part.cache)
        case _RefusalPart():
            return Refusal(part.refusal)
        case _ImagePart():
            given = part.image_url
            image = _ImageUrl(given) if isinstance(given, str) else given
            if (found := parse_data_url(image.url)) is not None:
                media_type, data = found
                return Image(
                    data=data, media_type=media_type, detail=image.detail, cache=part.cache
                )
            return Image(url=image.url, detail=image.detail, cache=part.cache)
        case _AudioPart():
            name = part.input_audio.format
            media_type = AUDIO_TYPES.get(name, f"audio/{name}")
            return File(data=part.input_audio.data, media_type=media_type, cache=part.cache)
        case _FilePart():
            return _file(part)


def _file(part: _FilePart) -> File:
    file = part.file
    if file.file_data is None:
        if file.file_id is None:
            raise AiRequestError("a file has file_data or file_id", param="messages")
        return File(file_id=file.file_id, name=file.filename, cache=part.cache)
    media_type, data = parse_data_url(file.file_data) or ("application/pdf", file.file_data)
    return File(data=data, media_type=media_type, name=file.filename, cache=part.cache)
