"""What is left to code that has broken out of V8: another program, Python, in Deno's jail."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

LEFT = "/var/tmp/butterbase-attack"  # noqa: S108  where nothing may be made
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the jail is Linux's")
pytestmark = LINUX

# Enters the jail as the zygote's child does; its arguments: a uid or "", code of an attack.
ENTER = """
import os, sys
from butterbase.api.functions.runtime.jail import landlock, seccomp
from butterbase.api.functions.runtime.jail.jail import Enclosure, JailSpec, enter

uid, attack, out = sys.argv[1], sys.argv[2], int(sys.argv[3])
executable = os.path.realpath(sys.executable)
executable_fd = os.open(executable, os.O_RDONLY)
abi = landlock.version()
own = (*landlock.LIBRARIES, os.path.join(sys.base_prefix, "lib"))
allowed = landlock.Allowed(executable=own)
ruleset = landlock.create_ruleset(abi, allowed, executable_fd) if abi else None
enclosure = Enclosure(executable_fd, ruleset, seccomp.ARCHITECTURES[os.uname().machine])
spec = JailSpec(
    uid=int(uid) if uid else None, memory_mb=64,
    arguments=("-S", "-E", "-c", attack), environment={"PYTHONHOME": sys.base_prefix},
)
stderr = os.memfd_create("stderr")
if os.fork() == 0:
    try:
        enter(spec, enclosure, executable, out, stderr, os.getppid())
    finally:
        os._exit(126)
pid, status = os.wait()
os.lseek(stderr, 0, 0)
sys.stderr.write(os.read(stderr, 10000).decode())
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""
ATTACK = """
import json, os, sys
def tried(function):
    try:
        return ["done", str(function())]
    except OSError as error:
        return ["refused", error.errno]
print(json.dumps(tried(lambda: {})))
"""


def attacked(expression: str, *, before: str = "", uid: str = "") -> list[object]:
    """What the expression came to, in a jail."""
    code = before + ATTACK.replace("{}", expression)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-P", "-c", ENTER, uid, code, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, (done.returncode, done.stderr)
        found: list[object] = json.loads(ours.recv(4096))
        return found


CTYPES = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
CTYPES += "def call(*a):\n if libc.syscall(*a) < 0: raise OSError(ctypes.get_errno(), '')\n"
REFUSED = {
    "IPv4": ("socket.socket(socket.AF_INET)", "import socket\n"),
    "IPv6": ("socket.socket(socket.AF_INET6)", "import socket\n"),
    "unix": ("socket.socket(socket.AF_UNIX)", "import socket\n"),
    "netlink": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "import socket\n"),
    "fork": ("os.fork()", ""),
    "exec": ("os.execv('/bin/true', ['true'])", ""),
    "signal to the parent": ("os.kill(os.getppid(), 0)", ""),
    "signal to all": ("os.kill(-1, 0)", ""),
    "read passwords": ("open('/etc/passwd').read()", ""),
    "read another's environment": ("open('/proc/1/environ').read()", ""),
    "read its own memory": ("open('/proc/self/mem', 'rb')", ""),
    "list": ("os.listdir('/tmp')", ""),
    "write": ("open('/var/tmp/butterbase-attack', 'w')", ""),
    "make a directory": ("os.mkdir('/var/tmp/butterbase-attack')", ""),
    "mount": ("call(165, b'x', b'/', b'tmpfs', 0, 0)", CTYPES),
    "ptrace": ("call(101, 16, os.getppid(), 0, 0)", CTYPES),
    "namespaces": ("call(272, 0x10000000)", CTYPES),
    "io_uring": ("call(425, 1, 0)", CTYPES),
    "bpf": ("call(321, 0, 0, 0)", CTYPES),
    "keys": ("call(250, 0, -1)", CTYPES),
    "more memory": ("resource.prlimit(os.getppid(), resource.RLIMIT_DATA)", "import resource\n"),
    "become root": ("os.setuid(0) or os.open('/etc/shadow', 0)", ""),
}
_OF_X86_64 = frozenset({"mount", "ptrace", "namespaces", "io_uring", "bpf", "keys"})


@pytest.mark.parametrize("name", REFUSED)
def test_the_kernel_refuses(name: str) -> None:
    if name in _OF_X86_64 and os.uname().machine != "x86_64":
        pytest.skip("the numbers are of another machine")
    expression, before = REFUSED[name]
    verdict, _ = attacked(expression, before=before)
    assert verdict == "refused"
    assert not Path(LEFT).exists()


def test_another_program_cannot_be_started_by_guessing() -> None:
    """`execveat` with a path of one's own is the end of the process."""
    with pytest.raises(AssertionError) as raised:
        attacked("call(322, -100, b'/bin/true', 0, 0, 0)", before=CTYPES)
    assert str(256 - 31) in str(raised.value)  # SIGSYS


def test_a_thread_can_be_made() -> None:
    before = "import threading\n"
    expression = "[t := threading.Thread(target=int), t.start(), t.join()] and 'joined'"
    assert attacked(expression, before=before) == ["done", "joined"]


def test_memory_ends_at_its_limit() -> None:
    before = "import mmap\n"
    verdict, _ = attacked("mmap.mmap(-1, 700 * 1024**2, mmap.MAP_PRIVATE)", before=before)
    assert verdict == "refused"


IS_OPEN = """
import fcntl
def is_open(fd):
    try:
        return fcntl.fcntl(fd, fcntl.F_GETFD) >= 0
    except OSError:
        return False
"""


def test_no_descriptor_but_its_own_is_left() -> None:
    found = attacked("[fd for fd in range(128) if is_open(fd)]", before=IS_OPEN)
    assert found == ["done", "[0, 1, 2]"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")
def test_it_is_a_user_of_its_own() -> None:
    assert attacked("[os.getuid(), os.getgid(), os.getgroups()]", uid="60600") == [
        "done",
        "[60600, 60600, []]",
    ]
