"""Lists of models, of each provider and for each client."""

from butterbase.ai.wire.listings import Model, decode_listing, encode_listing
from butterbase.ai.wire.protocols import Kind, WireName
from tests.ai.wire.clients import JSON, always, anthropic_client, openai_client
from tests.ai.wire.shaping import dumps

OPENAI = dumps({"data": [
    {"id": "gpt-5", "object": "model", "created": 1_770_000_000, "owned_by": "openai"}
]})  # fmt: skip
OPENROUTER = dumps({"data": [
    {"id": "a/b", "name": "A: B", "created": 1_770_000_000, "context_length": 8192}]})  # fmt: skip
ANTHROPIC = dumps({
    "data": [{"type": "model", "id": "claude-opus-5", "display_name": "Claude Opus 5",
              "created_at": "2026-02-02T02:40:00Z", "max_input_tokens": 1_000_000,
              "max_tokens": 64_000}],
    "has_more": False, "first_id": "claude-opus-5", "last_id": "claude-opus-5"})  # fmt: skip
GEMINI = dumps({"models": [
    {"name": "models/gemini-3-pro", "displayName": "Gemini 3 Pro", "inputTokenLimit": 1_048_576,
     "outputTokenLimit": 65_536, "supportedGenerationMethods": ["generateContent"]}]})  # fmt: skip


def test_what_each_provider_lists() -> None:
    assert decode_listing(Kind.OPENAI, OPENAI) == (Model("gpt-5", 1_770_000_000, "openai"),)
    assert decode_listing(Kind.OPENROUTER, OPENROUTER) == (
        Model("a/b", 1_770_000_000, "openrouter", "A: B", 8192),
    )
    assert decode_listing(Kind.ANTHROPIC, ANTHROPIC) == (
        Model("claude-opus-5", 1_770_000_000, "anthropic", "Claude Opus 5", 1_000_000, 64_000),
    )
    assert decode_listing(Kind.GEMINI, GEMINI) == (
        Model("gemini-3-pro", 0, "google", "Gemini 3 Pro", 1_048_576, 65_536),
    )


def test_clients_read_them() -> None:
    models = [
        model
        for kind, body in [
            (Kind.OPENAI, OPENAI),
            (Kind.ANTHROPIC, ANTHROPIC),
            (Kind.GEMINI, GEMINI),
        ]
        for model in decode_listing(kind, body)
    ]
    names = ["gpt-5", "claude-opus-5", "gemini-3-pro"]
    with openai_client(always(encode_listing(WireName.CHAT, models), JSON)) as client:
        assert [model.id for model in client.models.list()] == names
    with anthropic_client(always(encode_listing(WireName.ANTHROPIC, models), JSON)) as client_:
        listed = list(client_.models.list())
    assert [model.id for model in listed] == names
    assert listed[1].display_name == "Claude Opus 5"
    assert listed[1].created_at.timestamp() == 1_770_000_000


def test_no_models_are_an_empty_list() -> None:
    with openai_client(always(encode_listing(WireName.CHAT, []), JSON)) as client:
        assert list(client.models.list()) == []
    with anthropic_client(always(encode_listing(WireName.ANTHROPIC, []), JSON)) as client_:
        assert list(client_.models.list()) == []
