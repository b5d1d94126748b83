"""What a process says of errors, and what it logs, as the function's owner is to read it: with
the positions of their files, and without secrets.
"""

import logging
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from butterbase.api.functions.runtime.call import Thrown, parse_thrown
from butterbase.api.functions.runtime.errors import (
    FunctionFailedError,
    FunctionLoadError,
    FunctionResponseError,
    FunctionUnhandledError,
)
from butterbase.api.functions.runtime.frames import FrameError
from butterbase.api.functions.runtime.logs import LEVELS, MESSAGE_CHARS_MAX, Redactor
from butterbase.api.functions.runtime.model import CallContext, FunctionVersion, LogLine
from butterbase.api.functions.runtime.sourcemaps import SourceMap, map_stack, parse_source_map

logger = logging.getLogger(__name__)

_Failed = TypeVar("_Failed", bound=FunctionFailedError)


class _Logged(Struct, frozen=True):
    level: str
    message: str


class _Loaded(Struct, frozen=True):
    error: Raw = Raw()
    """Empty where there was none."""


_LOGGED: Final = msgspec.json.Decoder(_Logged)
_LOADED: Final = msgspec.json.Decoder(_Loaded)


class Interpreter:
    """Of one version."""

    def __init__(self, version: FunctionVersion) -> None:
        self._version = version
        self._redactor = Redactor(version)
        self._source_map: SourceMap | None = None
        self._is_map_read = False

    def failed(self, thrown: Thrown, context: CallContext) -> FunctionFailedError:
        """What a handler threw, or did not answer."""
        cls = FunctionResponseError if thrown.kind == "invalid" else FunctionFailedError
        return self._error(cls, thrown, context)

    def unhandled(self, thrown: Thrown, context: CallContext) -> FunctionUnhandledError:
        return self._error(FunctionUnhandledError, thrown, context)

    def load_error(self, payload: bytes) -> FunctionLoadError | None:
        """None when it was loaded. Raises FrameError."""
        try:
            told = _LOADED.decode(payload).error
        except msgspec.MsgspecError as error:
            raise FrameError(f"a report of loading: {error}") from error
        if not told:
            return None
        return self._error(FunctionLoadError, parse_thrown(told), None)

    def line(self, payload: bytes, context: CallContext, *, at_s: float) -> LogLine:
        """Raises FrameError."""
        try:
            logged = _LOGGED.decode(payload)
        except msgspec.MsgspecError as error:
            raise FrameError(f"a line of log: {error}") from error
        level = logged.level if logged.level in LEVELS else "info"
        text = logged.message[:MESSAGE_CHARS_MAX]
        if "\n    at " in text:
            text = map_stack(text, self._map())
        return LogLine(at_s, level, self._redactor.redact(text, context))

    def _error(self, cls: type[_Failed], thrown: Thrown, context: CallContext | None) -> _Failed:
        stack = map_stack(thrown.stack, self._map())
        redact = self._redactor.redact
        return cls(thrown=redact(thrown.text, context), stack=redact(stack, context))

    def _map(self) -> SourceMap | None:
        if not self._is_map_read and self._version.source_map:
            self._is_map_read = True
            try:
                self._source_map = parse_source_map(self._version.source_map)
            except ValueError as error:
                logger.warning("%r: %s", self._version, error)
        return self._source_map
