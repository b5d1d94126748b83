"""Collections over HTTP: what they are made with, and who may change them."""

from typing import Any

import psycopg
import pytest

from tests.api.conftest import Api
from tests.api.documents import COLLECTIONS, DOCUMENTS, make, send, settled, working_at


async def test_a_collection_is_shown_and_changed(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana, chunkTokens=100, overlapTokens=10)
    path = f"{COLLECTIONS}/notes"
    found = (await api.client.get(path, headers=ana)).json()
    assert (found["chunkTokens"], found["overlapTokens"], found["isOwn"]) == (100, 10, True)
    assert found["index"]["chunkTokens"] == 100
    change = {"name": "papers", "accessMode": "shared", "chunkTokens": 300}
    changed = await api.client.patch(path, json=change, headers=ana)
    assert changed.status_code == 200, changed.text
    assert {name: changed.json()[name] for name in change} == change
    assert (await api.client.get(path, headers=ana)).status_code == 404
    found = (await api.client.get(f"{COLLECTIONS}/papers", headers=ana)).json()
    # What is in use stays until the new one is made beside it.
    assert (found["index"]["chunkTokens"], found["building"]["chunkTokens"]) == (100, 300)


async def test_what_is_made_beside_tells_how_far_it_is(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    path = f"{COLLECTIONS}/notes"
    await api.client.patch(path, json={"chunkTokens": 300}, headers=ana)
    with psycopg.connect(api.installation.main.dsn, autocommit=True) as conn:
        conn.execute(
            "update ai.index_versions v set row_total = 5000, row_count = 3000,"
            " sampled_at = now() - interval '1000 s', sampled_count = 1000"
            " from ai.indexes i where v.id = i.building_version"
        )
    building = (await api.client.get(path, headers=ana)).json()["building"]
    assert (building["documentsDone"], building["documentsTotal"]) == (3000, 5000)
    assert building["documentsPerS"] == pytest.approx(2, abs=0.2)
    assert building["etaS"] == pytest.approx(1000, abs=100)


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"chunkTokens": 15}, 400, "rag_request_invalid"),
        ({"overlapTokens": 100}, 400, "rag_request_invalid"),
        ({"chunkTokens": 100, "overlapTokens": 50}, 400, "rag_request_invalid"),
        ({"language": "klingon"}, 400, "rag_request_invalid"),
        ({"accessMode": "custom"}, 400, "rag_request_invalid"),
        ({"readPolicy": "public.x"}, 400, "rag_request_invalid"),
        ({"readPolicy": "x; drop table"}, 400, "rag_request_invalid"),
        ({"name": ""}, 400, "rag_request_invalid"),
        ({"name": "taken"}, 409, "collection_exists"),
        ({"names": "a"}, 400, "rag_request_invalid"),
    ],
)
async def test_a_change_that_cannot_be_is_refused(
    api: Api, change: dict[str, Any], status: int, code: str
) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    await api.client.post(COLLECTIONS, json={"name": "taken"}, headers=ana)
    refused = await api.client.patch(f"{COLLECTIONS}/notes", json=change, headers=ana)
    assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text


async def test_a_custom_policy_decides_for_each_document(api: Api) -> None:
    api.installation.as_owner(
        "create function public.is_open(d ai.documents) returns boolean language sql stable"
        " as $$ select d.metadata ->> 'open' = 'yes' $$"
    )
    ana, bo = await api.sign_up("ana@example.com"), await api.sign_up("bo@example.com")
    await make(api, ana, accessMode="custom", readPolicy="public.is_open")
    closed = await send(api, ana, "rules.md", metadata='{"open": "no"}')
    opened = await send(api, ana, "weather.txt", metadata='{"open": "yes"}')
    async with working_at(api):
        await settled(api, ana, closed["id"])
        await settled(api, ana, opened["id"])
    listed = (await api.client.get(DOCUMENTS, headers=bo)).json()["documents"]
    assert [document["id"] for document in listed] == [opened["id"]]
    path = f"{DOCUMENTS}/{closed['id']}/text"
    assert (await api.client.get(path, headers=bo)).status_code == 404


async def test_others_do_not_change_a_shared_collection(api: Api) -> None:
    ana, bo = await api.sign_up("ana@example.com"), await api.sign_up("bo@example.com")
    await make(api, ana, accessMode="shared")
    path = f"{COLLECTIONS}/notes"
    changed = await api.client.patch(path, json={"accessMode": "private"}, headers=bo)
    assert changed.status_code == 404
    assert (await api.client.get(path, headers=bo)).json()["accessMode"] == "shared"
