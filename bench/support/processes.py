"""The functions process of an installation, and the memory of what it started."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .installation import FUNCTIONS, Installation, environment, running

READY: Final = 4
READY_WITHIN_S: Final = 60.0


class FunctionsProcess:
    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wait_ready(self) -> float:
        """Until the pool is full: megabytes of one of its processes, which share what they can.

        Raises TimeoutError.
        """
        deadline_s = time.monotonic() + READY_WITHIN_S
        while len(found := self._functions()) < READY or min(map(_cpu_ticks, found)) < 2:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{len(found)} processes were booted")
            time.sleep(0.05)
        time.sleep(0.5)
        return sum(_pss_mb(pid) for pid in found) / len(found)

    def loaded_mb(self) -> float:
        """Megabytes of the process that has worked most."""
        busiest = max(self._functions(), key=_cpu_ticks)
        return _pss_mb(busiest)

    def _functions(self) -> list[int]:
        return [below for child in _children(self._pid) for below in _children(child)]


@contextmanager
def functions_serving(
    installation: Installation, port: int, *, ready: int = READY
) -> Iterator[FunctionsProcess]:
    """`butterbase functions serve` beside the api at that port."""
    settings = {**environment(installation, port), "BUTTERBASE_FUNCTIONS_READY": str(ready)}
    with running(installation, FUNCTIONS, settings) as process:
        _wait_listening(installation.directory / "functions.sock", process)
        yield FunctionsProcess(process.pid)


def _wait_listening(path: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while not path.is_socket():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"the functions process did not come up: {process.poll()}")
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (pss,) = (line for line in lines if line.startswith("Pss:"))
    return int(pss.split()[1]) / 1024


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
