"""What cannot be said is refused, and the field is named."""

from collections.abc import Callable

import pytest

from butterbase.ai.errors import AiRequestError, WireUnsupportedError
from butterbase.ai.wire.form import ChatRequest
from butterbase.ai.wire.protocols import Kind, WireName
from butterbase.ai.wire.wires import CLIENT_WIRES
from tests.ai.wire.asking import chat, message, responses, sent

# What cannot be said


@pytest.mark.parametrize(
    ("make", "kind", "param"),
    [
        (lambda: chat(n=2), Kind.ANTHROPIC, "n"),
        (lambda: chat(logprobs=True), Kind.ANTHROPIC, "logprobs"),
        (
            lambda: chat(modalities=["text", "audio"], audio={"voice": "alloy", "format": "mp3"}),
            Kind.GEMINI,
            "audio",
        ),
        (lambda: chat(web_search_options={"x": 1}), Kind.ANTHROPIC, "web_search_options"),
        (
            lambda: chat(tools=[{"type": "custom", "custom": {"name": "sh"}}]),
            Kind.ANTHROPIC,
            "tools",
        ),
        (
            lambda: chat(
                messages=[
                    {
                        "role": "user",
                        "content": [{"type": "file", "file": {"file_id": "file-1"}}],
                    }
                ]
            ),
            Kind.ANTHROPIC,
            "messages",
        ),
        (
            lambda: message(
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "document",
                                "source": {"type": "url", "url": "https://a.test/a.pdf"},
                            }
                        ],
                    }
                ]
            ),
            Kind.OPENAI,
            "messages",
        ),
    ],
)
def test_what_a_target_cannot_say_is_refused_by_name(
    make: Callable[[], ChatRequest], kind: Kind, param: str
) -> None:
    with pytest.raises(WireUnsupportedError) as refused:
        sent(make(), kind, "claude-opus-5")
    assert refused.value.param == param
    assert refused.value.message


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda: responses(previous_response_id="resp_1"), "previous_response_id"),
        (lambda: responses(conversation="conv_1"), "conversation"),
        (lambda: responses(background=True), "background"),
        (lambda: responses(prompt={"id": "pmpt_1"}), "prompt"),
        (lambda: responses(tools=[{"type": "web_search"}]), "tools"),
        (lambda: responses(input=[{"type": "item_reference", "id": "x"}]), "input"),
        (lambda: chat(functions=[{"name": "f"}]), "functions"),
        (lambda: chat(messages=[]), "messages"),
        (lambda: chat(messages=[{"role": "tool", "content": "x"}]), "messages"),
        (lambda: chat(messages=[{"role": "user", "content": [{"type": "odd"}]}]), "messages"),
        (lambda: message(tools=[{"type": "bash_20250124", "name": "bash"}]), "tools"),
        (
            lambda: message(messages=[{"role": "user", "content": [{"type": "odd"}]}]),
            "messages",
        ),
        (
            lambda: message(
                messages=[
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_result", "tool_use_id": "x"}],
                    }
                ]
            ),
            "messages",
        ),
    ],
)
def test_what_has_no_form_is_refused_by_name(make: Callable[[], ChatRequest], param: str) -> None:
    with pytest.raises(AiRequestError) as refused:
        make()
    assert refused.value.param == param


@pytest.mark.parametrize("name", list(CLIENT_WIRES))
@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"\xff", b"{", b"[" * 100_000, b'{"a":1}'])
def test_what_is_no_request_is_refused(name: WireName, body: bytes) -> None:
    with pytest.raises(AiRequestError):
        CLIENT_WIRES[name].decode_request(body)
