"""What a process that reads strangers' files may still do: compute, and write to its pipes.

It can open no file, no socket and no process, send no signal, and look into no other process;
memory and time are bounded. Where the kernel has no such jail, entering it fails: nothing is read
outside of it unless the operator says so. Linux on x86-64 and ARM alone.

https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html, seccomp(2), prctl(2)
"""

import contextlib
import errno
import os
import platform
import resource
import signal
import sys
from typing import Final

from butterbase.sql.confinement import bpf, prctl

NOBODY: Final = 65534

_PROT_EXEC: Final = 4

# Memory, the pipes that are open, clocks, signals to oneself that end it, and the end. What stands
# in the last tuple may not make memory that can be run.
_X86_64 = (
    0xC000003E,
    (
        0,  # read
        1,  # write
        3,  # close
        5,  # fstat
        8,  # lseek
        11,  # munmap
        12,  # brk
        13,  # rt_sigaction
        14,  # rt_sigprocmask
        15,  # rt_sigreturn
        19,  # readv
        20,  # writev
        24,  # sched_yield
        25,  # mremap
        28,  # madvise
        35,  # nanosleep
        39,  # getpid
        60,  # exit
        72,  # fcntl
        96,  # gettimeofday
        98,  # getrusage
        102,  # getuid
        104,  # getgid
        107,  # geteuid
        108,  # getegid
        131,  # sigaltstack
        186,  # gettid
        201,  # time
        202,  # futex
        204,  # sched_getaffinity
        228,  # clock_gettime
        229,  # clock_getres
        230,  # clock_nanosleep
        231,  # exit_group
        318,  # getrandom
    ),
    (9, 10),  # mmap, mprotect
)
_AARCH64 = (
    0xC00000B7,
    (
        63,  # read
        64,  # write
        57,  # close
        80,  # fstat
        62,  # lseek
        215,  # munmap
        214,  # brk
        134,  # rt_sigaction
        135,  # rt_sigprocmask
        139,  # rt_sigreturn
        65,  # readv
        66,  # writev
        124,  # sched_yield
        216,  # mremap
        233,  # madvise
        101,  # nanosleep
        172,  # getpid
        93,  # exit
        25,  # fcntl
        169,  # gettimeofday
        165,  # getrusage
        174,  # getuid
        176,  # getgid
        175,  # geteuid
        177,  # getegid
        132,  # sigaltstack
        178,  # gettid
        98,  # futex
        123,  # sched_getaffinity
        113,  # clock_gettime
        114,  # clock_getres
        115,  # clock_nanosleep
        94,  # exit_group
        278,  # getrandom
    ),
    (222, 226),
)
_ARCHITECTURES: Final = {"x86_64": _X86_64, "aarch64": _AARCH64}


class JailError(OSError):
    """The process could not be jailed."""


def is_jail_known() -> bool:
    return sys.platform == "linux" and platform.machine() in _ARCHITECTURES


def limit(*, memory_bytes_max: int, cpu_s_max: int) -> None:
    """Bound this process's memory and processor time; it writes no file and leaves no core."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s_max, cpu_s_max))
    if sys.platform == "linux":  # elsewhere address space cannot be bounded
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))


def enter() -> None:
    """Shut this process in, for good. All that it imports must be imported. Raises OSError."""
    if not is_jail_known():
        raise JailError(errno.ENOSYS, f"no jail for {sys.platform} on {platform.machine()}")
    parent = os.getppid()
    if os.geteuid() == 0:
        # A root without the right to do so may little else, and nothing of it in here.
        with contextlib.suppress(PermissionError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl.hide_memory()
    prctl.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        raise JailError(errno.ESRCH, "the parent process is gone")
    prctl.forbid_new_privileges()
    prctl.filter_system_calls(_program(*_ARCHITECTURES[platform.machine()]))


def _program(architecture: int, allowed: tuple[int, ...], mapping: tuple[int, ...]) -> bytes:
    """A filter of system calls: these are let through, others are told that they may not."""
    refuse = bpf.refuse(errno.EACCES)
    parts = bpf.load_number(architecture)
    for number in allowed:
        parts += bpf.on_number(number, [bpf.allow()])
    for number in mapping:
        protection = [
            bpf.instruction(bpf.LOAD_WORD, bpf.argument(2)),
            bpf.instruction(bpf.IF_ANY_BIT, _PROT_EXEC, if_false=1),
        ]
        parts += bpf.on_number(number, [*protection, refuse, bpf.allow()])
    return b"".join([*parts, refuse])
