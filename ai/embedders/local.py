"""The embedding model that needs no provider: all-MiniLM-L6-v2 on onnxruntime, in this process.

One worker thread does all the work, a batch at a time: the event loop never waits for it, and a
question asked while a document is indexed waits for one batch, not for the document.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from butterbase.ai.embedders import minilm
from butterbase.ai.embedders.vectors import Vectors
from butterbase.projections.embedder import BatchLimits, EmbedderError, EmbeddingModel

TEXT_CHARS_MAX = 8192
"""What is read of a text: the model sees 256 word pieces, some 1,200 characters of prose."""
SLICE_TEXTS_MAX = 256
"""Texts taken up together: sorted by length, they fill batches with little padding."""
BATCH_TOKENS_MAX = 2048
"""Of a batch, padding included: bounds memory, and how long others wait (some 500 ms)."""
CALL_TOKENS = 8
"""What a call of the runtime costs beside its tokens: as much as so many of them."""
AT_ONCE = BatchLimits(texts_max=32, chars_max=4_000)
"""A text takes as long in a batch as alone; so a small one is soon free for what is urgent."""

TokenIds: TypeAlias = list[int]
Result = TypeVar("Result")


def batches(lengths: Sequence[int], tokens_max: int) -> Iterator[list[int]]:
    """Indexes of texts, shortest first, so that the longest times the count is within the limit.

    A text longer than the limit is a batch of its own; and so is one that would have the others
    padded by more than another call costs.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch:
            padding = (lengths[index] - lengths[batch[-1]]) * len(batch)
            if padding > CALL_TOKENS or lengths[index] * (len(batch) + 1) > tokens_max:
                yield batch
                batch = []
        batch.append(index)
    if batch:
        yield batch


class LocalEmbedder:
    """An Embedder. `load` makes one."""

    # The runtime and the tokenizer are optional packages: imported late, and so without types.
    def __init__(self, session: Any, tokenizer: Any) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="embedder")
        self._closed = False

    @classmethod
    def load(cls, cache_dir: Path, *, threads: int = 2) -> "LocalEmbedder":
        """Open the model; takes 0.3 s, and some seconds the first time.

        Blocks: in an event loop, call it in a thread. `threads` is how many cores a batch may
        use. Raises EmbedderNotInstalledError, EmbedderError.
        """
        runtime, tokenizers = minilm.imported("onnxruntime"), minilm.imported("tokenizers")
        directory = minilm.model_dir()
        tokenizer = tokenizers.Tokenizer.from_str(minilm.tokenizer_json(directory))
        tokenizer.enable_truncation(minilm.TOKEN_COUNT_MAX)
        tokenizer.no_padding()
        try:
            session = _session(runtime, minilm.cached_graph(directory, cache_dir), threads)
        except _UnusableGraphError:
            # A file of the cache is damaged: it is only a copy.
            graph = minilm.cached_graph(directory, cache_dir, anew=True)
            session = _session(runtime, graph, threads)
        return cls(session, tokenizer)

    @property
    def model(self) -> EmbeddingModel:
        return minilm.MODEL

    @property
    def name(self) -> str:
        return minilm.MODEL.name

    @property
    def limits(self) -> BatchLimits:
        return AT_ONCE

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit-length row per text, in order; any number of texts. Raises EmbedderError."""
        if len(texts) == 1:
            return await self._run(self._infer_text, texts[0])
        vectors = np.empty((len(texts), self.model.dimensions), np.float32)
        for start in range(0, len(texts), SLICE_TEXTS_MAX):
            tokens = await self._run(self._tokenize, texts[start : start + SLICE_TEXTS_MAX])
            for batch in batches([len(ids) for ids in tokens], BATCH_TOKENS_MAX):
                rows = [start + index for index in batch]
                vectors[rows] = await self._run(self._infer, [tokens[index] for index in batch])
        return vectors

    async def close(self) -> None:
        """Wait for the batch in work; calls that are not done yet raise EmbedderError."""
        self._closed = True
        await asyncio.to_thread(self._worker.shutdown)

    async def _run(self, step: Callable[[Any], Result], argument: object) -> Result:
        if self._closed:
            raise EmbedderError("the embedder is closed")
        return await asyncio.get_running_loop().run_in_executor(self._worker, step, argument)

    def _tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        # Half of a surrogate pair is not text; JSON can carry one in, UTF-8 cannot.
        readable = [text[:TEXT_CHARS_MAX].encode(errors="replace").decode() for text in texts]
        # The batch call, unlike the one for a single text, lets other threads run meanwhile.
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(readable)]

    def _infer_text(self, text: str) -> Vectors:
        # In one go: on a busy machine each change of threads waits for its turn.
        return self._infer(self._tokenize([text]))

    def _infer(self, batch: Sequence[TokenIds]) -> Vectors:
        ids = np.zeros((len(batch), max(map(len, batch))), np.int32)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        try:
            (vectors,) = self._session.run(["vectors"], {"ids": ids, "mask": mask})
        except Exception as error:  # onnxruntime's errors have no class in common
            raise EmbedderError(f"onnxruntime failed: {error}") from error
        assert isinstance(vectors, np.ndarray)
        return vectors


class _UnusableGraphError(EmbedderError):
    """The embedding graph cannot be opened."""


def _session(runtime: Any, graph: Path, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads sleep instead of spinning: the cores are shared with the rest of Butterbase.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; they are raised as well
    try:
        return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class in common
        raise _UnusableGraphError(f"onnxruntime cannot open {graph.name}: {error}") from error
