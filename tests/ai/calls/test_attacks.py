"""Providers that answer nonsense: to each client the call is told as failed, and is one event."""

import itertools
from typing import Any

import pytest

from tests.ai.conftest import Harness
from tests.ai.upstream import Upstream, answer, stream

BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"input": "Hi"},
    "messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
}
KINDS = ["openai", "openai_compatible", "anthropic", "gemini"]
WAYS = list(itertools.product(BODIES, KINDS))

NONSENSE = [
    b"",
    b"\xff\xfe",
    b"null",
    b"5",
    b'"text"',
    b"[]",
    b"[{}]",
    b"{",
    b'{"error": "text"}',
    b'{"error": {"message": 5}}',
    b'{"error": {}}',
    b'{"type": "error", "error": {"type": "overloaded_error", "message": "m"}}',
    b"[" * 5000,
    b'{"a": ' * 5000,
]

HALVES = [
    b"",
    b"\n\n\n",
    b":\n\n",
    b"data:\n\n",
    b"data: \xff\n\n",
    b"data: null\n\n",
    b"data: 5\n\n",
    b"data: []\n\n",
    b"data: {\n\n",
    b"data: " + b"[" * 5000 + b"\n\n",
    b'data: {"choices": 5}\n\n',
    b'data: {"choices": [{"delta": 5}]}\n\n',
    b'data: {"choices": [{"index": -1, "delta": {"content": "a"}}]}\n\n',
    b'data: {"choices": [{"delta": {"tool_calls": [{"index": 7}]}}]}\n\n',
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 3}\n\n',
    b'data: {"type": "content_block_stop", "index": 9}\n\n',
    b'data: {"type": "response.output_text.delta", "delta": "a"}\n\n',
    b'data: {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}\n\n',
    b'data: {"candidates": 5}\n\n',
    b'data: {"error": 5}\n\n',
    b'data: {"error": {"message": "m"}}\n\n',
    b"event: error\ndata: x\n\n",
    b"data: text\r\rdata: more\r\n\r\n",
]


async def served_by(harness: Harness, upstream: Upstream, kind: str) -> None:
    response = await harness.http.put(
        f"{harness.path}/ai/config",
        json={
            "providers": {"it": {"kind": kind, "baseUrl": upstream.base_url}},
            "routes": [{"match": "*", "targets": [{"provider": "it"}], "retries": {"count": 0}}],
        },
    )
    assert response.status_code == 200


@pytest.mark.parametrize(("path", "kind"), WAYS)
async def test_a_nonsensical_answer_is_told_as_failed(
    harness: Harness, upstream: Upstream, path: str, kind: str
) -> None:
    await served_by(harness, upstream, kind)
    for count, body in enumerate(NONSENSE, 1):
        upstream.script = answer(200, body)
        response = await harness.http.post(
            f"{harness.path}/{path}", json={**BODIES[path], "model": "m"}
        )
        assert response.status_code in {502, 529, 503, 500}, (body, response.text)
        assert "ai_internal_error" not in response.text, body
        events = await harness.the_events()
        assert len(events) == count
        assert events[-1]["status"] == "failed", body


@pytest.mark.parametrize(("path", "kind"), WAYS)
async def test_half_a_stream_is_told_as_failed(
    harness: Harness, upstream: Upstream, path: str, kind: str
) -> None:
    await served_by(harness, upstream, kind)
    for count, (half, is_cut) in enumerate(itertools.product(HALVES, (False, True)), 1):
        upstream.script = stream(*([half] if half else []), cut=is_cut)
        response = await harness.http.post(
            f"{harness.path}/{path}", json={**BODIES[path], "model": "m", "stream": True}
        )
        assert "ai_internal_error" not in response.text, half
        if response.status_code == 200:
            assert "error" in response.text.split("\n\n")[-2], (half, response.text)
        for ending in ("[DONE]", "message_stop", "response.completed"):
            assert ending not in response.text, (half, response.text)
        events = await harness.the_events()
        assert len(events) == count
        assert events[-1]["status"] == "failed", half
