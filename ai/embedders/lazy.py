"""The embedder of the settings, opened when it is first needed."""

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
        self._embedder: Embedder | None = None

    @property
    def model(self) -> EmbeddingModel:
        """The settings', without opening it."""
        settings = self._settings
        if settings.embedder_url is None:
            return minilm.MODEL
        return EmbeddingModel(settings.embedder_model, settings.embedder_dimensions)

    async def get(self, model: str | None = None) -> Embedder:
        """Of the model of that name, by default the settings'. Raises EmbedderError, whose hint
        says what is missing; EmbedderModelUnknownError.
        """
        known = self.model.name
        if model not in (None, known):
            raise EmbedderModelUnknownError(
                f"nothing here embeds with {model!r}", hint=f"the embedder's model is {known!r}"
            )
        async with self._opening:
            if self._embedder is None:
                self._embedder = await self._open()
            return self._embedder

    async def close(self) -> None:
        if self._embedder is not None:
            await self._embedder.close()

    async def _open(self) -> Embedder:
        settings = self._settings
        # Imported here: both bring libraries that take long to load.
        if settings.embedder_url is None:
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
