"""Spans and durations of tools that the gateway runs, as a collector gets them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from butterbase.ai.telemetry.otel import OpenTelemetry
from butterbase.ai.telemetry.otlp import OtlpConfig
from butterbase.projections.model_labels import OTHER
from tests.ai.telemetry.collector import Collector, attributes, running_collector
from tests.ai.tools.conftest import NOTES, Call, Says, Talking, calls, talking
from tests.ai.upstream import Upstream
from tests.installation import Installation

DONE = Says("done")
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-0af7651916cd43dd8448eb211c80319c-{PARENT}-01"


@dataclass
class Traced:
    talk: Talking
    collector: Collector
    telemetry: OpenTelemetry

    async def told(self, calls: int) -> list[Span]:
        await self.talk.events("ai.call", calls)
        await self.telemetry.flush()
        return self.collector.spans


@pytest.fixture
async def traced(installation: Installation, upstream: Upstream) -> AsyncIterator[Traced]:
    async with running_collector() as collector:
        config = OtlpConfig(f"{collector.endpoint}/v1/traces", f"{collector.endpoint}/v1/metrics")
        telemetry = OpenTelemetry(config)
        async with talking(installation, upstream, telemetry=telemetry) as talk:
            await talk.offer(notes=NOTES, count={"rpc": "count_notes"})
            yield Traced(talk, collector, telemetry)


def of(spans: list[Span], kind: "Span.SpanKind.ValueType") -> list[Span]:
    return [span for span in spans if span.kind == kind]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_tool_is_a_span_below_the_call_that_called_it(
    traced: Traced, is_streamed: bool
) -> None:
    both = (Call("notes", {"operation": "select"}, "call_a"), Call("count", {}, "call_b"))
    traced.talk.model.says(Says(calls=both), DONE)
    response = await traced.talk.ask("notes", "count", stream=is_streamed)
    assert response.status_code == 200
    spans = await traced.told(2)
    first, second = of(spans, Span.SPAN_KIND_SERVER)
    assert {span.trace_id for span in spans} == {first.trace_id}
    assert second.parent_span_id == first.span_id
    notes, count = of(spans, Span.SPAN_KIND_INTERNAL)
    assert (notes.name, count.name) == ("execute_tool notes", "execute_tool count")
    assert notes.parent_span_id == count.parent_span_id == first.span_id
    assert attributes(notes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "notes",
        "gen_ai.tool.call.id": "call_a",
        "gen_ai.tool.type": "datastore",
    }
    assert attributes(count)["gen_ai.tool.type"] == "extension"
    assert notes.status.code == Status.STATUS_CODE_UNSET
    # Neither arguments nor rows.
    assert b"Ada one" not in traced.collector.bodies


async def test_the_steps_of_a_client_that_traces_are_of_its_trace(traced: Traced) -> None:
    traced.talk.model.says(calls("count", {}), DONE)
    await traced.talk.ask("count", headers=traced.talk.user() | {"traceparent": TRACEPARENT})
    servers = of(await traced.told(2), Span.SPAN_KIND_SERVER)
    assert [span.parent_span_id.hex() for span in servers] == [PARENT, PARENT]


async def test_a_tool_that_fails_has_its_error(traced: Traced) -> None:
    traced.talk.model.says(
        Says(calls=(Call("notes", "{"), Call("made up\n" + "x" * 500, {}))),
        DONE,
    )
    await traced.talk.ask("notes")
    refused, unknown = of(await traced.told(2), Span.SPAN_KIND_INTERNAL)
    assert attributes(refused)["error.type"] == "ai_tool_arguments_invalid"
    assert attributes(unknown)["error.type"] == "ai_tool_refused"
    assert refused.status.code == unknown.status.code == Status.STATUS_CODE_ERROR
    assert unknown.name.isprintable()
    assert len(unknown.name) < 100


async def test_durations_of_tools_are_told_by_the_names_that_the_app_gave_them(
    traced: Traced,
) -> None:
    traced.talk.model.says(Says(calls=(Call("count", {}), Call("nobody's", {}))), DONE)
    await traced.talk.ask("count")
    await traced.told(2)
    points: list[Any] = traced.collector.points("gen_ai.execute_tool.duration")
    assert {told["gen_ai.tool.name"]: point.count for told, point in points} == {
        "count": 1,
        OTHER: 1,
    }
