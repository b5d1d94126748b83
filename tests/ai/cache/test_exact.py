"""Equal questions, one answer: for whom, how long, and after which changes no more."""

from typing import Any
from uuid import UUID

import msgspec
import pytest

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.wire.form import ChatAnswer, Choice, Refusal, Text
from tests.ai.cache.conftest import (
    EXACT,
    OTHER_USER,
    SEMANTIC,
    Desk,
    Worker,
    answer_of,
    fresh,
    text_of,
)


async def test_an_answer_is_given_again(worker: Worker) -> None:
    assert await worker.ask() is None
    found = await worker.find()
    assert (found.state, text_of(found)) == ("hit", "the answer")
    assert found.kept is not None
    assert (found.kept.cost_nanos, found.kept.usage.total_tokens) == (5000, 12)


async def test_it_is_given_again_by_another_worker(worker: Worker, other: Worker) -> None:
    await worker.ask()
    assert await other.ask() == "the answer"


async def test_each_answer_has_an_id_of_its_own(worker: Worker) -> None:
    await worker.ask()
    kept = [(await worker.find()).kept for _ in range(2)]
    ids = {k.answer.id for k in kept if k is not None}
    assert len(ids) == 2
    assert all(id_.startswith("chatcmpl-") and id_ != "chatcmpl-1" for id_ in ids)


async def test_without_rules_nothing_is_kept(worker: Worker, desk: Desk) -> None:
    for rules in (None, {"scope": "off"}):
        assert await worker.ask(rules=rules) is None
        assert (await worker.find(rules=rules)).state == "off"
    assert desk.entries() == []


ELSE: list[dict[str, Any]] = [
    {"user_id": OTHER_USER},
    {"role": "service_role", "user_id": None},
    {"targets": (("provider", "m2"),)},
    {"targets": (("provider", "m"), ("other", "m"))},
    {"content": "Hello  there"},
    {"before": [{"role": "system", "content": "Be brief."}]},
    {"before": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"fields": {"temperature": 0}},
    {"fields": {"max_tokens": 5}},
    {"fields": {"seed": 1}},
    {"fields": {"reasoning_effort": "low"}},
    {"fields": {"response_format": {"type": "json_object"}}},
    {"fields": {"a_field_of_some_provider": {"x": 1}}},
    {"content": [{"type": "text", "text": "Hello there"}]},
    {"endpoint": Endpoint.MESSAGES, "fields": {"max_tokens": 5}},
    {"beta": "a-feature"},
]


@pytest.mark.parametrize("scope", ["user", "app"])
@pytest.mark.parametrize("changes", ELSE, ids=str)
async def test_what_may_change_the_answer_is_another_question(
    worker: Worker, changes: dict[str, Any], scope: str
) -> None:
    await worker.ask(rules={"scope": scope})
    found = await worker.find(rules={"scope": scope}, **changes)
    is_shared = scope == "app" and ("user_id" in changes)
    assert text_of(found) == ("the answer" if is_shared else None)


@pytest.mark.parametrize(
    "fields",
    [{"stream": True}, {"stream": True, "stream_options": {"include_usage": True}},
     {"temperature": None}, {"metadata": {"a": "b"}}, {"user": "someone"}, {"model": "alias"}],
    ids=str,
)  # fmt: skip
async def test_what_changes_no_answer_is_the_same_question(
    worker: Worker, fields: dict[str, object]
) -> None:
    await worker.ask()
    assert await worker.ask(fields=fields) == "the answer"


async def test_whitespace_and_the_order_of_fields_do_not_count(worker: Worker) -> None:
    await worker.ask(body=b'{"messages":[{"role":"user","content":"Hi"}],"seed":1}')
    body = b'{ "seed" : 1, "messages" : [ {"content": "H\\u0069", "role": "user"} ] }'
    assert await worker.ask(body=body) == "the answer"


async def test_an_answer_expires(worker: Worker, other: Worker) -> None:
    await worker.ask(rules={"ttlS": 60})
    for clock in (worker.clock, other.clock):
        clock.ahead_s = 61
    for each in (worker, other):
        lookup = await each.find(rules={"ttlS": 60})
        assert lookup.state == "miss"
        lookup.drop()


async def test_a_shorter_life_holds_for_answers_of_before(worker: Worker) -> None:
    await worker.ask(rules={"ttlS": 3600})
    worker.clock.ahead_s = 61
    assert await worker.ask(rules={"ttlS": 60}) is None


async def test_no_store_neither_reads_nor_keeps(worker: Worker, desk: Desk) -> None:
    lookup = await worker.find(cache_control="no-store")
    await lookup.keep(fresh())
    assert lookup.state == "bypass"
    assert desk.entries() == []
    await worker.ask()
    assert (await worker.find(cache_control="No-Store")).kept is None


async def test_no_cache_asks_anew_and_keeps_the_answer(worker: Worker, other: Worker) -> None:
    await worker.ask(text="old")
    lookup = await worker.find(cache_control="no-cache")
    assert (lookup.state, lookup.kept) == ("bypass", None)
    await lookup.keep(fresh("new"))
    assert await worker.ask() == await other.ask() == "new"


async def test_max_age_wants_a_younger_answer(worker: Worker) -> None:
    await worker.ask(text="old")
    worker.clock.ahead_s = 61
    assert await worker.ask(cache_control="max-age=120") == "old"
    assert await worker.ask(cache_control="max-age=60", text="new") is None
    assert await worker.ask() == "new"


