import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import Up


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path that Postgres's own user can pass, unlike pytest's."""
    yield from _directory()


@pytest.fixture(scope="session")
def shared_up() -> Iterator[Up]:
    if sys.platform != "linux":
        pytest.skip("processes are looked up in /proc")
    for directory in _directory():
        up = Up(directory)
        yield up
        if up.is_running:
            assert up.interrupt() == 0


@pytest.fixture
def up(shared_up: Up) -> Up:
    """A running `butterbase up`. A test may stop it; the next one starts it again."""
    if not shared_up.is_running:
        shared_up.start()
    return shared_up


def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="butterbase-cli-") as name:
        Path(name).chmod(0o711)
        yield Path(name)
