"""Which rows are answered, in which order, and what is told of how many there are."""

import pytest

from tests.api.rest.conftest import OBJECT, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create table makers (id int primary key, name text);
create table cars (
  id int primary key, maker_id int references makers, name text, price int, sold date
);
insert into makers values (1, 'Volvo'), (2, 'Audi'), (3, null);
insert into cars values
  (1, 1, 'p', 10, '2020-01-01'), (2, 1, 'q', null, null), (3, 2, 'r', 30, '2021-01-01'),
  (4, 2, 'p', 20, null), (5, 3, 's', 20, '2019-01-01'), (6, null, 'a', null, '2022-01-01');
create table empty (id int primary key);
create table numbers as select generate_series(1, 3000) as n;
analyze numbers;
create function numbers_to(most int) returns setof int language sql stable
  as 'select generate_series(1, most)';
create function all_cars() returns setof cars language sql stable as 'select * from cars';
create function name_and_price(cars) returns text language sql stable
  as 'select $1.name || coalesce($1.price, 0)';
"""

CARS = "cars?select=id"


@pytest.mark.parametrize(
    ("order", "clause"),
    [
        ("id", "id"),
        ("id.desc", "id desc"),
        ("price,id", "price, id"),
        ("price.desc,id", "price desc, id"),
        ("price.nullsfirst,id", "price nulls first, id"),
        ("price.asc.nullslast,id.desc", "price nulls last, id desc"),
        ("price.desc.nullslast,id", "price desc nulls last, id"),
        ("price.desc.nullsfirst,id", "price desc nulls first, id"),
        ("name,price.desc.nullslast,id", "name, price desc nulls last, id"),
        ('"price".desc,"id"', "price desc, id"),
        ("name_and_price.desc,id", "name_and_price(cars) desc, id"),
    ],
)
async def test_rows_are_in_the_order_of_postgres(rest: Rest, order: str, clause: str) -> None:
    wanted = rest.sql(f"select id from cars order by {clause}")  # noqa: S608
    assert await rest.rows(f"{CARS}&order={order}") == wanted
    assert await rest.rows(f"rpc/all_cars?select=id&order={order}") == wanted


@pytest.mark.parametrize(
    ("order", "clause"),
    [
        ("makers(name),id", "m.name, c.id"),
        ("makers(name).desc.nullslast,id", "m.name desc nulls last, c.id"),
        ("makers(name).nullsfirst,price.desc,id", "m.name nulls first, c.price desc, c.id"),
    ],
)
async def test_rows_are_ordered_by_a_row_that_they_belong_to(
    rest: Rest, order: str, clause: str
) -> None:
    wanted = rest.sql(
        f"select c.id from cars c left join makers m on m.id = maker_id order by {clause}"  # noqa: S608
    )
    found = await rest.rows(f"cars?select=id,makers(name)&order={order}")
    assert [{"id": row["id"]} for row in found] == wanted
    aliased = order.replace("makers", "m")
    assert [r["id"] for r in await rest.rows(f"cars?select=id,m:makers(name)&order={aliased}")] == [
        r["id"] for r in wanted
    ]


async def test_each_level_has_its_own_order_and_page(rest: Rest) -> None:
    found = await rest.rows(
        "makers?select=id,cars(id)&order=id.desc&limit=2&offset=1"
        "&cars.order=id.desc&cars.limit=1&cars.offset=1"
    )
    assert found == [{"id": 2, "cars": [{"id": 3}]}, {"id": 1, "cars": [{"id": 1}]}]
    assert await rest.rows("makers?select=cars(id)&cars.limit=0&limit=1") == [{"cars": []}]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("order=makers(name)", "PGRST108"),
        ("select=id,makers(name)&order=nothing(name)", "PGRST108"),
        ("order=id.up", "PGRST100"),
        ("order=id.asc.nullsmiddle", "PGRST100"),
        ("order=nothing", "42703"),
        ("cars.order=id", "PGRST108"),
        ("cars.limit=1", "PGRST108"),
    ],
)
async def test_an_order_that_cannot_be_is_refused(rest: Rest, query: str, code: str) -> None:
    assert await rest.refusal(f"cars?{query}") == (400, code)


async def test_rows_are_not_ordered_by_the_many(rest: Rest) -> None:
    assert await rest.refusal("makers?select=id,cars(id)&order=cars(id)") == (400, "PGRST118")


@pytest.mark.parametrize(
    ("query", "headers", "ids", "told"),
    [
        ("", {}, [1, 2, 3, 4, 5, 6], "0-5/*"),
        ("&limit=2", {}, [1, 2], "0-1/*"),
        ("&limit=2&offset=3", {}, [4, 5], "3-4/*"),
        ("&offset=4", {}, [5, 6], "4-5/*"),
        ("&limit=0", {}, [], "*/*"),
        ("&offset=9", {}, [], "*/*"),
        ("", {"Range": "1-2"}, [2, 3], "1-2/*"),
        ("", {"Range": "4-"}, [5, 6], "4-5/*"),
        ("", {"Range": "0-99", "Range-Unit": "items"}, [1, 2, 3, 4, 5, 6], "0-5/*"),
        ("", {"Range": "rows=1-2"}, [1, 2, 3, 4, 5, 6], "0-5/*"),
        ("&limit=3&offset=1", {"Range": "2-9"}, [3, 4], "2-3/*"),
        ("&limit=banana", {}, [1, 2, 3, 4, 5, 6], "0-5/*"),
    ],
)
async def test_a_page_is_asked_for_by_limit_and_by_range(
    rest: Rest, query: str, headers: dict[str, str], ids: list[int], told: str
) -> None:
    answer = await rest.get(f"{CARS}&order=id{query}", headers=rest.api.service | headers)
    assert answer.status_code == 200
    assert [row["id"] for row in answer.json()] == ids
    assert answer.headers["content-range"] == told


@pytest.mark.parametrize(
    ("path", "count", "status", "told"),
    [
        ("cars", "exact", 200, "0-5/6"),
        ("cars?limit=2", "exact", 206, "0-1/6"),
        ("cars?limit=2&offset=4", "exact", 206, "4-5/6"),
        ("cars?price=gte.20", "exact", 200, "0-2/3"),
        ("cars?price=gte.20&limit=1", "exact", 206, "0-0/3"),
        ("cars?limit=0", "exact", 206, "*/6"),
        ("cars?offset=6", "exact", 206, "*/6"),
        ("empty", "exact", 200, "*/0"),
        ("cars?id=eq.99", "exact", 200, "*/0"),
        ("cars?select=id,makers!inner()&makers.name=eq.Audi&limit=1", "exact", 206, "0-0/2"),
        ("makers?select=id,cars()&cars=is.null", "exact", 200, "*/0"),
        ("makers?select=id,cars()&cars.price=gt.15&cars=not.is.null", "exact", 200, "0-1/2"),
        ("rpc/all_cars?limit=2", "exact", 206, "0-1/6"),
        ("rpc/numbers_to?most=5&limit=2", "exact", 206, "0-1/5"),
        ("numbers?limit=1", "planned", 206, "0-0/3000"),
        ("numbers?limit=1", "estimated", 206, "0-0/3000"),
        ("cars?limit=1", "estimated", 206, "0-0/6"),
    ],
)
async def test_all_rows_are_counted_when_asked(
    rest: Rest, path: str, count: str, status: int, told: str
) -> None:
    for method in ("GET", "HEAD"):
        answer = await rest.call(method, path, prefer=f"count={count}")
        assert (answer.status_code, answer.headers["content-range"]) == (status, told), method
        assert answer.headers["preference-applied"] == f"count={count}"
    assert answer.content == b""


@pytest.mark.parametrize(
    ("path", "range_"),
    [("cars", "10-20"), ("cars?id=eq.1", "7-"), ("empty", "1-"), ("rpc/all_cars", "8-9")],
)
async def test_a_page_behind_the_last_row_is_416(rest: Rest, path: str, range_: str) -> None:
    headers = rest.api.service | {"Range": range_}
    answer = await rest.get(path, headers=headers, prefer="count=exact")
    assert (answer.status_code, answer.json()["code"]) == (416, "PGRST103")
    assert answer.headers["content-range"].startswith("*/")


@pytest.mark.parametrize(("query", "range_"), [("", "5-1"), ("limit=-1", ""), ("limit=-9", "")])
async def test_a_page_that_ends_before_it_begins_is_416(
    rest: Rest, query: str, range_: str
) -> None:
    headers = rest.api.service | ({"Range": range_} if range_ else {})
    assert await rest.refusal(f"cars?{query}", headers=headers) == (416, "PGRST103")


@pytest.mark.parametrize("page", ["limit=99999999999999999999", "offset=99999999999999999999"])
async def test_a_number_beyond_those_of_postgres_is_its_largest(rest: Rest, page: str) -> None:
    rows = await rest.rows(f"cars?{page}")
    assert len(rows) == (6 if page.startswith("limit") else 0)


async def test_one_row_is_asked_for_as_an_object(rest: Rest) -> None:
    one = await rest.get(f"{CARS}&id=eq.3", accept=OBJECT)
    assert (one.status_code, one.json()) == (200, {"id": 3})
    assert one.headers["content-type"] == f"{OBJECT}; charset=utf-8"
    for query in ("id=eq.99", "id=lt.3"):
        assert await rest.refusal(f"{CARS}&{query}", accept=OBJECT) == (406, "PGRST116")


async def test_a_count_is_of_what_the_caller_may_see(rest: Rest) -> None:
    answer = await rest.get("cars", headers=rest.api.anon, prefer="count=exact")
    assert (answer.json(), answer.headers["content-range"]) == ([], "*/0")
