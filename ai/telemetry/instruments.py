"""Histograms of calls and of requests to providers.

Models are told by name as `/metrics` tells them (projections/model_labels.py): what a client makes
up must not become a series.
"""

from opentelemetry.metrics import Histogram, Meter

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.routing.resolution import Target
from butterbase.ai.telemetry.conventions import (
    DURATION_BOUNDS_S,
    FIRST_TOKEN_BOUNDS_S,
    OUTPUT_TOKEN_BOUNDS_S,
    TOKEN_BOUNDS,
    Attributes,
    operation,
    provider_name,
    server,
)
from butterbase.ai.wire.form import Usage
from butterbase.projections.model_labels import OTHER, ModelLabels
from butterbase.projections.usage import AiCall


class Instruments:
    def __init__(self, meter: Meter) -> None:
        def seconds(name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(
                name, "s", text, explicit_bucket_boundaries_advisory=bounds
            )

        self._labels = ModelLabels()
        self._attempt = seconds(
            "gen_ai.client.operation.duration", "GenAI operation duration.", DURATION_BOUNDS_S
        )
        self._first_chunk = seconds(
            "gen_ai.client.operation.time_to_first_chunk",
            "Time to receive the first chunk.",
            DURATION_BOUNDS_S,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BOUNDS,
        )
        self._call = seconds(
            "gen_ai.server.request.duration",
            "Time that a call takes, as its client sees it.",
            DURATION_BOUNDS_S,
        )
        self._first_token = seconds(
            "gen_ai.server.time_to_first_token",
            "Time to the first token of a stream, as its client sees it.",
            FIRST_TOKEN_BOUNDS_S,
        )
        self._output_token = seconds(
            "gen_ai.server.time_per_output_token",
            "Time for each token of a stream after the first.",
            OUTPUT_TOKEN_BOUNDS_S,
        )

        self._tool = seconds(
            "gen_ai.execute_tool.duration",
            "Time that a tool takes which the gateway runs.",
            DURATION_BOUNDS_S,
        )

    def count_tool(
        self, app_id: str, offered: str, *, duration_s: float, error_type: str | None
    ) -> None:
        """Names are those of the app's configuration, and so are few."""
        of: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": offered or OTHER,
            "butterbase.app.id": app_id,
        }
        self._tool.record(duration_s, _with_error(of, error_type))

    def count_attempt(
        self,
        app_id: str,
        endpoint: Endpoint,
        target: Target,
        *,
        duration_s: float,
        first_s: float | None,
        error_type: str | None,
    ) -> None:
        of = self._of_target(app_id, endpoint, target, has_answered=error_type is None)
        if first_s is not None:
            self._first_chunk.record(first_s, of)
        self._attempt.record(duration_s, _with_error(of, error_type))

    def count_tokens(self, app_id: str, endpoint: Endpoint, target: Target, usage: Usage) -> None:
        """Those that a provider told; what we have counted ourselves is no measurement."""
        of = self._of_target(app_id, endpoint, target, has_answered=True)
        self._tokens.record(usage.prompt_tokens, of | {"gen_ai.token.type": "input"})
        if endpoint is not Endpoint.EMBEDDINGS:
            self._tokens.record(usage.completion_tokens, of | {"gen_ai.token.type": "output"})

    def count_call(
        self,
        app_id: str,
        endpoint: Endpoint,
        target: Target | None,
        event: AiCall,
        error_type: str | None,
    ) -> None:
        is_ok = event.status == "ok"
        if target is not None:
            of = self._of_target(app_id, endpoint, target, has_answered=is_ok)
        else:  # from the cache, or refused before any provider was asked
            of = self._of(app_id, endpoint, event.provider, event.model, has_answered=is_ok)
        of["butterbase.cache"] = event.cache
        self._call.record(event.latency_ms / 1000, _with_error(of, error_type))
        if not is_ok or event.first_token_ms is None:
            return
        self._first_token.record(event.first_token_ms / 1000, of)
        if event.completion_tokens > 1:
            rest_s = (event.latency_ms - event.first_token_ms) / 1000
            self._output_token.record(rest_s / (event.completion_tokens - 1), of)

    def _of_target(
        self, app_id: str, endpoint: Endpoint, target: Target, *, has_answered: bool
    ) -> Attributes:
        provider = target.provider
        of = self._of(app_id, endpoint, provider.name, target.model, has_answered=has_answered)
        if of["gen_ai.provider.name"] != OTHER:
            of["gen_ai.provider.name"] = provider_name(provider)
            of["server.address"], of["server.port"] = server(provider.base_url)
        return of

    def _of(
        self, app_id: str, endpoint: Endpoint, provider: str, model: str, *, has_answered: bool
    ) -> Attributes:
        provider, model = self._labels.label(app_id, provider, model, has_answered=has_answered)
        of: Attributes = {
            "gen_ai.operation.name": operation(endpoint),
            "butterbase.app.id": app_id,
        }
        if provider:
            of |= {"gen_ai.provider.name": provider, "gen_ai.request.model": model}
        return of


def _with_error(of: Attributes, error_type: str | None) -> Attributes:
    return of if error_type is None else of | {"error.type": error_type}
