"""What a process gives up by itself, on Linux: prctl(2). Nothing of it can be taken back."""

import ctypes
import os
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_INSTRUCTION_BYTES: Final = 8


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("count", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def die_with_parent(number: int) -> None:
    """Be sent this signal when the parent is gone. A change of user undoes it. Raises OSError.

    The parent may be gone already: compare `os.getppid()` afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number))


def hide_memory() -> None:
    """Of this process, from others of its user: /proc and ptrace(2). Raises OSError."""
    _prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0))


def forbid_new_privileges() -> None:
    """By set-user-id programs and the like; filters need it. Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def filter_system_calls(program: bytes) -> None:
    """From now on, and in all children: a program of confinement/bpf.py. Raises OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    head = _Program(len(program) // _INSTRUCTION_BYTES, ctypes.addressof(code))
    _prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(head))


def _prctl(option: int, *arguments: object) -> None:
    unused = [ctypes.c_ulong(0)] * (4 - len(arguments))
    if ctypes.CDLL(None, use_errno=True).prctl(ctypes.c_int(option), *arguments, *unused):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
