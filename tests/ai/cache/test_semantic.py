"""Questions of one meaning, one answer: only within one conversation, setting and owner."""

from typing import Any

import pytest

from butterbase.ai.calls.asked import Endpoint
from tests.ai.cache.conftest import OTHER_USER, SEMANTIC, Desk, Worker, fresh, text_of

ONE, NEAR, FAR = "Passwords how to reset one", "passwords the way of resetting", "Refunds for me"


async def test_a_near_question_gets_the_answer(worker: Worker) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    found = await worker.find(NEAR, rules=SEMANTIC)
    assert (found.state, text_of(found)) == ("semantic", "the answer")
    assert found.kept is not None
    assert found.kept.similarity is not None
    assert 0.9 <= found.kept.similarity < 1
    assert await worker.ask(FAR, rules=SEMANTIC) is None


async def test_it_does_so_of_another_worker(worker: Worker, other: Worker) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    assert (await other.find(NEAR, rules=SEMANTIC)).state == "semantic"


async def test_without_a_threshold_only_equal_questions_do(worker: Worker) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    assert (await worker.find(NEAR, rules={})).state == "miss"
    assert worker.embedder.count == 1


async def test_the_threshold_is_the_routes(worker: Worker) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    found = await worker.find(NEAR, rules={"threshold": 0.999})
    assert found.state == "miss"


SYSTEM = {"role": "system", "content": "Be brief."}
ELSE: list[dict[str, Any]] = [
    {"user_id": OTHER_USER},
    {"role": "service_role", "user_id": None},
    {"rules": SEMANTIC | {"scope": "app"}},
    {"before": [SYSTEM]},
    {"before": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": ""}]},
    {"targets": (("provider", "m2"),)},
    {"fields": {"temperature": 0.5}},
    {"fields": {"top_p": 0.5}},
    {"fields": {"max_tokens": 5}},
    {"fields": {"response_format": {"type": "json_object"}}},
    {"fields": {"unknown": {"instructions": "be rude"}}},
    {"endpoint": Endpoint.MESSAGES, "fields": {"max_tokens": 5}},
    {"endpoint": Endpoint.RESPONSES, "fields": {"store": False}},
]


@pytest.mark.parametrize("changes", ELSE, ids=lambda changes: str(changes)[:80])
async def test_no_near_question_hits_under_another_setting(
    worker: Worker, changes: dict[str, Any]
) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    assert (await worker.find(NEAR, **{"rules": SEMANTIC, **changes})).state == "miss"


@pytest.mark.parametrize("changes", ELSE[3:], ids=lambda changes: str(changes)[:80])
async def test_nor_of_an_app_whose_answers_all_share(
    worker: Worker, changes: dict[str, Any]
) -> None:
    rules = SEMANTIC | {"scope": "app"}
    await worker.ask(ONE, rules=rules)
    near = {"user_id": OTHER_USER, "rules": rules, **changes}
    assert (await worker.find(NEAR, **near)).state == "miss"


async def test_an_apps_users_share_where_it_says_so(worker: Worker) -> None:
    rules = SEMANTIC | {"scope": "app"}
    await worker.ask(ONE, rules=rules)
    assert (await worker.find(NEAR, rules=rules, user_id=OTHER_USER)).state == "semantic"


@pytest.mark.parametrize(
    "before",
    [
        [SYSTEM, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    ],
    ids=["turns", "parts"],
)
async def test_only_the_last_turn_may_differ(worker: Worker, before: list[Any]) -> None:
    await worker.ask(ONE, rules=SEMANTIC, before=before)
    assert (await worker.find(NEAR, rules=SEMANTIC, before=before)).state == "semantic"
    changed = [*before[:-1], {**before[-1], "content": "c"}]
    assert (await worker.find(NEAR, rules=SEMANTIC, before=changed)).state == "miss"


@pytest.mark.parametrize(
    ("one", "near"),
    [
        ("Convert meters to feet", "convert feet to meters"),
        ("Order 1001 where is it", "order 1002 where is it"),
        ("Order may I cancel it", "order may I not cancel it"),
        ("Translate the word dog", "translate the word cat"),
    ],
)
async def test_what_is_near_and_another_thing_is_no_hit(
    worker: Worker, one: str, near: str
) -> None:
    await worker.ask(one, rules={"threshold": 0.8})
    assert (await worker.find(near, rules={"threshold": 0.8})).state == "miss"


@pytest.mark.parametrize(
    "content",
    [
        "Passwords " + "how to reset one " * 40,
        "Passwords " + "密" * 250,
        [{"type": "text", "text": "Passwords a"}, {"type": "text", "text": "b"}],
        [{"type": "text", "text": ONE},
         {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
    ],
    ids=["long", "dense", "parts", "picture"],
)  # fmt: skip
async def test_what_the_model_of_meaning_would_not_see_is_found_by_equality_alone(
    worker: Worker, content: object
) -> None:
    await worker.ask(content, rules=SEMANTIC)
    assert await worker.ask(content, rules=SEMANTIC) == "the answer"
    assert worker.embedder.count == 0


async def test_the_last_turn_must_be_the_users(worker: Worker) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ONE}]
    await worker.ask(body={"messages": turns}, rules=SEMANTIC)
    assert worker.embedder.count == 0


async def test_without_an_embedder_equal_questions_still_hit(worker: Worker) -> None:
    worker.embedder.is_broken = True
    await worker.ask(ONE, rules=SEMANTIC)
    assert await worker.ask(ONE, rules=SEMANTIC) == "the answer"
    assert (await worker.find(NEAR, rules=SEMANTIC)).state == "miss"


async def test_the_nearest_of_many_is_found_through_the_index(worker: Worker, desk: Desk) -> None:
    """Beyond a thousand questions of one space, with as many of others around."""
    await worker.ask(ONE, rules=SEMANTIC)
    columns = "user_id, provider, model, prompt, question, answer, prompt_tokens, cost_nanos"
    desk.execute(
        f"""
        insert into butterbase.ai_cache (app_id, key, {columns}, completion_tokens, latency_ms,
          expires_at, space, embedder, dimensions, embedding)
        select c.app_id, sha256(n::text::bytea), {columns}, 0, 0, expires_at,
          case when n %% 4 > 0 then space else sha256('x') end, embedder, 384,
          (select array_agg(random() - 0.5 + 0 * (n + g))::extensions.vector
           from generate_series(1, 384) g)
        from butterbase.ai_cache c, generate_series(1, 2400) n where c.app_id = %s
        """,  # noqa: S608
        desk.app_id,
    )
    found = await worker.find(NEAR, rules=SEMANTIC)
    assert found.state == "semantic"
    assert (await worker.find(FAR, rules=SEMANTIC)).state == "miss"


async def test_hits_by_meaning_are_kept_for_review(worker: Worker, desk: Desk) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    await worker.find(NEAR, rules=SEMANTIC)
    await worker.cache._keeper.finish()
    ((similarity, asked),) = desk.execute(
        "select similarity, asked from butterbase.ai_cache_samples where app_id = %s", desk.app_id
    )
    assert similarity >= 0.9
    assert b"passwords" not in bytes(asked)


async def test_a_miss_is_not_asked_for_twice_when_it_is_kept(worker: Worker) -> None:
    lookup = await worker.find(ONE, rules=SEMANTIC)
    await lookup.keep(fresh())
    assert worker.embedder.count == 1
