"""The filter as the kernel would run it, for both architectures."""

import errno
import struct

import pytest

from butterbase.api.functions.runtime.jail.seccomp import ARCHITECTURES, Architecture, build

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
PID, ADDRESS = 4321, 0x7F12_3456_7000
CLONE_THREAD, CLONE_VM = 0x00010000, 0x00000100
REFUSED = ERRNO | errno.EPERM


def run(program: bytes, data: bytes) -> int:
    """https://www.kernel.org/doc/html/latest/networking/filter.html"""
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"code {code:#x}")


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


def verdict(architecture: Architecture, number: int, *arguments: int, audit: int = 0) -> int:
    data = struct.pack("<IIQ", number, audit or architecture.audit, 0)
    data += struct.pack("<6Q", *arguments, *(0,) * (6 - len(arguments)))
    return run(build(architecture, pid=PID, exec_path_address=ADDRESS), data)


def test_no_socket_can_be_had(architecture: Architecture) -> None:
    for name in ("socket", "connect", "bind", "listen", "accept", "accept4"):
        for family in (1, 2, 10, 16):
            assert verdict(architecture, architecture.numbers[name], family) == REFUSED


def test_every_number_of_the_table_is_judged(architecture: Architecture) -> None:
    for name, number in architecture.numbers.items():
        assert verdict(architecture, number, 2**63 + 5) != ALLOW, name


def test_threads_can_be_made_and_processes_cannot(architecture: Architecture) -> None:
    clone = architecture.numbers["clone"]
    assert verdict(architecture, clone, CLONE_THREAD | CLONE_VM) == ALLOW
    assert verdict(architecture, clone, CLONE_VM) == REFUSED
    assert verdict(architecture, clone, 17) == REFUSED
    assert verdict(architecture, architecture.numbers["clone3"]) == ERRNO | errno.ENOSYS


def test_deno_is_started_and_nothing_else(architecture: Architecture) -> None:
    execveat, execve = architecture.numbers["execveat"], architecture.numbers["execve"]
    assert verdict(architecture, execveat, 3, ADDRESS) == ALLOW
    for other in (ADDRESS + 1, ADDRESS & 0xFFFFFFFF, ADDRESS + 2**32, 0):
        assert verdict(architecture, execveat, 3, other) == KILL
    assert verdict(architecture, execve, ADDRESS) == REFUSED


def test_signals_go_to_the_process_itself(architecture: Architecture) -> None:
    for name in ("kill", "tgkill"):
        number = architecture.numbers[name]
        assert verdict(architecture, number, PID) == ALLOW
        assert verdict(architecture, number, 1) == REFUSED
        assert verdict(architecture, number, 2**64 - 1) == REFUSED  # -1: everybody


def test_limits_are_the_processes_own(architecture: Architecture) -> None:
    number = architecture.numbers["prlimit64"]
    assert verdict(architecture, number, 0) == ALLOW
    assert verdict(architecture, number, 1) == REFUSED


def test_reading_and_writing_are_allowed(architecture: Architecture) -> None:
    reading = {0xC000003E: (0, 1), 0xC00000B7: (63, 64)}[architecture.audit]
    for number in reading:
        assert verdict(architecture, number, 0) == ALLOW


def test_another_architecture_is_the_end(architecture: Architecture) -> None:
    assert verdict(architecture, 1, audit=0x40000003) == KILL


def test_x32_is_the_end() -> None:
    assert verdict(ARCHITECTURES["x86_64"], 0x40000000 | 41) == KILL
