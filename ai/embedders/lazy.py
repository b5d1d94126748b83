"""The installation's embedders, opened when they are first needed: the one of the settings, and the
local one, whichever that is.
"""

import asyncio
from pathlib import Path

from butterbase.ai.embedders import minilm
from butterbase.ai.embedders.errors import EmbedderModelUnknownError
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.projections.embedder import Embedder, EmbeddingModel


class LazyEmbedder:
    """A process that embeds nothing loads no model. An opening that failed is tried again."""

    def __init__(self, settings: EmbedderSettings, cache_dir: Path) -> None:
        self._settings = settings
        self._cache_dir = cache_dir
        self._opening = asyncio.Lock()
        self._embedders: dict[str, Embedder] = {}

    @property
    def model(self) -> EmbeddingModel:
        """The settings', without opening it."""
        settings = self._settings
        if settings.embedder_url is None:
            return minilm.MODEL
        return EmbeddingModel(settings.embedder_model, settings.embedder_dimensions)

    def installed(self, name: str) -> EmbeddingModel | None:
        return next((known for known in (self.model, minilm.MODEL) if known.name == name), None)

    async def get(self, model: str | None = None) -> Embedder:
        """Of the model of that name, by default the settings'. Raises EmbedderError, whose hint
        says what is missing; EmbedderModelUnknownError.
        """
        known = self.installed(self.model.name if model is None else model)
        if known is None:
            raise EmbedderModelUnknownError(
                f"nothing here embeds with {model!r}",
                hint=f"the embedder's model is {self.model.name!r}",
            )
        async with self._opening:
            if known.name not in self._embedders:
                self._embedders[known.name] = await self._open(known)
            return self._embedders[known.name]

    async def close(self) -> None:
        for embedder in self._embedders.values():
            await embedder.close()

    async def _open(self, model: EmbeddingModel) -> Embedder:
        settings = self._settings
        # Imported here: both bring libraries that take long to load.
        if settings.embedder_url is None or model != self.model:
            from butterbase.ai.embedders.local import LocalEmbedder

            return await asyncio.to_thread(
                LocalEmbedder.load, self._cache_dir, threads=settings.embedder_threads
            )
        from butterbase.ai.embedders.openai import OpenAIEmbedder

        return OpenAIEmbedder(
            base_url=settings.embedder_url,
            model=settings.embedder_model,
            dimensions=settings.embedder_dimensions,
            api_key=settings.embedder_api_key,
            shorten=settings.embedder_shorten,
        )
