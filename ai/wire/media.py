"""Pictures and files in texts: data URLs, and media types told by names.

https://www.rfc-editor.org/rfc/rfc2397
"""

import mimetypes
import re
from base64 import b64encode
from urllib.parse import unquote_to_bytes, urlsplit

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[^;,]*)*)(;base64)?,", re.ASCII)


def parse_data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64; None where it is no data URL."""
    found = _DATA_URL.match(url)
    if found is None:
        return None
    media_type, _, is_base64 = found.groups()
    rest = url[found.end() :]
    data = rest if is_base64 else b64encode(unquote_to_bytes(rest)).decode()
    return media_type or "text/plain", data


def data_url(media_type: str | None, data: str) -> str:
    return f"data:{media_type or 'application/octet-stream'};base64,{data}"


def guess_media_type(name: str | None) -> str | None:
    """By the ending of a file's name or a URL's path."""
    if not name:
        return None
    path = urlsplit(name).path if "://" in name else name
    return mimetypes.guess_type(path, strict=False)[0]


AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/aac": "aac",
    "audio/mp4": "m4a",
}
"""OpenAI's names for the media types of recordings."""

AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"} | {
    name: media_type for media_type, name in AUDIO_FORMATS.items() if name not in {"wav", "mp3"}
}
