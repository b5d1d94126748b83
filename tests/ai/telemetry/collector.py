"""A collector for tests: takes spans and metrics as OTLP over HTTP, as real ones do."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.ai.upstream import Upstream, answer, running_upstream


class Collector:
    def __init__(self, server: Upstream) -> None:
        self._server = server
        self.endpoint = server.base_url.removesuffix("/v1")

    def refuse(self) -> None:
        """Everything that comes."""
        self._server.script = answer(400, b"")

    @property
    def bodies(self) -> bytes:
        return b"".join(received.body for received in self._server.received)

    @property
    def spans(self) -> list[Span]:
        """In the order of their begin."""
        found: list[Span] = []
        for body in self._of("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    @property
    def resource(self) -> dict[str, Any]:
        """Of the last spans."""
        last = self._of("/v1/traces")[-1]
        return attributes(ExportTraceServiceRequest.FromString(last).resource_spans[0].resource)

    @property
    def metrics(self) -> dict[str, Metric]:
        """As they were told last."""
        last = self._of("/v1/metrics")[-1]
        resources = ExportMetricsServiceRequest.FromString(last).resource_metrics
        return {m.name: m for r in resources for scope in r.scope_metrics for m in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], HistogramDataPoint]]:
        if name not in self.metrics:
            return []
        return [(attributes(point), point) for point in self.metrics[name].histogram.data_points]

    def _of(self, path: str) -> list[bytes]:
        for received in self._server.received:
            assert received.headers["content-type"] == "application/x-protobuf"
        return [received.body for received in self._server.received if received.path == path]


def attributes(of: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in of.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    async with running_upstream() as server:
        server.script = answer(200, b"", {"content-type": "application/x-protobuf"})
        yield Collector(server)
