"""What turns text into vectors, for the embedding index and for questions asked of it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from butterbase.sql.errors import ButterbaseError


class EmbedderError(ButterbaseError):
    """The embedding model could not be used."""

    code = "embedder_unavailable"


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
