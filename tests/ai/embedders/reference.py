"""BERT once more, in plain numpy and double precision: what the graph's vectors are compared with.

Written from the paper (https://arxiv.org/abs/1810.04805), one text at a time, without padding.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weights = Mapping[str, npt.NDArray[np.float32]]

EPSILON = 1e-12
_erf = np.vectorize(math.erf, otypes=[np.float64])


class Reference:
    def __init__(self, weights: Weights, *, layer_count: int, head_count: int) -> None:
        self._weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self._layer_count = layer_count
        self._head_count = head_count

    def vector(self, ids: Sequence[int]) -> Array:
        hidden = self._weights["embeddings.word_embeddings.weight"][list(ids)]
        hidden = hidden + self._weights["embeddings.position_embeddings.weight"][: len(ids)]
        hidden = hidden + self._weights["embeddings.token_type_embeddings.weight"][0]
        hidden = self._normed("embeddings.LayerNorm", hidden)
        for number in range(self._layer_count):
            hidden = self._layer(f"encoder.layer.{number}", hidden)
        mean = hidden.mean(axis=0)
        unit: Array = mean / math.sqrt(mean @ mean)
        return unit

    def _layer(self, name: str, hidden: Array) -> Array:
        query, key, value = (
            np.split(self._dense(f"{name}.attention.self.{part}", hidden), self._head_count, axis=1)
            for part in ("query", "key", "value")
        )
        heads = [self._head(*parts) for parts in zip(query, key, value, strict=True)]
        context = self._dense(f"{name}.attention.output.dense", np.concatenate(heads, axis=1))
        attended = self._normed(f"{name}.attention.output.LayerNorm", context + hidden)
        wide = self._dense(f"{name}.intermediate.dense", attended)
        wide = wide * 0.5 * (1 + _erf(wide / math.sqrt(2)))
        narrow = self._dense(f"{name}.output.dense", wide)
        return self._normed(f"{name}.output.LayerNorm", narrow + attended)

    def _head(self, query: Array, key: Array, value: Array) -> Array:
        scores = query @ key.T / math.sqrt(query.shape[1])
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed: Array = (shares / shares.sum(axis=1, keepdims=True)) @ value
        return mixed

    def _dense(self, name: str, hidden: Array) -> Array:
        product: Array = hidden @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return product

    def _normed(self, name: str, hidden: Array) -> Array:
        centred = hidden - hidden.mean(axis=1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
        normed: Array = centred / deviation * self._weights[f"{name}.weight"]
        return normed + self._weights[f"{name}.bias"]
