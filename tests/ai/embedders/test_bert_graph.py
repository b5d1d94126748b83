"""The graph against the reference, on a small BERT with random weights."""

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime  # type: ignore[import-untyped]  # ships no types
import pytest

from butterbase.ai.embedders.bert_graph import BertShape, build
from tests.ai.embedders.reference import Reference

HIDDEN, WIDE, WORDS, POSITIONS = 8, 24, 30, 12
SHAPE = BertShape(layer_count=2, head_count=4, token_count_max=10)

Floats = npt.NDArray[np.float32]


def random_weights() -> dict[str, Floats]:
    random = np.random.default_rng(7)

    def normal(*shape: int) -> Floats:
        return random.normal(size=shape).astype(np.float32)

    def dense(name: str, inputs: int, outputs: int) -> dict[str, Floats]:
        return {f"{name}.weight": normal(outputs, inputs), f"{name}.bias": normal(outputs)}

    def norm(name: str) -> dict[str, Floats]:
        return {f"{name}.weight": normal(HIDDEN), f"{name}.bias": normal(HIDDEN)}

    weights = {
        "embeddings.word_embeddings.weight": normal(WORDS, HIDDEN),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN),
        **norm("embeddings.LayerNorm"),
    }
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            weights |= dense(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        weights |= norm(f"{layer}.attention.output.LayerNorm")
        weights |= dense(f"{layer}.intermediate.dense", HIDDEN, WIDE)
        weights |= dense(f"{layer}.output.dense", WIDE, HIDDEN)
        weights |= norm(f"{layer}.output.LayerNorm")
    return weights


def run(model: onnx.ModelProto, ids: list[list[int]], mask: list[list[int]]) -> Floats:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    inputs = {"ids": np.array(ids, np.int32), "mask": np.array(mask, np.int32)}
    vectors = session.run(["vectors"], inputs)[0]
    assert isinstance(vectors, np.ndarray)
    return vectors


def test_a_graph_computes_what_the_paper_says() -> None:
    weights = random_weights()
    reference = Reference(weights, layer_count=2, head_count=4)
    texts = [[1, 5, 29, 3], [4, 4, 0, 2]]
    vectors = run(build(weights, SHAPE), texts, [[1] * 4] * 2)
    np.testing.assert_allclose(vectors, [reference.vector(ids) for ids in texts], atol=1e-5)


def test_padding_does_not_change_a_vector() -> None:
    weights = random_weights()
    reference = Reference(weights, layer_count=2, head_count=4)
    vectors = run(
        build(weights, SHAPE), [[1, 5, 9, 9, 9], [3, 2, 1, 0, 7]], [[1, 1, 0, 0, 0], [1] * 5]
    )
    np.testing.assert_allclose(
        vectors, [reference.vector([1, 5]), reference.vector([3, 2, 1, 0, 7])], atol=1e-5
    )


def test_a_graph_is_valid_onnx_and_the_same_each_time() -> None:
    weights = random_weights()
    model = build(weights, SHAPE)
    onnx.checker.check_model(model, full_check=False)
    assert model.SerializeToString(deterministic=True) == build(weights, SHAPE).SerializeToString(
        deterministic=True
    )


def test_a_missing_weight_is_named() -> None:
    weights = random_weights()
    del weights["encoder.layer.1.output.dense.bias"]
    with pytest.raises(KeyError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        build(weights, SHAPE)
