"""What the figures were taken on, so that a reader can judge them."""

import contextlib
import os
import platform
from pathlib import Path


def describe() -> str:
    """The processor and its cores."""
    return f"{_processor()}, {os.cpu_count()} cores"


def load_average() -> str:
    """Over the last minute: how many processes ran or waited for a core."""
    return f"{os.getloadavg()[0]:.2f}"


def rss_mb(pid: int) -> float:
    """Resident memory of the process. Raises OSError where there is no /proc."""
    return _field_kib(Path(f"/proc/{pid}/status").read_text(), "VmRSS") / 1024


def peak_rss_mb(pid: int) -> float:
    """The most the process ever held. Raises OSError where there is no /proc."""
    return _field_kib(Path(f"/proc/{pid}/status").read_text(), "VmHWM") / 1024


def child_rss_mb(pid: int) -> float | None:
    """Resident memory of the process's only child; None where there is no /proc to say so."""
    return _child_mb(pid, "VmRSS")


def child_peak_rss_mb(pid: int) -> float | None:
    """The most since `forget_peak`; None where there is no /proc to say so."""
    return _child_mb(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Have the child's peak start from what it holds now."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{child(pid)}/clear_refs").write_text("5")


def _child_mb(pid: int, field: str) -> float | None:
    try:
        status = Path(f"/proc/{child(pid)}/status").read_text()
    except OSError:
        return None
    return _field_kib(status, field) / 1024


def cpu_s(pid: int) -> float:
    """Processor time of the process and its descendants. Raises OSError where there is no /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    own = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_s(other) for other in _children(pid))


def tree_rss_mb(pid: int) -> float:
    """Resident memory of the process and its descendants, as above."""
    return rss_mb(pid) + sum(tree_rss_mb(other) for other in _children(pid))


def child(pid: int) -> int:
    """The process's only one. Raises OSError."""
    (only,) = _children(pid)
    return only


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _field_kib(status: str, name: str) -> int:
    (line,) = (line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
