"""The log's lines: each of ours begins one, and nothing that a client or SQL wrote does.

What is logged as a Struct has fields of its own; as text it is the Struct's own JSON.
"""

import logging
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from butterbase.api.rest.header_fields import one_line


class LogFormatter(logging.Formatter):
    """A record is a line, and what follows of a traceback is indented below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging names it
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging names it
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802  logging names it
        return _indented(super().formatStack(stack_info))


class JsonFormatter(logging.Formatter):
    """A record is a JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname,
            "logger": record.name,
        }
        # Fields that are left out stay so, and none of them replaces one of ours.
        if isinstance(record.msg, Struct):
            fields: dict[str, object] = msgspec.json.decode(msgspec.json.encode(record.msg))
            line |= {name: value for name, value in fields.items() if name not in line}
        else:
            # Half of a surrogate pair is no text, and the record is written all the same.
            line["message"] = record.getMessage().encode("utf-8", "replace").decode()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return msgspec.json.encode(line).decode()


def _indented(text: str) -> str:
    return "\n".join(f"  {one_line(line)}" for line in text.splitlines())
