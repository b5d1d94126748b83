"""An installation to measure: what `butterbase up` starts, in a directory that goes away after.

The embedded Postgres runs with its own defaults (fsync on); the api is the real process, one
gunicorn worker, reached over loopback TCP.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from msgspec import Struct
from psycopg.conninfo import make_conninfo

from butterbase.api.apps import keys_of
from butterbase.api.auth.keys import AppKeys
from butterbase.api.settings import ApiSettings
from butterbase.cli.runtime import SUPERVISED
from butterbase.sql.apps import FIRST_APP, App, create_app, set_up_cluster
from butterbase.sql.cluster import Cluster, app_authenticator
from butterbase.sql.embedded import EmbeddedPostgres, free_port
from butterbase.sql.secrets import MasterKey

from . import by_hand

API = (sys.executable, "-m", "butterbase.cli", "api")
STREAM = (sys.executable, "-m", "butterbase.cli", "stream")
FUNCTIONS = (sys.executable, "-m", "butterbase.cli", "functions", "serve")
BY_HAND = (
    *(sys.executable, "-m", "uvicorn", "support.by_hand:app", "--host=127.0.0.1"),
    *("--loop=uvloop", "--http=httptools", "--no-access-log", "--log-level=warning"),
)
BY_HAND_OPTIONS = "-c search_path=public"
READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 25.0


class Installation(Struct, frozen=True):
    """A running Postgres with the app `main`."""

    cluster: Cluster
    app: App
    directory: Path

    @property
    def keys(self) -> AppKeys:
        return keys_of(self.cluster, self.app.id, self.app.created_at, ApiSettings())

    @property
    def owner_dsn(self) -> str:
        """The developer's."""
        return self.cluster.owner_dsn(self.app.id, self.app.database)

    @property
    def authenticator_dsn(self) -> str:
        """What the data path of the api connects with."""
        return self.cluster.dsn(app_authenticator(self.app.id), self.app.database)


class Api(Struct, frozen=True):
    """A running api process."""

    port: int
    pid: int
    """Of gunicorn's arbiter; its child is the worker."""
    keys: AppKeys

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_auth(self, **settings: object) -> None:
        """Change the app's settings of auth."""
        answer = httpx.put(
            f"{self.url}/auth/v1/admin/settings",
            json=settings,
            headers={"apikey": self.keys.service_role},
            trust_env=False,
        )
        answer.raise_for_status()

    def sign_up(self, email: str) -> str:
        """A new user's access token."""
        answer = httpx.post(
            f"{self.url}/auth/v1/signup",
            json={"email": email, "password": "correct horse battery"},
            headers={"apikey": self.keys.anon},
            trust_env=False,
        )
        answer.raise_for_status()
        token: str = answer.json()["access_token"]
        return token


@contextmanager
def installed() -> Iterator[Installation]:
    """A new installation, without the api."""
    with tempfile.TemporaryDirectory(prefix="butterbase-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # run by root, the server is another user
        key = MasterKey(os.urandom(32))
        server = EmbeddedPostgres(directory / "pg", password=key.derive("bench"))
        try:
            cluster = Cluster(server.start(), key)
            yield Installation(cluster, asyncio.run(_set_up(cluster)), directory)
        finally:
            server.stop()


@contextmanager
def running(
    installation: Installation, command: Sequence[str], settings: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the installation, of its own session. Its log is printed where what is done
    beside it fails.
    """
    log = installation.directory / f"{command[-1]}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            env=settings,
            cwd=installation.directory,  # where no butterbase.toml is
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        yield process
    except BaseException:
        print(log.read_text()[-2_000:])
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving(installation: Installation, settings: Mapping[str, str] | None = None) -> Iterator[Api]:
    """`butterbase api` with one worker, without the stream process, which no request needs.

    Raises RuntimeError when it does not come up.
    """
    port = free_port(0)
    assert port is not None
    environ = {**environment(installation, port), **(settings or {})}
    with running(installation, API, environ) as process:
        api = Api(port, process.pid, installation.keys)
        _wait_until_ready(f"{api.url}/healthz", process)
        yield api


@contextmanager
def streaming(installation: Installation) -> Iterator[tuple[int, int]]:
    """`butterbase stream`: the port of its websockets, and its process. It may not be ready yet."""
    port = free_port(0)
    assert port is not None
    environ = {
        **environment(installation, port),
        "BUTTERBASE_STREAM_PORT": str(port),
        # Those of the sink before may not be known to be gone yet.
        "BUTTERBASE_REALTIME_CONNECTIONS": "25000",
    }
    with running(installation, STREAM, environ) as process:
        yield port, process.pid


@contextmanager
def by_hand_serving(installation: Installation) -> Iterator[int]:
    """The hand-written API with one worker, as the api's role; its port."""
    port = free_port(0)
    assert port is not None
    process = subprocess.Popen(
        [*BY_HAND, f"--port={port}"],
        env=dict(os.environ)
        | {
            by_hand.DSN: make_conninfo(installation.authenticator_dsn, options=BY_HAND_OPTIONS),
            by_hand.SECRET: installation.keys.jwt_secret,
        },
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/openapi.json", process)
        yield port
    finally:
        process.terminate()
        process.wait()


async def _set_up(cluster: Cluster) -> App:
    await set_up_cluster(cluster)
    return await create_app(cluster, FIRST_APP)


def environment(installation: Installation, port: int) -> Mapping[str, str]:
    """The caller's, without settings that would measure something else."""
    others = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BUTTERBASE_") and name != "DATABASE_URL"
    }
    return others | {
        "BUTTERBASE_DATABASE_URL": installation.cluster.admin_dsn(),
        "BUTTERBASE_MASTER_KEY": installation.cluster.master_key.text(),
        "BUTTERBASE_DATA_DIR": str(installation.directory),
        "BUTTERBASE_PORT": str(port),
        "BUTTERBASE_WORKERS": "1",
        SUPERVISED: str(os.getpid()),  # it ends when the benchmark is killed
    }


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with httpx.Client(trust_env=False) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise RuntimeError(f"the api did not get ready; exit status {process.poll()}")
