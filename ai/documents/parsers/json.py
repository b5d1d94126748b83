"""JSON, and JSON by the line: a line for each record, or for each value with the path to it."""

from collections.abc import Iterator
from typing import Any

import msgspec

from butterbase.ai.documents.blocks import Block, Found, Kind, Source
from butterbase.ai.documents.errors import DocumentMalformedError, DocumentTooComplexError
from butterbase.ai.documents.parsers.characters import decode

DEPTH_MAX = 100
GROUP_LINE_COUNT = 50


def parse(data: bytes, source: Source) -> Iterator[Found]:
    text = decode(data, source.charset)
    try:
        value = msgspec.json.decode(text)
    except RecursionError as error:
        raise DocumentTooComplexError(f"it is nested deeper than {DEPTH_MAX}") from error
    except msgspec.DecodeError as error:
        if not (text.count("\n") and (records := _records(text))):
            raise DocumentMalformedError(f"the JSON cannot be read: {error}") from error
        value = records
    lines = list(_lines(value))
    for start in range(0, len(lines), GROUP_LINE_COUNT):
        yield Block(Kind.TEXT, "\n".join(lines[start : start + GROUP_LINE_COUNT]))


def _records(text: str) -> list[Any]:
    """Of JSON by the line; [] where it is not. https://jsonlines.org"""
    try:
        return [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
    except (msgspec.DecodeError, RecursionError):
        return []


def _lines(value: Any) -> Iterator[str]:
    """A record of plain values is one line: `name: Ann; address.city: Paris`."""
    if isinstance(value, list):
        for item in value:
            if record := "; ".join(_pairs(item, "", DEPTH_MAX)):
                yield record
    else:
        yield from _pairs(value, "", DEPTH_MAX)


def _pairs(value: Any, path: str, depth: int) -> Iterator[str]:
    if not depth:
        raise DocumentTooComplexError(f"it is nested deeper than {DEPTH_MAX}")
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _pairs(inner, f"{path}.{name}" if path else name, depth - 1)
    elif isinstance(value, list):
        if all(not isinstance(item, dict | list) for item in value):
            if text := ", ".join(filter(None, map(_text, value))):
                yield f"{path}: {text}" if path else text
            return
        for at, item in enumerate(value):
            yield from _pairs(item, f"{path}[{at}]", depth - 1)
    elif text := _text(value):
        yield f"{path}: {text}" if path else text


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case _:
            return str(value)
