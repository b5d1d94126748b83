"""What a function logs: bounded, and without secrets."""

import functools
import re
from typing import Final

from butterbase.api.functions.runtime.model import CallContext, FunctionVersion, LogLine
from butterbase.api.functions.runtime.secret_forms import forms_of

MESSAGE_CHARS_MAX: Final = 8192 + 1
LEVELS: Final = frozenset({"debug", "info", "warn", "error"})
REDACTED: Final = "[redacted]"

_PUBLIC: Final = frozenset({"BUTTERBASE_APP_ID", "BUTTERBASE_API_URL", "SUPABASE_URL"})
# Credentials that the function was not given by us: of its callers, of other services.
_CREDENTIALS: Final = re.compile(
    r"(?i:\b(bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"
)

_CREDENTIAL_WORDS: Final = ("bearer", "basic", "eyj")


class Redactor:
    """Takes a function's secrets, and a call's, out of text."""

    def __init__(self, version: FunctionVersion) -> None:
        self._version = version
        self._of_call: tuple[CallContext, list[str]] | None = None

    def redact(self, text: str, context: CallContext | None) -> str:
        for form in self._forms_of(context):
            if form in text:
                text = text.replace(form, REDACTED)
        lower = text.lower()
        if any(word in lower for word in _CREDENTIAL_WORDS):
            text = _CREDENTIALS.sub(_without_credential, text)
        return text

    def _forms_of(self, context: CallContext | None) -> list[str]:
        """A call says several things one after the other."""
        if context is None:
            return self._forms
        if self._of_call is None or self._of_call[0] is not context:
            own = (context.token, context.service_token, *context.env.values())
            forms = [*forms_of(secret for secret in own if secret), *self._forms]
            self._of_call = context, forms
        return self._of_call[1]

    @functools.cached_property
    def _forms(self) -> list[str]:
        """Not before they are needed: a cold call waits for what is made as it is loaded."""
        env = self._version.env
        return forms_of(value for name, value in env.items() if name not in _PUBLIC)


class CallLogs:
    """The lines of one call."""

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self.is_full = False
        self.lines: list[LogLine] = []

    def add(self, line: LogLine) -> LogLine | None:
        """The line that is kept, for those who read along; None when there is no room."""
        if self.is_full:
            return None
        self._bytes += len(line.message.encode("utf-8", "replace"))
        if len(self.lines) >= self._count_max or self._bytes > self._bytes_max:
            self.is_full = True
            line = LogLine(line.at, "warn", "more was logged than is kept; the rest is left out")
        self.lines.append(line)
        return line


def _without_credential(found: re.Match[str]) -> str:
    return f"{found[1]} {REDACTED}" if found[1] else REDACTED
