"""What the kernel says of a process: processor time and memory, read from open files of /proc."""

import contextlib
import os
from typing import Final

NICENESS: Final = 5
"""Beyond the host's own, of a process that computes, so that it and quick calls are heard."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class ProcessMeter:
    """Of a child of ours, until closed; all are 0 where there is no /proc."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._descriptors: list[int] = []
        self._schedule = self._open(pid, "schedstat")
        self._memory = self._open(pid, "statm")

    def cpu_ns(self) -> int:
        """Of its first thread, on which JavaScript runs."""
        fields = self._read(self._schedule)
        return int(fields[0]) if fields else 0

    def memory_bytes(self) -> int:
        """Resident, without what it shares with others."""
        fields = self._read(self._memory)
        return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES if len(fields) > 2 else 0

    def step_back(self) -> None:
        """From now on its threads, and those that they make, run where nobody else wants to."""
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{self._pid}/task"):
                os.setpriority(os.PRIO_PROCESS, int(thread), niceness)

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._schedule = self._memory = None

    def _open(self, pid: int, name: str) -> int | None:
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
            self._descriptors.append(descriptor)
            return descriptor
        return None

    def _read(self, descriptor: int | None) -> list[bytes]:
        if descriptor is None:
            return []
        try:
            return os.pread(descriptor, 256, 0).split()
        except OSError:  # it is gone
            return []
