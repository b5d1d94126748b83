"""One file, read by a process of its own: started, fed, listened to, and ended.

What it says is bounded and checked, and whatever it does, it is over by a given time. A process
reads one file: nothing of it is left for the next.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from butterbase.ai.documents.assembly import Assembly, Extracted
from butterbase.ai.documents.blocks import (
    DECODER,
    Block,
    Done,
    Failure,
    Info,
    Line,
    Order,
    Progress,
    Source,
)
from butterbase.ai.documents.errors import (
    OF_PARSERS,
    DocumentError,
    DocumentTooComplexError,
    ParserCrashedError,
    ParserTimeoutError,
    ParserUnavailableError,
)
from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.documents.types import DocumentType, check_bytes, types_within

logger = logging.getLogger(__name__)

TEXT_CHARS_MAX: Final = 4 * 1024**2
"""A long book has one million."""
LINE_BYTES_MAX: Final = 4 * TEXT_CHARS_MAX + 64 * 1024
"""A line has a block, whose characters take up to four bytes."""
LINE_COUNT_MAX: Final = 250_000
YIELD_LINE_COUNT: Final = 200
"""Others get their turn after so many lines, which may all be there at once."""
_MODULE: Final = "butterbase.ai.documents.child"


class File(Struct, frozen=True):
    type: DocumentType
    data: bytes
    source: Source = Source()


class Parsing:
    """With the limits of the settings; how many at a time is the caller's to bound."""

    def __init__(self, settings: DocumentSettings) -> None:
        self._settings = settings

    async def parse(
        self, file: File, *, on_progress: Callable[[Progress], None] = lambda _: None
    ) -> Extracted:
        """The file's text. Raises DocumentError."""
        check_bytes(file.type, file.data)
        try:
            process = await _start()
        except OSError as error:
            raise ParserUnavailableError(f"no process can be started: {error.strerror}") from error
        feeding = asyncio.create_task(_feed(process, self._order(file), file.data))
        try:
            async with asyncio.timeout(self._settings.documents_parse_s):
                extracted = await _listen(process, on_progress)
                if extracted is None:
                    raise await self._ended_early(process)
                return extracted
        except TimeoutError:
            raise ParserTimeoutError(
                f"reading took longer than {self._settings.documents_parse_s} seconds",
                hint="send it in several parts",
            ) from None
        finally:
            feeding.cancel()
            await _end(process, feeding)

    def _order(self, file: File) -> bytes:
        settings = self._settings
        order = Order(
            file.type,
            [met.value for met in types_within(file.type, file.data)],
            len(file.data),
            settings.documents_parse_memory_bytes,
            settings.documents_parse_cpu_s,
            TEXT_CHARS_MAX,
            settings.documents_jail,
            file.source,
        )
        return msgspec.json.encode(order) + b"\n"

    async def _ended_early(self, process: Process) -> DocumentError:
        code = await process.wait()
        logger.warning("a process that read a document ended with %d", code)
        if code == -signal.SIGXCPU:
            return DocumentTooComplexError(
                f"reading took more than {self._settings.documents_parse_cpu_s} seconds of"
                " processor time",
                hint="send it in several parts",
            )
        return ParserCrashedError()


async def _start() -> Process:
    # Nothing of our environment, which has secrets in it.
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-s", "-B", "-X", "utf8", "-m", _MODULE),
        stdin=PIPE,
        stdout=PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
        cwd="/",
        limit=LINE_BYTES_MAX,
        start_new_session=True,
    )


async def _feed(process: Process, order: bytes, data: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(ConnectionError):  # it may end before it has read all
        process.stdin.write(order)
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _listen(process: Process, on_progress: Callable[[Progress], None]) -> Extracted | None:
    """None when it ended before it was done. Raises DocumentError."""
    assert process.stdout is not None
    assembly = Assembly(text_chars_max=TEXT_CHARS_MAX)
    for count in range(LINE_COUNT_MAX):
        if count % YIELD_LINE_COUNT == 0:
            await asyncio.sleep(0)
        try:
            line = await process.stdout.readline()
            said: Line | None = DECODER.decode(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):  # too long, or no line of ours
            raise _misspoken() from None
        match said:
            case None:
                return None
            case Block():
                assembly.add(said)
            case Info():
                assembly.describe(said)
            case Progress():
                on_progress(said)
            case Failure():
                raise _raised(said)
            case Done():
                return assembly.finish()
    raise _misspoken()


def _misspoken() -> ParserCrashedError:
    logger.warning("a process that read a document said what it should not")
    return ParserCrashedError()


def _raised(failure: Failure) -> DocumentError:
    cls = OF_PARSERS.get(failure.code, ParserCrashedError)
    return cls(failure.message, hint=failure.hint)


async def _end(process: Process, feeding: "asyncio.Task[None]") -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    transport = getattr(process, "_transport", None)
    if transport is not None:
        # `wait` is for the ends of the pipes as well, and of one that is not read there is none:
        # https://github.com/python/cpython/issues/119710
        for number in (0, 1):
            transport.get_pipe_transport(number).close()
    await process.wait()
    await asyncio.gather(feeding, return_exceptions=True)
    if transport is not None:
        transport.close()
