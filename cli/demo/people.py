"""The part of the demo with Supabase's own client: a table, two users, and who sees which row."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec import Struct
from psycopg import AsyncConnection, sql
from realtime.types import PostgresChangesPayload
from realtime.types import RealtimePostgresChangesListenEvent as Event
from realtime.types import RealtimeSubscribeStates as States
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from butterbase.cli.demo.errors import DemoError
from butterbase.cli.demo.instance import Instance
from butterbase.cli.demo.report import hold

SUBSCRIBED_WITHIN_S = 10.0
RECEIVED_WITHIN_S = 10.0

# As a developer would write it in a migration. Row-level security is on without being asked for.
_TABLE = """
create table {table} (
  id bigint generated always as identity primary key,
  user_id uuid not null default auth.uid(),
  title text not null);
create policy own on {table} to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
"""


class Received(Struct, frozen=True):
    title: str
    latency_ms: float
    """From the commit, by the database's clock, to our receiving it, by this machine's."""


@dataclass
class Person:
    client: AsyncClient
    email: str
    password: str
    user_id: str = ""
    token: str = ""
    inserts: "asyncio.Queue[Received]" = field(default_factory=asyncio.Queue)

    async def next_insert(self) -> Received:
        """Raises DemoError."""
        try:
            async with asyncio.timeout(RECEIVED_WITHIN_S):
                return await self.inserts.get()
        except TimeoutError:
            raise DemoError(
                f"{self.email} received no row of their own within {RECEIVED_WITHIN_S:.0f} s"
            ) from None


@asynccontextmanager
async def made_table(instance: Instance, name: str) -> AsyncIterator[AsyncConnection]:
    """A table of the developer's with one policy, dropped at the end."""
    table = sql.Identifier("public", name)
    async with await AsyncConnection.connect(instance.owner_dsn, autocommit=True) as conn:
        await conn.execute(sql.SQL(_TABLE).format(table=table))
        try:
            yield conn
        finally:
            await conn.execute(sql.SQL("drop table if exists {}").format(table))


async def check_closed(conn: AsyncConnection, name: str) -> tuple[None, str]:
    """Raises DemoError when the table is open to all."""
    cursor = await conn.execute(
        "select relrowsecurity from pg_class where oid = to_regclass(%s)", [f"public.{name}"]
    )
    hold(await cursor.fetchone() == (True,), f"public.{name} is without row-level security")
    return None, f"public.{name}: row-level security is on, one policy"


async def sign_up(instance: Instance, name: str) -> Person:
    """A new user, signed up and then signed in. The address is one that cannot exist."""
    client = await acreate_client(
        instance.url, instance.anon_key, options=AsyncClientOptions(auto_refresh_token=False)
    )
    unique = secrets.token_hex(4)
    person = Person(client, f"{name}-{unique}@demo.invalid", secrets.token_urlsafe(12))
    made = await client.auth.sign_up({"email": person.email, "password": person.password})
    again = await client.auth.sign_in_with_password(
        {"email": person.email, "password": person.password}
    )
    assert made.user is not None
    assert again.session is not None
    hold(made.user.id == again.session.user.id, "signing in gave another user than signing up")
    person.user_id, person.token = again.session.user.id, again.session.access_token
    return person


async def sign_up_two(instance: Instance) -> tuple[tuple[Person, Person], str]:
    ada, ben = await asyncio.gather(sign_up(instance, "ada"), sign_up(instance, "ben"))
    return (ada, ben), f"{ada.email}, {ben.email}"


async def subscribe_both(table: str, people: tuple[Person, Person]) -> tuple[None, str]:
    await asyncio.gather(*(_subscribe(table, person) for person in people))
    return None, "each to INSERT, over a websocket"


async def _subscribe(table: str, person: Person) -> None:
    subscribed = asyncio.get_running_loop().create_future()

    def on_insert(payload: PostgresChangesPayload) -> None:
        data = payload["data"]
        committed_at = datetime.fromisoformat(data["commit_timestamp"])
        latency_ms = (datetime.now(UTC) - committed_at).total_seconds() * 1000
        title = str((data["record"] or {}).get("title"))
        person.inserts.put_nowait(Received(title, latency_ms))

    def on_state(state: States, error: Exception | None) -> None:
        if not subscribed.done():
            subscribed.set_result((state, error))

    await person.client.realtime.set_auth(person.token)
    channel = person.client.channel("demo")
    channel.on_postgres_changes(Event.Insert, on_insert, table=table, schema="public")
    await channel.subscribe(on_state)
    async with asyncio.timeout(SUBSCRIBED_WITHIN_S):
        state, error = await subscribed
    hold(state is States.SUBSCRIBED, f"the subscription is {state.value}: {error or 'no reason'}")


async def insert_one_each(table: str, people: tuple[Person, Person]) -> tuple[None, str]:
    """A row reaches its owner and nobody else.

    The barrier: the log has one order, so when the other user's own, later row is there, the
    first one would have come before it.
    """
    ada, ben = people
    await ada.client.table(table).insert({"title": "of Ada"}).execute()
    to_ada = await ada.next_insert()
    await ben.client.table(table).insert({"title": "of Ben"}).execute()
    to_ben = await ben.next_insert()
    hold(to_ada.title == "of Ada", f"Ada was sent the row {to_ada.title!r}")
    hold(to_ben.title == "of Ben", f"Ben was sent the row {to_ben.title!r}, which is not Ben's")
    seen = await ben.client.table(table).select("title").execute()
    hold(seen.data == [{"title": "of Ben"}], f"over REST Ben sees {seen.data}")
    latency_ms = max(to_ada.latency_ms, to_ben.latency_ms)
    return None, f"commit to client at most {latency_ms:.1f} ms; the other user got their own only"


async def leave(instance: Instance, people: tuple[Person, Person]) -> None:
    """Close the sockets, end the sessions and, where we may, remove the users."""
    for person in people:
        await person.client.remove_all_channels()
        await person.client.auth.sign_out()
    if instance.admin_dsn is not None:
        ids = [person.user_id for person in people]
        async with await AsyncConnection.connect(instance.admin_dsn, autocommit=True) as conn:
            await conn.execute("delete from auth.users where id = any(%s::uuid[])", [ids])
