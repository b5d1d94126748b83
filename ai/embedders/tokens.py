"""The local model's tokens, to measure passages by; also for models whose own are not at hand."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from butterbase.ai.embedders import minilm
from butterbase.projections.embedder import EmbedderError
from butterbase.projections.tokens import EstimatedTokens, Starts, Tokenizer

PART_CHARS: Final = 65_536
"""Of a long text, tokenized at once: the library keeps some hundred bytes for each token."""


class WordPieces:
    """See projections/tokens.py."""

    # An optional package, without types.
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def starts(self, text: str) -> Starts:
        # Half of a surrogate pair would be refused; what stands for it is as long.
        text = text.encode(errors="replace").decode()
        found = [
            [first + start for start, end in encoding.offsets if end > start]
            for first, part in _parts(text)
            # The batch call, unlike the one for a single text, lets other threads run meanwhile.
            for encoding in self._tokenizer.encode_batch([part], add_special_tokens=False)
        ]
        # Pieces of one character, such as ligatures, have the same place.
        return np.unique(np.array([start for part in found for start in part], np.int32))


async def open_tokenizer() -> Tokenizer:
    """The local model's, or an estimate where it is not installed."""
    try:
        return await asyncio.to_thread(_load)
    except EmbedderError:
        return EstimatedTokens()


def _load() -> WordPieces:
    tokenizers = minilm.imported("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(minilm.tokenizer_json(minilm.model_dir()))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return WordPieces(tokenizer)


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Position and text of parts that end at white space where there is some."""
    start = 0
    while start < len(text):
        end = start + PART_CHARS
        if end < len(text):
            space = text.rfind(" ", start + PART_CHARS // 2, end)
            end = space + 1 if space >= 0 else end
        yield start, text[start:end]
        start = end
