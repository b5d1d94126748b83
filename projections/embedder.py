"""What turns text into vectors, for the embedding index and for questions asked of it."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from butterbase.sql.errors import ButterbaseError


class EmbedderError(ButterbaseError):
    """The embedding model could not be used."""

    code = "embedder_unavailable"
    blames_texts: ClassVar[bool] = False
    """Whether other texts may well be embedded at the same time."""
    retry_after_s: float = 0.0
    """How long the provider asked to be left alone."""


class EmbeddingModel(Struct, frozen=True):
    """Kept beside every vector: vectors of two models are never compared."""

    name: str
    dimensions: int


class Embedder(Protocol):
    @property
    def model(self) -> EmbeddingModel: ...

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One unit-length row per text, in order. Raises EmbedderError."""
        ...

    async def close(self) -> None: ...


class Embedders(Protocol):
    """Opened when they are first needed."""

    @property
    def model(self) -> EmbeddingModel:
        """The installation's."""
        ...

    async def get(self, model: str | None = None) -> Embedder:
        """Of the model of that name, by default the installation's. Raises EmbedderError."""
        ...
