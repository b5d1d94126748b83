"""The log's lines: each of ours begins one, and nothing that a client or SQL wrote does."""

import logging
from typing import Any

from butterbase.api.rest.header_fields import one_line


class LogFormatter(logging.Formatter):
    """A record is a line, and what follows of a traceback is indented below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging names it
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging names it
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802  logging names it
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"  {one_line(line)}" for line in text.splitlines())
