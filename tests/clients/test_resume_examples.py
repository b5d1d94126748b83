"""The examples of docs/realtime.md for going on where one was cut."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cli.processes import wait_until
from tests.clients.library import Library

ROOT = Path(__file__).parents[2]
RESUME = ROOT / "examples" / "resume"


class Follower:
    """examples/resume/follow.py as a process."""

    def __init__(self, library: Library, directory: Path) -> None:
        self._path = directory / "follow.db"
        self._environment = dict(os.environ) | {
            "SUPABASE_URL": library.url,
            "SUPABASE_KEY": library.keys.service_role,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(RESUME / "follow.py"), "ticks", str(self._path)]
        self._process = subprocess.Popen(command, env=self._environment)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def has(self, ids: list[int]) -> bool:
        return self.ids() == ids

    def ids(self) -> list[int]:
        if not self._path.exists():
            return []
        db = sqlite3.connect(self._path)
        try:
            return [id_ for (id_,) in db.execute("select id from rows order by id")]
        except sqlite3.OperationalError:  # it is just being made
            return []
        finally:
            db.close()


@pytest.fixture
def follower(library: Library, tmp_path: Path) -> Iterator[Follower]:
    follower = Follower(library, tmp_path)
    yield follower
    follower.kill()


def test_a_pipeline_that_is_killed_misses_nothing(library: Library, follower: Follower) -> None:
    owner = library.installation.as_owner
    owner("truncate ticks; insert into ticks select generate_series(1, 2500)")
    wanted = list(range(1, 2501))
    for number in range(4):
        follower.start()
        wait_until(partial(follower.has, wanted), "it has what is there")
        first = 2501 + number * 10
        owner(f"insert into ticks select generate_series({first}, {first + 9})")
        follower.kill()
        owner(f"delete from ticks where id = {first}")  # noqa: S608
        wanted += range(first + 1, first + 10)
    follower.start()
    wait_until(partial(follower.has, wanted), "it has what was missed")


@pytest.mark.parametrize("name", ["resuming.js"])
def test_the_docs_show_the_example_as_it_is(name: str) -> None:
    assert (RESUME / name).read_text() in (ROOT / "docs" / "realtime.md").read_text()
