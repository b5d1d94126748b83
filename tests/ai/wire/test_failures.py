"""Errors as providers write them, and what a client is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.wire.events import ErrorKind, WireError
from butterbase.ai.wire.failures import (
    decode_error,
    decode_stream_error,
    encode_anthropic_error,
    encode_openai_error,
    stream_error,
)
from butterbase.ai.wire.protocols import WireName
from tests.ai.wire.shaping import Json, dumps


def openai(message: str, kind: str | None, code: object = None) -> bytes:
    return dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def anthropic(message: str, kind: str) -> bytes:
    return dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"})


def gemini(message: str, code: int, status: str, *details: Json) -> bytes:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return dumps({"error": error})


DELAY: Json = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "16.2s"}
BAD_KEY: Json = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, openai("Unknown parameter", "invalid_request_error"), "invalid_request"),
        (400, openai("too big", None, "context_length_exceeded"), "context_window"),
        (
            400,
            openai("This model's maximum context length is 8192 tokens", "invalid_request_error"),
            "context_window",
        ),
        (400, openai("Blocked", None, "content_filter"), "content_policy"),
        (400, openai("Violates our content management policy", None), "content_policy"),
        (404, openai("No such model", "invalid_request_error", "model_not_found"), "not_found"),
        (429, openai("Slow down", "requests", "rate_limit_exceeded"), "rate_limit"),
        (429, openai("You exceeded your quota", None, "insufficient_quota"), "quota"),
        (500, openai("Oops", "server_error"), "server"),
        (503, openai("Busy", None), "overloaded"),
        # vLLM and others put the status into `code`, or leave `error` out.
        (400, dumps({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}),
         "invalid_request"),
        (404, dumps({"error": "model 'x' not found"}), "not_found"),
        (422, dumps({"detail": "unknown field"}), "invalid_request"),
        (502, b"<html>Bad gateway</html>", "server"),
        (504, b"", "timeout"),
        (402, openai("Insufficient credits", None, 402), "quota"),
        (400, anthropic("max_tokens: Field required", "invalid_request_error"), "invalid_request"),
        (400, anthropic("prompt is too long: 9 tokens > 8 maximum", "invalid_request_error"),
         "context_window"),
        (400, anthropic("Your credit balance is too low", "invalid_request_error"), "quota"),
        (403, anthropic("Not yours", "permission_error"), "permission"),
        (413, anthropic("Too large", "request_too_large"), "too_large"),
        (429, anthropic("Too many", "rate_limit_error"), "rate_limit"),
        (529, anthropic("Overloaded", "overloaded_error"), "overloaded"),
        (400, gemini("Bad field", 400, "INVALID_ARGUMENT"), "invalid_request"),
        (400, gemini("API key not valid", 400, "INVALID_ARGUMENT", BAD_KEY), "authentication"),
        (
            400,
            gemini("The input token count (9) exceeds the maximum", 400, "INVALID_ARGUMENT"),
            "context_window",
        ),
        (429, gemini("Check your billing", 429, "RESOURCE_EXHAUSTED", DELAY), "rate_limit"),
        (429, gemini("Check your billing", 429, "RESOURCE_EXHAUSTED"), "quota"),
        (503, gemini("The model is overloaded", 503, "UNAVAILABLE"), "overloaded"),
        # Google's endpoint for OpenAI's form answers with a list.
        (404, b"[" + gemini("no", 404, "NOT_FOUND") + b"]", "not_found"),
    ],
)  # fmt: skip
def test_what_an_error_is(status: int, body: bytes, kind: ErrorKind) -> None:
    error = decode_error(status, {}, body)
    assert error.kind == kind
    assert error.status == (401 if kind == "authentication" else status)
    assert error.message


def test_when_to_try_again_is_kept() -> None:
    headers = {"retry-after": "7", "retry-after-ms": "6500", "x-other": "1"}
    error = decode_error(429, headers, openai("Slow down", None))
    assert error.headers == {"retry-after": "7", "retry-after-ms": "6500"}
    assert encode_openai_error(error).headers == error.headers
    assert encode_anthropic_error(error).headers == error.headers


def test_google_tells_it_in_the_body() -> None:
    body = gemini("Quota", 429, "RESOURCE_EXHAUSTED", DELAY)
    assert decode_error(429, {}, body).headers == {"retry-after": "17"}


def test_a_refused_key_is_not_told_in_the_providers_words() -> None:
    told = decode_error(401, {}, openai("Incorrect API key provided: sk-se…cret", None))
    assert (told.kind, told.status) == ("authentication", 401)
    assert "sk-" not in repr(told)
    streamed = decode_stream_error(anthropic("key sk-ant-1 is bad", "authentication_error"))
    assert "sk-" not in repr(streamed)


def test_a_redirect_is_a_fault_of_the_base_url() -> None:
    error = decode_error(302, {}, b"")
    assert (error.status, error.hint) == (502, "check the base URL")


def test_a_message_has_an_end() -> None:
    assert len(decode_error(400, {}, openai("x" * 9000, None)).message) == 1000


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (anthropic("Overloaded", "overloaded_error"), "overloaded", 529),
        (openai("Slow down", None, "rate_limit_exceeded"), "rate_limit", 429),
        (openai("Provider returned error", None, 502), "server", 502),
        (gemini("Deadline", 504, "DEADLINE_EXCEEDED"), "timeout", 504),
        (b"{}", "server", 502),
    ],
)
def test_an_error_in_a_stream_has_the_status_it_would_have_had(
    body: bytes, kind: ErrorKind, status: int
) -> None:
    error = decode_stream_error(body)
    assert (error.kind, error.status) == (kind, status)


def test_each_wire_has_its_own_status_for_a_busy_provider() -> None:
    anthropics = WireError("overloaded", 529, "Busy")
    openais = WireError("overloaded", 503, "Busy")
    assert encode_openai_error(anthropics).status == 503
    assert encode_anthropic_error(openais).status == 529
    assert json.loads(encode_anthropic_error(openais).body)["error"]["type"] == "overloaded_error"


def test_each_wire_names_a_conversation_that_is_too_long() -> None:
    error = WireError("context_window", 400, "Too long", param="messages")
    assert json.loads(encode_openai_error(error).body)["error"] == {
        "message": "Too long",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
        "hint": None,
    }
    told = json.loads(encode_anthropic_error(error).body)
    assert told["error"]["type"] == "invalid_request_error"


@given(st.integers(300, 599), st.binary() | st.text().map(lambda t: dumps({"error": t})))
def test_any_body_is_an_error(status: int, body: bytes) -> None:
    error = decode_error(status, {}, body)
    for wire in (WireName.CHAT, WireName.RESPONSES, WireName.ANTHROPIC):
        assert stream_error(wire, error).endswith(b"\n\n")
    assert error.message


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_http_does_not_have_is_not_passed_on(status: int) -> None:
    """Our server could not write it, and would cut the connection."""
    error = decode_error(status, {}, b"{}")
    assert (error.kind, error.status) == ("server", 502)


@pytest.mark.parametrize("value", ["\udcff", "\u00e9", "1\r\nx: y", "\x00"])
def test_a_retry_after_that_cannot_be_written_is_left_out(value: str) -> None:
    error = decode_error(429, {"retry-after": value, "retry-after-ms": "5"}, b"{}")
    assert error.headers == {"retry-after-ms": "5"}
