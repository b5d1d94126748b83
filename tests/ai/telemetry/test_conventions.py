"""What the conventions call a provider, an error, a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ai.calls.asked import Asked, Endpoint
from butterbase.ai.errors import UpstreamRefusedError, UpstreamTimeoutError
from butterbase.ai.routing.resolution import Provider, Target
from butterbase.ai.telemetry.conventions import (
    answer_attributes,
    attempt_attributes,
    error_type,
    provider_name,
)
from butterbase.ai.wire.events import WireError
from butterbase.ai.wire.protocols import Kind


def provider(kind: Kind, base_url: str = "https://llm.example/v1") -> Provider:
    return Provider("ours", kind, base_url)


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (provider(Kind.OPENAI), "openai"),
        (provider(Kind.ANTHROPIC), "anthropic"),
        (provider(Kind.GEMINI), "gcp.gemini"),
        (provider(Kind.COMPATIBLE, "https://api.groq.com/openai/v1"), "groq"),
        (provider(Kind.COMPATIBLE, "https://us.openai.azure.com/x"), "azure.ai.openai"),
        (provider(Kind.COMPATIBLE, "https://notgroq.com/v1"), "ours"),
        (provider(Kind.COMPATIBLE, "https://api.x.ai.evil.example/v1"), "ours"),
        (provider(Kind.COMPATIBLE), "ours"),
    ],
)
def test_a_provider_that_is_known_has_its_known_name(found: Provider, name: str) -> None:
    assert provider_name(found) == name


def test_an_error_is_the_providers_status_or_our_code() -> None:
    refused = UpstreamRefusedError(WireError("rate_limit", 429, "slow down"))
    assert error_type(refused) == "429"
    assert error_type(UpstreamTimeoutError()) == "upstream_timeout"
    assert error_type(None) is None
    assert error_type(None, "cancelled") == "cancelled"


def asked(fields: str) -> Asked:
    body = f'{{"model": "m", "messages": [{{"role": "user", "content": "x"}}]{fields}}}'
    return Asked(Endpoint.CHAT, body.encode())


@pytest.mark.parametrize(
    "fields",
    [
        ', "seed": 9223372036854775808',
        ', "seed": "seven"',
        ', "temperature": "hot"',
        ', "top_p": null',
        ', "temperature": {"a": [1]}',
        ', "max_tokens": 9223372036854775808',
    ],
)
def test_a_value_that_no_span_holds_is_left_out(fields: str) -> None:
    """One span that cannot be encoded would take a whole batch with it."""
    target = Target(provider(Kind.OPENAI, "http://[::1]:8080/v1"), "m")
    assert attempt_attributes(target, asked(fields)) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "server.address": "::1",
        "server.port": 8080,
    }


@given(st.text(), st.text())
def test_what_a_provider_calls_itself_is_printable_and_short(model: str, finish: str) -> None:
    for value in answer_attributes(model, finish).values():
        (text,) = value if isinstance(value, tuple) else (value,)
        assert isinstance(text, str)
        assert len(text) <= 200
        assert text.encode()
