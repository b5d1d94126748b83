"""Landlock: of the file system a process may open what Deno's start needs, and no more.

It holds also for code that has broken out of V8. Kernels before 5.13, and some containers, are
without it.
https://www.kernel.org/doc/html/latest/userspace-api/landlock.html
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIRECTORY: Final = 1 << 3
# The rights that each ABI version knows, of files, of TCP, and what stays within.
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 5: 16}
_TCP_RIGHTS: Final = 0b11
_SCOPES: Final = 0b11  # abstract unix sockets, signals
_TCP_SINCE: Final = 4
_SCOPES_SINCE: Final = 6

LIBRARIES: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64"),
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/usr/local/lib", "/nix/store"),
)
READABLE: Final = (
    *("/dev/urandom", "/dev/random", "/dev/zero"),
    *("/usr/share/zoneinfo", "/etc/localtime"),
)
WRITABLE: Final = ("/dev/null",)


class Allowed(Struct, frozen=True):
    """Paths; those that are not there are left out."""

    executable: tuple[str, ...] = LIBRARIES
    readable: tuple[str, ...] = READABLE
    writable: tuple[str, ...] = WRITABLE
    owned: tuple[str, ...] = ()
    """Directories in which everything may be done."""


def version() -> int:
    """The kernel's ABI version; 0 when it has no Landlock."""
    found: int = _libc().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return max(found, 0)


def create_ruleset(abi: int, allowed: Allowed, executable_fd: int) -> int:
    """A descriptor for `restrict`. The file of `executable_fd` may be executed. Raises OSError."""
    count = next(
        count for since, count in sorted(_FILE_RIGHTS.items(), reverse=True) if abi >= since
    )
    attributes = (ctypes.c_uint64 * 3)(
        (1 << count) - 1,
        _TCP_RIGHTS if abi >= _TCP_SINCE else 0,
        _SCOPES if abi >= _SCOPES_SINCE else 0,
    )
    size = 8 * (3 if abi >= _SCOPES_SINCE else 2 if abi >= _TCP_SINCE else 1)
    ruleset = _checked(
        _libc().syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    )
    _allow(ruleset, executable_fd, _EXECUTE | _READ_FILE)
    _allow_paths(ruleset, allowed.executable, _EXECUTE | _READ_FILE | _READ_DIRECTORY)
    _allow_paths(ruleset, allowed.readable, _READ_FILE | _READ_DIRECTORY)
    _allow_paths(ruleset, allowed.writable, _READ_FILE | _WRITE_FILE)
    _allow_paths(ruleset, allowed.owned, attributes[0])
    return ruleset


def restrict(ruleset: int) -> None:
    """This thread and all it starts, for ever. Needs no_new_privs. Raises OSError."""
    _checked(_libc().syscall(_RESTRICT_SELF, ruleset, 0))


def _allow_paths(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            is_file = not Path(path).is_dir()
            _allow(ruleset, descriptor, rights & ~_READ_DIRECTORY if is_file else rights)
        finally:
            os.close(descriptor)


def _allow(ruleset: int, descriptor: int, rights: int) -> None:
    # struct landlock_path_beneath_attr is packed.
    rule = rights.to_bytes(8, "little") + descriptor.to_bytes(4, "little", signed=True)
    buffer = ctypes.create_string_buffer(rule, len(rule))
    _checked(_libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(buffer), 0))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
