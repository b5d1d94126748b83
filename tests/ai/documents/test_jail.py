"""What a process can do that has been shut in: nothing that matters, whoever has taken it over."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from butterbase.ai.documents import jail

pytestmark = pytest.mark.skipif(not jail.is_jail_known(), reason="no jail for this system")


def shut_in(attempt: str) -> subprocess.CompletedProcess[str]:
    """Run the attempt in a process that is jailed; prints `refused` for an OSError."""
    program = textwrap.dedent(
        """
        import ctypes, errno, mmap, os, signal, socket, subprocess, sys, threading, traceback
        sys.path[:0] = {path!r}
        from butterbase.ai.documents import jail
        libc = ctypes.CDLL(None, use_errno=True)
        jail.limit(memory_bytes_max=512 * 1024**2, cpu_s_max=5)
        jail.enter()
        try:
            {attempt}
        except (OSError, RuntimeError) as error:
            print("refused", type(error).__name__, flush=True)
        else:
            print("done", flush=True)
        os._exit(0)
        """
    ).format(path=[p for p in sys.path if p], attempt=attempt)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/planted', 'w')",
        "open('/proc/self/environ')",
        "os.listdir('/')",
        "os.stat('/etc/passwd')",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()",
        "os.fork()",
        "os.execv(sys.executable, [sys.executable])",
        "subprocess.run(['/bin/true'])",
        "threading.Thread(target=print).start()",
        "os.kill(os.getppid(), signal.SIGKILL)",
        "os.setuid(0)",
        "os.unlink('/tmp/planted')",
        "os.pipe()",
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
    ],
)
def test_it_is_refused(attempt: str) -> None:
    outcome = shut_in(attempt)
    assert outcome.stdout.startswith("refused"), outcome
    assert not Path("/tmp/planted").exists()  # noqa: S108  nothing is there


@pytest.mark.parametrize(
    "call",
    [
        "ptrace, 16, os.getppid(), 0, 0",
        "prctl, 22, 0, 0, 0",
        "mount, 0, 0, 0, 0",
        "unshare, 0x10000000",
        "process_vm_readv, os.getppid(), 0, 0, 0, 0, 0",
    ],
)
def test_a_call_past_python_is_refused(call: str) -> None:
    name, _, arguments = call.partition(", ")
    attempt = f"assert libc.{name}({arguments}) == -1; raise OSError(ctypes.get_errno(), '')"
    assert shut_in(attempt).stdout.startswith("refused"), call


def test_memory_is_bounded() -> None:
    attempt = "sys.stdout.write('kept' if bytearray(2 * 1024**3) else '')"
    assert "MemoryError" in shut_in(attempt).stderr


def test_processor_time_is_bounded() -> None:
    outcome = shut_in("any(map(int, iter(int, 1)))")
    assert outcome.returncode < 0
    assert "done" not in outcome.stdout


def test_what_is_needed_still_works() -> None:
    assert shut_in("len(bytearray(10**8)); os.write(1, b'')").stdout.startswith("done")


def test_a_system_without_a_jail_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "sparc")
    with pytest.raises(jail.JailError, match="sparc"):
        jail.enter()
