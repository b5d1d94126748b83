"""The process that reads one file, in a jail, and ends: `python -m butterbase.ai.documents.child`.

An order comes as a line of JSON on standard input, then the file's bytes; what is found goes to
standard output, a line of JSON each (ai/documents/blocks.py).
"""

import sys
from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from butterbase.ai.documents import jail, warming
from butterbase.ai.documents.assembly import clean, too_large
from butterbase.ai.documents.blocks import (
    MESSAGE_CHARS_MAX,
    Block,
    Done,
    Failure,
    Info,
    Line,
    Order,
)
from butterbase.ai.documents.errors import (
    DocumentError,
    DocumentMalformedError,
    DocumentTooComplexError,
    ParserUnavailableError,
)
from butterbase.ai.documents.reading import read
from butterbase.ai.documents.types import DocumentType

_ENCODER = msgspec.json.Encoder()


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    type_ = DocumentType(order.type)
    try:
        _shut_in(order)
        data = sys.stdin.buffer.read(order.byte_count)
        for line in _bounded(read(type_, data, order.source), order.text_chars_max):
            _tell(line)
        _tell(Done())
    except DocumentError as error:
        _tell(_failure(error))
    except MemoryError:
        _tell(_failure(DocumentTooComplexError()))
    except (ImportError, PermissionError) as error:  # what the jail keeps out
        _tell(_failure(ParserUnavailableError(f"reading stopped at a {type(error).__name__}")))
    except Exception as error:  # a library's stumbling over a broken file has any class
        _tell(_failure(DocumentMalformedError(f"reading ended with {type(error).__name__}")))


def _shut_in(order: Order) -> None:
    """Raises ParserUnavailableError."""
    try:
        warming.warm_up([DocumentType(type_) for type_ in order.types], order.source)
    except ImportError as error:
        raise ParserUnavailableError(
            f"a library that reads {order.type} is not installed: {error.name}"
        ) from error
    jail.limit(memory_bytes_max=order.memory_bytes_max, cpu_s_max=order.cpu_s_max)
    if order.is_jailed:
        try:
            jail.enter()
        except OSError as error:
            raise ParserUnavailableError(
                f"the process that reads files cannot be shut in: {error}",
                hint="documents_jail = false reads them without, where all who may send files are"
                " trusted",
            ) from error


def _bounded(lines: Iterator[Line], chars_max: int) -> Iterator[Line]:
    length = 0
    for line in lines:
        if isinstance(line, Block):
            line = replace(line, text=clean(line.text))
            length += len(line.text)
            if length > chars_max:
                raise too_large(chars_max)
        elif isinstance(line, Info):
            line = replace(
                line,
                title=clean(line.title),
                properties={name: clean(value) for name, value in line.properties.items()},
            )
        yield line


def _failure(error: DocumentError) -> Failure:
    hint = error.hint
    return Failure(
        error.code,
        error.message[:MESSAGE_CHARS_MAX],
        None if hint is None else hint[:MESSAGE_CHARS_MAX],
    )


def _tell(line: Line) -> None:
    sys.stdout.buffer.write(_ENCODER.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
