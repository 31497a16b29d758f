"""A fitted classical model to an ONNX graph, proved on images. Knows nothing of bundles or of how it was fitted."""

import importlib
import importlib.util

import numpy as np
from sklearn.pipeline import Pipeline

from cxr.classical.families import MODEL, SCALER, Table
from cxr.errors import TrainingError, require_extra
from cxr.inference.classical_predictor import INPUT, ask_model, open_model

OPSETS = {"": 18, "ai.onnx.ml": 3}
TOLERANCE = 1e-4
PROVED_ROWS = 64


class ParityError(TrainingError):
    """A graph that answers otherwise than its model."""


def to_onnx(model: Pipeline, columns: int) -> bytes:
    """The graph of a pipeline of `fit_model`.

    Models on scaled features compute in float64, where neighbours at nearly the same distance stay in order; trees
    compare unscaled float32, as they did when they were fitted.

    Args:
        model: The fitted pipeline.
        columns: Of its table.

    Raises:
        MissingExtraError: A converter is not installed.
    """
    for module in ("skl2onnx", "onnxmltools"):
        require_extra(module, "automl")
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    _register_boosting()
    number = DoubleTensorType if SCALER in model.named_steps else FloatTensorType
    options = {id(model.named_steps[MODEL]): {"zipmap": False}}
    graph = convert(model, initial_types=[(INPUT, number([None, columns]))], options=options, target_opset=OPSETS)
    return bytes(graph.SerializeToString())


def check_parity(model: Pipeline, graph: bytes, table: Table, name: str) -> float:
    """Refuse a graph that answers otherwise than its model.

    Args:
        model: The fitted pipeline.
        graph: What `to_onnx` made of it.
        table: Rows of features, of which `PROVED_ROWS` spread evenly are asked.
        name: Of the model, for the message.

    Returns:
        The greatest difference of a probability.

    Raises:
        ParityError: A probability differs by more than `TOLERANCE`.
    """
    rows = np.unique(np.linspace(0, len(table) - 1, PROVED_ROWS).round().astype(np.int64))
    answers = ask_model(open_model(graph), table[rows])
    difference = float(np.abs(answers - model.predict_proba(table[rows])).max())
    if not difference <= TOLERANCE:
        raise ParityError(
            f"expected the ONNX graph of {name} to give the model's probabilities within {TOLERANCE:g}, but one of "
            f"{len(rows)} images differs by {difference:.2g}; use a model of another family"
        )
    return difference


def _register_boosting() -> None:
    """Tell skl2onnx of the boosting packages that are installed."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    places = {
        "xgboost": ("XGBClassifier", "XGBoost.convert_xgboost"),
        "lightgbm": ("LGBMClassifier", "LightGbm.convert_lightgbm"),
    }
    for package, (name, place) in places.items():
        if importlib.util.find_spec(package) is None:
            continue
        file, function = place.split(".")
        converters = importlib.import_module(f"onnxmltools.convert.{package}.operator_converters.{file}")
        update_registered_converter(
            getattr(importlib.import_module(package), name), f"Cxr{name}",
            calculate_linear_classifier_output_shapes, getattr(converters, function),
            options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
        )  # fmt: skip
