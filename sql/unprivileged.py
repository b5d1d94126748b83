"""Running the embedded Postgres as somebody other than root, which Postgres refuses to be.

Root's server runs as the system user `butterbase`, made when missing. Anyone else's runs as
themselves.

https://man7.org/linux/man-pages/man1/setpriv.1.html
https://man7.org/linux/man-pages/man7/capabilities.7.html
"""

import contextlib
import logging
import os
import pwd
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from butterbase.sql.errors import SettingError

logger = logging.getLogger(__name__)

SYSTEM_USER = "butterbase"

# Programs see nothing of our environment: PGPORT or LC_ALL would change what they do.
ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}


class Account(NamedTuple):
    """Who runs the server, and the command that becomes them."""

    uid: int
    gid: int
    become: tuple[str, ...]

    def make_directory(self, path: Path) -> None:
        """Make a directory of the account's own, closed to others."""
        path.mkdir(mode=0o700, exist_ok=True)
        if path.stat().st_uid != self.uid:
            os.chown(path, self.uid, self.gid)

    def write_file(self, path: Path, text: str) -> None:
        """Write a file that only the account can read."""
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            os.fchown(file.fileno(), self.uid, self.gid)
            file.write(text)


def server_account(*needed: Path) -> Account:
    """Who runs the server that must reach the `needed` paths.

    A home or a temporary directory is often closed to others. Opening it would be wrong, so root's
    server is given the one capability to pass it. Raises SettingError.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), ())
    setpriv = _find("setpriv")
    if setpriv is None:
        raise SettingError(
            "Postgres does not run as root, and setpriv (of util-linux) is missing;"
            " run butterbase as another user, or set DATABASE_URL"
        )
    user = _system_user()
    switch = (setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    closed = _unreachable(switch, needed)
    if not closed:
        return Account(user.pw_uid, user.pw_gid, switch)
    paths = " and ".join(map(str, closed))
    for capability in ("dac_read_search", "dac_override"):
        become = (*switch, *_keeping(capability))
        if not _unreachable(become, needed):
            logger.warning(
                "user %s cannot reach %s, so Postgres runs with CAP_%s:"
                " a database superuser can read any file of this machine",
                SYSTEM_USER,
                paths,
                capability.upper(),
            )
            return Account(user.pw_uid, user.pw_gid, become)
    raise SettingError(
        f"Postgres does not run as root, and its user {SYSTEM_USER} cannot reach {paths};"
        " run butterbase as another user, or move it below directories that all users may pass"
    )


def dying_with_parent(become: tuple[str, ...]) -> tuple[str, ...]:
    """The command extended so that the program gets SIGINT when this process is killed.

    As it stands where that is not to be had: off Linux, and in a thread, whose own end would
    already raise the signal, prctl(2).
    """
    setpriv = _find("setpriv")
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return become
    return (*(become or (setpriv,)), "--pdeathsig=INT")


def run(command: list[str]) -> str:
    """The standard output of a program. Raises SettingError with the last line it wrote."""
    done = subprocess.run(  # noqa: S603  our own commands, never a shell
        command, capture_output=True, text=True, errors="replace", env=ENVIRONMENT, cwd="/"
    )
    if done.returncode != 0:
        raise SettingError(f"{Path(command[0]).name} failed: {last_fault(done.stderr)}")
    return done.stdout


def last_fault(log: str) -> str:
    """The line that says why a program of Postgres ended."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    faults = [line for line in lines if re.search(r"FATAL:|PANIC:|error:", line)]
    return (faults or lines or ["it gave no reason"])[-1]


def _keeping(capability: str) -> tuple[str, ...]:
    return (
        f"--inh-caps=-all,+{capability}",
        f"--ambient-caps=-all,+{capability}",
        # Otherwise access(2), with which Postgres looks for its own programs, disregards the
        # capabilities of users other than root.
        "--securebits=+no_setuid_fixup",
    )


def _unreachable(become: tuple[str, ...], paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if not _succeeds([*become, "test", "-x", str(path)])]


def _system_user() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    useradd = ["useradd", "--system", "--no-create-home", "--shell=/usr/sbin/nologin", SYSTEM_USER]
    _succeeds(useradd)  # or not, when another process was first: the look-up decides
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise SettingError(
            f"Postgres does not run as root, and its user {SYSTEM_USER} cannot be made;"
            f" run `{' '.join(useradd)}`, or run butterbase as another user"
        ) from None


def _find(program: str) -> str | None:
    return shutil.which(program, path=ENVIRONMENT["PATH"])


def _succeeds(command: list[str]) -> bool:
    try:
        run(command)
    except (SettingError, FileNotFoundError):
        return False
    return True
