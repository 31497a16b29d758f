"""One ONNX file that needs nothing beside it: probabilities as its output, and what its input must be in its metadata.

Weights are stored with 16 bits and used with 32. Knows nothing of bundles.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr.errors import ConfigError, require_extra
from cxr.inference.embedding import OneNet
from cxr.inference.onnx_predictor import EMBEDDING, EXTRA, IMAGES, LOGITS
from cxr.inference.onnx_session import open_session
from cxr.inference.predictor import Probs

Images = npt.NDArray[np.float32]

PROBABILITIES = "probabilities"
MOST_BYTES = 10_000_000
LEAST_VALUES = 256
"""Smaller tensors stay as they are: there is little to save, and shapes and scales are among them."""


def make_mobile(graph: bytes, predictor: OneNet) -> bytes:
    """Make the file.

    Args:
        graph: As `cxr.inference.onnx_graph.make_graph` gives it.
        predictor: Whose graph it is.

    Returns:
        A graph from ``images`` (B, C, H, W) to ``probabilities`` (B, K), with JSON values in ``metadata_props``.

    Raises:
        ConfigError: The net is too large.
        MissingExtraError: onnx is not installed.
    """
    require_extra("onnx", EXTRA)
    import onnx

    model = onnx.load_from_string(graph)
    _answer_by_probabilities(model.graph, predictor)
    _halve(model.graph)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in describe(predictor).items()})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    if len(content) > MOST_BYTES:
        raise ConfigError(
            f"expected a net of at most {MOST_BYTES / 1e6:.0f} MB for --mobile, got {len(content) / 1e6:.1f} MB with "
            "16 bits for each weight; train a smaller one, such as net=mobilenet"
        )
    return content


def describe(predictor: OneNet) -> dict[str, Any]:
    """What a program must know to use the file, as plain values.

    ``stored * scale + offset`` for each channel, with ``stored`` as the preprocessing gives it, is the input.
    """
    scale, offset = predictor.preprocess.scale_offset
    return {
        "class_names": predictor.class_names,
        "multilabel": predictor.multilabel,
        **predictor.scaling.to_dict(),
        "calibrated": predictor.calibrated,
        "operating_point": predictor.operating_point,
        "preprocess": predictor.preprocess.to_dict(),
        "scale": scale.tolist(),
        "offset": offset.tolist(),
        "use": "research only",
    }


def open_mobile(content: bytes) -> Callable[[Images], Probs]:
    """What gives the probabilities (B, K) of a file for images (B, C, H, W)."""
    session = open_session(content, [IMAGES], [PROBABILITIES], None, EXTRA)
    return lambda images: session.run([PROBABILITIES], {IMAGES: images})[0].astype(np.float64)


def _answer_by_probabilities(graph: Any, predictor: OneNet) -> None:
    """Put the scaling and the last function behind the logits; no embedding is given."""
    from onnx import helper, numpy_helper

    scaling = predictor.scaling
    numbers = {"temperature": scaling.temperature, "bias": 0.0 if scaling.bias is None else scaling.bias}
    for name, value in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float32), name))
    graph.node.append(helper.make_node("Div", [LOGITS, "temperature"], ["divided_logits"]))
    graph.node.append(helper.make_node("Add", ["divided_logits", "bias"], ["scaled_logits"]))
    last = "Sigmoid" if predictor.multilabel else "Softmax"  # over the last axis, that of the classes
    graph.node.append(helper.make_node(last, ["scaled_logits"], [PROBABILITIES]))
    kept = {one.name: one for one in graph.output}
    del graph.output[:]
    kept[LOGITS].name = PROBABILITIES
    graph.output.append(kept[LOGITS])
    assert EMBEDDING in kept


def _halve(graph: Any) -> None:
    """Store large float tensors with 16 bits; onnxruntime widens them once, when it loads the file."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= LEAST_VALUES:
            name, narrow = tensor.name, f"{tensor.name}_16_bits"
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), narrow))
            casts.append(helper.make_node("Cast", [narrow], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
