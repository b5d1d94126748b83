"""Indexes over columns of tables, over HTTP."""

import pytest

from tests.api.conftest import Api
from tests.projections.indexing import FAST, Model, indexing
from tests.waiting import until

PATH = "/v1/main/rag/indexes"


@pytest.fixture
def posts(api: Api) -> None:
    api.installation.as_owner(
        "create table public.posts (id int primary key, title text, body text, lang text);"
        "insert into public.posts select n, 'Title', 'Body' from generate_series(1, 5) n"
    )


@pytest.mark.usefixtures("posts")
async def test_an_index_from_its_making_to_its_end(api: Api) -> None:
    new = {"table": "public.posts", "columns": ["title", "body"], "filter": ["lang"]}
    async with indexing(api.installation, Model(), FAST):
        made = await api.client.post(PATH, json=new, headers=api.service)
        assert (made.status_code, made.json()) == (201, {"name": "posts"})

        async def is_ready() -> bool:
            listed = (await api.client.get(PATH, headers=api.service)).json()["indexes"]
            return [(i["state"], i["rowsDone"], i["passages"]) for i in listed] == [
                ("ready", 5, 10)
            ]

        await until(is_ready)
        again = await api.client.post(PATH, json=new, headers=api.service)
        assert (again.status_code, again.json()["code"]) == (409, "index_exists")
        one = f"{PATH}/posts"
        changed = await api.client.patch(one, json={"chunkTokens": 64}, headers=api.service)
        assert changed.status_code == 202

        async def is_second() -> bool:
            answer = (await api.client.get(one, headers=api.service)).json()
            return [v["version"] for v in answer["versions"]] == [2] and answer["dead"] == []

        await until(is_second)
        retried = await api.client.post(f"{one}/retry", headers=api.service)
        assert (retried.status_code, retried.json()) == (202, {"rows": 0})
        assert (await api.client.delete(one, headers=api.service)).status_code == 204
        for gone in (
            await api.client.get(one, headers=api.service),
            await api.client.delete(one, headers=api.service),
            await api.client.patch(one, json={"chunkTokens": 64}, headers=api.service),
        ):
            assert (gone.status_code, gone.json()["code"]) == (404, "index_not_found")


@pytest.mark.usefixtures("posts")
async def test_users_make_and_see_no_indexes(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    new = {"table": "public.posts", "columns": ["title"]}
    assert (await api.client.post(PATH, json=new, headers=api.service)).status_code == 201
    for caller, status in ((ana, 403), (api.anon, 401)):
        for answer in (
            await api.client.get(PATH, headers=caller),
            await api.client.post(PATH, json=new, headers=caller),
            await api.client.delete(f"{PATH}/posts", headers=caller),
        ):
            assert answer.status_code == status, answer.text


@pytest.mark.usefixtures("posts")
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"table": "public.none"}, 404),
        ({"table": "posts; drop table posts"}, 400),
        ({"table": "auth.users", "columns": ["email"]}, 403),
        ({"table": ""}, 400),
        ({"columns": []}, 400),
        ({"columns": ["none"]}, 400),
        ({"columns": ["id"]}, 400),
        ({"columns": "title"}, 400),
        ({"chunkTokens": 5}, 400),
        ({"overlapTokens": 150}, 400),
        ({"name": "a b"}, 400),
        ({"language": "klingon"}, 400),
        ({"other": 1}, 400),
    ],
)
async def test_what_makes_no_index_is_refused(
    api: Api, change: dict[str, object], status: int
) -> None:
    body = {"table": "public.posts", "columns": ["title"]} | change
    answer = await api.client.post(PATH, json=body, headers=api.service)
    assert answer.status_code == status, answer.text
    assert answer.json()["code"]


@pytest.mark.usefixtures("posts")
async def test_sizes_that_do_not_go_together_are_refused_in_words(api: Api) -> None:
    body = {"table": "public.posts", "columns": ["title"], "chunkTokens": 100}
    refused = await api.client.post(PATH, json=body | {"overlapTokens": 50}, headers=api.service)
    assert (refused.status_code, refused.json()["code"]) == (400, "rag_request_invalid")
    assert "overlapTokens" in refused.json()["message"]
    assert refused.json()["details"] is None, "a row of ours"
    made = await api.client.post(PATH, json=body, headers=api.service)
    assert made.status_code == 201, made.text
    change = {"overlapTokens": 60}
    refused = await api.client.patch(f"{PATH}/posts", json=change, headers=api.service)
    assert (refused.status_code, refused.json()["code"]) == (400, "rag_request_invalid")


@pytest.mark.usefixtures("posts")
async def test_an_index_is_not_changed_to_a_language_that_is_not_there(api: Api) -> None:
    body = {"table": "public.posts", "columns": ["title"]}
    assert (await api.client.post(PATH, json=body, headers=api.service)).status_code == 201
    change = {"language": "klingon"}
    refused = await api.client.patch(f"{PATH}/posts", json=change, headers=api.service)
    assert refused.status_code == 400, refused.text
    assert "pg_ts_config" in refused.json()["hint"]
