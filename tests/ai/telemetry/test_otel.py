"""Spans and metrics, as a collector gets them."""

import asyncio
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from butterbase.ai.telemetry.conventions import DURATION_BOUNDS_S
from butterbase.ai.telemetry.otlp import OtlpConfig
from butterbase.projections.model_labels import OTHER, UNPROVEN_COUNT_MAX
from tests.ai.conftest import USER, until
from tests.ai.telemetry.collector import Collector, attributes
from tests.ai.telemetry.conftest import Traced, tracing
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    EMBEDDINGS,
    RATE_LIMITED,
    USAGE,
    Piece,
    Received,
    Script,
    Upstream,
    answer,
    chunk,
    hang_up,
    stream,
)
from tests.postgres import Database

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
SECRET = "the question nobody else may read"


def in_turn(*scripts: Script) -> Script:
    """Each request has the next one; the last has the rest."""
    waiting = list(scripts)

    async def script(request: Received, writer: asyncio.StreamWriter) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request, writer)

    return script


def of_kind(collector: Collector, kind: "Span.SpanKind.ValueType") -> list[Span]:
    return [span for span in collector.spans if span.kind == kind]


async def test_a_call_is_a_span_and_its_request_to_the_provider_one_below(traced: Traced) -> None:
    traced.upstream.script = answer(200, COMPLETION)
    await traced.harness.http.post(
        traced.harness.chat_path,
        json={
            "model": "gpt-test",
            "messages": [{"role": "user", "content": SECRET}],
            "temperature": 0.5,
            "max_tokens": 100,
            "seed": 7,
        },
        headers={"x-request-id": "r-1", "x-test-role": "authenticated", "x-test-user": USER},
    )
    call, attempt = (await traced.told()).spans
    assert (call.kind, call.name) == (
        Span.SPAN_KIND_SERVER,
        "POST /v1/{app_id}/chat/completions",
    )
    assert (attempt.kind, attempt.name) == (Span.SPAN_KIND_CLIENT, "chat gpt-test")
    assert (attempt.trace_id, attempt.parent_span_id) == (call.trace_id, call.span_id)
    host, port = traced.upstream.base_url.removeprefix("http://").removesuffix("/v1").split(":")
    assert attributes(attempt) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": host,
        "gen_ai.request.model": "gpt-test",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": "gpt-test",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 19,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "server.address": host,
        "server.port": int(port),
    }
    told = attributes(call)
    assert told.pop("butterbase.cost_usd") > 0
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/{app_id}/chat/completions",
        "url.path": traced.harness.chat_path,
        "http.response.status_code": 200,
        "user.id": USER,
        "butterbase.app.id": traced.harness.app_id,
        "butterbase.request.id": "r-1",
        "butterbase.requested_model": "gpt-test",
        "butterbase.status": "ok",
        "butterbase.attempts": 1,
        "butterbase.cache": "off",
    }


async def test_no_text_of_a_call_is_told(traced: Traced) -> None:
    traced.upstream.script = answer(200, COMPLETION)
    body = {"messages": [{"role": "user", "content": SECRET}], "stop": [SECRET], "user": SECRET}
    await traced.harness.chat(**body)
    told = (await traced.told()).bodies
    assert b"gpt-test" in told
    assert SECRET.encode() not in told
    assert b"Hello!" not in told


async def test_the_clients_trace_goes_on_to_the_provider(traced: Traced) -> None:
    traced.upstream.script = answer(200, COMPLETION)
    await traced.harness.http.post(
        traced.harness.chat_path,
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        headers={"traceparent": TRACEPARENT, "tracestate": "acme=1", "baggage": "user=ada"},
    )
    call, attempt = (await traced.told()).spans
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE_ID, "b7ad6b7169203331")
    assert call.trace_state == "acme=1"
    sent = traced.upstream.last.headers
    version, trace_id, span_id, flags = sent["traceparent"].split("-")
    assert (version, trace_id, span_id) == ("00", TRACE_ID, attempt.span_id.hex())
    assert int(flags, 16) & 1
    assert "tracestate" not in sent
    assert "baggage" not in sent


@pytest.mark.parametrize("given", ["", "00-0-0-00", "ff-" + TRACEPARENT[3:], "\u00e9", "x" * 5000])
async def test_a_malformed_trace_is_no_trace(traced: Traced, given: str) -> None:
    traced.upstream.script = answer(200, COMPLETION)
    response = await traced.harness.http.post(
        traced.harness.chat_path,
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        headers={b"traceparent": given.encode("latin-1")},
    )
    assert response.status_code == 200
    call, _ = (await traced.told()).spans
    assert not call.parent_span_id


