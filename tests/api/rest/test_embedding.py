"""Related rows in an answer: which relationship is meant, and which rows are embedded."""

from typing import Any

import pytest

from tests.api.rest.conftest import RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create table clients (id int primary key, name text);
create table projects (
  id int primary key, name text, client_id int references clients,
  constraint projects_name_key unique (name)
);
create table details (project_id int primary key references projects, budget int);
create table people (
  id int primary key, name text, boss_id int references people, mentor_id int references people
);
create table members (
  project_id int references projects, person_id int references people, role text,
  primary key (project_id, person_id)
);
create table letters (
  id int primary key,
  sender_id int constraint letter_sender references people,
  receiver_id int constraint letter_receiver references people
);
create table rooms (house int, number int, name text, primary key (house, number));
create table beds (
  id int primary key, house int, number int,
  constraint bed_room foreign key (house, number) references rooms
);
create table clients_1 (id int primary key, client_id int references clients, name text);

create view busy_projects as select id, name, client_id as customer from projects where id < 4;
create view people_of_projects as
  select m.project_id, p.name from members m join people p on p.id = m.person_id;
create function first_project(clients) returns setof projects rows 1 language sql stable
  as 'select * from projects where client_id = $1.id order by id limit 1';
create function other_projects(clients) returns setof projects language sql stable
  as 'select * from projects where client_id is distinct from $1.id';
create function client(projects) returns setof clients rows 1 language sql stable
  as 'select * from clients where id = $1.client_id + 1';
create function shout(clients) returns text language sql stable as 'select upper($1.name)';
create function projects_of(client int) returns setof projects language sql stable
  as 'select * from projects where client_id = client order by id';
"""
ROWS = """
truncate clients, projects, details, people, members, letters, rooms, beds, clients_1;
insert into clients values (1, 'Acme'), (2, 'Birch'), (3, 'Empty');
insert into projects values
  (1, 'ant', 1), (2, 'bee', 1), (3, 'cat', 2), (4, 'dog', 2), (5, 'elk', null);
insert into details values (1, 100), (3, 300);
insert into people values
  (1, 'Ana', null, null), (2, 'Bo', 1, null), (3, 'Cy', 1, 2), (4, 'Di', 2, 1);
