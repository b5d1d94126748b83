"""`python -m … DIRECTORY PROGRAM ARGUMENTS`: run a program that can open no file of others.

It finds its directory, in which it may do as it likes, the system's libraries, and no network.
Where the kernel has no Landlock it is run as it is.
"""

import os
import sys

from butterbase.api.functions.runtime.jail import landlock
from butterbase.sql.confinement import prctl


def main(directory: str, program: str, *arguments: str) -> None:
    """Does not return. Raises OSError."""
    if sys.platform == "linux" and (abi := landlock.version()):
        executable = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
        allowed = landlock.Allowed(owned=(directory,))
        ruleset = landlock.create_ruleset(abi, allowed, executable)
        prctl.forbid_new_privileges()
        landlock.restrict(ruleset)
    os.execv(program, [program, *arguments])  # noqa: S606  no shell


if __name__ == "__main__":
    main(*sys.argv[1:])
