import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from butterbase.ai.errors import (
    AiConfigError,
    AiRequestError,
    ModelDeniedError,
    ModelMissingError,
    TokenLimitError,
    UpstreamCutError,
)
from butterbase.ai.providers import (
    Endpoint,
    Route,
    StreamReader,
    check_base_url,
    choose_model,
    decode_request,
    render_request,
)

ROUTE = Route(
    base_url="http://provider.test/v1",
    api_key=None,
    default_model=None,
    token_count_max=None,
    allowed_models=None,
    is_operators=True,
)


def render(route: Route, **fields: object) -> dict[str, object]:
    """What the provider would be sent."""
    return render_body(route, json.dumps({"model": "m", "messages": [1], **fields}).encode())


def render_body(route: Route, body: bytes) -> dict[str, object]:
    request = decode_request(Endpoint.CHAT, body)
    rendered: dict[str, object] = json.loads(
        render_request(request, choose_model(request, route), route)
    )
    return rendered


def limited(token_count_max: int, host: str = "provider.test") -> Route:
    return msgspec.structs.replace(
        ROUTE, token_count_max=token_count_max, base_url=f"https://{host}/v1"
    )


def allowing(*models: str) -> Route:
    return msgspec.structs.replace(ROUTE, allowed_models=frozenset(models))


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(msgspec.json.encode))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    for endpoint in Endpoint:
        with suppress(AiRequestError):
            decode_request(endpoint, body)


@pytest.mark.parametrize("value", [b"1", b'["\xff"]', b"[" * 900 + b"]" * 900])
def test_fallbacks_that_cannot_be_read_are_refused(value: bytes) -> None:
    body = b'{"model": "m", "messages": [1], "models": ' + value + b"}"
    with pytest.raises(AiRequestError) as refused:
        render_body(allowing("m"), body)
    assert refused.value.param == "models"


def test_a_deeply_nested_request_is_refused() -> None:
    for endpoint in Endpoint:
        with pytest.raises(AiRequestError):
            decode_request(endpoint, b'{"messages": ' + b"[" * 100_000)


def test_a_field_written_twice_is_sent_as_it_was_checked() -> None:
    body = b'{"model": "bad", "messages": [1], "max_tokens": 9999, "model": "m", "max_tokens": 5}'
    route = msgspec.structs.replace(limited(10), allowed_models=frozenset({"m"}))
    assert render_body(route, body) == {"model": "m", "messages": [1], "max_tokens": 5}


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 11},
        {"max_completion_tokens": 11},
        {"max_tokens": 1, "max_completion_tokens": 11},
        {"max_tokens": 6, "n": 2},
        {"n": 11},
    ],
)
def test_more_tokens_than_the_app_allows_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(TokenLimitError):
        render(limited(10), **fields)


@pytest.mark.parametrize("fields", [{"max_tokens": 10}, {"max_tokens": 5, "n": 2}])
def test_as_many_tokens_as_the_app_allows_pass(fields: dict[str, object]) -> None:
    assert render(limited(10), **fields).items() >= fields.items()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("provider.test", "max_tokens"),
        ("api.openai.com", "max_completion_tokens"),
        ("x.openai.azure.com", "max_completion_tokens"),
        ("notopenai.com", "max_tokens"),
    ],
)
def test_a_request_without_a_limit_gets_the_apps(host: str, name: str) -> None:
    assert render(limited(10, host))[name] == 10
    assert render(limited(10, host), n=3)[name] == 3


def test_without_a_limit_no_field_is_added() -> None:
    assert render(ROUTE) == {"model": "m", "messages": [1]}


@pytest.mark.parametrize("name", ["models", "fallbacks"])
def test_models_to_fall_back_to_must_be_allowed_too(name: str) -> None:
    assert render(allowing("m", "b"), **{name: ["b"]})[name] == ["b"]
    with pytest.raises(ModelDeniedError):
        render(allowing("m", "b"), **{name: ["b", "c"]})
    with pytest.raises(AiRequestError):
        render(allowing("m"), **{name: [{"m": ["c"]}]})


def test_a_model_that_is_not_allowed_is_refused() -> None:
    assert render(allowing("m"))["model"] == "m"
    for route in (allowing("other"), allowing()):
        with pytest.raises(ModelDeniedError):
            render(route)


def test_without_any_model_the_request_is_refused() -> None:
    with pytest.raises(ModelMissingError):
        render(ROUTE, model=None)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_base_urls(text: str, url: str) -> None:
    assert check_base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "", "localhost:11434", "ftp://a.test", "file:///etc/passwd", "https://", "http://u:p@a.test",
        "https://a.test?key=1", "https://a.test#x", "https://a.test/ x", "https://a.test/\n",
        "https://a.test:99999", "http://[::1", "https://\u00e4.test", "https://a.test/" + "x" * 500,
    ],
)  # fmt: skip
def test_what_is_no_base_url(text: str) -> None:
    with pytest.raises(AiConfigError):
        check_base_url(text)


@given(st.lists(st.binary()))
def test_a_stream_of_any_bytes_is_passed_on_or_is_a_cut(chunks: list[bytes]) -> None:
    assume(b"[DONE]" not in b"".join(chunks))
    reader = StreamReader(wants_usage=False)
    passed = b"".join(reader.feed(chunk) for chunk in chunks)
    assert len(passed) <= sum(map(len, chunks))
    with pytest.raises(UpstreamCutError):
        reader.close()