async def test_a_client_that_does_not_sample_is_not_traced_and_is_measured(traced: Traced) -> None:
    traced.upstream.script = answer(200, COMPLETION)
    await traced.harness.http.post(
        traced.harness.chat_path,
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        headers={"traceparent": TRACEPARENT[:-1] + "0"},
    )
    told = await traced.told()
    assert told.spans == []
    assert traced.upstream.last.headers["traceparent"].startswith(f"00-{TRACE_ID}-")
    ((_, point),) = told.points("gen_ai.client.operation.duration")
    assert point.count == 1


async def test_each_attempt_has_a_span_and_the_last_one_the_tokens(traced: Traced) -> None:
    route = {"match": "*", "targets": [{"provider": "default"}], "retries": {"count": 2}}
    config = await traced.harness.http.put(
        f"{traced.harness.path}/ai/config", json={"routes": [route]}
    )
    assert config.status_code == 200, config.text
    limited = answer(429, RATE_LIMITED, {"retry-after": "0"})
    traced.upstream.script = in_turn(limited, hang_up, answer(200, COMPLETION))
    assert (await traced.harness.chat()).status_code == 200
    told = await traced.told()
    (call,) = of_kind(told, Span.SPAN_KIND_SERVER)
    attempts = of_kind(told, Span.SPAN_KIND_CLIENT)
    assert [attributes(a).get("error.type") for a in attempts] == [
        "429",
        "upstream_unreachable",
        None,
    ]
    assert [a.status.code for a in attempts] == [
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_ERROR,
        Status.STATUS_CODE_UNSET,
    ]
    assert [attributes(a).get("gen_ai.usage.input_tokens") for a in attempts] == [None, None, 19]
    assert call.status.code == Status.STATUS_CODE_UNSET
    assert attributes(call)["butterbase.attempts"] == 3
    sent = [received.headers["traceparent"] for received in traced.upstream.received]
    assert [s.split("-")[2] for s in sent] == [a.span_id.hex() for a in attempts]


async def test_a_stream_is_told_when_it_has_ended(traced: Traced) -> None:
    go_on = asyncio.Event()
    pieces: list[Piece] = [
        chunk("Hel"),
        go_on,
        chunk("lo"),
        chunk("", finish="length"),
        chunk(usage=USAGE),
    ]
    traced.upstream.script = stream(*pieces, DONE)
    async with traced.harness.http.stream(
        "POST",
        traced.harness.chat_path,
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True},
    ) as response:
        parts = response.aiter_bytes()
        await anext(parts)
        await traced.telemetry.flush()
        assert traced.collector.bodies == b""
        go_on.set()
        async for _ in parts:
            pass
    told = await traced.told()
    _, attempt = told.spans
    of = attributes(attempt)
    assert of["gen_ai.request.stream"] is True
    assert of["gen_ai.response.finish_reasons"] == ["length"]
    assert of["gen_ai.usage.output_tokens"] == 10
    first_s = of["gen_ai.response.time_to_first_chunk"]
    lasted_s = (attempt.end_time_unix_nano - attempt.start_time_unix_nano) / 10**9
    assert 0 < first_s <= lasted_s
    names = [
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
    ]
    assert [point.count for name in names for _, point in told.points(name)] == [1, 1, 1]


async def test_a_stream_that_is_cut_is_an_error(traced: Traced) -> None:
    traced.upstream.script = stream(chunk("Hel"), cut=True)
    await traced.harness.chat(stream=True)
    told = await traced.told()
    call, attempt = told.spans
    assert attributes(attempt)["error.type"] == "upstream_stream_cut"
    assert attempt.status.code == Status.STATUS_CODE_ERROR
    assert attributes(call)["butterbase.status"] == "failed"
    assert told.points("gen_ai.server.time_to_first_token") == []