BAD: list[ChatAnswer] = [
    answer_of(""),
    msgspec.structs.replace(answer_of("x"), choices=()),
    *(
        msgspec.structs.replace(answer_of("x"), choices=(Choice(0, (Text("x"),), finish),))
        for finish in ("length", "content_filter", "pause", "context_window", None)
    ),
    msgspec.structs.replace(answer_of("x"), choices=(Choice(0, (Refusal("no"),), "stop"),)),
    answer_of("x" * 1024**2),
]


@pytest.mark.parametrize("answer", BAD, ids=range(len(BAD)))
async def test_an_answer_that_is_none_is_not_kept(
    worker: Worker, desk: Desk, answer: ChatAnswer
) -> None:
    lookup = await worker.find()
    await lookup.keep(fresh(answer=answer))
    assert desk.entries() == []
    assert (await worker.find()).state == "miss"


@pytest.mark.parametrize("scope", ["user", "app"])
async def test_what_another_model_answered_is_not_kept(worker: Worker, scope: str) -> None:
    """Of a fallback, or of a budget that reroutes one user's calls."""
    for changes in ({"model": "cheap"}, {"provider": "other"}):
        lookup = await worker.find(rules={"scope": scope})
        await lookup.keep(fresh(**changes))
    assert (await worker.find(rules={"scope": scope})).state == "miss"


DATA_URL = "data:image/png;base64,AAAA"


def tool(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    "asked",
    [
        {"fields": {"n": 2}},
        {"fields": {"tools": [tool("order")]}},
        {"fields": {"tools": [tool("look"), tool("order")]}, "rules": {"tools": ["look"]}},
        {"fields": {"store": True}},
        {"fields": {"web_search_options": {"search_context_size": "low"}}},
        {"content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]},
        {"content": [{"type": "file", "file": {"file_id": "f1"}}]},
        {"role": "anon", "user_id": None},
        {"endpoint": Endpoint.RESPONSES},
        {"body": b'{"messages":[{"role":"user","content":"Hi","content":"Ho"}]}'},
        {"body": b'{"messages":[{"role":"user","content":"Hi"}],"x":{"y":1,"y":2}}'},
        {"body": b'{"messages":[{"role":"user","content":"%b"}]}' % (b"x" * 1024**2)},
    ],
    ids=lambda asked: str(asked)[:60],
)
async def test_what_is_not_safe_to_repeat_is_passed_by(
    worker: Worker, desk: Desk, asked: dict[str, Any]
) -> None:
    lookup = await worker.find(**asked)
    assert lookup.state == "bypass"
    await lookup.keep(fresh())
    assert desk.entries() == []


@pytest.mark.parametrize(
    "asked",
    [
        {"fields": {"tools": [tool("look")]}, "rules": {"tools": ["look"]}},
        {"content": [{"type": "image_url", "image_url": {"url": DATA_URL}}]},
        {"endpoint": Endpoint.RESPONSES, "fields": {"store": False}},
        {"endpoint": Endpoint.MESSAGES, "fields": {"max_tokens": 9, "system": "Be brief"}},
        {"role": "anon", "user_id": None, "rules": {"scope": "app"}},
        {"role": "service_role", "user_id": None},
    ],
    ids=lambda asked: str(asked)[:60],
)
async def test_what_is_safe_to_repeat_is_repeated(worker: Worker, asked: dict[str, Any]) -> None:
    assert await worker.ask(**asked) is None
    assert await worker.ask(**asked) == "the answer"


async def test_people_whom_one_backend_asks_for_are_told_apart(worker: Worker) -> None:
    key = UUID("99999999-2222-4333-8444-555555555555")
    backend: dict[str, Any] = {"role": "service_role", "user_id": None, "key_id": key}
    await worker.ask(**backend, fields={"user": "ada"})
    assert await worker.ask(**backend, fields={"user": "bob"}) is None
    assert await worker.ask(**backend, fields={"user": "ada"}) == "the answer"


async def test_of_an_app_the_first_answer_stays(worker: Worker, other: Worker) -> None:
    """Else a user could ask until an answer suits them, for everybody."""
    rules = {"scope": "app"}
    await worker.ask(rules=rules, text="first")
    for control in ("no-cache", "max-age=0", "no-cache, max-age=0"):
        lookup = await worker.find(rules=rules, cache_control=control, user_id=OTHER_USER)
        assert lookup.state == "bypass"
        await lookup.keep(fresh("worse"))
    assert await worker.ask(rules=rules) == await other.ask(rules=rules) == "first"


async def test_the_service_role_renews_an_apps_answer(worker: Worker, other: Worker) -> None:
    rules = {"scope": "app"}
    await worker.ask(rules=rules, text="first")
    service: dict[str, Any] = {"role": "service_role", "user_id": None}
    lookup = await worker.find(rules=rules, cache_control="no-cache", **service)
    await lookup.keep(fresh("second"))
    assert await worker.ask(rules=rules) == await other.ask(rules=rules) == "second"


@pytest.mark.parametrize("rules", [EXACT, SEMANTIC, {"scope": "app", "threshold": 0.8}])
async def test_no_app_gets_anothers_answer(worker: Worker, desk: Desk, rules: object) -> None:
    await worker.ask(rules=rules)
    assert (await worker.find(rules=rules, app_id=desk.other_app_id)).state == "miss"
