"""One Postgres for the whole run, and an empty database for each test that asks for one.

The server is BUTTERBASE_TEST_DSN (a superuser's DSN), or a container when
BUTTERBASE_TEST_POSTGRES=docker, or else the embedded one.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from ssl import SSLContext
from typing import Any

import httpx
import pytest
from hypothesis import settings
from psycopg import AsyncConnection

from butterbase.sql.embedded import EmbeddedPostgres
from tests.installation import Installation, install, installed
from tests.postgres import Database, Databases

# How long an example takes says more of the machine than of what is tested.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")

# Nothing of a test run needs to outlive a crash, and its passwords need not be dear to guess: each
# connection is authenticated, and a test makes dozens.
VOLATILE = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "scram_iterations": "1",
}
SETTINGS = VOLATILE | {"max_prepared_transactions": "16"}

# A test's databases are some hundreds of files, which a disk takes half a second to make.
MEMORY = Path("/dev/shm")  # noqa: S108  only a directory of a random name is made in it
MEMORY_BYTES_MIN = 4 * 1024**3


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes that are started share what they compile.

    They are hundreds, and where nothing is written beside the sources, each would take a second
    to compile them anew.
    """
    if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
        cache = tempfile.TemporaryDirectory(prefix="butterbase-pycache-", dir=data_root())
        config.add_cleanup(cache.cleanup)
        os.environ["PYTHONPYCACHEPREFIX"] = cache.name
        del os.environ["PYTHONDONTWRITEBYTECODE"]


def container_server() -> Iterator[str]:
    # Imported here: most runs have no container engine, and the import takes half a second.
    from testcontainers.community.postgres import PostgresContainer

    flags = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
    flags += " -c wal_level=logical -c max_replication_slots=64 -c max_wal_senders=64"
    container = PostgresContainer("pgvector/pgvector:pg18", driver=None)
    with container.with_command(f"postgres {flags}"):
        yield container.get_connection_url()


def data_root() -> Path | None:
    """Where the server's files are; None: where temporary files are."""
    is_roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    return MEMORY if is_roomy and os.access(MEMORY, os.W_OK) else None


def embedded_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="butterbase-tests-", dir=data_root()) as directory:
        Path(directory).chmod(0o711)  # run by root, the server is another user
        server = EmbeddedPostgres(Path(directory, "pg"), password="secret", settings=SETTINGS)
        try:
            yield server.start()
        finally:
            server.stop()


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """Reading the certificates of authorities is the slowest part of a client."""
    made: dict[tuple[object, ...], SSLContext] = {}
    make = httpx.create_ssl_context

    def shared(verify: Any = True, cert: Any = None, trust_env: bool = True) -> SSLContext:
        if verify is not True or cert is not None:
            return make(verify, cert, trust_env)
        named = [trust_env and os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")]
        key = (trust_env, *named)
        if key not in made:
            made[key] = make(trust_env=trust_env)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", shared)
        yield


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """The superuser's DSN of the maintenance database."""
    if dsn := os.environ.get("BUTTERBASE_TEST_DSN"):
        yield dsn
    elif os.environ.get("BUTTERBASE_TEST_POSTGRES") == "docker":
        yield from container_server()
    else:
        yield from embedded_server()


@pytest.fixture(scope="session")
def postgres(server_dsn: str) -> Iterator[Databases]:
    with closing(Databases(server_dsn)) as databases:
        yield databases


@pytest.fixture
def postgres_alone() -> Iterator[Databases]:
    """A server of the test's own, for what all who use the shared one would feel."""
    with contextmanager(embedded_server)() as dsn, closing(Databases(dsn)) as databases:
        yield databases


@pytest.fixture
def database(postgres: Databases) -> Iterator[Database]:
    """An empty database, dropped after the test."""
    database = postgres.create()
    yield database
    postgres.drop(database.name)


@pytest.fixture(scope="session")
def installation_template(postgres: Databases) -> Iterator[Installation]:
    with installed(postgres) as template:
        yield template


@pytest.fixture
def installation(
    postgres: Databases, installation_template: Installation
) -> Iterator[Installation]:
    """A control database and the app `main`, new for this test."""
    with installed(postgres, installation_template) as installation:
        yield installation


@pytest.fixture
def installation_alone(postgres_alone: Databases) -> Installation:
    return install(postgres_alone, postgres_alone.create(), postgres_alone.create())


@pytest.fixture
async def control(installation: Installation) -> AsyncIterator[AsyncConnection]:
    """As the superuser, connected to the control database."""
    dsn = installation.control.dsn
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
async def main(installation: Installation) -> AsyncIterator[AsyncConnection]:
    """As the superuser, connected to the app's database."""
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        yield conn
