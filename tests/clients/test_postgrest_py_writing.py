"""PyPI's unmodified `postgrest` writes, calls functions, and is refused."""

from typing import Any

import pytest
from postgrest import AsyncPostgrestClient, CountMethod, ReturnMethod

from tests.clients.library import Library
from tests.clients.postgrest_py import (
    CLIENTS,
    Client,
    client_of,
    close,
    ids,
    refusal,
    rows,
    run,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


# Insert


async def test_a_row_is_inserted_and_answered(client: Client) -> None:
    (row,) = await rows(
        client.from_("books").insert({"title": "Roadside Picnic", "tags": ["zone"]})
    )
    assert (row["id"], row["title"], row["tags"]) == (101, "Roadside Picnic", ["zone"])
    chosen = (
        client.from_("books").insert({"title": "We", "author_id": 1}).select("title, authors(name)")
    )
    assert await rows(chosen) == [{"title": "We", "authors": {"name": "Ursula"}}]


async def test_a_minimal_answer_has_no_rows(client: Client) -> None:
    insert = client.from_("books").insert(
        [{"title": "a"}, {"title": "b"}], returning=ReturnMethod.minimal, count=CountMethod.exact
    )
    answer = await run(insert)
    assert (answer.data, answer.count) == ([], 2)


async def test_rows_with_other_keys_are_filled_with_nulls_or_defaults(client: Client) -> None:
    given = [{"name": "Ada", "country": "UK"}, {"name": "Bo"}]
    nulls = client.from_("authors").insert(given).select("country")
    assert await rows(nulls) == [{"country": "UK"}, {"country": None}]
    await run(client.from_("authors").delete().in_("name", ["Ada", "Bo"]))
    defaults = client.from_("authors").insert(given, default_to_null=False).select("country")
    assert await rows(defaults) == [{"country": "UK"}, {"country": "unknown"}]


async def test_many_rows_are_one_insert(client: Client) -> None:
    given = [{"title": f"volume {n}", "price": n} for n in range(1000)]
    inserted = await run(client.from_("books").insert(given, count=CountMethod.exact))
    assert (len(inserted.data), inserted.count) == (1000, 1000)


# Upsert


async def test_an_upsert_merges_by_the_primary_key(client: Client) -> None:
    given = [{"id": 1, "name": "Ursula K."}, {"id": 9, "name": "Arkady"}]
    upsert = client.from_("authors").upsert(given).select("id, name, country")
    assert await rows(upsert) == [
        {"id": 1, "name": "Ursula K.", "country": "US"},
        {"id": 9, "name": "Arkady", "country": "unknown"},
    ]
    again = client.from_("authors").insert({"id": 9, "name": "Boris"}, upsert=True).select("name")
    assert await rows(again) == [{"name": "Boris"}]


async def test_an_upsert_merges_by_other_unique_columns(client: Client) -> None:
    given = {"author_id": 2, "title": "Solaris", "price": 3}
    upsert = client.from_("books").upsert(given, on_conflict="author_id,title").select("id, price")
    assert await rows(upsert) == [{"id": 3, "price": 3.0}]
    named = client.from_("authors").upsert(
        [{"name": "Italo", "country": "Italy"}, {"name": "New"}],
        on_conflict="name",
        default_to_null=False,
    )
    assert [row["country"] for row in await rows(named)] == ["Italy", "unknown"]


async def test_an_upsert_may_leave_duplicates_as_they_are(client: Client) -> None:
    given = [{"name": "Italo", "country": "Italy"}, {"name": "New", "country": "here"}]
    upsert = client.from_("authors").upsert(given, on_conflict="name", ignore_duplicates=True)
    assert [row["name"] for row in await rows(upsert)] == ["New"]
    kept = client.from_("authors").select("country").eq("name", "Italo")
    assert await rows(kept) == [{"country": None}]


# Update, delete


async def test_rows_are_updated(client: Client) -> None:
    update = client.from_("books").update(
        {"price": 5, "doc": {"pages": 1}}, count=CountMethod.exact
    )
    answer = await run(update.eq("author_id", 1).select("id, price, doc").order("id"))
    assert answer.data == [
        {"id": 1, "price": 5.0, "doc": {"pages": 1}},
        {"id": 2, "price": 5.0, "doc": {"pages": 1}},
    ]
    assert answer.count == 2
    none = client.from_("books").update({"price": 5}, returning=ReturnMethod.minimal)
    assert await rows(none.eq("id", 99)) == []


async def test_rows_are_deleted(client: Client) -> None:
    deleted = client.from_("books").delete(count=CountMethod.exact).lt("price", 10)
    answer = await run(deleted.select("id, authors(name)").order("id"))
    assert answer.data == [
        {"id": 1, "authors": {"name": "Ursula"}},
        {"id": 2, "authors": {"name": "Ursula"}},
        {"id": 5, "authors": None},
    ]
    assert answer.count == 3
    assert await ids(client.from_("books").select("id").order("id")) == [3, 4]
    one = client.from_("books").delete().eq("id", 3).select("id")
    assert await rows(one.single()) == {"id": 3}


async def test_more_rows_than_allowed_are_not_changed(client: Client) -> None:
    update = client.from_("books").update({"price": 0}).gt("id", 0).max_affected(2)
    assert (await refusal(update)).code == "PGRST124"
    assert (
        await refusal(client.from_("books").delete().gt("id", 0).max_affected(4))
    ).code == "PGRST124"
    assert await ids(client.from_("books").select("id").eq("price", 0)) == []
    allowed = client.from_("books").update({"price": 0}).eq("author_id", 1).max_affected(2)
    assert len(await rows(allowed)) == 2


# Functions


@pytest.mark.parametrize("is_get", [False, True])
async def test_functions_are_called(client: Client, is_get: bool) -> None:
    def call(name: str, arguments: dict[str, Any]) -> Any:
        return client.rpc(name, arguments, get=is_get)

    assert await rows(call("add", {"a": 2, "b": 3})) == 5
    assert await rows(call("add", {"a": 2})) == 3
    assert await rows(call("echo", {"value": {"a": [1, None]}})) == {"a": [1, None]}
    assert await ids(call("books_with", {"wanted": ["a, b", "ocean"]})) == [3]
    found = call("books_of", {"author": "Ursula"}).select("id, authors(name)")
    assert await rows(found.gt("id", 1)) == [{"id": 2, "authors": {"name": "Ursula"}}]
    assert await ids(call("books_of", {"author": "Ursula"}).order("id", desc=True).limit(1)) == [2]
    assert await ids(call("books_of", {"author": "Ursula"}).order("id").range(1, 5)) == [2]
    one = call("books_of", {"author": "Italo"}).select("id").single()
    assert await rows(one) == {"id": 4}
    assert await run(call("books_of", {"author": "nobody"}).maybe_single()) is None
    csv = call("books_of", {"author": "Italo"}).select("id,title").csv()
    assert await rows(csv) == 'id,title\n4,"Invisible Cities"'


async def test_what_a_function_finds_is_counted(client: Client) -> None:
    def call(**options: Any) -> Any:
        return client.rpc("books_of", {"author": "Ursula"}, count=CountMethod.exact, **options)

    head, counted = await run(call(head=True)), await run(call().limit(1))
    assert (head.data, head.count) == ([], 2)
    assert (len(counted.data), counted.count) == (1, 2)


async def test_a_function_that_writes_is_not_for_get(client: Client) -> None:
    assert await refused(client.rpc("discard", {"book_id": 1}, get=True)) == "25006"
    assert await rows(client.rpc("discard", {"book_id": 1})) == []
    assert await ids(client.from_("books").select("id").eq("id", 1)) == []
    discard = client.rpc("discard_of", {"author": 1}).select("id")
    assert await rows(discard) == [{"id": 2}]


# Errors


async def refused(request: Any) -> str | None:
    return (await refusal(request)).code


async def test_an_error_is_the_clients_own_with_all_its_parts(client: Client) -> None:
    error = await refusal(client.rpc("refuse", {}))
    assert error.json() == {
        "message": "not today",
        "code": "P0001",
        "hint": "come back",
        "details": "it is Sunday",
    }
    brewed = await refusal(client.rpc("brew", {}))
    assert (brewed.code, brewed.message, brewed.hint) == ("PT418", "short and stout", "a cup")


async def test_errors_have_postgrests_codes(client: Client) -> None:
    books = client.from_("books")
    assert await refused(client.from_("bookz").select()) == "PGRST205"
    assert await refused(books.select("nothing")) == "42703"
    assert await refused(books.select("id, nobody(id)")) == "PGRST200"
    assert await refused(books.select().filter("id", "eqq", "1")) == "PGRST100"
    assert await refused(books.select().eq("id", "x")) == "22P02"
    assert await refused(books.select("id.sum()")) == "PGRST123"
    assert await refused(books.insert({"nothing": 1})) == "PGRST204"
    assert await refused(books.insert({"price": 1})) == "23502"
    assert await refused(books.insert({"title": "x", "author_id": 99})) == "23503"
    assert await refused(client.from_("authors").insert({"name": "Italo"})) == "23505"
    assert await refused(books.upsert({"title": "x"}, on_conflict="title")) == "42P10"
    assert await refused(client.rpc("nothing", {})) == "PGRST202"
    assert await refused(client.rpc("add", {"c": 1})) == "PGRST202"
    assert await refused(books.select("*", head=True).eq("nothing", 1)) == "42703"


async def test_a_hint_names_what_was_meant(client: Client) -> None:
    error = await refusal(client.from_("bookz").select())
    assert error.hint == "Perhaps you meant the table 'public.books'"
    assert error.message == "Could not find the table 'public.bookz' in the schema cache"


# Users


@pytest.mark.parametrize("name", sorted(CLIENTS))
async def test_users_see_and_change_their_own_rows(library: Library, name: str) -> None:
    tokens = [library.sign_up(f"{who}-{name}@example.com") for who in ("alice", "bob")]
    alice, bob = (client_of(name, library, token) for token in tokens)
    try:
        (hers,) = await rows(alice.from_("notes").insert({"body": "milk"}))
        (his,) = await rows(bob.from_("notes").insert({"body": "bread"}))
        assert hers["user_id"] != his["user_id"]
        assert await rows(alice.from_("notes").select("body")) == [{"body": "milk"}]
        assert await rows(bob.from_("notes").select("body")) == [{"body": "bread"}]
        assert await rows(bob.from_("notes").update({"body": "x"}).eq("id", hers["id"])) == []
        assert await rows(bob.from_("notes").delete().eq("id", hers["id"])) == []
        theft = bob.from_("notes").insert({"body": "x", "user_id": hers["user_id"]})
        assert await refused(theft) == "42501"
        counted = await run(bob.from_("notes").select("*", count=CountMethod.exact, head=True))
        assert counted.count == 1
        assert await rows(alice.from_("books").select()) == []
    finally:
        await close(alice)
        await close(bob)
    assert library.sql("select body from notes order by id") == [("milk",), ("bread",)]


async def test_a_token_is_checked(library: Library) -> None:
    client = AsyncPostgrestClient(f"{library.url}/rest/v1", headers={"apikey": library.keys.anon})
    async with client:
        client.auth("nonsense")
        assert await refused(client.from_("notes").select()) == "PGRST301"
        client.auth(library.sign_up("carol@example.com"))
        assert await rows(client.from_("notes").select()) == []
