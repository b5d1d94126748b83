"""BERT sentence encoders as ONNX graphs: weights → graph, with pooling and normalising inside.

Inputs are `ids` and `mask`, int32 of (batch, sequence); the output `vectors` is float32 of (batch,
hidden), each row the unit-length mean over its unmasked tokens. Names of weights are those of
https://github.com/huggingface/transformers (models/bert); the operators are
https://onnx.ai/onnx/operators/ and, for attention, ONNX Runtime's fused
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Attention
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from msgspec import Struct
from onnx import helper, numpy_helper

OPSET_VERSION = 18
IR_VERSION = 9  # the oldest that has this opset, so that an older runtime reads the file
RUNTIME_DOMAIN = "com.microsoft"

Weights: TypeAlias = Mapping[str, npt.NDArray[np.float32]]


class BertShape(Struct, frozen=True):
    """What the weights alone do not tell."""

    layer_count: int
    head_count: int
    token_count_max: int
    epsilon: float = 1e-12


class _Graph:
    """Nodes and constants as they are added; each is named by its only output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def build(weights: Weights, shape: BertShape) -> onnx.ModelProto:
    """The graph with its weights inside. Raises KeyError for a weight that is not there."""
    graph = _Graph()
    vectors = _pooled(graph, _encoded(graph, weights, shape))
    hidden_size = weights["embeddings.LayerNorm.bias"].shape[0]
    axes = ["batch", "sequence"]
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert",
            [
                helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, axes),
                helper.make_tensor_value_info("mask", onnx.TensorProto.INT32, axes),
            ],
            [
                helper.make_tensor_value_info(
                    vectors, onnx.TensorProto.FLOAT, ["batch", hidden_size]
                )
            ],
            graph.constants,
        ),
        opset_imports=[
            helper.make_opsetid("", OPSET_VERSION),
            helper.make_opsetid(RUNTIME_DOMAIN, 1),
        ],
        ir_version=IR_VERSION,
    )


def _encoded(graph: _Graph, weights: Weights, shape: BertShape) -> str:
    hidden = _embedded(graph, weights, shape)
    for layer in range(shape.layer_count):
        prefix = f"encoder.layer.{layer}"
        attended = _attended(graph, weights, shape, hidden, f"{prefix}.attention")
        widened = _linear(graph, weights, attended, f"{prefix}.intermediate.dense")
        active = _gelu(graph, widened, f"{prefix}.gelu")
        narrowed = _linear(graph, weights, active, f"{prefix}.output.dense")
        hidden = _added_and_normed(
            graph, weights, shape, [narrowed, attended], f"{prefix}.output.LayerNorm"
        )
    return hidden


def _embedded(graph: _Graph, weights: Weights, shape: BertShape) -> str:
    # A single text has only tokens of type 0, so that row is added to the positions here.
    positions = weights["embeddings.position_embeddings.weight"][: shape.token_count_max]
    positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
    graph.constant("positions", positions)
    graph.constant("words", weights["embeddings.word_embeddings.weight"])
    for number, name in enumerate(("zero", "one", "two")):
        graph.constant(name, np.array([number], np.int64))
    graph.node("Shape", ["ids"], "shape")
    graph.node("Slice", ["shape", "one", "two", "zero"], "length")
    graph.node("Slice", ["positions", "zero", "length", "zero"], "placed")
    graph.node("Gather", ["words", "ids"], "looked_up", axis=0)
    return _added_and_normed(graph, weights, shape, ["looked_up", "placed"], "embeddings.LayerNorm")


def _attended(graph: _Graph, weights: Weights, shape: BertShape, hidden: str, prefix: str) -> str:
    # Query, key and value as one matrix: one multiplication instead of three.
    parts = [f"{prefix}.self.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = np.concatenate([weights[f"{part}.bias"] for part in parts])
    context = graph.node(
        "Attention",
        [
            hidden,
            graph.constant(f"{prefix}.self.weight", weight),
            graph.constant(f"{prefix}.self.bias", bias),
            "mask",
        ],
        f"{prefix}.self",
        domain=RUNTIME_DOMAIN,
        num_heads=shape.head_count,
    )
    projected = _linear(graph, weights, context, f"{prefix}.output.dense")
    return _added_and_normed(
        graph, weights, shape, [projected, hidden], f"{prefix}.output.LayerNorm"
    )


def _linear(graph: _Graph, weights: Weights, hidden: str, name: str) -> str:
    weight = graph.constant(f"{name}.weight", weights[f"{name}.weight"].T)
    bias = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
    product = graph.node("MatMul", [hidden, weight], f"{name}.product")
    return graph.node("Add", [product, bias], name)


def _gelu(graph: _Graph, hidden: str, name: str) -> str:
    """x * (1 + erf(x / √2)) / 2, in the order of operations that the runtime fuses."""
    root = graph.constant(f"{name}.root", np.float32(np.sqrt(2)))
    one = graph.constant(f"{name}.one", np.float32(1))
    half = graph.constant(f"{name}.half", np.float32(0.5))
    scaled = graph.node("Div", [hidden, root], f"{name}.scaled")
    erf = graph.node("Erf", [scaled], f"{name}.erf")
    shifted = graph.node("Add", [erf, one], f"{name}.shifted")
    product = graph.node("Mul", [hidden, shifted], f"{name}.product")
    return graph.node("Mul", [product, half], name)


def _added_and_normed(
    graph: _Graph, weights: Weights, shape: BertShape, summands: list[str], name: str
) -> str:
    total = graph.node("Add", summands, f"{name}.total")
    weight = graph.constant(f"{name}.weight", weights[f"{name}.weight"])
    bias = graph.constant(f"{name}.bias", weights[f"{name}.bias"])
    return graph.node(
        "LayerNormalization", [total, weight, bias], name, axis=-1, epsilon=shape.epsilon
    )


def _pooled(graph: _Graph, hidden: str) -> str:
    """The mean over the tokens, to unit length; the count of tokens cancels out."""
    graph.node("Cast", ["mask"], "kept", to=onnx.TensorProto.FLOAT)
    graph.node("Unsqueeze", ["kept", "two"], "kept_rows")
    graph.node("Mul", [hidden, "kept_rows"], "kept_hidden")
    graph.node("ReduceSum", ["kept_hidden", "one"], "sum", keepdims=0)
    graph.node("ReduceL2", ["sum", "one"], "length_of_sum", keepdims=1)
    return graph.node("Div", ["sum", "length_of_sum"], "vectors")
