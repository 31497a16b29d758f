"""A graph of 8-bit integers, weights and activations: faster where the processor multiplies these, and less exact.

Static quantisation with a scale for each channel of a weight (Jacob et al. 2018); the scale of an activation is that of
its largest and smallest value on calibration images. Knows nothing of bundles, and does not say what it cost.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxr.errors import require_extra
from cxr.inference.onnx_predictor import EXTRA, IMAGES

Images = npt.NDArray[np.float32]

QUANTISED = ("Conv", "MatMul", "Gemm", "Add", "Concat", "MaxPool", "AveragePool", "Relu", "Clip")
"""Products of matrices, in which the time goes, and what lies between them; layer norms and softmax stay exact."""


class _Reader:
    """Calibration images as onnxruntime asks for them: a batch for each `get_next`, then None."""

    def __init__(self, batches: Iterable[Images]) -> None:
        self._batches: Iterator[Images] = iter(batches)

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {IMAGES: batch}


def quantise(graph: bytes, batches: Iterable[Images]) -> bytes:
    """Make the integer graph of a float one.

    Args:
        graph: As `cxr.inference.onnx_graph.make_graph` gives it.
        batches: Training images (B, C, H, W) as the graph takes them, at least one.

    Returns:
        A graph with the same input and outputs.

    Raises:
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    for module in ("onnx", "onnxruntime"):
        require_extra(module, EXTRA)
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as place:
        given, prepared, made = (Path(place) / f"{name}.onnx" for name in ("given", "prepared", "int8"))
        given.write_bytes(graph)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)  # which knows no GridSample
        prepared.write_bytes(_norms_as_products(prepared.read_bytes()))
        quantize_static(
            prepared, made, _Reader(batches), op_types_to_quantize=list(QUANTISED), per_channel=True,
            quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return made.read_bytes()


def _norms_as_products(graph: bytes) -> bytes:
    """Batch norms that stand before a product, as in DenseNet, become one with a weight a channel: in integers too."""
    import onnx

    model = onnx.load_from_string(graph)
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            scale, shift, mean, variance = (constants[name] for name in node.input[1:])
            epsilon = next(one.f for one in node.attribute if one.name == "epsilon")
            weight = scale / np.sqrt(variance + np.float32(epsilon))
            made = {f"{node.name}_weight": weight.reshape(-1, 1, 1, 1), f"{node.name}_bias": shift - mean * weight}
            model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in made.items())
            inputs = [node.input[0], *made]
            node.CopyFrom(onnx.helper.make_node("Conv", inputs, node.output, node.name, group=len(scale)))
    used = {name for node in model.graph.node for name in node.input}
    for unused in [one for one in model.graph.initializer if one.name not in used]:
        model.graph.initializer.remove(unused)
    rewritten: bytes = model.SerializeToString()
    return rewritten
