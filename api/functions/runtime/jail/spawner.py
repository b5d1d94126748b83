"""The host's end of the zygote: asks it for processes, and hears of their ends."""

import array
import asyncio
import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

import msgspec

from butterbase.api.functions.runtime.errors import JailError
from butterbase.api.functions.runtime.jail.jail import JailSpec
from butterbase.api.functions.runtime.jail.zygote import (
    MESSAGE_BYTES_MAX,
    REPORTS,
    Ended,
    Kill,
    Ready,
    Spawn,
    Started,
    Unable,
)

logger = logging.getLogger(__name__)

START_WITHIN_S: Final = 20.0

_MODULE: Final = "butterbase.api.functions.runtime.jail.zygote"
# What Python needs to find our modules, and nothing that is a secret.
_INHERITED: Final = ("PYTHONHOME", "VIRTUAL_ENV", "PATH", "LANG", "LC_ALL")


class Spawned:
    """A process and our end of its channel."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()


class Spawner:
    """One zygote, and the processes that it forked."""

    def __init__(self, executable: str) -> None:
        self._executable = executable
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._slots = 0
        self._starting: dict[int, tuple[asyncio.Future[Spawned], socket.socket]] = {}
        self._running: dict[int, Spawned] = {}
        self._ready: asyncio.Future[Ready] | None = None
        self._is_closing = False
        self.ended: asyncio.Future[None] | None = None
        """Done when the zygote is gone, and its processes with it."""

    async def start(self) -> Ready:
        """Raises JailError."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES_MAX)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # It is to find this same code.
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        # In this thread: when the one that forked it ends, so does the zygote.
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603  it takes milliseconds, once
            [
                *(sys.executable, "-P", "-m", _MODULE),
                *(str(theirs.fileno()), self._executable, str(os.getpid())),
            ],
            pass_fds=(theirs.fileno(),),
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self._control = ours
        self._ready = loop.create_future()
        self.ended = loop.create_future()
        loop.add_reader(ours.fileno(), self._read)
        try:
            async with asyncio.timeout(START_WITHIN_S):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise JailError("the process that starts functions' processes does not start") from None
        finally:
            if not self._ready.done() or self._ready.exception() is not None:
                self.close()

    async def spawn(self, spec: JailSpec) -> Spawned:
        """Raises JailError."""
        control = self._control
        if control is None:
            raise JailError("the process that starts functions' processes is gone")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._slots += 1
        slot = self._slots
        started: asyncio.Future[Spawned] = asyncio.get_running_loop().create_future()
        try:
            ours.setblocking(False)
            descriptors = array.array("i", [theirs.fileno()])
            control.sendmsg(
                [msgspec.json.encode(Spawn(slot, spec))],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)],
            )
        except OSError as error:
            ours.close()
            raise JailError(f"no process can be started: {error}") from error
        finally:
            theirs.close()
        self._starting[slot] = (started, ours)
        try:
            return await started
        except asyncio.CancelledError:
            if started.done() and not started.cancelled() and started.exception() is None:
                started.result().channel.close()
                self.kill(started.result().pid)
            raise

    def kill(self, pid: int) -> None:
        if self._control is not None and pid in self._running:
            with contextlib.suppress(OSError):
                self._control.send(msgspec.json.encode(Kill(pid)))

    def close(self) -> None:
        """End all processes, and wait for the zygote, which has nothing left to do."""
        self._is_closing = True
        self._lose()
        if self._process is not None:
            # Its own processes die with it.
            self._process.kill()
            self._process.wait()
            self._process = None

    def _read(self) -> None:
        assert self._control is not None
        while self._control is not None:
            try:
                message = self._control.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                if not self._is_closing:
                    logger.error("the process that starts functions' processes ended")
                self._lose()
                return
            self._hear(REPORTS.decode(message))

    def _hear(self, report: Started | Ended | Ready | Unable) -> None:
        match report:
            case Ready():
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(report)
            case Started(slot, pid):
                started, channel = self._starting.pop(slot)
                spawned = Spawned(pid, channel)
                self._running[pid] = spawned
                if started.cancelled():
                    channel.close()
                    self.kill(pid)
                else:
                    started.set_result(spawned)
            case Unable(slot, reason):
                started, channel = self._starting.pop(slot)
                channel.close()
                if not started.cancelled():
                    started.set_exception(JailError(f"no process can be started: {reason}"))
            case Ended(pid):
                spawned_before = self._running.pop(pid, None)
                if spawned_before is not None and not spawned_before.ended.done():
                    spawned_before.ended.set_result(report)

    def _lose(self) -> None:
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(
                JailError("the process that starts functions' processes cannot run")
            )
        for started, channel in self._starting.values():
            channel.close()
            if not started.done():
                started.set_exception(JailError("the process could not be started"))
                started.exception()  # nobody may wait for it any more
        self._starting.clear()
        for pid, spawned in self._running.items():
            if not spawned.ended.done():
                spawned.ended.set_result(Ended(pid, -9, ""))
        self._running.clear()
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)


def find_deno(given: str | None) -> str:
    """The executable's path. Raises JailError."""
    beside = Path(sysconfig.get_path("scripts"), "deno")
    for path in (given, str(beside), shutil.which("deno")):
        if path and os.access(path, os.X_OK):
            return path
        if given:
            break
    raise JailError(
        "there is no Deno" + (f" at {given}" if given else ""),
        hint="install butterbase[functions], or set functions_deno",
    )
