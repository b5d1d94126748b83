"""Embeddings through the gateway: by the app's routes and keys, within its budgets, in its books.

A name leads to one model. What else it may lead to, a fallback or the cheaper model of a budget
that is used up, would make vectors that cannot be compared with those that are there.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import numpy as np

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.calls.call import Caller
from butterbase.ai.calls.gateway import Gateway, check_allowed
from butterbase.ai.calls.passage import Given
from butterbase.ai.config.configs import AppConfig
from butterbase.ai.embedders.errors import EmbeddingMismatchError
from butterbase.ai.embedders.vectors import Vectors, sendable, unit
from butterbase.ai.errors import WireUnsupportedError
from butterbase.ai.wire.embeddings import EmbeddingRequest, decode_answer
from butterbase.ai.wire.protocols import Kind, Target
from butterbase.projections.embedder import Wanted

NAMED_COUNT_MAX: Final = 5
"""Of models that an error lists."""


class Asker(Protocol):
    """Who waits for the vectors."""

    @property
    def has_left(self) -> bool: ...


class Nobody:
    """What asks by itself, and stays."""

    has_left = False


def served_model(app: AppConfig, name: str) -> str:
    """Whose vectors the name leads to, as its providers call it.

    Raises ModelDeniedError, ModelUnknownError, ProviderMissingError, WireUnsupportedError,
    EmbeddingMismatchError.
    """
    check_allowed(app, (name,))
    targets = app.table.resolve(name).all_targets
    if any(target.provider.kind is Kind.ANTHROPIC for target in targets):
        raise WireUnsupportedError(f"{name!r} leads to a provider that has no embeddings")
    models = sorted({target.model for target in targets})
    if len(models) > 1:
        raise EmbeddingMismatchError(
            f"the route of {name!r} leads to several models: {', '.join(models[:NAMED_COUNT_MAX])}",
            hint="vectors of two models are never mixed: name a route with one model, or the model",
        )
    return models[0]


async def embed(
    gateway: Gateway, caller: Caller, asker: Asker, wanted: Wanted, texts: Sequence[str]
) -> tuple[str, Vectors]:
    """The model whose vectors they are, and one unit-length row per text, in order.

    All texts go in one call. Raises AiError and other ButterbaseErrors, EmbeddingMismatchError.
    """
    name = wanted.model
    assert name is not None
    model = served_model(await gateway.configs.of(caller.app_id), name)
    if wanted.known not in (None, model):
        raise EmbeddingMismatchError(
            f"the index has vectors of {wanted.known}, and {name!r} leads to {model} by now",
            hint="a new version of the index has the new model: ai.alter_index(…, model => …), or"
            " another model of the collection",
        )
    # Of floats as text a vector is five times as long.
    sent = EmbeddingRequest(name, tuple(map(sendable, texts)), is_base64=True)
    body = {"model": name, "input": sent.inputs, "encoding_format": "base64"}
    client = _Client(msgspec.json.encode(body), asker)
    answer = await gateway.call(caller, Endpoint.EMBEDDINGS, client, Given(only_model=model))
    assert isinstance(answer.body, bytes)
    # The gateway answers in the form of OpenAI, whoever was asked.
    rows = decode_answer(sent, Target(Kind.OPENAI, model), answer.body).vectors
    if len({row.shape for row in rows}) > 1:
        raise EmbeddingMismatchError(f"the model {model} answers with vectors of several lengths")
    return model, unit(np.stack(rows), model)


class _Client:
    """The gateway's."""

    def __init__(self, body: bytes, asker: Asker) -> None:
        self._body = body
        self._asker = asker

    @property
    def has_left(self) -> bool:
        return self._asker.has_left

    async def read(self) -> bytes:
        return self._body
