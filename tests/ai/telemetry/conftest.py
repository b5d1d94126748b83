"""A gateway whose calls are traced, and the collector that hears of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from butterbase.ai.seams import Seams
from butterbase.ai.settings import AiSettings
from butterbase.ai.telemetry.otel import OpenTelemetry
from butterbase.ai.telemetry.otlp import OtlpConfig
from tests.ai.conftest import Harness, running_gateway, until
from tests.ai.telemetry.collector import Collector, running_collector
from tests.ai.upstream import Upstream
from tests.postgres import Database


@dataclass
class Traced:
    harness: Harness
    upstream: Upstream
    collector: Collector
    telemetry: OpenTelemetry

    async def told(self) -> Collector:
        """Once all calls have ended and the collector has heard of it."""
        await until(lambda: self.harness.gateway.call_count == 0)
        await self.telemetry.flush()
        return self.collector


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with running_collector() as collector:
        yield collector


@asynccontextmanager
async def tracing(
    control: Database, upstream: Upstream, collector: Collector, config: OtlpConfig
) -> AsyncIterator[Traced]:
    telemetry = OpenTelemetry(config)
    settings = AiSettings(ai_base_url=upstream.base_url, ai_private_base_urls=True)
    async with running_gateway(control, settings, seams=Seams(tracer=telemetry)) as harness:
        yield Traced(harness, upstream, collector, telemetry)
    await telemetry.close()


@pytest.fixture
async def traced(
    control: Database, upstream: Upstream, collector: Collector
) -> AsyncIterator[Traced]:
    endpoint = collector.endpoint
    config = OtlpConfig(f"{endpoint}/v1/traces", f"{endpoint}/v1/metrics")
    async with tracing(control, upstream, collector, config) as traced:
        yield traced
