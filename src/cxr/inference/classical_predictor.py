"""A predictor without a net of its own: features of an image, then a model as an ONNX graph.

The kind ``classical`` of bundles: ``model.onnx`` beside ``bundle.json``, and for features of a net that net's bundle in
``net/``. ONNX is data, so nothing is pickled and no code of the bundle runs. Knows nothing of scikit-learn, or of what
runs a net.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cxr.errors import CxrError, WeightsError
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.combine import to_logits
from cxr.inference.description import (
    DESCRIPTION,
    describe_scaling,
    described_answer,
    read_checked,
    read_description,
    read_files,
    write_folder,
)
from cxr.inference.features import EMBEDDING, Features, OpenNet, load_features
from cxr.inference.onnx_session import open_session
from cxr.inference.opening import CLASSICAL, NET_OF_FEATURES
from cxr.inference.outliers import judge_likeness
from cxr.inference.predictor import Pixels, Predictor, Probs, Scores
from cxr.scaling import Scaling

MODEL = "model.onnx"
INPUT, PROBS = "features", "probabilities"
_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


@dataclass(frozen=True, kw_only=True)
class ClassicalPredictor(Predictor):
    """Images to probabilities by features and an ONNX graph.

    Attributes:
        features: Make the row of an image.
        model: What `open_model` opened.
    """

    features: Features
    model: Any

    @property
    def preprocesses(self) -> tuple[Preprocess, ...]:
        """See `Predictor.preprocesses`."""
        return (self.features.preprocess,)

    def score_stored(self, stored: Sequence[Stored]) -> Scores:
        """See `Predictor.score_stored`; whether an image is unlike those of training is not known."""
        (images,) = stored
        probs = ask_model(self.model, self.features(images))
        return Scores(self.to_probs(to_logits(probs)), *judge_likeness(None, images))


def open_model(content: bytes) -> Any:
    """An onnxruntime session of a graph that takes ``features`` (N, D) and gives ``probabilities`` (N, K), on one core.

    Raises:
        WeightsError: It is no such graph.
        MissingExtraError: onnxruntime is not installed.
    """
    return open_session(content, [INPUT], [PROBS], threads=1, extra="automl")


def ask_model(session: Any, table: npt.NDArray[np.floating]) -> Probs:
    """(N, K) float64 probabilities for a table (N, D), in the precision of the graph."""
    kind = _TYPES[session.get_inputs()[0].type]
    probs = session.run([PROBS], {INPUT: table.astype(kind)})[0].astype(np.float64)
    return np.asarray(probs / probs.sum(axis=1, keepdims=True))


def write_classical(
    folder: Path,
    model: bytes,
    family: str,
    params: Mapping[str, Any],
    features: Features,
    class_names: list[str],
    extras: Mapping[str, Any],
    net: Path | None = None,
    scaling: Scaling | None = None,
    operating_point: Mapping[str, Any] | None = None,
) -> None:
    """Write the bundle of a classical model, prove that it loads, and only then put it in place of an older one.

    Args:
        folder: The bundle to make; the folder above exists.
        model: The ONNX graph.
        family: Name of the family of models.
        params: Its hyperparameters, for the reader.
        features: What it was trained on.
        class_names: The K names in order.
        extras: Plain values about how it came about.
        net: The bundle of the features' net.
        scaling: Fitted on predictions for images that the model was not trained on; None where it was not.
        operating_point: Chosen on such predictions.

    Raises:
        ConfigError: A value is not plain.
        WeightsError: The graph is none.
    """
    files = {MODEL: model}
    if net is not None:
        files |= {f"{NET_OF_FEATURES}/{name}": content for name, content in read_files(net).items()}
    description = {
        "kind": CLASSICAL,
        "net": {"name": family, **params},
        "features": features.to_dict(),
        "preprocess": features.preprocess.to_dict(),
        "class_names": class_names,
        "multilabel": False,
        **describe_scaling(scaling),
        "operating_point": operating_point,
        "extras": extras,
    }
    write_folder(folder, description, files, prove=_prove)


def load_classical(folder: Path, description: Mapping[str, Any], open_net: OpenNet) -> ClassicalPredictor:
    """Make the predictor of a bundle of this kind.

    Args:
        folder: The bundle.
        description: Its ``bundle.json``.
        open_net: Makes the predictor of the features' net.

    Raises:
        WeightsError: A file is missing or damaged.
        MissingExtraError: onnxruntime or what the features need is not installed.
    """
    model = open_model(read_checked(folder, MODEL, description))
    if description["features"]["kind"] == EMBEDDING:
        read_checked(folder, f"{NET_OF_FEATURES}/{DESCRIPTION}", description)
    features = load_features(description["features"], folder / NET_OF_FEATURES, open_net)
    predictor = ClassicalPredictor(features=features, model=model, **described_answer(description))
    _check_answer(predictor, folder / MODEL)
    return predictor


def _check_answer(predictor: ClassicalPredictor, model: Path) -> None:
    """Raise WeightsError unless the model takes the features and gives a probability for each class."""
    wanted = f"expected a model in {model} that takes these features and knows {len(predictor.class_names)} classes"
    try:
        classes = predictor.predict_pixels([_ramp()]).shape[1]
    except CxrError:
        raise
    except Exception as error:  # of onnxruntime, see `open_model`
        raise WeightsError(f"{wanted}, got: {' '.join(str(error).split())}; write the bundle again") from error
    if classes != len(predictor.class_names):
        raise WeightsError(f"{wanted}, got {classes}; write the bundle again")


def _prove(folder: Path) -> None:
    load_classical(folder, read_description(folder), _open_by_torch)


def _open_by_torch(net: Path) -> Predictor:
    from cxr.inference.bundle import load_net

    return load_net(net)


def _ramp() -> Pixels:
    """An image that any preprocessing takes."""
    return np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
