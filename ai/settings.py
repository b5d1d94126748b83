"""What the AI gateway can be told when it starts; an app's own configuration goes before it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class AiSettings(Struct, frozen=True):
    ai_base_url: Annotated[
        str | None,
        Meta(description="OpenAI-compatible provider for apps without their own, up to /v1"),
    ] = None
    ai_api_key: Annotated[
        str | None, Meta(description="key for that provider; it is sent to no other")
    ] = None
    ai_default_model: Annotated[
        str | None, Meta(description="model of requests to that provider that name none")
    ] = None
    ai_default_plan: Annotated[
        Literal["free", "pro", "enterprise"],
        Meta(description="plan of apps that were given none; enterprise has no limit"),
    ] = "enterprise"
    ai_private_base_urls: Annotated[
        bool | None,
        Meta(
            description="let apps' own providers be in private networks or on this machine;"
            " default only for `up` with all of it on this machine"
        ),
    ] = None
    ai_connect_timeout_s: Annotated[
        float, Meta(gt=0, description="seconds to connect to a provider")
    ] = 10.0
    ai_first_token_timeout_s: Annotated[
        float, Meta(gt=0, description="seconds from a streamed request to the first event")
    ] = 120.0
    ai_total_timeout_s: Annotated[
        float, Meta(gt=0, description="seconds from a request to the end of its answer")
    ] = 600.0
    ai_connection_count_max: Annotated[
        int, Meta(ge=1, description="connections to providers, for each worker")
    ] = 1000
    ai_request_bytes_max: Annotated[
        int, Meta(ge=1024, description="largest request body, in bytes")
    ] = 20 * 1024**2
    ai_response_bytes_max: Annotated[
        int, Meta(ge=1024, description="largest answer that is not streamed, in bytes")
    ] = 64 * 1024**2
    ai_tool_steps_max: Annotated[
        int,
        Meta(
            ge=1, le=100, description="calls to a model for one request that uses the app's tools"
        ),
    ] = 8
    ai_log_calls: Annotated[
        bool, Meta(description="whether the log gets a line for each call, without its texts")
    ] = True
    ai_content_bytes_max: Annotated[
        int, Meta(ge=0, description="texts of calls that are kept, for each app, in bytes")
    ] = 1024**3
    ai_cache_memory_bytes_max: Annotated[
        int, Meta(ge=0, description="cached answers in memory, for each worker, in bytes")
    ] = 32 * 1024**2
    ai_cache_bytes_max: Annotated[
        int, Meta(ge=0, description="cached answers in the database, for each app, in bytes")
    ] = 256 * 1024**2

    def __repr__(self) -> str:
        # Settings are logged at start; the key is not.
        key = "None" if self.ai_api_key is None else "'…'"
        return f"AiSettings(ai_base_url={self.ai_base_url!r}, ai_api_key={key})"
