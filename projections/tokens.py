"""Where the tokens of a text begin, as the embedding model counts them or about so.

Sizes of passages are in tokens, since that is what a model reads a limited number of.
"""

import re
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Starts: TypeAlias = npt.NDArray[np.int32]
"""The first character of each token, ascending."""

GAP_CHARS_MAX: Final = 16
"""A token that is longer counts as several, and so does white space: else a passage of few tokens
could be of any length."""

# A word of a common language is one piece or two; a character of a script without spaces is one.
_PIECE = re.compile(r"[^\W_⺀-鿿가-힯豈-﫿]{1,6}|[^\s]")


class Tokenizer(Protocol):
    def starts(self, text: str) -> Starts:
        """Called in a thread; text of any length."""
        ...


class EstimatedTokens:
    """About as many as word-piece models have, without any model."""

    def starts(self, text: str) -> Starts:
        return np.fromiter((piece.start() for piece in _PIECE.finditer(text)), np.int32)


class Ruler:
    """A text measured in tokens."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self._starts = _filled(tokenizer.starts(text), len(text))
        self._end = len(text)

    def count(self, start: int, end: int) -> int:
        """Tokens that begin in `[start:end]`."""
        return self._before(end) - self._before(start)

    def forward(self, position: int, tokens: int) -> int:
        """The end of so many tokens from there on: where the one behind them begins."""
        index = self._before(position) + tokens
        return int(self._starts[index]) if index < len(self._starts) else self._end

    def backward(self, position: int, tokens: int) -> int:
        """Where the last so many tokens before it begin."""
        index = self._before(position) - tokens
        return int(self._starts[index]) if 0 <= index < len(self._starts) else position

    def _before(self, position: int) -> int:
        # Of the array's own type: for any other the whole array is converted first, each time.
        return int(self._starts.searchsorted(np.int32(position), "left"))


def _filled(starts: Starts, length: int) -> Starts:
    """The starts, with more of them wherever the next is too far away."""
    edges = np.concatenate(([0], starts, [length])).astype(np.int64)
    gaps = np.diff(edges)
    counts = np.maximum(0, (gaps - 1) // GAP_CHARS_MAX)
    if not counts.any():
        return starts
    first = np.repeat(edges[:-1], counts)
    nth = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return np.union1d(starts, first + nth * GAP_CHARS_MAX).astype(np.int32)
