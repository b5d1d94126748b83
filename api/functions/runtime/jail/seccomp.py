"""The filter of system calls of a process that runs functions, as a BPF program.

A process needs no socket: its only one is inherited. So none can be made, connected or listened on,
and nothing that reaches into other processes, the kernel's configuration or older namespaces is
left. Threads can be made, processes cannot. One `execve` is possible: the one that starts Deno,
known by the address of its path, which nothing after it knows.
https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html

Pure: names and numbers in, a program out.
"""

import errno
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from butterbase.sql.confinement import bpf

_CLONE_THREAD: Final = 0x00010000


class Architecture(Struct, frozen=True):
    audit: int
    """AUDIT_ARCH_…"""
    numbers: Mapping[str, int]


# Since Linux 5.1 new calls have the same number everywhere.
_COMMON: Final = {
    "pidfd_send_signal": 424,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "process_mrelease": 448,
    "open_tree_attr": 467,
}

# linux/arch/x86/entry/syscalls/syscall_64.tbl
_X86_64: Final = Architecture(
    0xC000003E,
    {
        **_COMMON,
        "socket": 41,
        "connect": 42,
        "accept": 43,
        "bind": 49,
        "listen": 50,
        "accept4": 288,
        "shmget": 29,
        "shmat": 30,
        "shmctl": 31,
        "semget": 64,
        "semop": 65,
        "semctl": 66,
        "msgget": 68,
        "msgsnd": 69,
        "msgrcv": 70,
        "msgctl": 71,
        "mq_open": 240,
        "clone": 56,
        "fork": 57,
        "vfork": 58,
        "execve": 59,
        "execveat": 322,
        "kill": 62,
        "tkill": 200,
        "tgkill": 234,
        "rt_sigqueueinfo": 129,
        "rt_tgsigqueueinfo": 297,
        "prlimit64": 302,
        "ptrace": 101,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "bpf": 321,
        "perf_event_open": 298,
        "userfaultfd": 323,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "mount": 165,
        "umount2": 166,
        "pivot_root": 155,
        "chroot": 161,
        "unshare": 272,
        "setns": 308,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "fanotify_init": 300,
        "fanotify_mark": 301,
        "init_module": 175,
        "delete_module": 176,
        "finit_module": 313,
        "kexec_load": 246,
        "kexec_file_load": 320,
        "reboot": 169,
        "swapon": 167,
        "swapoff": 168,
        "acct": 163,
        "quotactl": 179,
        "syslog": 103,
        "personality": 135,
        "sethostname": 170,
        "setdomainname": 171,
        "settimeofday": 164,
        "clock_settime": 227,
        "clock_adjtime": 305,
        "adjtimex": 159,
        "migrate_pages": 256,
        "move_pages": 279,
        "setpriority": 141,
        "sched_setscheduler": 144,
        "sched_setattr": 314,
        "ioprio_set": 251,
        "iopl": 172,
        "ioperm": 173,
        "modify_ldt": 154,
        "uselib": 134,
        "lookup_dcookie": 212,
        "vhangup": 153,
    },
)

# linux/include/uapi/asm-generic/unistd.h
_AARCH64: Final = Architecture(
    0xC00000B7,
    {
        **_COMMON,
        "socket": 198,
        "connect": 203,
        "accept": 202,
        "bind": 200,
        "listen": 201,
        "accept4": 242,
        "shmget": 194,
        "shmctl": 195,
        "shmat": 196,
        "semget": 190,
        "semctl": 191,
        "semop": 193,
        "msgget": 186,
        "msgctl": 187,
        "msgrcv": 188,
        "msgsnd": 189,
        "mq_open": 180,
        "clone": 220,
        "execve": 221,
        "execveat": 281,
        "kill": 129,
        "tkill": 130,
        "tgkill": 131,
        "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240,
        "prlimit64": 261,
        "ptrace": 117,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "bpf": 280,
        "perf_event_open": 241,
        "userfaultfd": 282,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "mount": 40,
        "umount2": 39,
        "pivot_root": 41,
        "chroot": 51,
        "unshare": 97,
        "setns": 268,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "fanotify_init": 262,
        "fanotify_mark": 263,
        "init_module": 105,
        "delete_module": 106,
        "finit_module": 273,
        "kexec_load": 104,
        "kexec_file_load": 294,
        "reboot": 142,
        "swapon": 224,
        "swapoff": 225,
        "acct": 89,
        "quotactl": 60,
        "syslog": 116,
        "personality": 92,
        "sethostname": 161,
        "setdomainname": 162,
        "settimeofday": 170,
        "clock_settime": 112,
        "clock_adjtime": 266,
        "adjtimex": 171,
        "migrate_pages": 238,
        "move_pages": 239,
        "setpriority": 140,
        "sched_setscheduler": 119,
        "sched_setattr": 274,
        "ioprio_set": 30,
        "lookup_dcookie": 18,
        "vhangup": 58,
    },
)

ARCHITECTURES: Final[Mapping[str, Architecture]] = {"x86_64": _X86_64, "aarch64": _AARCH64}
"""By `os.uname().machine`."""

# Allowed under a condition on their arguments; all others of the table are refused.
_CONDITIONAL: Final = frozenset({"clone", "execveat", "kill", "tgkill", "prlimit64"})
# glibc then takes `clone`, whose flags a filter can see.
_UNKNOWN: Final = frozenset({"clone3"})


def build(architecture: Architecture, *, pid: int, exec_path_address: int) -> bytes:
    """The program, 8 bytes an instruction, for one process.

    It may send signals to itself, and call `execveat` with this address of a path.
    """
    numbers = architecture.numbers
    program = bpf.load_number(architecture.audit)
    for name, number in numbers.items():
        if name not in _CONDITIONAL:
            code = errno.ENOSYS if name in _UNKNOWN else errno.EPERM
            program += bpf.on_number(number, [bpf.refuse(code)])
    program += bpf.on_number(
        numbers["clone"],
        [
            bpf.instruction(bpf.LOAD_WORD, bpf.argument(0)),
            bpf.instruction(bpf.AND, _CLONE_THREAD),
            bpf.instruction(bpf.IF_EQUAL, _CLONE_THREAD, if_false=1),
            bpf.allow(),
            bpf.refuse(errno.EPERM),
        ],
    )
    for name in ("kill", "tgkill"):
        program += bpf.on_number(numbers[name], _only(pid))
    program += bpf.on_number(numbers["prlimit64"], _only(0))
    program += bpf.on_number(
        numbers["execveat"],
        [
            bpf.instruction(bpf.LOAD_WORD, bpf.argument(1)),
            bpf.instruction(bpf.IF_EQUAL, exec_path_address & 0xFFFFFFFF, if_false=3),
            bpf.instruction(bpf.LOAD_WORD, bpf.argument(1) + 4),
            bpf.instruction(bpf.IF_EQUAL, exec_path_address >> 32, if_false=1),
            bpf.allow(),
            bpf.instruction(bpf.RETURN, bpf.KILL_PROCESS),
        ],
    )
    return b"".join([*program, bpf.allow()])


def _only(value: int) -> list[bytes]:
    """As the first argument."""
    return [
        bpf.instruction(bpf.LOAD_WORD, bpf.argument(0)),
        bpf.instruction(bpf.IF_EQUAL, value, if_false=1),
        bpf.allow(),
        bpf.refuse(errno.EPERM),
    ]
