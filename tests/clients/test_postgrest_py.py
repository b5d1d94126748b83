"""PyPI's unmodified `postgrest` reads: both of its clients against an api worker."""

from collections.abc import Callable
from typing import Any

import pytest
from postgrest import AsyncPostgrestClient, CountMethod

from tests.clients.library import Library
from tests.clients.postgrest_py import Client, ids, refusal, rows, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Filters

Build = Callable[[Any], Any]

FILTERS: dict[str, tuple[Build, list[int]]] = {
    "eq": (lambda q: q.eq("id", 3), [3]),
    "eq a boolean": (lambda q: q.eq("in_print", True), [1, 3, 5]),
    "eq a text of odd signs": (lambda q: q.eq("title", 'A "quoted", (odd) title'), [5]),
    "neq": (lambda q: q.neq("id", 3), [1, 2, 4, 5]),
    "gt": (lambda q: q.gt("price", 9.5), [3]),
    "gte": (lambda q: q.gte("price", 9.5), [1, 3]),
    "lt": (lambda q: q.lt("published", "1971-10-01"), [3]),
    "lte": (lambda q: q.lte("published", "1971-10-01"), [2, 3]),
    "is null": (lambda q: q.is_("price", None), [4]),
    "is true": (lambda q: q.is_("in_print", True), [1, 3, 5]),
    "is false": (lambda q: q.is_("in_print", False), [2]),
    "like": (lambda q: q.like("title", "The%"), [1, 2]),
    "like with stars": (lambda q: q.like("title", "*s"), [3, 4]),
    "like_all_of": (lambda q: q.like_all_of("title", "The%,%d"), [1]),
    "like_any_of": (lambda q: q.like_any_of("title", "Sol%,Inv%"), [3, 4]),
    "ilike": (lambda q: q.ilike("title", "%THE%"), [1, 2]),
    "ilike_all_of": (lambda q: q.ilike_all_of("title", "the%,%HEAVEN"), [2]),
    "ilike_any_of": (lambda q: q.ilike_any_of("title", "sol%,inv%"), [3, 4]),
    "in_": (lambda q: q.in_("id", [1, 4, 99]), [1, 4]),
    "in_ with odd signs": (
        lambda q: q.in_("title", ['A "quoted", (odd) title', "Solaris"]),
        [3, 5],
    ),
    "in_ nothing": (lambda q: q.in_("id", []), []),
    "cs": (lambda q: q.cs("tags", ["utopia"]), [1]),
    "cs an element with a comma": (lambda q: q.cs("tags", ["a, b"]), [3]),
    "cd": (lambda q: q.cd("tags", ["dreams", "odd"]), [2, 4, 5]),
    "contains of an array": (lambda q: q.contains("tags", ["ocean", "a, b"]), [3]),
    "contains of json": (lambda q: q.contains("doc", {"format": {"size": "small"}}), [1]),
    "contains of a range": (lambda q: q.contains("sold", "[16,18)"), [1, 3]),
    "contained_by of an array": (lambda q: q.contained_by("tags", ["odd"]), [4, 5]),
    "contained_by of json": (lambda q: q.contained_by("doc", {"pages": 5, "x": 1}), [5]),
    "contained_by of a range": (lambda q: q.contained_by("sold", "[0,25)"), [1, 5]),
    "ov of arrays": (lambda q: q.ov("tags", ["dreams", "odd"]), [2, 5]),
    "overlaps of a range": (lambda q: q.overlaps("sold", "[29,90)"), [2, 3]),
    "sl": (lambda q: q.sl("sold", (15, 25)), [5]),
    "sr": (lambda q: q.sr("sold", (1, 15)), [2, 3]),
    "nxl": (lambda q: q.nxl("sold", (15, 99)), [2]),
    "nxr": (lambda q: q.nxr("sold", (1, 30)), [1, 2, 5]),
    "adj": (lambda q: q.adj("sold", (2, 10)), [1, 5]),
    "range_gt": (lambda q: q.range_gt("sold", (1, 15)), [2, 3]),
    "range_gte": (lambda q: q.range_gte("sold", (15, 99)), [2]),
    "range_lt": (lambda q: q.range_lt("sold", (15, 25)), [5]),
    "range_lte": (lambda q: q.range_lte("sold", (1, 30)), [1, 2, 5]),
    "range_adjacent": (lambda q: q.range_adjacent("sold", (2, 10)), [1, 5]),
    "fts": (lambda q: q.fts("words", "heaven | solaris"), [2, 3]),
    "plfts": (lambda q: q.plfts("words", "city invisible"), [4]),
    "phfts": (lambda q: q.phfts("words", "invisible cities"), [4]),
    "wfts": (lambda q: q.wfts("words", "heaven or cities"), [2, 4]),
    "text_search": (lambda q: q.text_search("title", "lathes", {"config": "english"}), [2]),
    "text_search, plain": (
        lambda q: q.text_search("title", "odd title", {"type": "plain", "config": "english"}),
        [5],
    ),
    "text_search, phrase": (
        lambda q: q.text_search("words", "odd title", {"type": "phrase"}),
        [5],
    ),
    "text_search, web": (
        lambda q: q.text_search("words", "heaven or -lathe", {"type": "web_search"}),
        [1, 2, 3, 4, 5],
    ),
    "match": (lambda q: q.match({"author_id": 1, "in_print": False}), [2]),
    "not_": (lambda q: q.not_.in_("id", [1, 2]), [3, 4, 5]),
    "not_ is null": (lambda q: q.not_.is_("price", None), [1, 2, 3, 5]),
    "or_": (lambda q: q.or_("id.eq.1,and(price.lt.5,in_print.is.true)"), [1, 5]),
    "or_ with quotes": (lambda q: q.or_('title.eq."A \\"quoted\\", (odd) title",id.eq.2'), [2, 5]),
    "filters are and-ed": (lambda q: q.gt("id", 1).lt("id", 4).eq("in_print", True), [3]),
    "filter, a raw operator": (lambda q: q.filter("title", "imatch", "^sol"), [3]),
    "filter, isdistinct": (lambda q: q.filter("in_print", "isdistinct", "true"), [2, 4]),
    "filter, any": (lambda q: q.filter("id", "eq(any)", "{1,5}"), [1, 5]),
    "a path in json": (lambda q: q.eq("doc->format->>size", "small"), [1]),
    "a number in json": (lambda q: q.gt("doc->pages", 200), [1, 3]),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_finds_its_rows(client: Client, name: str) -> None:
    build, expected = FILTERS[name]
    assert await ids(build(client.from_("books").select("id")).order("id")) == expected


# Reading


async def test_a_select_names_renames_and_casts_columns(client: Client) -> None:
    select = client.from_("books").select("id", "name:title", "price::text", "doc->>pages")
    assert await rows(select.eq("id", 1)) == [
        {"id": 1, "name": "The Dispossessed", "price": "9.50", "pages": "387"}
    ]
    assert await rows(client.from_("books").select("title_of").eq("id", 3)) == [
        {"title_of": "SOLARIS"}
    ]


async def test_relations_are_embedded(client: Client) -> None:
    select = client.from_("books").select("title, author:authors(name), shelves(name)")
    assert await rows(select.eq("id", 3).order("name", foreign_table="shelves")) == [
        {
            "title": "Solaris",
            "author": {"name": "Stanisław"},
            "shelves": [{"name": "classics"}, {"name": "lent"}],
        }
    ]
    select = client.from_("authors").select("name", "mentor:mentor_id(name)")
    assert await rows(select.eq("id", 3)) == [{"name": "Italo", "mentor": {"name": "Ursula"}}]
    assert await rows(client.from_("cheap_books").select("id, ...authors(name)").eq("id", 2)) == [
        {"id": 2, "name": "Ursula"}
    ]


async def test_rows_without_a_related_row_are_left_out_on_request(client: Client) -> None:
    select = client.from_("books").select("id, shelves!inner(id)").eq("shelves.name", "lent")
    assert await rows(select) == [{"id": 3, "shelves": [{"id": 2}]}]
    embedded = client.from_("authors").select("id, books()").not_.is_("books", "null")
    assert await ids(embedded.eq("books.in_print", True).order("id")) == [1, 2]


async def test_filters_and_pages_reach_related_rows(client: Client) -> None:
    authors = client.from_("authors").select("id, books(id)").order("id")
    ordered = authors.order("id", desc=True, foreign_table="books")
    assert (await rows(ordered.limit(1, foreign_table="books")))[0] == {
        "id": 1,
        "books": [{"id": 2}],
    }
    authors = client.from_("authors").select("id, books(id)").eq("id", 1)
    chosen = authors.or_("id.eq.1,id.eq.99", reference_table="books")
    assert await rows(chosen) == [{"id": 1, "books": [{"id": 1}]}]
    authors = client.from_("authors").select("id, books(id)").eq("id", 1)
    paged = authors.order("id", foreign_table="books").range(1, 1, foreign_table="books")
    assert await rows(paged) == [{"id": 1, "books": [{"id": 2}]}]


async def test_rows_are_ordered(client: Client) -> None:
    def books() -> Any:
        return client.from_("books").select("id")

    assert await ids(books().order("price", nullsfirst=True)) == [4, 5, 2, 1, 3]
    assert await ids(books().order("price", desc=True, nullsfirst=False)) == [3, 1, 2, 5, 4]
    by_two = books().order("in_print", nullsfirst=False).order("id", desc=True)
    assert await ids(by_two) == [2, 5, 3, 1, 4]
    by_author = client.from_("books").select("id, authors(name)").order("authors(name)")
    assert (await ids(by_author.order("id")))[:4] == [4, 3, 1, 2]


async def test_rows_are_paged(client: Client) -> None:
    def books() -> Any:
        return client.from_("books").select("id").order("id")

    assert await ids(books().limit(2)) == [1, 2]
    assert await ids(books().limit(2).offset(3)) == [4, 5]
    assert await ids(books().range(1, 2)) == [2, 3]
    assert await ids(books().range(10, 20)) == []


@pytest.mark.parametrize("method", list(CountMethod))
async def test_rows_are_counted(client: Client, library: Library, method: CountMethod) -> None:
    library.installation.as_owner("analyze books")
    answer = await run(client.from_("books").select("id", count=method).limit(1))
    assert (len(answer.data), answer.count) == (1, 5)


async def test_a_count_needs_no_rows(client: Client) -> None:
    select = client.from_("books").select("*", count=CountMethod.exact, head=True)
    answer = await run(select.eq("author_id", 1))
    assert (answer.data, answer.count) == ([], 2)


async def test_single_is_one_object_or_an_error(client: Client) -> None:
    def books() -> Any:
        return client.from_("books").select("id")

    assert await rows(books().eq("id", 1).single()) == {"id": 1}
    none, many = await refusal(books().eq("id", 99).single()), await refusal(books().single())
    assert (none.code, none.details) == ("PGRST116", "The result contains 0 rows")
    assert (many.code, many.details) == ("PGRST116", "The result contains 5 rows")


async def test_maybe_single_is_one_object_or_nothing(client: Client) -> None:
    def books() -> Any:
        return client.from_("books").select("id")

    assert await rows(books().eq("id", 1).maybe_single()) == {"id": 1}
    assert await run(books().eq("id", 99).maybe_single()) is None
    assert (await refusal(books().maybe_single())).code == "406"


async def test_rows_come_as_csv(client: Client) -> None:
    select = client.from_("books").select("id", "title").in_("id", [3, 5]).order("id")
    assert await rows(select.csv()) == 'id,title\n3,Solaris\n5,"A ""quoted"", (odd) title"'


async def test_nulls_are_left_out_on_request(client: Client) -> None:
    def book() -> Any:
        return client.from_("books").select("id, price, doc").eq("id", 4)

    assert await rows(book().strip_nulls()) == [{"id": 4}]
    assert await rows(book().strip_nulls().single()) == {"id": 4}


# Other schemas, plans


async def test_another_schema_is_reached(client: Client) -> None:
    shop = client.schema("shop")
    assert await rows(shop.from_("offers").select("label")) == [{"label": "two for one"}]
    assert await rows(shop.from_("offers").insert({"id": 2, "label": "x"})) == [
        {"id": 2, "label": "x"}
    ]
    assert await rows(shop.rpc("best", {})) == "two for one"
    assert await rows(shop.rpc("best", {}, get=True)) == "two for one"
    assert (await refusal(client.schema("secret").from_("x").select())).code == "PGRST106"


async def test_an_app_shows_no_plans(client: Client) -> None:
    assert (await refusal(client.from_("books").select().explain())).code == "PGRST107"


async def test_plans_are_shown_where_they_are_allowed(library: Library, postgrest_url: str) -> None:
    async with AsyncPostgrestClient(postgrest_url) as client:
        text = await client.from_("books").select("id").explain().execute()
        assert "cost=" in text
        plan = client.from_("books").select("id").explain(
            analyze=True, verbose=True, settings=True, buffers=True, wal=True, format="json"
        )  # fmt: skip
        (shown,) = (await plan.execute()).data  # type: ignore[misc]
        assert {"Plan", "Execution Time"} <= set(shown)  # type: ignore[arg-type]
        update = client.from_("books").update({"price": 1}).eq("id", 1)
        assert "Update on" in await update.explain().execute()
