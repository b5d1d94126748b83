"""Text as it is, and Markdown, whose headings are found when it is cut into passages."""

import re
from collections.abc import Iterator

from butterbase.ai.documents.blocks import PROPERTY_CHARS_MAX, Block, Found, Info, Kind, Source
from butterbase.ai.documents.parsers.characters import decode

_FIRST_HEADING = re.compile(r"^ {0,3}#[ \t]+(.{1,300}?)[ \t]*#*[ \t]*$", re.MULTILINE)


def parse(data: bytes, source: Source) -> Iterator[Found]:
    yield Block(Kind.TEXT, decode(data, source.charset))


def parse_markdown(data: bytes, source: Source) -> Iterator[Found]:
    text = decode(data, source.charset)
    found = _FIRST_HEADING.search(text)
    yield Info(title=found[1][:PROPERTY_CHARS_MAX] if found else "", is_markdown=True)
    yield Block(Kind.TEXT, text)
