"""Lists of models: each provider's → one, and that for clients of OpenAI's and Anthropic's form.

https://platform.openai.com/docs/api-reference/models/list
https://platform.claude.com/docs/en/api/models-list
https://ai.google.dev/api/models#method:-models.list
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from butterbase.ai.wire.decoding import decode_upstream
from butterbase.ai.wire.protocols import Kind, WireName

GEMINI_PAGE_SIZE = 1000


class Model(Struct, frozen=True):
    id: str
    """What a request names it by."""
    created_s: int = 0
    """Unix time; 0 where the provider does not tell it."""
    owner: str = ""
    title: str | None = None
    context_token_count: int | None = None
    """Of prompt and answer together, or of the prompt where the provider tells only that."""
    answer_token_count_max: int | None = None


class _Model(Struct, frozen=True):
    """OpenAI's, OpenRouter's and Anthropic's."""

    id: str
    created: float | None = None
    owned_by: str | None = None
    name: str | None = None
    context_length: int | None = None
    display_name: str | None = None
    created_at: datetime | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None


class _Listing(Struct, frozen=True):
    data: list[_Model]


class _GeminiModel(Struct, frozen=True, rename="camel"):
    name: str
    display_name: str | None = None
    input_token_limit: int | None = None
    output_token_limit: int | None = None


class _GeminiListing(Struct, frozen=True, rename="camel"):
    models: list[_GeminiModel] = []
    next_page_token: str | None = None


_LISTING = msgspec.json.Decoder(_Listing)
_GEMINI_LISTING = msgspec.json.Decoder(_GeminiListing)

LISTING_PATHS = {
    Kind.ANTHROPIC: f"models?limit={GEMINI_PAGE_SIZE}",
    Kind.GEMINI: f"models?pageSize={GEMINI_PAGE_SIZE}",
}
"""Below the base URL; of all others it is `models`."""


def decode_listing(kind: Kind, body: bytes) -> tuple[Model, ...]:
    """Raises UpstreamInvalidError."""
    if kind is Kind.GEMINI:
        return tuple(_gemini(model) for model in decode_upstream(_GEMINI_LISTING, body).models)
    return tuple(_model(model, kind) for model in decode_upstream(_LISTING, body).data)


def _model(model: _Model, kind: Kind) -> Model:
    created = model.created_at.timestamp() if model.created_at else model.created or 0
    return Model(
        id=model.id,
        created_s=int(created),
        owner=model.owned_by or kind,
        title=model.display_name or model.name,
        context_token_count=model.context_length or model.max_input_tokens,
        answer_token_count_max=model.max_tokens,
    )


def _gemini(model: _GeminiModel) -> Model:
    return Model(
        id=model.name.removeprefix("models/"),
        owner="google",
        title=model.display_name,
        context_token_count=model.input_token_limit,
        answer_token_count_max=model.output_token_limit,
    )


def encode_listing(wire: WireName, models: Sequence[Model]) -> bytes:
    if wire is WireName.ANTHROPIC:
        return msgspec.json.encode(_anthropic(models))
    data = [
        {"id": m.id, "object": "model", "created": m.created_s, "owned_by": m.owner} for m in models
    ]
    return msgspec.json.encode({"object": "list", "data": data})


def _anthropic(models: Sequence[Model]) -> dict[str, Any]:
    data = [
        {
            "type": "model",
            "id": model.id,
            "display_name": model.title or model.id,
            "created_at": datetime.fromtimestamp(model.created_s, UTC).isoformat(),
            "max_input_tokens": model.context_token_count,
            "max_tokens": model.answer_token_count_max,
            "lifecycle": "active",
        }
        for model in models
    ]
    ends = {"first_id": models[0].id, "last_id": models[-1].id} if models else {}
    return {"data": data, "has_more": False, "first_id": None, "last_id": None} | ends
