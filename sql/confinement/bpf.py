"""Instructions of the classic BPF, of which filters of system calls are made.

https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html, linux/bpf_common.h,
linux/seccomp.h. Pure: numbers in, bytes out.
"""

import struct
from typing import Final

LOAD_WORD: Final = 0x20
AND: Final = 0x54
IF_EQUAL: Final = 0x15
IF_AT_LEAST: Final = 0x35
IF_ANY_BIT: Final = 0x45
RETURN: Final = 0x06

ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000

# Offsets in struct seccomp_data
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16

_X32_BIT: Final = 0x40000000


def instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    """8 bytes; jumps are counted in instructions, from the next one on."""
    return struct.pack("<HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def load_number(audit_architecture: int) -> list[bytes]:
    """The beginning of a filter: the call's number is loaded.

    What is of another architecture, as 32-bit calls are, ends the process. So do x32's calls, which
    are of the same one; no other has numbers as high.
    """
    return [
        instruction(LOAD_WORD, _ARCHITECTURE),
        instruction(IF_EQUAL, audit_architecture, if_true=1),
        instruction(RETURN, KILL_PROCESS),
        instruction(LOAD_WORD, _NUMBER),
        instruction(IF_AT_LEAST, _X32_BIT, if_false=1),
        instruction(RETURN, KILL_PROCESS),
    ]


def on_number(number: int, body: list[bytes]) -> list[bytes]:
    """The body for this call alone; it must return. The number stays loaded for what follows."""
    return [instruction(IF_EQUAL, number, if_false=len(body)), *body]


def allow() -> bytes:
    return instruction(RETURN, ALLOW)


def refuse(error: int) -> bytes:
    """The call is not made; its caller is told this errno."""
    return instruction(RETURN, _ERRNO | error)


def argument(index: int) -> int:
    """The offset of its lower half, on a little-endian machine."""
    return _ARGUMENTS + 8 * index
