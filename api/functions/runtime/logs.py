"""What a function logs: bounded, and without secrets."""

import re
from collections.abc import Iterable
from typing import Final

from butterbase.api.functions.runtime.model import CallContext, FunctionVersion, LogLine

MESSAGE_CHARS_MAX: Final = 8192 + 1
LEVELS: Final = frozenset({"debug", "info", "warn", "error"})
REDACTED: Final = "[redacted]"

_SECRET_CHARS_MIN: Final = 6
"""A shorter value would be found in innocent words."""
_PUBLIC: Final = frozenset({"BUTTERBASE_APP_ID", "BUTTERBASE_API_URL", "SUPABASE_URL"})
# Credentials that the function was not given by us: of its callers, of other services.
_CREDENTIALS: Final = re.compile(
    r"(?i:\b(bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"
)


class Redactor:
    """Takes a function's secrets, and a call's, out of text."""

    def __init__(self, version: FunctionVersion) -> None:
        self._secrets = _ordered(
            value for name, value in version.env.items() if name not in _PUBLIC
        )

    def redact(self, text: str, context: CallContext | None) -> str:
        found = self._secrets
        if context is not None:
            own = (context.token, context.service_token, *context.env.values())
            found = [*_ordered(secret for secret in own if secret), *found]
        for secret in found:
            if secret in text:
                text = text.replace(secret, REDACTED)
        return _CREDENTIALS.sub(_without_credential, text)


class CallLogs:
    """The lines of one call."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._is_full = False
        self.lines: list[LogLine] = []

    def add(self, line: LogLine) -> LogLine | None:
        """The line that is kept, for those who read along; None when there is no room."""
        if self._is_full:
            return None
        self._bytes += len(line.message.encode("utf-8", "replace"))
        if len(self.lines) >= self._count_max or self._bytes > self._bytes_max:
            self._is_full = True
            line = LogLine(line.at, "warn", "more was logged than is kept; the rest is left out")
        self.lines.append(line)
        return line


def _ordered(secrets: Iterable[str]) -> list[str]:
    """The longest first: one may be a part of another."""
    found = {secret for secret in secrets if len(secret) >= _SECRET_CHARS_MIN}
    return sorted(found, key=len, reverse=True)


def _without_credential(found: re.Match[str]) -> str:
    return f"{found[1]} {REDACTED}" if found[1] else REDACTED
