"""Follows a table's changes over HTTP, and goes on where it was after anything.

    SUPABASE_URL=… SUPABASE_KEY=… python follow.py todos

What it does with a change is kept in one transaction with the change's position, so that each
change counts once, however often this process or the connection ends. Here that is a file of
SQLite's; in a pipeline it is the database that it writes to.
"""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator

import httpx

RETRY_S = 1.0
PAGE_ROWS = 1000

Event = tuple[str, str, str]
"""Kind, position and data."""


def events(response: httpx.Response) -> Iterator[Event]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            # One without data only moves the position on.
            yield fields.get("event", ""), fields.get("id", ""), fields.get("data", "")
            fields = {}


class Sink:
    """What came of the changes, and how far."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path)
        self._db.executescript(
            "create table if not exists rows (id primary key, row text);"
            "create table if not exists progress (position text);"
            "insert into progress select null where not exists (select * from progress);"
        )

    @property
    def position(self) -> str | None:
        found: str | None = self._db.execute("select position from progress").fetchone()[0]
        return found

    def apply(self, change: dict[str, object] | None, position: str) -> None:
        with self._db:  # one transaction
            if change is not None:
                row = change.get("record") or change["old_record"]
                assert isinstance(row, dict)
                self._db.execute("delete from rows where id = ?", [row["id"]])
                if change["type"] != "DELETE":
                    self._db.execute("insert into rows values (?, ?)", [row["id"], json.dumps(row)])
            self._db.execute("update progress set position = ?", [position])

    def start_over(self, rows: list[dict[str, object]], position: str) -> None:
        with self._db:
            self._db.execute("delete from rows")
            self._db.executemany(
                "insert into rows values (?, ?)", [(row["id"], json.dumps(row)) for row in rows]
            )
            self._db.execute("update progress set position = ?", [position])


def read(client: httpx.Client, table: str, sink: Sink) -> None:
    """All rows, page by page; changes go on from the first page. What changed while the others were
    read comes once more, and ends as it must.
    """
    asked = {"order": "id", "limit": str(PAGE_ROWS)}
    answer = client.get(f"/rest/v1/{table}", params=asked).raise_for_status()
    position = answer.headers["Butterbase-Position"]
    rows = page = answer.json()
    while len(page) == PAGE_ROWS:
        more = asked | {"id": f"gt.{page[-1]['id']}"}
        page = client.get(f"/rest/v1/{table}", params=more).raise_for_status().json()
        rows += page
    sink.start_over(rows, position)


def follow(client: httpx.Client, table: str, sink: Sink) -> None:
    """Until the connection ends."""
    asked = {"table": table, "from": sink.position or ""}
    with client.stream("GET", "/realtime/v1/changes", params=asked) as response:
        if response.status_code == 410:  # it was away for too long
            read(client, table, sink)
            return
        response.raise_for_status()
        for kind, position, data in events(response):
            if kind == "closed":
                return
            if position:
                sink.apply(json.loads(data) if data else None, position)


def main(url: str, key: str, table: str, path: str) -> None:
    headers = {"apikey": key}
    timeout = httpx.Timeout(10, read=60)  # a heartbeat comes every 15 seconds
    with httpx.Client(base_url=url, headers=headers, timeout=timeout) as client:
        sink = Sink(path)
        while True:
            try:
                if sink.position is None:
                    read(client, table, sink)
                follow(client, table, sink)
            except httpx.TransportError as error:
                sys.stderr.write(f"{error}; trying again\n")
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 503:
                    raise
            time.sleep(RETRY_S)


if __name__ == "__main__":
    main(
        os.environ["SUPABASE_URL"],
        os.environ["SUPABASE_KEY"],
        sys.argv[1],
        sys.argv[2] if len(sys.argv) > 2 else "follow.db",
    )
