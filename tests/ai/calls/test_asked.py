"""What of a request is read before it goes anywhere."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.calls.asked import Asked, Endpoint, References, count_references
from butterbase.ai.errors import AiError, AiRequestError, TokenLimitError
from butterbase.ai.wire.protocols import WireName

IMAGE = {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}
ANTHROPIC_IMAGE = {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}}
DOCUMENT = {"type": "document", "source": {"type": "file", "file_id": "f"}}


def asked(endpoint: Endpoint, **fields: Any) -> Asked:
    return Asked(endpoint, json.dumps(fields).encode())


def user(*content: Any) -> list[Any]:
    return [{"role": "user", "content": list(content)}]


@pytest.mark.parametrize(
    ("endpoint", "fields", "images", "files"),
    [
        (Endpoint.CHAT, {"messages": [{"role": "user", "content": "an image of a file"}]}, 0, 0),
        (Endpoint.CHAT, {"messages": user({"type": "text", "text": "a"}, IMAGE, IMAGE)}, 2, 0),
        (Endpoint.CHAT, {"messages": user({"type": "file", "file": {"file_id": "f"}})}, 0, 1),
        (Endpoint.CHAT, {"messages": user({"type": "input_audio"})}, 0, 1),
        (Endpoint.MESSAGES, {"messages": user(ANTHROPIC_IMAGE, DOCUMENT), "max_tokens": 1}, 1, 1),
        (
            Endpoint.MESSAGES,
            {"messages": user({"type": "tool_result", "content": [ANTHROPIC_IMAGE]})},
            1,
            0,
        ),
        (Endpoint.RESPONSES, {"input": user({"type": "input_image", "file_id": "f"})}, 1, 0),
        (Endpoint.RESPONSES, {"input": [{"type": "input_file", "file_id": "f"}]}, 0, 1),
        (
            Endpoint.RESPONSES,
            {"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]},
            1,
            0,
        ),
        (Endpoint.RESPONSES, {"input": "Hi", "previous_response_id": "r"}, 0, 1),
        (Endpoint.RESPONSES, {"input": "Hi", "previous_response_id": None}, 0, 0),
        (Endpoint.EMBEDDINGS, {"input": "image"}, 0, 0),
    ],
)
def test_what_a_body_only_refers_to_is_counted(
    endpoint: Endpoint, fields: dict[str, Any], images: int, files: int
) -> None:
    assert count_references(asked(endpoint, **fields)) == References(images, files)


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_a_body_that_is_no_utf_8_is_refused_wherever_the_fault_is(endpoint: Endpoint) -> None:
    fields = {"model": "m", "messages": user("é"), "input": "é", "max_tokens": 5, "x": "é"}
    body = json.dumps(fields, ensure_ascii=False).encode()
    Asked(endpoint, body)
    for at in [at for at in range(len(body)) if body[at : at + 2] == "é".encode()]:
        with pytest.raises(AiRequestError, match=f"byte {at}"):
            Asked(endpoint, body[:at] + b"\xff" + body[at + 2 :])


def test_an_image_that_is_spelled_in_escapes_is_counted() -> None:
    body = rb'{"messages":[{"role":"user","content":[{"type":"\u0069mage_url"}]}]}'
    assert count_references(Asked(Endpoint.CHAT, body)) == References(images=1)


def test_a_list_of_models_to_fall_back_to_is_read() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    request = asked(Endpoint.CHAT, messages=messages, models=["a", "b"], fallbacks=["c"])
    assert request.other_models == ("a", "b", "c")


@pytest.mark.parametrize(
    ("endpoint", "fields", "count_max", "default", "limit"),
    [
        (Endpoint.CHAT, {}, None, None, None),
        (Endpoint.CHAT, {}, None, 4096, 4096),
        (Endpoint.CHAT, {}, 100, 4096, 100),
        (Endpoint.CHAT, {"n": 3}, 100, None, 33),
        (Endpoint.CHAT, {"n": 128}, 100, None, None),
        (Endpoint.CHAT, {"max_tokens": 50}, 100, 4096, None),
        (Endpoint.CHAT, {"max_tokens": 101}, 100, None, "max_tokens"),
        (Endpoint.CHAT, {"max_completion_tokens": 101}, 100, None, "max_completion_tokens"),
        (Endpoint.CHAT, {"max_tokens": 50, "n": 3}, 100, None, "max_tokens"),
        (Endpoint.RESPONSES, {"max_output_tokens": 101}, 100, None, "max_output_tokens"),
        (Endpoint.MESSAGES, {"max_tokens": 101}, 100, None, "max_tokens"),
    ],
)
def test_all_choices_together_are_held_to_the_apps_limit(
    endpoint: Endpoint,
    fields: dict[str, Any],
    count_max: int | None,
    default: int | None,
    limit: int | str | None,
) -> None:
    """`limit` is what the request gets, or the field that asks for too much."""
    said = {"input": "Hi"} if endpoint is Endpoint.RESPONSES else {"messages": user("Hi")}
    request = asked(endpoint, **said, **fields)
    if isinstance(limit, str):
        with pytest.raises(TokenLimitError) as error:
            request.limit_tokens(count_max, default)
        assert error.value.param == limit
    elif fields.get("n") == 128:
        with pytest.raises(TokenLimitError):
            request.limit_tokens(count_max, default)
    else:
        request.limit_tokens(count_max, default)
        assert request.limit == limit


def test_each_endpoint_has_the_wire_of_its_clients() -> None:
    assert {endpoint.wire for endpoint in Endpoint} == set(WireName) - {WireName.GEMINI}


@given(st.sampled_from(Endpoint), st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(endpoint: Endpoint, body: bytes) -> None:
    with suppress(AiError):
        count_references(Asked(endpoint, body))
