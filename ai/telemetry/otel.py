"""Spans and metrics of calls, by OpenTelemetry's SDK, which sends them from threads of its own.

Only a server that has a collector imports this (ai/telemetry/otlp.py). Providers of the SDK are our
own and none of the process's, so nothing else is traced by being there.
https://github.com/open-telemetry/opentelemetry-python
"""

import asyncio
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Final
from uuid import UUID, uuid4

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from butterbase.ai.calls.asked import Asked, Endpoint
from butterbase.ai.money.journal import Settlement
from butterbase.ai.routing.resolution import Target
from butterbase.ai.telemetry.conventions import (
    Attributes,
    answer_attributes,
    attempt_attributes,
    call_attributes,
    error_type,
    operation,
    tool_attributes,
    tool_name,
    usage_attributes,
)
from butterbase.ai.telemetry.instruments import Instruments
from butterbase.ai.telemetry.otlp import OtlpConfig
from butterbase.ai.wire.form import Usage
from butterbase.sql.errors import ButterbaseError

SCOPE: Final = "butterbase.ai"
CLOSE_TIMEOUT_S: Final = 5.0
"""For sending what waits, when the server stops."""

_TRACEPARENT, _TRACESTATE = "traceparent", "tracestate"
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OpenTelemetry:
    """One worker's: the `service.instance.id` tells its numbers from those of the others."""

    def __init__(self, config: OtlpConfig) -> None:
        resource = _resource()
        self._traces: TracerProvider | None = None
        self._metrics: MeterProvider | None = None
        self._tracer: trace.Tracer = trace.NoOpTracer()
        meter: metrics.Meter = metrics.NoOpMeter(SCOPE)
        if config.traces_url is not None:
            self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
            exporter = OTLPSpanExporter(endpoint=config.traces_url)
            self._traces.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._traces.get_tracer(SCOPE, _version())
        if config.metrics_url is not None:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=config.metrics_url))
            self._metrics = MeterProvider([reader], resource, shutdown_on_exit=False)
            meter = self._metrics.get_meter(SCOPE, _version())
        self._instruments = Instruments(meter)

    def begin(
        self,
        endpoint: Endpoint,
        *,
        app_id: str,
        user_id: UUID | None,
        request_id: str,
        headers: Mapping[bytes, bytes],
    ) -> "CallTrace":
        attributes: Attributes = {
            "http.request.method": "POST",
            "http.route": f"/v1/{{app_id}}/{endpoint}",
            "url.path": f"/v1/{app_id}/{endpoint}",
            "butterbase.app.id": app_id,
            "butterbase.request.id": request_id,
        }
        if user_id is not None:
            attributes["user.id"] = str(user_id)
        span = self._tracer.start_span(
            f"POST /v1/{{app_id}}/{endpoint}",
            _parent(headers),
            trace.SpanKind.SERVER,
            attributes,
        )
        return CallTrace(self._tracer, self._instruments, span, endpoint, app_id)

    async def flush(self) -> None:
        """Send what waits."""
        await asyncio.to_thread(self._flush)

    async def close(self) -> None:
        """Send what waits, unless that takes too long."""
        # A daemon: a collector that does not answer does not hold up the end of the process.
        thread = threading.Thread(target=self._close, daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, CLOSE_TIMEOUT_S)

    def _flush(self) -> None:
        for provider in (self._traces, self._metrics):
            if provider is not None:
                provider.force_flush()

    def _close(self) -> None:
        for provider in (self._traces, self._metrics):
            if provider is not None:
                provider.shutdown()


