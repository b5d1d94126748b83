"""The `butterbase` command as a user runs it: real processes, told apart by /proc."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BUTTERBASE = str(Path(sys.executable).with_name("butterbase"))
DEADLINE_S = 60.0

_OF_OTHERS = re.compile(r"BUTTERBASE_|(DATABASE_URL|OPENAI_API_KEY)$")


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would be a setting."""
    return {n: v for n, v in os.environ.items() if not _OF_OTHERS.match(n)} | more


def butterbase(*arguments: str, cwd: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [BUTTERBASE, *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=180,
    )


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line of a command that was refused.

    A warning may stand before it: of a checkout below a closed directory, run by root.
    """
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if " WARNING " not in line]
    assert line.startswith("butterbase: ")
    return line


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        time.sleep(0.02)


class Process(NamedTuple):
    pid: int
    started: str
    """Ticks since boot: the same id may be another process later."""
    command: str

    @property
    def is_running(self) -> bool:
        return self in processes()


class _Status(NamedTuple):
    process: Process
    parent: int


def processes() -> set[Process]:
    """All but zombies."""
    return {status.process for status in _statuses()}


def descendants(pid: int) -> set[Process]:
    statuses = _statuses()
    found, parents = set[Process](), {pid}
    while parents:
        children = {s.process for s in statuses if s.parent in parents}
        parents = {child.pid for child in children - found}
        found |= children
    return found


def _statuses() -> list[_Status]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            # What follows the name, which may hold anything: proc_pid_stat(5), from field 3 on.
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            process = Process(int(directory.name), fields[19], command)
            found.append(_Status(process, int(fields[1])))
    return found


class Up:
    """`butterbase up` on one data directory, started and stopped as often as a test likes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        """Where it runs; the data is in .butterbase."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = ""
        self.log = directory / "up.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def anon_key(self) -> str:
        return self._printed(r"anon key +(\S+)")

    @property
    def service_role_key(self) -> str:
        return self._printed(r"service_role +(\S+)")

    def _printed(self, pattern: str) -> str:
        match = re.search(pattern, self.output)
        assert match is not None, self.output
        return match[1]

    def start(self) -> None:
        assert not self.is_running
        out = self.directory / "up.out"
        with out.open("wb") as stdout, self.log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [BUTTERBASE, "up", "--port", str(self.port)],
                cwd=self.directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

        def is_up() -> bool:
            assert self.is_running, self.log.read_text()
            return "Ctrl-C stops everything" in out.read_text()

        wait_until(is_up, "butterbase up prints its banner")
        self.output = out.read_text()

    def interrupt(self, *, group: bool = False) -> int:
        """Ctrl-C, and the status that it ended with. A terminal sends it to the whole group."""
        assert self._process is not None
        (os.killpg if group else os.kill)(self.pid, signal.SIGINT)
        return self._process.wait(DEADLINE_S)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE_S)

    def child(self, name: str) -> Process:
        """The process of that command; there is a moment without one when it is restarted."""

        def found() -> list[Process]:
            command = f"-m butterbase.cli {name}"
            return [p for p in self._children() if p.command.endswith(command)]

        wait_until(lambda: bool(found()), f"a process {name}")
        return found()[0]

    def _children(self) -> set[Process]:
        return {s.process for s in _statuses() if s.parent == self.pid}
