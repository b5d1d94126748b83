"""To-dos of two users, with the unmodified Supabase client: rows, policies and live changes.

Needs `pip install supabase`, a running Butterbase with the migrations beside this file, and its
address and anon key in SUPABASE_URL and SUPABASE_ANON_KEY. See README.md.
"""

# ruff: noqa: T201

import asyncio
import os
import secrets

from supabase import AsyncClient, acreate_client

WAIT_S = 10


async def sign_up(name: str) -> AsyncClient:
    """A client that is signed in as a new user."""
    client = await acreate_client(os.environ["SUPABASE_URL"], os.environ["SUPABASE_ANON_KEY"])
    email, password = f"{name}-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe()
    answer = await client.auth.sign_up({"email": email, "password": password})
    assert answer.session is not None
    await client.realtime.set_auth(answer.session.access_token)
    print(f"{name} signed up as {email}")
    return client


async def follow(client: AsyncClient) -> "asyncio.Queue[str]":
    """The titles of to-dos that are inserted from now on, as far as the user may see them."""
    titles = asyncio.Queue[str]()
    subscribed = asyncio.Event()

    def on_state(state: str, error: Exception | None) -> None:
        if state == "SUBSCRIBED":
            subscribed.set()

    channel = client.channel("todos")
    channel.on_postgres_changes(
        "INSERT",
        schema="public",
        table="todos",
        callback=lambda change: titles.put_nowait(change["data"]["record"]["title"]),
    )
    await channel.subscribe(on_state)
    async with asyncio.timeout(WAIT_S):
        await subscribed.wait()
    return titles


async def main() -> None:
    ada, ben = await sign_up("ada"), await sign_up("ben")
    for_ada, for_ben = await follow(ada), await follow(ben)

    # Ada's row is committed first: had Ben been sent it, it would stand before his own.
    await ada.table("todos").insert({"title": "write the migration"}).execute()
    await ben.table("todos").insert({"title": "read the policy"}).execute()
    async with asyncio.timeout(WAIT_S):
        print(f"ada was told of {await for_ada.get()!r}")
        print(f"ben was told of {await for_ben.get()!r}")

    await ada.table("todos").update({"done": True}).eq("title", "write the migration").execute()
    for name, client in (("ada", ada), ("ben", ben)):
        rows = await client.table("todos").select("title, done").order("id").execute()
        print(f"{name} sees {rows.data}")

    for client in (ada, ben):
        await client.remove_all_channels()
        await client.auth.sign_out()


asyncio.run(main())
