"""What the demo runs against: an instance that runs already, or one of its own."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
from msgspec import Struct
from msgspec.structs import replace

from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from butterbase.cli.db import database_url
from butterbase.cli.demo.errors import DemoError
from butterbase.cli.runtime import SUPERVISED, open_cluster
from butterbase.cli.settings import CUSTOMARY, PREFIX, Settings, StreamSettings, to_environment
from butterbase.cli.up import wait_until_ready
from butterbase.sql.apps import FIRST_APP, find_app
from butterbase.sql.embedded import free_port
from butterbase.sql.errors import SettingError
from butterbase.sql.settings import DatabaseSettings

PROBE_TIMEOUT_S = 2.0


class Instance(Struct, frozen=True):
    url: str
    anon_key: str
    service_role_key: str
    owner_dsn: str
    """Of the app's database, as the developer's role."""
    admin_dsn: str | None = None
    """Of the same, as the administrator, where we have it."""

    @property
    def service(self) -> dict[str, str]:
        return {"apikey": self.service_role_key}


async def named(settings: Settings, url: str, owner_dsn: str | None) -> Instance:
    """The instance at a URL; what is not given is in the data directory. Raises SettingError."""
    url = url.rstrip("/")
    anon, service = settings.api.anon_key, settings.api.service_role_key
    if anon and service and owner_dsn:
        return Instance(url, anon, service, owner_dsn)
    found = await _described(settings, url) if _has_master_key(settings) else None
    if found is None:
        raise SettingError(
            f"--url needs --anon-key, --service-role-key and --database-url-of-app;"
            f" there is no master key in {settings.database.directory} to derive them from"
        )
    return found if owner_dsn is None else replace(found, owner_dsn=owner_dsn, admin_dsn=None)


async def find_running(settings: Settings) -> Instance | None:
    """The instance of this data directory, if it answers at the URL of the settings."""
    if not _has_master_key(settings):
        return None
    # Else the directory is of an instance that does not run, or the URL of another one.
    with suppress(SettingError, httpx.TransportError):
        async with httpx.AsyncClient(
            base_url=settings.api.local_url, timeout=PROBE_TIMEOUT_S, trust_env=False
        ) as http:
            if not (await http.get("/readyz")).is_success:
                return None
            found = await _described(settings, settings.api.local_url)
            answer = await http.get(f"/v1/{FIRST_APP}/ai/config", headers=found.service)
            return found if answer.is_success else None
    return None


@asynccontextmanager
async def temporary(settings: Settings) -> AsyncIterator[Instance]:
    """`butterbase up` in a directory that is removed at the end. Raises DemoError."""
    port = free_port(0)
    assert port is not None
    with _temporary_directory() as directory:
        own = Settings(
            database=DatabaseSettings(data_dir=str(directory / "data")),
            api=ApiSettings(port=port),
            ai=settings.ai,
            embedder=settings.embedder,
            documents=settings.documents,
            stream=StreamSettings(),
            functions=settings.functions,
            telemetry=settings.telemetry,
        )
        log = directory / "up.log"
        process = await _start(own, directory, log)
        try:
            await _wait_until_up(process, own.api.local_url, log)
            yield await _described(own, own.api.local_url)
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()


@contextmanager
def _temporary_directory() -> Iterator[Path]:
    # What cannot be removed is no reason to hide why the demo ended.
    with tempfile.TemporaryDirectory(prefix="butterbase-demo-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)  # run by root, the server is another user
        yield Path(name)


async def _start(settings: Settings, directory: Path, log: Path) -> asyncio.subprocess.Process:
    # Of our own settings the instance gets those above, and no others.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name not in CUSTOMARY.values()
    }
    environment |= to_environment(settings) | {SUPERVISED: str(os.getpid())}
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "butterbase.cli", "up"),
            cwd=directory,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us, who stop it in order
        )


async def _wait_until_up(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    ready = asyncio.create_task(wait_until_ready(url))
    ended = asyncio.create_task(process.wait())
    try:
        await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise DemoError(f"butterbase up ended: {_last_line(log)}")
        ready.result()
    finally:
        ready.cancel()
        ended.cancel()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "without a word"


async def _described(settings: Settings, url: str) -> Instance:
    """From what the data directory, or the master key and DSN of the settings, tell."""
    cluster = open_cluster(settings)
    app = await find_app(cluster, FIRST_APP)
    keys = keys_of(cluster, app.id, app.created_at, settings.api)
    return Instance(
        url,
        keys.anon,
        keys.service_role,
        await database_url(cluster, app.id),
        cluster.admin_dsn(app.database),
    )


def _has_master_key(settings: Settings) -> bool:
    # Opening a cluster makes a key where there is none.
    return (
        bool(settings.database.master_key) or (settings.database.directory / "master.key").exists()
    )