class CallTrace:
    def __init__(
        self,
        tracer: trace.Tracer,
        instruments: Instruments,
        span: trace.Span,
        endpoint: Endpoint,
        app_id: str,
    ) -> None:
        """`span` is the whole call's."""
        self._tracer = tracer
        self._instruments = instruments
        self._span = span
        self._endpoint = endpoint
        self._app_id = app_id
        self._target: Target | None = None
        self._attempt: _Attempt | None = None
        context = span.get_span_context()
        self.id = trace.format_trace_id(context.trace_id) if context.is_valid else ""

    @property
    def carried(self) -> Mapping[bytes, bytes]:
        carried: dict[str, str] = {}
        _PROPAGATOR.inject(carried, trace.set_span_in_context(self._span))
        return {name.encode(): value.encode() for name, value in carried.items()}

    def tool(self, name: str, *, kind: str, call_id: str) -> "_ToolTrace":
        span = self._tracer.start_span(
            f"execute_tool {tool_name(name)}",
            trace.set_span_in_context(self._span),
            trace.SpanKind.INTERNAL,
            tool_attributes(name, kind=kind, call_id=call_id),
        )
        return _ToolTrace(span, self._instruments, self._app_id, name if kind else "")

    def attempt(self, target: Target, asked: Asked) -> Mapping[str, str]:
        span = self._tracer.start_span(
            f"{operation(asked.endpoint)} {target.model}",
            trace.set_span_in_context(self._span),
            trace.SpanKind.CLIENT,
            attempt_attributes(target, asked),
        )
        self._target = target
        self._attempt = _Attempt(span)
        carried: dict[str, str] = {}
        _PROPAGATOR.inject(carried, trace.set_span_in_context(span))
        # What others have written beside the trace's ids is no business of a provider's.
        carried.pop(_TRACESTATE, None)
        return carried

    def began(self) -> None:
        if self._attempt is not None:
            self._attempt.first_s = time.monotonic() - self._attempt.began_s

    def read(self, model: str | None, finish: str | None, usage: Usage | None) -> None:
        if self._attempt is None or self._target is None:
            return
        self._attempt.span.set_attributes(answer_attributes(model, finish))
        if usage is not None:
            self._attempt.span.set_attributes(usage_attributes(usage))
            self._instruments.count_tokens(self._app_id, self._endpoint, self._target, usage)

    def failed(self, error: ButterbaseError) -> None:
        self._end_attempt(error_type(error))

    def end(self, settlement: Settlement, error: ButterbaseError | None) -> None:
        event = settlement.call
        kind = error_type(error, event.status)
        self._end_attempt(kind)
        self._instruments.count_call(self._app_id, self._endpoint, self._target, event, kind)
        self._span.set_attributes(call_attributes(event))
        # What is refused is answered as it should be, and no fault of the server's.
        _end(self._span, kind, is_error=(event.http_status or 0) >= 500)

    def _end_attempt(self, kind: str | None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None or self._target is None:
            return
        if attempt.first_s is not None:
            first_chunk = {"gen_ai.response.time_to_first_chunk": attempt.first_s}
            attempt.span.set_attributes(first_chunk)
        self._instruments.count_attempt(
            self._app_id,
            self._endpoint,
            self._target,
            duration_s=time.monotonic() - attempt.began_s,
            first_s=attempt.first_s,
            error_type=kind,
        )
        _end(attempt.span, kind, is_error=kind not in {None, "cancelled"})


class _ToolTrace:
    def __init__(
        self, span: trace.Span, instruments: Instruments, app_id: str, offered: str
    ) -> None:
        """`offered` is the tool's name; empty for one that is not there."""
        self._span = span
        self._instruments = instruments
        self._app_id = app_id
        self._offered = offered
        self._began_s = time.monotonic()

    def end(self, *, status: str, error_type: str | None) -> None:
        kind = "cancelled" if status == "cancelled" else error_type
        self._instruments.count_tool(
            self._app_id,
            self._offered,
            duration_s=time.monotonic() - self._began_s,
            error_type=kind,
        )
        _end(self._span, kind, is_error=kind not in {None, "cancelled"})


class _Attempt:
    """A request to a provider that has not ended."""

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self.began_s = time.monotonic()
        self.first_s: float | None = None


def _end(span: trace.Span, kind: str | None, *, is_error: bool) -> None:
    if kind is not None:
        span.set_attribute("error.type", kind)
    if is_error:
        span.set_status(trace.StatusCode.ERROR)
    span.end()


def _parent(headers: Mapping[bytes, bytes]) -> Context:
    """What the client's headers tell; empty for none, and for what is malformed."""
    carried = {
        name: headers[name.encode()].decode("latin-1")
        for name in (_TRACEPARENT, _TRACESTATE)
        if name.encode() in headers
    }
    # Not the process's current one: nobody else's trace becomes a call's.
    return _PROPAGATOR.extract(carried, Context())


def _resource() -> Resource:
    ours: dict[str, str] = {"service.instance.id": str(uuid4())}
    given = OTELResourceDetector().detect().attributes
    if "service.name" not in given:
        ours["service.name"] = "butterbase"
    if "service.version" not in given:
        ours["service.version"] = _version()
    return Resource.create(ours)


def _version() -> str:
    return version("butterbase")
