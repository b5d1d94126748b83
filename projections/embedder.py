"""What turns text into vectors, for the embedding index and for questions asked of it."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol
from uuid import UUID

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
    reason: ButterbaseError | None = None
    """What is behind it, by whose name it is told."""
    concerns_all: bool = False
    """Whether it would have been the same with any texts."""


class EmbeddingModel(Struct, frozen=True):
    """Kept beside every vector: vectors of two models are never compared."""

    name: str
    dimensions: int


class BatchLimits(Struct, frozen=True):
    """What a model is given at once."""

    texts_max: int = 32
    chars_max: int = 100_000
    """Unless one text alone has more. Providers limit the tokens of a request."""


class Wanted(Struct, frozen=True):
    """Vectors for a version of an index."""

    model: str | None = None
    """As the index names it; None: the installation's, whichever that is."""
    known: str | None = None
    """Whose vectors the version has already; None: none yet."""
    index: str = ""
    """What the index is called."""
    owner: UUID | None = None
    """Of a collection: the user whose it is."""


class Embedder(Protocol):
    @property
    def name(self) -> str:
        """Of the model whose vectors they are."""
        ...

    @property
    def limits(self) -> BatchLimits:
        """Of the indexer's batches; `embed` takes any number."""
        ...

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

    def installed(self, name: str) -> EmbeddingModel | None:
        """None: the installation has no model of that name; the app may."""
        ...

    async def get(self, wanted: Wanted) -> Embedder:
        """Raises EmbedderError."""
        ...


def is_of_app(installed: Callable[[str], EmbeddingModel | None], wanted: Wanted) -> bool:
    """Whether it is a model that the app leads to, and none of the installation's."""
    return wanted.model is not None and installed(wanted.model) is None
