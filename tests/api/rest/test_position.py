"""A read's answer says from where changes follow it."""

import httpx
import psycopg
import pytest

from butterbase.ingest.lsn import parse_lsn
from butterbase.realtime.window.position import ReadPosition, parse_position
from tests.api.conftest import Api

NOTES = """
create table notes (
  id int generated always as identity primary key, xid xid8 default pg_current_xact_id());
create policy everything on notes to anon using (true) with check (true);
"""
HEADER = "butterbase-position"


async def read(api: Api, path: str = "/rest/v1/notes?select=id", **headers: str) -> httpx.Response:
    answer = await api.client.get(path, headers=api.anon | headers)
    assert answer.status_code in (200, 206), answer.text
    return answer


async def position(
    api: Api, path: str = "/rest/v1/notes?select=id", **headers: str
) -> ReadPosition:
    found = parse_position((await read(api, path, **headers)).headers[HEADER])
    assert isinstance(found, ReadPosition)
    return found


async def test_what_was_not_read_lies_behind_the_position(api: Api) -> None:
    api.installation.as_owner(NOTES)
    with (
        psycopg.connect(api.installation.owner_dsn) as open_,
        psycopg.connect(api.installation.owner_dsn, autocommit=True) as other,
    ):
        (in_progress,) = open_.execute(INSERT).fetchone() or (0,)
        (committed,) = other.execute(INSERT).fetchone() or (0,)
        answer = await read(api)
        assert answer.json() == [{"id": 2}]
        found = parse_position(answer.headers[HEADER])
        assert isinstance(found, ReadPosition)
        (later,) = other.execute(INSERT).fetchone() or (0,)
        (end,) = other.execute("select pg_current_wal_insert_lsn()::text").fetchone() or ("",)
    assert found.lsn < parse_lsn(end)
    seen = [found.snapshot.sees(int(xid)) for xid in (in_progress, committed, later)]
    assert seen == [False, True, False]


INSERT = "insert into notes default values returning xid::text"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/rest/v1/notes?limit=0", {}),
        ("/v1/main/rest/v1/notes", {}),
        ("/rest/v1/notes?id=eq.1", {"accept": "application/vnd.pgrst.object+json"}),
        ("/rest/v1/notes", {"accept": "text/csv"}),
        ("/rest/v1/notes", {"prefer": "count=exact", "range": "0-0"}),
        ("/rest/v1/notes", {"prefer": "count=planned"}),
    ],
)
async def test_every_read_has_one(api: Api, path: str, headers: dict[str, str]) -> None:
    api.installation.as_owner(NOTES + "insert into notes default values;" * 2)
    assert (await position(api, path, **headers)).lsn > 0
    head = await api.client.head(path, headers=api.anon | headers)
    assert isinstance(parse_position(head.headers[HEADER]), ReadPosition)


async def test_scripts_of_other_origins_may_read_it(api: Api) -> None:
    api.installation.as_owner(NOTES)
    answer = await read(api, origin="https://a.test")
    exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
    assert {HEADER, "content-range"} <= set(exposed)


async def test_a_change_has_none(api: Api) -> None:
    api.installation.as_owner(NOTES)
    headers = api.anon | {"prefer": "return=representation"}
    answer = await api.client.post("/rest/v1/notes", json={}, headers=headers)
    assert answer.status_code == 201
    assert HEADER not in answer.headers
