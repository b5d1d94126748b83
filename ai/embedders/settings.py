"""Which model turns text into vectors: the local one, or any OpenAI-compatible endpoint."""

from typing import Annotated

from msgspec import Meta

from butterbase.sql.settings import SettingGroup


class EmbedderSettings(SettingGroup, frozen=True):
    embedder_url: Annotated[
        str | None,
        Meta(description="OpenAI-compatible endpoint, up to /v1; default the local model"),
    ] = None
    embedder_api_key: Annotated[str | None, Meta(description="key for that endpoint")] = None
    embedder_model: Annotated[str, Meta(description="model at that endpoint")] = (
        "text-embedding-3-small"
    )
    embedder_dimensions: Annotated[
        int, Meta(description="dimensions of that model's vectors", ge=1, le=16000)
    ] = 1536
    embedder_shorten: Annotated[
        bool, Meta(description="ask the endpoint for vectors of those dimensions")
    ] = False
    embedder_threads: Annotated[
        int, Meta(description="threads of the local model", ge=1, le=64)
    ] = 1
