"""The vector of a question: by the installation's model, or as a call of whoever asks."""

from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from butterbase.ai.calls.call import Caller
from butterbase.ai.calls.gateway import Gateway
from butterbase.ai.embedders.gateway import Asker, embed, served_model
from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.vectors import Vectors
from butterbase.ai.errors import AiError
from butterbase.ai.rag.errors import RagModelError
from butterbase.projections.embedder import EmbedderError, Wanted, is_of_app

Vector: TypeAlias = Vectors
"""One row."""


class Questioner(Struct, frozen=True):
    """Whose question it is, for the gateway's books."""

    caller: Caller
    connection: Asker


class QuestionVectors:
    """Of one worker."""

    def __init__(self, installed: LazyEmbedder, gateway: Gateway) -> None:
        self._installed = installed
        self._gateway = gateway

    async def embed(self, questioner: Questioner, wanted: Wanted, text: str) -> Vector:
        """Raises EmbedderError; of a model of the app's AiError and what else a call does."""
        if not is_of_app(self._installed.installed, wanted):
            embedder = await self._installed.get(wanted.known or wanted.model)
            vectors = await embedder.embed([text])
        else:
            caller = replace(questioner.caller, index=wanted.index)
            await self._gateway.check_caller(caller)
            _, vectors = await embed(self._gateway, caller, questioner.connection, wanted, [text])
        vector: Vector = vectors[0]
        return vector

    async def check_model(self, app_id: str, model: object) -> None:
        """That the name leads to one that may embed, as far as it can be known without asking it.

        Raises RagModelError, DatabaseUnavailableError.
        """
        if not isinstance(model, str) or self._installed.installed(model) is not None:
            return
        app = await self._gateway.configs.of(app_id)
        try:
            served_model(app, model)
        except (AiError, EmbedderError) as error:
            known = f"the installation's own is {self._installed.model.name!r}"
            hint = f"{error.hint}; {known}" if error.hint else known
            raise RagModelError(error.message, hint=hint) from error