async def test_a_client_that_leaves_is_no_error_of_the_providers(traced: Traced) -> None:
    traced.upstream.script = stream(chunk("Hel"), None)
    async with traced.harness.http.stream(
        "POST",
        traced.harness.chat_path,
        json={"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True},
    ) as response:
        await anext(response.aiter_bytes())
    await until(traced.harness.events)
    call, attempt = (await traced.told()).spans
    for span in (call, attempt):
        assert attributes(span)["error.type"] == "cancelled"
        assert span.status.code == Status.STATUS_CODE_UNSET


async def test_a_refused_call_has_no_request_below(traced: Traced) -> None:
    await traced.harness.http.put(f"{traced.harness.path}/ai/config", json={"allowedModels": []})
    assert (await traced.harness.chat()).status_code == 403
    (call,) = (await traced.told()).spans
    assert attributes(call)["error.type"] == "ai_model_denied"
    assert call.status.code == Status.STATUS_CODE_UNSET


async def test_a_call_that_fails_is_an_error_of_the_server(traced: Traced) -> None:
    traced.upstream.script = hang_up
    assert (await traced.harness.chat()).status_code == 502
    call, *attempts = (await traced.told()).spans
    assert attempts
    assert {span.status.code for span in (call, *attempts)} == {Status.STATUS_CODE_ERROR}
    assert attributes(call)["error.type"] == "upstream_unreachable"


async def test_embeddings_are_an_operation_of_their_own(traced: Traced) -> None:
    traced.upstream.script = answer(200, EMBEDDINGS)
    path = f"{traced.harness.path}/embeddings"
    await traced.harness.http.post(path, json={"model": "embed-test", "input": "Hi"})
    told = await traced.told()
    assert [span.name for span in told.spans] == [
        "POST /v1/{app_id}/embeddings",
        "embeddings embed-test",
    ]
    ((of, point),) = told.points("gen_ai.client.token.usage")
    assert (of["gen_ai.token.type"], point.sum) == ("input", 8)


async def test_durations_and_tokens_are_histograms_with_the_bounds_of_the_conventions(
    traced: Traced,
) -> None:
    traced.upstream.script = in_turn(answer(200, COMPLETION), answer(400, RATE_LIMITED))
    await traced.harness.chat()
    await traced.harness.chat()
    told = await traced.told()
    assert told.metrics["gen_ai.client.operation.duration"].unit == "s"
    durations = told.points("gen_ai.client.operation.duration")
    assert sorted(of.get("error.type", "") for of, _ in durations) == ["", "400"]
    for of, point in durations:
        assert of["butterbase.app.id"] == traced.harness.app_id
        assert of["gen_ai.request.model"] == "gpt-test"
        assert tuple(point.explicit_bounds) == DURATION_BOUNDS_S
    tokens = told.points("gen_ai.client.token.usage")
    assert {of["gen_ai.token.type"]: (p.count, p.sum) for of, p in tokens} == {
        "input": (1, 19),
        "output": (1, 10),
    }
    assert sum(point.count for _, point in told.points("gen_ai.server.request.duration")) == 2


async def test_names_that_no_provider_knows_become_no_series(traced: Traced) -> None:
    traced.upstream.script = answer(404, RATE_LIMITED)
    for number in range(UNPROVEN_COUNT_MAX + 5):
        await traced.harness.chat(model=f"made-up-{number}")
    traced.upstream.script = answer(200, COMPLETION)
    await traced.harness.chat(model="real")
    points = (await traced.told()).points("gen_ai.client.operation.duration")
    models = {of["gen_ai.request.model"] for of, _ in points}
    assert len(models) == UNPROVEN_COUNT_MAX + 2
    assert {"real", OTHER} <= models
    (other,) = [of for of, _ in points if of["gen_ai.request.model"] == OTHER]
    assert "server.address" not in other


async def test_a_worker_says_who_it_is(traced: Traced) -> None:
    traced.upstream.script = answer(200, COMPLETION)
    await traced.harness.chat()
    resource = (await traced.told()).resource
    assert resource["service.name"] == "butterbase"
    assert resource["service.instance.id"]


async def test_the_variables_of_the_standard_name_the_service(
    control: Database, upstream: Upstream, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    upstream.script = answer(200, COMPLETION)
    config = OtlpConfig(f"{collector.endpoint}/v1/traces", None)
    async with tracing(control, upstream, collector, config) as traced:
        await traced.harness.chat()
        told = await traced.told()
    assert told.resource["service.name"] == "shop"
    assert told.resource["deployment.environment.name"] == "test"


async def test_what_waits_is_sent_when_the_server_stops(
    control: Database, upstream: Upstream, collector: Collector
) -> None:
    upstream.script = answer(200, COMPLETION)
    config = OtlpConfig(f"{collector.endpoint}/v1/traces", f"{collector.endpoint}/v1/metrics")
    async with tracing(control, upstream, collector, config) as traced:
        await traced.harness.chat()
    assert len(collector.spans) == 2
    assert collector.metrics


async def test_a_collector_that_refuses_everything_disturbs_no_call(
    control: Database, upstream: Upstream, collector: Collector
) -> None:
    collector.refuse()
    upstream.script = answer(200, COMPLETION)
    config = OtlpConfig(f"{collector.endpoint}/v1/traces", f"{collector.endpoint}/v1/metrics")
    async with tracing(control, upstream, collector, config) as traced:
        assert (await traced.harness.chat()).status_code == 200
        await traced.telemetry.flush()
        event: dict[str, Any] = await traced.harness.the_event()
    assert event["status"] == "ok"
    assert collector.bodies
