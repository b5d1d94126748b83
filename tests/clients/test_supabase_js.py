"""npm's unmodified `@supabase/supabase-js` and the packages it is made of: js/*.test.js in node.

Without node and npm these are skipped, or fail where BUTTERBASE_REQUIRE_NODE is set, as in CI.
"""

import os
import subprocess

import pytest

from tests.clients.conftest import JS
from tests.clients.library import Library

# Models have a server of their own: test_ai_clients.py.
SUITES = sorted(path.name for path in JS.glob("*.test.js") if path.name != "ai.test.js")


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
