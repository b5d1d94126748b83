import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher

from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.settings import AiSettings
from butterbase.api.app import create_app
from butterbase.api.apps import keys_of
from butterbase.api.auth import passwords
from butterbase.api.auth.keys import AppKeys
from butterbase.api.functions.settings import FunctionsSettings
from butterbase.api.settings import ApiSettings
from tests.installation import Installation
from tests.serving import client_of

# Outlives a run: building the local model's graph takes seconds.
MODELS_DIR = Path(tempfile.gettempdir(), f"butterbase-models-{os.getuid()}")

CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@dataclass(frozen=True)
class Api:
    """The web edge over a new installation."""

    client: httpx.AsyncClient
    keys: AppKeys
    installation: Installation

    @property
    def anon(self) -> dict[str, str]:
        return {"apikey": self.keys.anon}

    @property
    def service(self) -> dict[str, str]:
        return {"apikey": self.keys.service_role}

    async def sign_up(self, email: str, password: str = "correct horse") -> dict[str, str]:
        """A new user's headers."""
        answer = await self.client.post(
            "/auth/v1/signup", json={"email": email, "password": password}, headers=self.anon
        )
        assert answer.status_code == 200, answer.text
        return self.anon | {"Authorization": f"Bearer {answer.json()['access_token']}"}


@asynccontextmanager
async def running(
    installation: Installation,
    settings: ApiSettings,
    *,
    ai: AiSettings | None = None,
    functions: FunctionsSettings | None = None,
    **documents: Any,
) -> AsyncIterator[Api]:
    keys = keys_of(installation.cluster, "main", installation.app.created_at, settings)
    app = create_app(
        installation.cluster,
        settings,
        ai or AiSettings(),
        EmbedderSettings(),
        DocumentSettings(**documents),
        models_dir=MODELS_DIR,
        functions=functions,
    )
    async with client_of(app) as client:
        yield Api(client, keys, installation)


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Most tests sign somebody in, and few are about how long that takes an attacker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_HASHER", CHEAP)
        passwords._nobody.cache_clear()
        yield
    passwords._nobody.cache_clear()


@pytest.fixture
async def api(installation: Installation) -> AsyncIterator[Api]:
    async with running(installation, ApiSettings()) as api:
        yield api
