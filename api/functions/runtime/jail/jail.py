"""The jail of one process: what it gives up between fork and exec, in the order that works.

Descriptors → limits → user → no_new_privs → Landlock → seccomp → exec. Each step needs what the
next takes away. Runs in a forked child with one thread.
"""

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from butterbase.api.functions.runtime.jail import landlock, seccomp
from butterbase.sql.confinement import prctl

EXECUTABLE_FD: Final = 3
_RULESET_FD: Final = 4

V8_RESERVED_MB: Final = 544
"""Of RLIMIT_DATA, taken by V8 (15.0) before any code of a user's runs: measured."""

_AT_EMPTY_PATH: Final = 0x1000


class JailSpec(Struct, frozen=True):
    """What a process may have. Sent to the zygote as JSON."""

    uid: int | None
    """The user to become; None to stay who we are."""
    memory_mb: int
    descriptor_count_max: int = 128
    thread_count_max: int = 64
    """Counted by the kernel for each user, so only where the user is the process's own."""
    file_bytes_max: int = 256 * 1024
    """Of its standard error, the only file it can write to."""
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class Enclosure(Struct, frozen=True):
    """What the zygote opens once for all processes."""

    executable_fd: int
    ruleset: int | None
    """Of Landlock."""
    architecture: seccomp.Architecture | None
    is_linux: bool = sys.platform == "linux"


def open_enclosure(executable: str) -> Enclosure:
    """Raises OSError."""
    executable_fd = os.open(executable, os.O_RDONLY | os.O_CLOEXEC)
    ruleset = None
    if sys.platform == "linux" and (abi := landlock.version()):
        ruleset = landlock.create_ruleset(abi, landlock.Allowed(), executable_fd)
    return Enclosure(executable_fd, ruleset, seccomp.ARCHITECTURES.get(os.uname().machine))


def enter(
    spec: JailSpec,
    enclosure: Enclosure,
    executable: str,
    channel_fd: int,
    stderr_fd: int,
    parent: int,
) -> None:
    """Become the jailed process. Never returns; when it raises OSError, the caller must exit."""
    os.setsid()
    _take_descriptors(enclosure, channel_fd, stderr_fd)
    _limit(spec)
    if spec.uid is not None:
        os.setgroups([])
        os.setresgid(spec.uid, spec.uid, spec.uid)
        os.setresuid(spec.uid, spec.uid, spec.uid)
    # Whoever reads a process table or a ps sees a name, and the script.
    arguments = ["butterbase-function", *spec.arguments]
    if not enclosure.is_linux:
        os.execve(executable, arguments, spec.environment)  # noqa: S606  no shell
    prctl.forbid_new_privileges()
    # After the change of user, which clears it.
    prctl.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    if enclosure.ruleset is not None:
        landlock.restrict(_RULESET_FD)
        os.close(_RULESET_FD)
    _exec(enclosure, arguments, spec.environment)


def _take_descriptors(enclosure: Enclosure, channel_fd: int, stderr_fd: int) -> None:
    """The channel is standard input and output: the script needs nothing else."""
    # High first: what is to be moved may lie where something is to go.
    channel, stderr, executable = (
        _high(fd) for fd in (channel_fd, stderr_fd, enclosure.executable_fd)
    )
    ruleset = None if enclosure.ruleset is None else _high(enclosure.ruleset)
    os.dup2(channel, 0)
    os.dup2(channel, 1)
    os.dup2(stderr, 2)
    os.dup2(executable, EXECUTABLE_FD, inheritable=False)
    first_unused = EXECUTABLE_FD + 1
    if ruleset is not None:
        os.dup2(ruleset, _RULESET_FD, inheritable=False)
        first_unused = _RULESET_FD + 1
    os.closerange(first_unused, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _high(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)


def _limit(spec: JailSpec) -> None:
    data_bytes = (V8_RESERVED_MB + spec.memory_mb) * 1024**2
    limits = {
        resource.RLIMIT_DATA: data_bytes,
        resource.RLIMIT_NOFILE: spec.descriptor_count_max,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: spec.file_bytes_max,
    }
    if spec.uid is not None:
        limits[resource.RLIMIT_NPROC] = spec.thread_count_max
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bounded, bounded))


def _exec(enclosure: Enclosure, arguments: Sequence[str], environment: dict[str, str]) -> None:
    # A page at an address of the kernel's choice, with an empty path in it.
    path = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(path))
    argv = _strings(arguments)
    envp = _strings([f"{name}={value}" for name, value in environment.items()])
    if enclosure.architecture is None:
        raise OSError(f"there is no filter of system calls for {os.uname().machine}")
    program = seccomp.build(enclosure.architecture, pid=os.getpid(), exec_path_address=address)
    libc = ctypes.CDLL(None, use_errno=True)
    prctl.filter_system_calls(program)
    libc.syscall(
        enclosure.architecture.numbers["execveat"],
        EXECUTABLE_FD,
        ctypes.c_void_p(address),
        argv,
        envp,
        _AT_EMPTY_PATH,
    )
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))


def _strings(texts: Sequence[str]) -> "ctypes.Array[ctypes.c_char_p]":
    encoded = [text.encode() for text in texts]
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded, None)
