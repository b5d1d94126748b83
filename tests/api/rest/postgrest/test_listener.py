import asyncio
from collections import Counter

import psycopg

from butterbase.api.rest.postgrest.listener import schema_listener
from tests.postgres import Database
from tests.waiting import until


async def test_payloads_ask_for_what_they_say(database: Database) -> None:
    heard = Counter[str]()
    listener = schema_listener(
        database.dsn,
        "pgrst",
        on_schema=lambda: heard.update(["schema"]),
        on_config=lambda: heard.update(["config"]),
    )
    task = asyncio.create_task(listener.run())
    try:
        await until(lambda: listener.is_listening)
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            for payload in ("", "something of the user's", "reload schema", "reload config"):
                connection.execute("select pg_notify(%s, %s)", ["pgrst", payload])
        # Listening is a reason to read the schema as well.
        await until(lambda: heard == {"schema": 3, "config": 1})
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
