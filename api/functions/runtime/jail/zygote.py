"""The zygote: a thin process that forks the processes that run functions.

Forking it takes a fraction of what forking the host with its memory would, and holds nobody up. It
takes commands from the host on a SEQPACKET socket, and tells it of each process's start and end.
When it ends, however it ends, its processes end with it; it ends with the host.
"""

import array
import contextlib
import os
import select
import signal
import socket
import sys
import tempfile
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from butterbase.api.functions.runtime.jail.jail import JailSpec, enter, open_enclosure
from butterbase.sql.confinement import prctl

STDERR_BYTES_MAX: Final = 4096
MESSAGE_BYTES_MAX: Final = 256 * 1024


class Spawn(Struct, frozen=True, tag="spawn"):
    """With a descriptor: the process's end of its channel."""

    slot: int
    spec: JailSpec


class Kill(Struct, frozen=True, tag="kill"):
    pid: int


class Started(Struct, frozen=True, tag="started"):
    slot: int
    pid: int


class Ended(Struct, frozen=True, tag="ended"):
    pid: int
    status: int
    """As os.waitstatus_to_exitcode has it: below zero for a signal."""
    stderr: str


class Ready(Struct, frozen=True, tag="ready"):
    has_landlock: bool
    has_seccomp: bool


class Unable(Struct, frozen=True, tag="unable"):
    slot: int
    reason: str


Command: TypeAlias = Spawn | Kill
Report: TypeAlias = Started | Ended | Ready | Unable

COMMANDS: Final[msgspec.json.Decoder[Command]] = msgspec.json.Decoder(Command)
REPORTS: Final[msgspec.json.Decoder[Report]] = msgspec.json.Decoder(Report)


class Zygote:
    def __init__(self, control: socket.socket, executable: str) -> None:
        self._control = control
        self._executable = executable
        self._enclosure = open_enclosure(executable)
        self._stderr: dict[int, int] = {}
        """Process → its standard error, in memory."""

    def run(self) -> None:
        """Until the host closes the socket."""
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM):
            # The host says when to end.
            signal.signal(number, signal.SIG_IGN)
        enclosure = self._enclosure
        self._report(Ready(enclosure.ruleset is not None, enclosure.architecture is not None))
        while True:
            readable, _, _ = select.select([self._control.fileno(), wake], [], [])
            if wake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                self._reap()
            if self._control.fileno() in readable and not self._obey():
                return

    def _obey(self) -> bool:
        message, control_data, _, _ = self._control.recvmsg(
            MESSAGE_BYTES_MAX, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            return False
        descriptors = array.array("i")
        for _, _, data in control_data:
            descriptors.frombytes(data)
        match COMMANDS.decode(message):
            case Spawn(slot, spec):
                self._spawn(slot, spec, descriptors[0])
            case Kill(pid):
                # Of a process that was not waited for no other can have the number.
                if pid in self._stderr:
                    os.kill(pid, signal.SIGKILL)
        return True

    def _spawn(self, slot: int, spec: JailSpec, channel_fd: int) -> None:
        stderr_fd = _memory_file()
        try:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                self._become(spec, channel_fd, stderr_fd, parent)
        except OSError as error:
            os.close(stderr_fd)
            self._report(Unable(slot, str(error)))
        else:
            self._stderr[pid] = stderr_fd
            self._report(Started(slot, pid))
        finally:
            os.close(channel_fd)

    def _become(self, spec: JailSpec, channel_fd: int, stderr_fd: int, parent: int) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            enter(spec, self._enclosure, self._executable, channel_fd, stderr_fd, parent)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(2, f"jail: {type(error).__name__}: {error}".encode())
        finally:
            os._exit(126)

    def _reap(self) -> None:
        while self._stderr:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            stderr_fd = self._stderr.pop(pid, None)
            if stderr_fd is None:
                continue
            size = os.fstat(stderr_fd).st_size
            tail = os.pread(stderr_fd, STDERR_BYTES_MAX, max(0, size - STDERR_BYTES_MAX))
            os.close(stderr_fd)
            code = os.waitstatus_to_exitcode(status)
            self._report(Ended(pid, code, tail.decode("utf-8", "replace")))

    def _report(self, report: Report) -> None:
        self._control.sendall(msgspec.json.encode(report))


def _memory_file() -> int:
    """A file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stderr", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def main() -> None:
    """Arguments: descriptor of the control socket, path of Deno, process id of the host."""
    control_fd, executable, host = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if sys.platform == "linux":
        prctl.die_with_parent(signal.SIGKILL)
        if os.getppid() != host:
            return
    control = socket.socket(fileno=control_fd)
    try:
        Zygote(control, executable).run()
    except (BrokenPipeError, ConnectionResetError):
        pass
    except OSError as error:
        sys.exit(f"zygote: {error}")


if __name__ == "__main__":
    main()
