"""PATCH and DELETE: which rows they change, and what is answered."""

import pytest

from tests.api.rest.conftest import OBJECT, RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create table owners (id int primary key, name text);
create table pets (
  id int primary key, name text default 'nameless',
  owner_id int references owners on delete cascade,
  age int default 1, facts jsonb, tags text[]
);
create table places (a int, b int, note text, primary key (a, b));
create view old_pets as select id, name, age from pets where age > 5;
create view totals as select count(*) from pets;
create function doubled(pets) returns int language sql stable as 'select $1.age * 2';
create function same_owner(pets) returns setof pets language sql stable
  as 'select * from pets where owner_id = $1.owner_id';
"""
ROWS = """
truncate owners, pets, places;
insert into owners values (1, 'Ana'), (2, 'Bo');
insert into pets values
  (1, 'Rex', 1, 3, '{"k": 1}', '{a}'), (2, 'Ziggy', 1, 9, '{"k": 2}', null),
  (3, 'Mia', 2, 6, null, '{}'), (4, 'Kit', null, null, null, null);
insert into places values (1, 1, 'x'), (1, 2, 'y'), (2, 1, 'z');
"""
FORM = "application/x-www-form-urlencoded"


async def pets(rest: Rest, columns: str = "id, name, age") -> list[list[object]]:
    rows = rest.sql(f"select {columns} from pets order by id")  # noqa: S608
    return [list(row.values()) for row in rows]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("id=eq.1", [1]),
        ("id=in.(1,3)", [1, 3]),
        ("age=gt.5&owner_id=eq.1", [2]),
        ("or=(id.eq.1,age.is.null)", [1, 4]),
        ("not.and=(id.gt.1,id.lt.4)", [1, 4]),
        ("facts->>k=eq.2", [2]),
        ("tags=cs.{a}", [1]),
        ("doubled=eq.6", [1]),
        ("name=ilike(any).{r*,z*}", [1, 2]),
        ("id=eq.99", []),
        ("", [1, 2, 3, 4]),
    ],
)
async def test_the_rows_that_match_are_changed_or_deleted(
    rest: Rest, filters: str, ids: list[int]
) -> None:
    wanted = [{"id": n} for n in ids]
    answer = await rest.call(
        "PATCH", f"pets?select=id&order=id&{filters}", json={"owner_id": 2}, prefer=RETURN
    )
    assert (answer.status_code, answer.json()) == (200, wanted)
    # Those that matched by what was changed match no more; that is nothing to wait for.
    rest.owner.execute(ROWS.encode())
    answer = await rest.call("DELETE", f"pets?select=id&order=id&{filters}", prefer=RETURN)
    assert (answer.status_code, answer.json()) == (200, wanted)
    assert [row[0] for row in await pets(rest)] == [n for n in (1, 2, 3, 4) if n not in ids]


async def test_a_change_answers_nothing_unless_asked(rest: Rest) -> None:
    for prefer in (None, "return=minimal", "return=headers-only"):
        changed = await rest.call("PATCH", "pets?id=eq.1", json={"age": 4}, prefer=prefer)
        assert (changed.status_code, changed.content) == (204, b""), prefer
        assert changed.headers["content-range"] == "0-0/*"
    gone = await rest.call("DELETE", "pets?id=eq.1")
    assert (gone.status_code, gone.content, gone.headers["content-range"]) == (204, b"", "*/*")


async def test_changed_rows_are_counted(rest: Rest) -> None:
    changed = await rest.call("PATCH", "pets?id=lt.3", json={"age": 4}, prefer="count=exact")
    assert (changed.status_code, changed.headers["content-range"]) == (204, "0-1/2")
    none = await rest.call("PATCH", "pets?id=eq.99", json={"age": 4}, prefer="count=exact")
    assert (none.status_code, none.headers["content-range"]) == (204, "*/0")
    gone = await rest.call("DELETE", "pets?id=lt.3", prefer="count=exact")
    assert gone.headers["content-range"] == "*/2"


@pytest.mark.parametrize("body", [{}, [], [{}]])
async def test_a_change_of_nothing_changes_no_row(rest: Rest, body: object) -> None:
    before = await pets(rest)
    answer = await rest.call("PATCH", "pets?id=eq.1", json=body)
    assert (answer.status_code, answer.headers["content-range"]) == (204, "*/*")
    answered = await rest.call("PATCH", "pets?id=eq.1", json=body, prefer=RETURN)
    assert (answered.status_code, answered.json()) == (200, [])
    assert await pets(rest) == before


async def test_only_the_named_columns_are_written(rest: Rest) -> None:
    body = {"name": "New", "age": 50, "nothing": 1}
    answer = await rest.call("PATCH", "pets?id=eq.1&columns=age", json=body)
    assert answer.status_code == 204
    assert (await pets(rest))[0] == [1, "Rex", 50]
    path, body = "pets?id=eq.1&columns=age,name", {"age": 7}
    await rest.call("PATCH", path, json=body)
    assert (await pets(rest))[0] == [1, None, 7]
    await rest.call("PATCH", path, json=body, prefer="missing=default")
    assert (await pets(rest))[0] == [1, "nameless", 7]


async def test_a_change_comes_as_a_form_or_as_csv_too(rest: Rest) -> None:
    form = await rest.call("PATCH", "pets?id=eq.1", content="name=a+b&age=8", content_type=FORM)
    assert form.status_code == 204
    csv = await rest.call(
        "PATCH", "pets?id=eq.2", content="name,age\nc,NULL\n", content_type="text/csv"
    )
    assert csv.status_code == 204
    assert (await pets(rest))[:2] == [[1, "a b", 8], [2, "c", None]]


async def test_changed_rows_are_answered_as_read_ones(rest: Rest) -> None:
    path = "pets?id=eq.1&select=who:name,doubled,owners(name),facts->k"
    changed = await rest.call("PATCH", path, json={"owner_id": 2}, prefer=RETURN, accept=OBJECT)
    assert changed.json() == {"who": "Rex", "doubled": 6, "owners": {"name": "Bo"}, "k": 1}
    path = "pets?id=eq.1&select=owner_id,same_owner(id)&same_owner.order=id"
    changed = await rest.call("PATCH", path, json={"owner_id": 1}, prefer=RETURN, accept=OBJECT)
    assert changed.json() == {"owner_id": 1, "same_owner": [{"id": 2}]}  # those of before
    ordered = await rest.call(
        "PATCH", "pets?select=id&order=age.desc.nullslast", json={"tags": []}, prefer=RETURN
    )
    assert [row["id"] for row in ordered.json()] == [2, 3, 1, 4]
    gone = await rest.call(
        "DELETE", "pets?id=lt.3&select=id,owners!inner(name)&order=id.desc", prefer=RETURN
    )
    assert gone.json() == [
        {"id": 2, "owners": {"name": "Ana"}},
        {"id": 1, "owners": {"name": "Ana"}},
    ]


async def test_levels_of_changed_rows_are_filtered_and_paged(rest: Rest) -> None:
    answer = await rest.call(
        "PATCH",
        "owners?id=eq.1&select=id,pets(id)&pets.age=gt.1&pets.order=id.desc",
        json={"name": "A"},
        prefer=RETURN,
    )
    assert answer.json() == [{"id": 1, "pets": [{"id": 2}, {"id": 1}]}]


async def test_limits_are_not_for_changes(rest: Rest) -> None:
    answer = await rest.call(
        "PATCH", "pets?select=id&order=id&limit=1&offset=1", json={"age": 0}, prefer=RETURN
    )
    assert [row["id"] for row in answer.json()] == [1, 2, 3, 4]


async def test_other_than_one_row_for_an_object_is_no_change(rest: Rest) -> None:
    before = await pets(rest)
    for method, body in (("PATCH", {"age": 0}), ("DELETE", None)):
        for filters in ("id=lt.3", "id=eq.99"):
            for prefer in (RETURN, "return=minimal"):
                told = await rest.refusal(
                    f"pets?{filters}", method, json=body, accept=OBJECT, prefer=prefer
                )
                assert told == (406, "PGRST116")
    assert await pets(rest) == before


async def test_rows_are_changed_through_a_view(rest: Rest) -> None:
    answer = await rest.call("PATCH", "old_pets?id=lt.3", json={"name": "Old"}, prefer=RETURN)
    assert answer.json() == [{"id": 2, "name": "Old", "age": 9}]
    answer = await rest.call("PATCH", "old_pets?id=eq.3", json={"age": 1}, prefer=RETURN)
    assert answer.json() == [{"id": 3, "name": "Mia", "age": 1}]  # no more of the view
    assert (await rest.call("DELETE", "old_pets")).status_code == 204
    assert [row[0] for row in await pets(rest)] == [1, 3, 4]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PATCH", "pets?id=eq.1", {"nothing": 1}, 400, "PGRST204"),
        ("PATCH", "pets?id=eq.1", {"age": "old"}, 400, "22P02"),
        ("PATCH", "pets?id=eq.1", {"id": 2}, 409, "23505"),
        ("PATCH", "pets?id=eq.1", {"id": None}, 400, "23502"),
        ("PATCH", "pets?id=eq.1", {"owner_id": 99}, 409, "23503"),
        ("PATCH", "pets?nothing=eq.1", {"age": 1}, 400, "42703"),
        ("PATCH", "pets?owners.id=eq.1", {"age": 1}, 400, "PGRST108"),
        ("PATCH", "totals", {"count": 1}, 500, "55000"),
        ("PATCH", "nothing?id=eq.1", {"age": 1}, 404, "PGRST205"),
        ("PATCH", "pets?id=eqq.1", {"age": 1}, 400, "PGRST100"),
        ("DELETE", "pets?nothing=eq.1", None, 400, "42703"),
        ("DELETE", "pets?id=eq.x", None, 400, "22P02"),
        ("DELETE", "pets?select=nothing", None, 204, ""),
    ],
)
async def test_what_cannot_be_changed_is_refused(
    rest: Rest, method: str, path: str, body: object, status: int, code: str
) -> None:
    answer = await rest.call(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert not code or answer.json()["code"] == code


async def test_several_rows_in_a_change_are_the_first(rest: Rest) -> None:
    answer = await rest.call("PATCH", "pets?id=eq.1", json=[{"age": 70}, {"age": 71}])
    assert answer.status_code == 204
    assert (await pets(rest))[0] == [1, "Rex", 70]