insert into members values (1, 1, 'lead'), (1, 2, null), (2, 2, 'lead'), (3, 3, null);
insert into letters values (1, 1, 2), (2, 2, 1), (3, 1, 3);
insert into rooms values (1, 1, 'red'), (1, 2, 'blue'), (2, 1, 'attic');
insert into beds values (1, 1, 1), (2, 1, 1), (3, 2, 1), (4, null, 1);
insert into clients_1 values (7, 2, 'c'), (2, 1, 'd');
"""

Facts = list[tuple[str, Any]]

CARDINALITIES: Facts = [
    # many to one
    ("projects?select=id,clients(name)&id=in.(1,5)&order=id",
     [{"id": 1, "clients": {"name": "Acme"}}, {"id": 5, "clients": None}]),
    # one to many
    ("clients?select=id,projects(id)&order=id&projects.order=id",
     [{"id": 1, "projects": [{"id": 1}, {"id": 2}]}, {"id": 2, "projects": [{"id": 3}, {"id": 4}]},
      {"id": 3, "projects": []}]),
    # one to one, from both sides
    ("projects?select=id,details(budget)&id=in.(1,2)&order=id",
     [{"id": 1, "details": {"budget": 100}}, {"id": 2, "details": None}]),
    ("details?select=budget,projects(name)&order=budget",
     [{"budget": 100, "projects": {"name": "ant"}}, {"budget": 300, "projects": {"name": "cat"}}]),
    # many to many, from both sides
    ("projects?select=id,people(name)&id=lt.3&order=id&people.order=name",
     [{"id": 1, "people": [{"name": "Ana"}, {"name": "Bo"}]},
      {"id": 2, "people": [{"name": "Bo"}]}]),
    ("people?select=name,projects(id)&id=in.(2,4)&order=id&projects.order=id",
     [{"name": "Bo", "projects": [{"id": 1}, {"id": 2}]}, {"name": "Di", "projects": []}]),
    # a key of two columns
    ("beds?select=id,rooms(name)&order=id",
     [{"id": 1, "rooms": {"name": "red"}}, {"id": 2, "rooms": {"name": "red"}},
      {"id": 3, "rooms": {"name": "attic"}}, {"id": 4, "rooms": None}]),
    ("rooms?select=name,beds(id)&order=name&beds.order=id",
     [{"name": "attic", "beds": [{"id": 3}]}, {"name": "blue", "beds": []},
      {"name": "red", "beds": [{"id": 1}, {"id": 2}]}]),
    # a table that refers to itself: its name means the many, a column the one
    ("people?select=name,people!boss_id(name)&id=lt.3&order=id&people.order=id",
     [{"name": "Ana", "people": [{"name": "Bo"}, {"name": "Cy"}]},
      {"name": "Bo", "people": [{"name": "Di"}]}]),
    ("people?select=name,boss:boss_id(name),mentor:mentor_id(name)&id=gt.2&order=id",
     [{"name": "Cy", "boss": {"name": "Ana"}, "mentor": {"name": "Bo"}},
      {"name": "Di", "boss": {"name": "Bo"}, "mentor": {"name": "Ana"}}]),
    # by the name of a foreign key's column or constraint
    ("projects?select=id,client_id(name)&id=eq.1", [{"id": 1, "client_id": {"name": "Acme"}}]),
    ("beds?select=id,bed_room(name)&id=eq.3", [{"id": 3, "bed_room": {"name": "attic"}}]),
    # by a hint
    ("letters?select=id,from:people!sender_id(name),to:people!letter_receiver(name)&id=eq.1",
     [{"id": 1, "from": {"name": "Ana"}, "to": {"name": "Bo"}}]),
    ("people?select=sent:letters!letter_sender(id),got:letters!receiver_id(id)&id=eq.1",
     [{"sent": [{"id": 1}, {"id": 3}], "got": [{"id": 2}]}]),
    ("people?select=name,projects!members(id)&id=eq.3", [{"name": "Cy", "projects": [{"id": 3}]}]),
    # views, by the columns that they show
    ("busy_projects?select=id,clients(name)&id=eq.3", [{"id": 3, "clients": {"name": "Birch"}}]),
    ("clients?select=name,busy_projects(id)&id=eq.2",
     [{"name": "Birch", "busy_projects": [{"id": 3}]}]),
    ("projects?select=id,people_of_projects(name)&id=eq.2",
     [{"id": 2, "people_of_projects": [{"name": "Bo"}]}]),
    # functions of a row
    ("clients?select=id,first_project(id),shout&id=lt.3&order=id",
     [{"id": 1, "first_project": {"id": 1}, "shout": "ACME"},
      {"id": 2, "first_project": {"id": 3}, "shout": "BIRCH"}]),
    ("clients?select=id,other_projects(id)&id=eq.1&other_projects.order=id",
     [{"id": 1, "other_projects": [{"id": 3}, {"id": 4}, {"id": 5}]}]),
    ("projects?select=id,client(shout)&id=eq.1", [{"id": 1, "client": {"shout": "BIRCH"}}]),
    # what a function answers
    ("rpc/projects_of?client=1&select=id,clients(name)&order=id",
     [{"id": 1, "clients": {"name": "Acme"}}, {"id": 2, "clients": {"name": "Acme"}}]),
    # a table whose name looks like an alias of ours
    ("clients_1?select=id,clients(name)&order=id",
     [{"id": 2, "clients": {"name": "Acme"}}, {"id": 7, "clients": {"name": "Birch"}}]),
    ("clients?select=id,projects(clients_projects_1:name)&id=eq.2&projects.order=id",
     [{"id": 2, "projects": [{"clients_projects_1": "cat"}, {"clients_projects_1": "dog"}]}]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "rows"), CARDINALITIES)
async def test_related_rows_are_embedded(rest: Rest, path: str, rows: Any) -> None:
    assert await rest.rows(path) == rows


NESTED: Facts = [
    ("clients?select=id,projects(id,details(budget),people(name,boss:boss_id(name)))&id=eq.1"
     "&projects.order=id.desc&projects.people.order=id.desc&projects.people.limit=1",
     [{"id": 1, "projects": [
         {"id": 2, "details": None, "people": [{"name": "Bo", "boss": {"name": "Ana"}}]},
         {"id": 1, "details": {"budget": 100}, "people": [{"name": "Bo", "boss": {"name": "Ana"}}]},
     ]}]),
    ("people?select=name,people!boss_id(name,people!boss_id(name))&id=eq.1&people.name=eq.Bo",
     [{"name": "Ana", "people": [{"name": "Bo", "people": [{"name": "Di"}]}]}]),
    # the same relation more than once, with filters and pages of their own
    ("clients?select=id,few:projects(id),rest:projects(id)&id=eq.1&few.limit=1&few.order=id"
     "&rest.id=gt.1", [{"id": 1, "few": [{"id": 1}], "rest": [{"id": 2}]}]),
    ("projects?select=id,a:clients(id),b:clients(name)&id=eq.1",
     [{"id": 1, "a": {"id": 1}, "b": {"name": "Acme"}}]),
    # a filter on a level leaves the level above as it is
    ("clients?select=id,projects(id)&projects.name=eq.bee&order=id",
     [{"id": 1, "projects": [{"id": 2}]}, {"id": 2, "projects": []}, {"id": 3, "projects": []}]),
    ("projects?select=id,clients(name)&clients.name=eq.Acme&id=in.(1,3)&order=id",
     [{"id": 1, "clients": {"name": "Acme"}}, {"id": 3, "clients": None}]),
    # both ways through a junction, and the junction itself
    ("projects?select=members(role,people(name))&id=eq.1&members.role=not.is.null",
     [{"members": [{"role": "lead", "people": {"name": "Ana"}}]}]),
    # a relation of which nothing is asked is not there
    ("projects?select=id,clients()&id=eq.1", [{"id": 1}]),
    ("projects?select=id,clients(projects())&id=eq.1", [{"id": 1}]),
    ("projects?select=id,details(*)&id=eq.1",
     [{"id": 1, "details": {"project_id": 1, "budget": 100}}]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "rows"), NESTED)
async def test_levels_nest_and_are_filtered_alone(rest: Rest, path: str, rows: Any) -> None:
    assert await rest.rows(path) == rows


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("projects?select=id,clients!inner(name)&clients.name=eq.Birch", [3, 4]),
        ("projects?select=id,clients!inner(name)", [1, 2, 3, 4]),
        ("projects?select=id,clients!left(name)&clients.name=eq.Birch", [1, 2, 3, 4, 5]),
        ("clients?select=id,projects!inner(id)", [1, 2]),
        ("clients?select=id,projects!inner(id)&projects.name=eq.cat", [2]),
        ("clients?select=id,projects!inner(id,people!inner(id))&projects.people.name=eq.Bo", [1]),
        ("clients?select=id,projects!inner(id,people(id))&projects.people.name=eq.Nobody", [1, 2]),
        ("projects?select=id,people!inner(name)&people.name=in.(Bo,Cy)", [1, 2, 3]),
        ("projects?select=id,details!inner()&details.budget=gt.200", [3]),
        ("letters?select=id,people!letter_sender!inner(id)&people.name=eq.Ana", [1, 3]),
        ("people?select=id,boss:boss_id!inner(name)&boss.name=eq.Ana", [2, 3]),
        ("people?select=id,people!boss_id!inner(id)", [1, 2]),
        ("clients?select=id,other_projects!inner(id)&other_projects.id=eq.1", [2, 3]),
        # rows that are there, or not
        ("projects?select=id,clients()&clients=is.null", [5]),
        ("projects?select=id,clients(id)&clients=not.is.null&clients.name=eq.Acme", [1, 2]),
        ("clients?select=id,projects()&projects=is.null", [3]),
        ("clients?select=id,projects()&projects=not.is.null&projects.name=like.*o*", [2]),
        ("projects?select=id,people()&people=is.null", [4, 5]),
        ("projects?select=id,details()&details=is.null", [2, 4, 5]),
        ("projects?select=id,c:clients()&c=is.null", [5]),
        ("clients?select=id,projects(details())&projects.details=not.is.null&projects=not.is.null",
         [1, 2]),
        ("projects?select=id,clients(),details()&or=(clients.is.null,details.not.is.null)",
         [1, 3, 5]),
        ("rpc/projects_of?client=2&select=id,details!inner(budget)", [3]),
    ],
)  # fmt: skip
async def test_embedded_rows_decide_over_those_above(rest: Rest, path: str, ids: list[int]) -> None:
    answer = await rest.get(f"{path}&order=id", prefer="count=exact")
    assert [row["id"] for row in answer.json()] == ids, answer.text
    assert answer.headers["content-range"].endswith(f"/{len(ids)}")


@pytest.mark.parametrize(
    ("embedding", "tests", "count"),
    [
        ("p:{name}!inner", ["p=not.is.null", "p=not.is.null"], 4),
        ("p:{name}", ["or=(p.not.is.null,id.gt.0)", "or=(p.is.null,p.not.is.null)"], 5),
        ("p:{name}", ["not.or=(p.is.null,id.lt.0)", "p=not.is.null"], 4),
    ],
)
async def test_rows_are_counted_at_any_depth(
    rest: Rest, embedding: str, tests: list[str], count: int
) -> None:
    depth, select, path, asked = 40, "", "", []
    for level in range(depth):
        select += f"id,{embedding.format(name='projects' if level % 2 else 'clients')}("
        asked += [path + test for test in tests]
        path += "p."
    answer = await rest.get(
        f"projects?select={select}id{')' * depth}&{'&'.join(asked)}&limit=1&order=id",
        prefer="count=exact",
    )
    assert answer.status_code == 206, answer.text
    assert answer.headers["content-range"] == f"0-0/{count}"


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("projects?select=id,clients!inner()&clients=is.null", []),
        ("projects?select=id,clients()&clients=is.null&clients=not.is.null", []),
        ("projects?select=id,clients()&clients=is.null&or=(clients.is.null,id.eq.1)", [5]),
        ("projects?select=id,clients()&clients=is.null&or=(clients.not.is.null,id.eq.1)", []),
        ("projects?select=id,clients!inner()&or=(clients.not.is.null,id.eq.5)", [1, 2, 3, 4]),
        ("projects?select=id,clients!inner()&not.or=(clients.not.is.null,id.eq.5)", []),
        ("projects?select=id,details()&or=(details.is.null,details.not.is.null)", [1, 2, 3, 4, 5]),
        ("projects?select=id,details()&and=(details.is.null,details.not.is.null)", []),
        ("projects?select=id,people()&not.and=(people.is.null,id.gt.4)", [1, 2, 3, 4]),
        ("clients?select=id,first_project()&or=(first_project.is.null,id.eq.1)", [1, 3]),
    ],
)  # fmt: skip
async def test_tests_that_agree_or_contradict_are_counted_as_they_are_read(
    rest: Rest, path: str, ids: list[int]
) -> None:
    answer = await rest.get(f"{path}&order=id&limit=9", prefer="count=exact")
    assert [row["id"] for row in answer.json()] == ids, answer.text
    assert answer.headers["content-range"].endswith(f"/{len(ids)}")


SPREADS: Facts = [
    ("projects?select=id,...clients(client:name)&id=in.(1,5)&order=id",
     [{"id": 1, "client": "Acme"}, {"id": 5, "client": None}]),
    ("projects?select=id,...details(budget,project_id)&id=eq.1",
     [{"id": 1, "budget": 100, "project_id": 1}]),
    ("details?select=budget,...projects(project:name,...clients(client:name))&order=budget",
     [{"budget": 100, "project": "ant", "client": "Acme"},
      {"budget": 300, "project": "cat", "client": "Birch"}]),
    ("details?select=...projects(clients(id,name))&budget=eq.100",
     [{"clients": {"id": 1, "name": "Acme"}}]),
    ("clients?select=id,...projects(names:name,ids:id)&order=id&projects.order=name.desc",
     [{"id": 1, "names": ["bee", "ant"], "ids": [2, 1]},
      {"id": 2, "names": ["dog", "cat"], "ids": [4, 3]}, {"id": 3, "names": [], "ids": []}]),
    ("projects?select=id,...people(who:name)&order=id&people.order=name.desc&id=in.(1,4)",
     [{"id": 1, "who": ["Bo", "Ana"]}, {"id": 4, "who": []}]),
    ("clients?select=id,...projects(ids:id,details(budget))&id=eq.1&projects.order=id",
     [{"id": 1, "ids": [1, 2], "details": [{"budget": 100}, None]}]),
    ("clients?select=id,...projects(ids:id,...details(budget))&id=eq.2&projects.order=id",
     [{"id": 2, "ids": [3, 4], "budget": [300, None]}]),
    ("clients?select=id,...projects!inner(ids:id)&projects.name=eq.cat", [{"id": 2, "ids": [3]}]),
    ("projects?select=id,...clients()&id=eq.1", [{"id": 1}]),
    ("projects?select=id,c:clients(...projects(names:name))&id=eq.1&c.projects.order=name",
     [{"id": 1, "c": {"names": ["ant", "bee"]}}]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "rows"), SPREADS)
async def test_a_spread_gives_its_columns_to_the_level_above(
    rest: Rest, path: str, rows: Any
) -> None:
    assert await rest.rows(path) == rows


async def test_what_is_ambiguous_is_told_with_its_choices(rest: Rest) -> None:
    answer = await rest.get("letters?select=id,people(name)")
    assert (answer.status_code, answer.json()["code"]) == (300, "PGRST201")
    assert {detail["relationship"].split()[0] for detail in answer.json()["details"]} == {
        "letter_sender",
        "letter_receiver",
    }
    assert "people!letter_sender" in answer.json()["hint"]
    assert await rest.refusal("people?select=people(id)") == (300, "PGRST201")


@pytest.mark.parametrize(
    ("path", "code", "hint"),
    [
        ("clients?select=people(id)", "PGRST200", None),
        ("projects?select=id,client_idd(id)", "PGRST200", None),
        ("projects?select=id,clientss(id)", "PGRST200", "Perhaps you meant 'clients'"),
        ("projects?select=id,clients!nothing(id)", "PGRST200", None),
        ("projects?select=id&clients.id=eq.1", "PGRST108", None),
        ("projects?select=id,clients(nothing)", "42703", None),
        ("projects?select=id,clients(id)&clients.nothing=eq.1", "42703", None),
    ],
)
async def test_what_is_not_related_is_refused(
    rest: Rest, path: str, code: str, hint: str | None
) -> None:
    answer = await rest.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    if hint is not None:
        assert answer.json()["hint"].startswith(hint)


async def test_changed_rows_are_answered_with_their_relations(rest: Rest) -> None:
    select = "select=id,clients(name),people(name),...details(budget)"
    made = await rest.post(
        f"projects?{select}", {"id": 9, "name": "fox", "client_id": 2}, prefer=RETURN
    )
    row = {"id": 9, "clients": {"name": "Birch"}, "people": [], "budget": None}
    assert made.json() == [row]
    moved = await rest.call(
        "PATCH", f"projects?id=eq.1&{select}", json={"client_id": 2}, prefer=RETURN
    )
    people = [{"name": "Ana"}, {"name": "Bo"}]
    assert moved.json() == [{**row, "id": 1, "people": people, "budget": 100}]
    gone = await rest.call(
        "DELETE", "letters?id=eq.1&select=id,to:receiver_id(name)", prefer=RETURN
    )
    assert gone.json() == [{"id": 1, "to": {"name": "Bo"}}]


@pytest.mark.parametrize("depth", [5, 50])
async def test_relations_nest_as_deep_as_anybody_needs(rest: Rest, depth: int) -> None:
    select = "id," + "clients(id,projects(id," * (depth // 2) + "name" + "))" * (depth // 2)
    answer = await rest.get(f"projects?select={select}&id=eq.5")
    assert answer.status_code == 200, answer.text
    assert (await rest.get("projects?select=" + "clients(projects(" * 99)).status_code == 400
