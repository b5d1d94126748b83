"""npm's unmodified `@supabase/supabase-js` and the packages it is made of: js/*.test.js in node.

Without node and npm these are skipped, or fail where BUTTERBASE_REQUIRE_NODE is set, as in CI.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.library import Library

JS = Path(__file__).with_name("js")
LOCK = JS / "package-lock.json"
MODULES = JS / "node_modules"
SUITES = sorted(path.name for path in JS.glob("*.test.js"))


@pytest.fixture(scope="session")
def node() -> str:
    """The path of node, with the packages installed beside the tests."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        message = "node and npm are not installed: clients in JavaScript are not tested"
        if os.environ.get("BUTTERBASE_REQUIRE_NODE"):
            pytest.fail(message)
        pytest.skip(message)
    install_packages()
    return found


def install_packages() -> None:
    """Once for each state of the lock file, by one process at a time."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    stamp = MODULES / ".installed"
    with LOCK.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-progress"],
            cwd=JS,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"npm ci failed:\n{done.stdout}{done.stderr}"
        stamp.write_text(wanted)


@pytest.mark.parametrize("suite", SUITES)
def test_the_clients_work(node: str, library: Library, postgrest_url: str, suite: str) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "BUTTERBASE_URL": library.url,
        "ANON_KEY": library.keys.anon,
        "SERVICE_ROLE_KEY": library.keys.service_role,
        "POSTGREST_URL": postgrest_url,
    }
    done = subprocess.run(
        [node, "--test", "--test-reporter=spec", suite],
        cwd=JS,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ℹ tests 0" not in done.stdout  # noqa: RUF001  as node writes it
