"""A server of ours as its users run it, for clients that others wrote."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from butterbase.sql.cluster import app_authenticator
from tests.cli.processes import BUTTERBASE, DEADLINE_S, environment, free_port, wait_until
from tests.clients.auth import SETTINGS, Auth
from tests.clients.auth_py import CLIENTS as AUTH_CLIENTS
from tests.clients.auth_py import Clients
from tests.clients.library import SCHEMA, Library
from tests.clients.postgrest_py import CLIENTS, Client, client_of, close
from tests.installation import Installation, installed
from tests.postgres import Databases
from tests.processes import running

JS = Path(__file__).with_name("js")
LOCK = JS / "package-lock.json"
MODULES = JS / "node_modules"


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


@pytest.fixture(scope="package")
def shared_installation(
    postgres: Databases, installation_template: Installation
) -> Iterator[Installation]:
    with installed(postgres, installation_template) as installation:
        installation.as_owner(SCHEMA.read_text())
        yield installation


@pytest.fixture(scope="package")
def shared_library(
    shared_installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Library]:
    installation, port = shared_installation, free_port()
    keys = keys_of(installation.cluster, "main", installation.app.created_at, ApiSettings())
    url = f"http://127.0.0.1:{port}"
    directory = tmp_path_factory.mktemp("api")
    with (
        running("api", installation, directory, port=port, rest_schemas="public,shop") as process,
        running("stream", installation, directory, port=port),
        running("functions serve", installation, directory, port=port),
    ):
        wait_until(lambda: is_ready(f"{url}/readyz", process), "the log is read")
        yield Library(installation, url, keys)


@pytest.fixture
def library(shared_library: Library) -> Library:
    """The library with its rows as they were."""
    shared_library.installation.as_owner("select reset_rows()")
    return shared_library


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted(CLIENTS))
async def shared_client(
    request: pytest.FixtureRequest, shared_library: Library
) -> AsyncIterator[Client]:
    client = client_of(request.param, shared_library)
    yield client
    await close(client)


@pytest.fixture
def client(shared_client: Client, library: Library) -> Client:
    """PyPI's `postgrest`, each of its two clients, as the service role."""
    return shared_client


@pytest.fixture
def auth(shared_library: Library) -> Iterator[Auth]:
    """The library's auth without users, mailing codes and links."""
    auth = Auth(shared_library)
    auth.reset()
    auth.configure(**SETTINGS)
    yield auth
    auth.reset()


@pytest.fixture(params=sorted(AUTH_CLIENTS))
async def clients(request: pytest.FixtureRequest, auth: Auth) -> AsyncIterator[Clients]:
    """PyPI's `supabase_auth`, each of its two clients."""
    clients = Clients(auth, request.param)
    yield clients
    await clients.close()


@pytest.fixture(scope="package")
def postgrest_url(
    shared_installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The same database in PostgREST mode: all are the service role, and may see plans."""
    directory = tmp_path_factory.mktemp("rest")
    with postgrest_mode(shared_installation, directory) as url:
        yield url


@contextmanager
def postgrest_mode(installation: Installation, directory: Path) -> Iterator[str]:
    port, admin_port = free_port(), free_port()
    cluster, database = installation.cluster, installation.main.name
    variables = {
        "PGRST_SERVER_HOST": "127.0.0.1",
        "PGRST_SERVER_PORT": str(port),
        "PGRST_ADMIN_SERVER_PORT": str(admin_port),
        "PGRST_DB_URI": cluster.dsn(app_authenticator("main"), database),
        "PGRST_DB_ANON_ROLE": "service_role",
        "PGRST_DB_SCHEMAS": "public",
        "PGRST_DB_PLAN_ENABLED": "true",
        "PGRST_DB_AGGREGATES_ENABLED": "true",
        "PGRST_DB_TX_END": "commit-allow-override",
    }
    process = subprocess.Popen(
        [BUTTERBASE, "rest"],
        cwd=directory,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
    )
    try:
        ready = f"http://127.0.0.1:{admin_port}/ready"
        wait_until(lambda: is_ready(ready, process), "butterbase rest is ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def is_ready(url: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
