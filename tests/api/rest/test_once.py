"""A write with a key happens once, whatever is sent again."""

import asyncio

import pytest

from tests.api.conftest import Api

KEY = "Butterbase-Idempotency-Key"


@pytest.fixture
def _rows(api: Api) -> None:
    api.installation.as_owner("create table rows (id int primary key, n int)")


@pytest.mark.usefixtures("_rows")
async def test_a_write_with_a_key_happens_once(api: Api) -> None:
    async def post(id_: int, key: str) -> tuple[int, str | None]:
        answer = await api.client.post(
            "/rest/v1/rows", json={"id": id_}, headers=api.service | {KEY: key}
        )
        return answer.status_code, answer.json()["code"] if answer.content else None

    assert await post(1, "a") == (201, None)
    assert await post(2, "a") == (409, "already_applied")
    assert await post(1, "b") == (409, "23505")
    assert await post(3, "b") == (201, None), "what failed has used no key"
    assert await post(4, "") == (400, "idempotency_key_invalid")
    many = await asyncio.gather(*(post(10 + number, "c") for number in range(8)))
    assert sorted(many)[0] == (201, None)
    assert many.count((409, "already_applied")) == 7
    rows = (await api.client.get("/rest/v1/rows?select=id", headers=api.service)).json()
    assert len(rows) == 3


@pytest.mark.usefixtures("_rows")
async def test_keys_are_for_the_service_role(api: Api) -> None:
    api.installation.as_owner("create policy all_of_it on rows using (true) with check (true)")
    answer = await api.client.post("/rest/v1/rows", json={"id": 1}, headers=api.anon | {KEY: "a"})
    assert (answer.status_code, answer.json()["code"]) == (401, "42501")
    answer = await api.client.get("/rest/v1/rows", headers=api.anon | {KEY: "a"})
    assert answer.json() == []
