"""Texts on their way to a provider, and its numbers on their way to vectors."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from butterbase.ai.embedders.errors import EmbeddingMismatchError

LENGTH_MIN = 1e-30

Vectors: TypeAlias = npt.NDArray[np.float32]


def sendable(text: str) -> str:
    """Half of a surrogate pair is not text; and OpenAI refuses an empty string, not a blank one."""
    return text.encode(errors="replace").decode() or " "


def unit(rows: "npt.NDArray[np.floating[Any]]", model: str) -> Vectors:
    """Each row at unit length. Raises EmbeddingMismatchError where one has none."""
    rows = rows.astype(np.float64)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all((lengths > LENGTH_MIN) & np.isfinite(lengths)):
        raise EmbeddingMismatchError(f"the model {model} answers with a vector of no length")
    found: Vectors = (rows / lengths).astype(np.float32)
    return found
