"""Groups of rows, where the settings allow them; Postgres is the oracle."""

import pytest

from butterbase.api.settings import ApiSettings
from tests.api.rest.conftest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = ApiSettings(rest_aggregates=True)
SCHEMA = """
create table shops (id int primary key, town text);
create table managers (shop_id int primary key references shops, name text, age int);
create table sales (
  id int primary key, shop_id int references shops, amount numeric, item text, at date,
  details jsonb
);
insert into shops values (1, 'Oslo'), (2, 'Rome'), (3, 'Rome');
insert into managers values (1, 'Ana', 30), (2, 'Bo', 40);
insert into sales values
  (1, 1, 10, 'tea', '2024-01-01', '{"n": 1}'), (2, 1, 20, 'tea', '2024-01-02', '{"n": 2}'),
  (3, 2, 5.5, 'rum', '2024-01-01', '{"n": 3}'), (4, 2, null, 'tea', '2024-01-03', null),
  (5, null, 7, 'rum', null, '{}');
create function all_sales() returns setof sales language sql stable as 'select * from sales';
create function tax(sales) returns numeric language sql stable as 'select $1.amount / 10';
"""


@pytest.mark.parametrize(
    ("select", "query"),
    [
        ("count()", "select count(*) from sales"),
        ("amount.sum()", "select sum(amount) from sales"),
        ("amount.avg()", "select avg(amount) from sales"),
        ("amount.min(),at.max()", "select min(amount), max(at) from sales"),
        ("amount.count()", "select count(amount) from sales"),
        ("total:amount.sum()", "select sum(amount) as total from sales"),
        ("amount.sum()::text", "select sum(amount)::text from sales"),
        ("at::text.max()", "select max(at::text) from sales"),
        ("amount::int.sum()::text", "select sum(amount::int)::text from sales"),
        (
            "item,amount.sum()&order=item",
            "select item, sum(amount) from sales group by 1 order by 1",
        ),
        (
            "item,shop_id,count()&order=item,shop_id",
            "select item, shop_id, count(*) from sales group by 1, 2 order by 1, 2",
        ),
        (
            "what:item,count()&order=item",
            "select item as what, count(*) from sales group by 1 order by 1",
        ),
        (
            "n:details->>n,count()&order=details->>n",
            "select details->>'n' as n, count(*) from sales group by 1 order by 1",
        ),
        ("amount.sum()&item=eq.rum", "select sum(amount) from sales where item = 'rum'"),
        ("details->>n::int.sum()", "select sum((details->>'n')::int) from sales"),
        ("tax.sum()", "select sum(tax(sales)) from sales"),
        ("item,count()&order=item&limit=1", "select 'rum' as item, 2 as count"),
        ("count()&id=eq.99", "select 0 as count"),
        ("item,count()&id=eq.99", "select item, 1 from sales where false"),
    ],
)  # fmt: skip
async def test_an_aggregate_is_that_of_postgres(rest: Rest, select: str, query: str) -> None:
    wanted = rest.sql(query)
    for target in ("sales", "rpc/all_sales"):
        found = await rest.rows(f"{target}?select={select}")
        assert [list(row.items()) for row in found] == [list(row.items()) for row in wanted]


async def test_levels_are_aggregated(rest: Rest) -> None:
    assert await rest.rows("shops?select=town,sales(amount.sum())&order=id") == [
        {"town": "Oslo", "sales": [{"sum": 30}]},
        {"town": "Rome", "sales": [{"sum": 5.5}]},
        {"town": "Rome", "sales": [{"sum": None}]},
    ]
    assert await rest.rows("shops?select=id,sales(item,count())&sales.order=item&id=eq.1") == [
        {"id": 1, "sales": [{"item": "tea", "count": 2}]}
    ]


async def test_groups_are_made_of_embedded_rows(rest: Rest) -> None:
    found = await rest.rows("sales?select=shops(town),count()")
    towns = {row["shops"]["town"] if row["shops"] else None: row["count"] for row in found}
    assert towns == {"Oslo": 2, "Rome": 2, None: 1}


async def test_a_spread_is_a_key_or_a_value_of_the_group(rest: Rest) -> None:
    found = await rest.rows("sales?select=...shops(town),amount.sum()")
    assert {row["town"]: row["sum"] for row in found} == {"Oslo": 30, "Rome": 5.5, None: 7}
    assert await rest.rows("shops?select=...managers(age.avg()),count()") == [
        {"avg": 35, "count": 3}
    ]
    found = await rest.rows("shops?select=town,...managers(oldest:age.max())")
    assert {row["town"]: row["oldest"] for row in found} == {"Oslo": 30, "Rome": 40}
    found = await rest.rows("sales?select=item,...shops(...managers(age.sum()))&order=item")
    assert found == [{"item": "rum", "sum": 40}, {"item": "tea", "sum": 100}]


async def test_the_many_are_not_aggregated_in_a_spread(rest: Rest) -> None:
    assert await rest.refusal("shops?select=...sales(amount.sum())") == (400, "PGRST127")


@pytest.mark.parametrize(
    ("select", "code"),
    [
        ("amount.median()", "PGRST100"),
        ("sum()", "PGRST200"),  # an embedded relation of that name
        ("item.sum()", "42883"),
        ("item,count()&order=amount", "42803"),
        ("nothing.sum()", "42703"),
    ],
)
async def test_what_cannot_be_aggregated_is_refused(rest: Rest, select: str, code: str) -> None:
    assert (await rest.refusal(f"sales?select={select}"))[1] == code


async def test_count_is_a_column_too(rest: Rest) -> None:
    rest.owner.execute("create table if not exists tallies (id int, count int, sum int)")
    rest.owner.execute("truncate tallies; insert into tallies values (1, 2, 3), (2, 2, 5)")
    assert await rest.rows("tallies?select=count&id=eq.1") == [{"count": 2}]
    assert await rest.rows("tallies?select=count,n:count(),sum.sum()") == [
        {"count": 2, "n": 2, "sum": 8}
    ]
