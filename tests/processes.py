"""Our commands as real processes, with the settings of a test's installation."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from butterbase.cli.settings import to_environment
from tests.following import settings_of
from tests.installation import Installation


def start(
    command: str, installation: Installation, directory: Path, **settings: object
) -> "subprocess.Popen[bytes]":
    """Start `butterbase COMMAND`; what it keeps is in the directory."""
    environment = dict(os.environ) | to_environment(settings_of(installation))
    environment["BUTTERBASE_DATA_DIR"] = str(directory)
    for name, value in settings.items():
        environment[f"BUTTERBASE_{name.upper()}"] = str(value)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "butterbase.cli", *command.split()],
        env=environment,
        cwd=directory,
    )


@contextmanager
def running(
    command: str, installation: Installation, directory: Path, **settings: object
) -> Iterator["subprocess.Popen[bytes]"]:
    process = start(command, installation, directory, **settings)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
