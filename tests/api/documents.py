"""Sending documents, and waiting for what becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.documents.worker import DocumentSlots, DocumentWorker
from butterbase.sql.cluster import LoginRole
from tests.ai.documents.making import DATA
from tests.api.conftest import Api
from tests.waiting import until

COLLECTIONS = "/v1/main/rag/collections"
DOCUMENTS = "/v1/main/rag/notes/documents"


@asynccontextmanager
async def working_at(api: Api) -> AsyncIterator[None]:
    """The worker beside the web edge, without the rest of the stream process."""
    dsn = api.installation.cluster.dsn(LoginRole.STREAM, api.installation.main.name)
    task = asyncio.create_task(DocumentWorker(DocumentSlots(DocumentSettings()), dsn).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def make(api: Api, user: dict[str, str], **more: Any) -> None:
    made = await api.client.post(COLLECTIONS, json={"name": "notes", **more}, headers=user)
    assert made.status_code == 201, made.text


async def send(api: Api, user: dict[str, str], name: str, **params: str) -> dict[str, Any]:
    files = {"file": (name, (DATA / name).read_bytes())}
    sent = await api.client.post(DOCUMENTS, files=files, data=params, headers=user)
    assert sent.status_code == 202, sent.text
    document: dict[str, Any] = sent.json()
    return document


async def shown(api: Api, user: dict[str, str], document: str) -> dict[str, Any]:
    answer = await api.client.get(f"{DOCUMENTS}/{document}", headers=user)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def settled(api: Api, user: dict[str, str], document: str) -> dict[str, Any]:
    """The document when it is parsed, or will not be."""
    found: dict[str, Any] = {}

    async def is_settled() -> bool:
        found.update(await shown(api, user, document))
        return found["status"] not in {"received", "fetching", "parsing", "failed"}

    await until(is_settled)
    return found


async def text_of(api: Api, user: dict[str, str], document: str, **params: int) -> str:
    path = f"{DOCUMENTS}/{document}/text"
    answer = await api.client.get(path, params=params, headers=user)
    assert answer.status_code == 200, answer.text
    return answer.text
