"""A client of event streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.realtime.streaming import DEADLINE_S

PATH = "/realtime/v1/changes"
NOTES = """
    drop table if exists notes;
    create table notes (id bigint generated always as identity primary key, owner uuid, body text);
    create policy own on notes using (owner = auth.uid());
"""

UPDATE = "update notes set body = 'b';"


def insert(owner: str, body: str = "a") -> str:
    return f"insert into notes (owner, body) values ('{owner}', '{body}');"  # noqa: S608


class Events:
    """What a stream says, block by block, as the specification has it."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self._lines = response.aiter_lines()

    async def block(self) -> dict[str, str]:
        """The next block's fields; those of a comment are empty."""
        block: dict[str, str] = {}
        async with asyncio.timeout(DEADLINE_S):
            async for line in self._lines:
                if not line:
                    self.last_id = block.get("id", self.last_id)
                    return block
                name, _, value = line.partition(":")
                if name:
                    block[name] = value.removeprefix(" ")
        raise EOFError

    async def next(self) -> tuple[str, Any]:
        """The next event's kind and data."""
        while True:
            block = await self.block()
            if "data" in block:
                return block["event"], json.loads(block["data"])

    async def id(self) -> int:
        """Of the next row."""
        _, data = await self.next()
        id_: int = data["record"]["id"]
        return id_


@asynccontextmanager
async def listening(
    url: str, token: str, *, last_id: str | None = None, **query: str
) -> AsyncIterator[Events]:
    headers = {"authorization": f"Bearer {token}"}
    if last_id is not None:
        headers["last-event-id"] = last_id
    asked = {"table": "notes", **query}
    async with (
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client,
        client.stream("GET", PATH, params=asked, headers=headers) as response,
    ):
        if response.status_code != 200:
            await response.aread()
        yield Events(response)
