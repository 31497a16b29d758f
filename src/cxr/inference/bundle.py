"""The folder that leaves a training run, and the predictor that is made of it.

A bundle is ``model.safetensors``, ``bundle.json`` and maybe ``outliers.safetensors``. Nothing in it is pickled, loading
runs no code from it: the net is named by a key of `cxr.models.build.BUILDERS`, never by a dotted path, and no weights
but its own are read. Knows nothing of training, configs, or how images are labelled. It does not guarantee that a
bundle comes from where it says: the checksum finds damage, not forgery.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from cxr.errors import ConfigError, DataError, WeightsError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import InputContract, Preprocess, Stored
from cxr.inference.outliers import OutlierScorer
from cxr.models.build import build_net, without_weights
from cxr.models.weights import load_into

FORMAT = 1
MODEL, OUTLIERS, DESCRIPTION = "model.safetensors", "outliers.safetensors", "bundle.json"

Probs = npt.NDArray[np.float64]
Tensors = TypeVar("Tensors")


@dataclass(frozen=True)
class Fitted:
    """What was learnt beside the net.

    Attributes:
        temperature: Fitted on validation; None where there is none, so that a probability is no frequency.
        operating_point: Chosen on validation; of a multi-label net target -> operating point.
        outliers: Fitted on training images.
    """

    temperature: float | None = None
    operating_point: Mapping[str, Any] | None = None
    outliers: OutlierScorer | None = None


@dataclass(frozen=True)
class Predictor:
    """Images to probabilities, as the bundle says.

    Attributes:
        net: (B, C, H, W) -> (B, K) logits, in eval mode on `device`.
        class_names: The K names in order.
        multilabel: Whether the K answers are independent of each other, or one class excludes the others.
        preprocess: What turns pixels into the input of the net.
        temperature: Logits are divided by it.
        calibrated: Whether the temperature was fitted; if not, a probability is no frequency.
        operating_point: What evaluation chose, None before.
        extras: What the training run recorded, as plain values.
        device: Where the net lies.
        outliers: Tells images that are unlike those of training; None where there were too few to know.
    """

    net: nn.Module
    class_names: list[str]
    multilabel: bool
    preprocess: Preprocess
    temperature: float
    calibrated: bool
    operating_point: dict[str, Any] | None
    extras: dict[str, Any]
    device: torch.device
    outliers: OutlierScorer | None = None

    def predict(self, paths: Sequence[Path | str], batch_size: int = 16) -> pd.DataFrame:
        """Predict image files; no more than a batch of them is in memory.

        Args:
            paths: N DICOM, PNG, JPEG, TIFF or BMP files.
            batch_size: Images that go through the net at once.

        Returns:
            N rows in this order: image_path, prediction (the most probable class name; of a multi-label net all names
            of at least 0.5, ``; `` between them, or ``none``), prob_0 ... prob_{K-1}, and `unlike_training`, above 1
            for images that are hardly of the kind the net was trained on; nan where that is not known.

        Raises:
            ImageError: A file gives no image.
        """
        batches = [self._predict_batch(paths[i : i + batch_size]) for i in range(0, len(paths), batch_size)]
        probs = np.concatenate([np.zeros((0, len(self.class_names))), *(probs for probs, _ in batches)])
        unlike = np.concatenate([np.zeros(0), *(unlike for _, unlike in batches)])
        identity = {
            "image_path": [str(path) for path in paths],
            "prediction": [self._name(row) for row in probs],
        }
        scores = {f"prob_{k}": column for k, column in enumerate(probs.T)}
        return pd.DataFrame({**identity, **scores, "unlike_training": unlike})

    def _predict_batch(self, paths: Sequence[Path | str]) -> tuple[Probs, Probs]:
        """(B, K) probabilities, and (B,) how unlike the training images each is."""
        stored = self._stack([self.preprocess.store(read_pixels(path)) for path in paths])
        unlike = np.full(len(paths), np.nan) if self.outliers is None else self.outliers.score(stored)
        return self._predict_stored(stored), unlike

    def _name(self, probs: Probs) -> str:
        if not self.multilabel:
            return self.class_names[int(probs.argmax())]
        positive = [name for name, prob in zip(self.class_names, probs, strict=True) if prob >= 0.5]
        return "; ".join(positive) if positive else "none"

    def predict_pixels(self, images: Sequence[npt.NDArray[np.float32]]) -> Probs:
        """Predict images in memory, all at once.

        Args:
            images: N arrays (H, W) in [0, 1], bright = dense, of any sizes.

        Returns:
            (N, K) probabilities.

        Raises:
            ImageError: An array is no such image.
        """
        if len(images) == 0:
            return np.zeros((0, len(self.class_names)))
        return self._predict_stored(self._stack([self.preprocess.store(image) for image in images]))

    def _stack(self, images: Sequence[Stored]) -> Stored:
        return np.array(images, dtype=self.preprocess.precision)

    @torch.inference_mode()
    def _predict_stored(self, stored: Stored) -> Probs:
        batch = torch.from_numpy(self.preprocess.finish(stored))
        logits: torch.Tensor = self.net(batch.to(self.device))
        return self.to_probs(logits)

    def to_probs(self, logits: torch.Tensor) -> Probs:
        """(N, K) probabilities of logits (N, K), computed in float64."""
        scaled = logits.double().cpu() / self.temperature
        return (scaled.sigmoid() if self.multilabel else scaled.softmax(dim=1)).numpy()


def write_bundle(
    folder: Path,
    net: nn.Module,
    net_config: Mapping[str, Any],
    class_names: list[str],
    preprocess: Preprocess,
    extras: Mapping[str, Any],
    multilabel: bool = False,
    fitted: Fitted | None = None,
) -> None:
    """Write a bundle, prove that it loads, and only then put it in place of an older one.

    Args:
        folder: The bundle to make; the folder above exists.
        net: The trained net of `build_net`, with its `input_contract`.
        net_config: ``name`` and the plain arguments of `build_net`. Weights that it asks for are left out.
        class_names: The K names in order.
        preprocess: The completed preprocessing that the net was trained with.
        extras: Plain values about the run: data fingerprint, versions, metrics, monitor. NaN and infinity become null.
        multilabel: Whether the K answers are independent of each other.
        fitted: What was learnt beside the net.

    Raises:
        ConfigError: A value is not plain, or net and preprocessing do not fit.
        WeightsError: The net is not the one that `net_config` describes.
    """
    contract = net.input_contract
    if not isinstance(contract, InputContract):
        raise ConfigError(f"expected a net with an InputContract, got {type(contract).__name__}; make it by build_net")
    contract.check(preprocess, str(net_config["name"]))
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in net.state_dict().items()}
    beside = Fitted() if fitted is None else fitted
    files = {MODEL: safetensors.torch.save(state)}
    if beside.outliers is not None:
        files[OUTLIERS] = safetensors.numpy.save(beside.outliers.to_arrays())
    description = {
        "format": FORMAT,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "net": without_weights(net_config),
        "class_names": class_names,
        "multilabel": multilabel,
        "preprocess": preprocess.to_dict(),
        "input_contract": asdict(contract),
        "temperature": 1.0 if beside.temperature is None else beside.temperature,
        "calibrated": beside.temperature is not None,
        "operating_point": beside.operating_point,
        "extras": extras,
    }
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        for name, content in files.items():
            (part / name).write_bytes(content)
        text = json.dumps(_plain(description, DESCRIPTION), indent=2, ensure_ascii=False, allow_nan=False)
        (part / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        load_bundle(part)
        _put_in_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_bundle(folder: Path, device: str | torch.device = "cpu") -> Predictor:
    """Make the predictor of a bundle.

    Args:
        folder: What `write_bundle` wrote.
        device: Where to put the net.

    Raises:
        WeightsError: A file is missing or damaged, the format is unknown, or the net cannot be built from it.
        MissingExtraError: The net needs an optional dependency.
    """
    description = _read_description(folder / DESCRIPTION)
    state = _read_tensors(folder / MODEL, description, safetensors.torch.load)
    try:
        multilabel = description["multilabel"] is True
        arguments = without_weights(description["net"])
        name = arguments.pop("name")
        net = build_net(name, len(description["class_names"]), **arguments)
        preprocess = Preprocess.from_dict(description["preprocess"])
        contract = _to_contract(description["input_contract"])
        contract.check(preprocess, name)
        predictor = Predictor(
            net=net.eval().to(device),
            class_names=_checked_names(description["class_names"], 1 if multilabel else 2),
            multilabel=multilabel,
            preprocess=preprocess,
            temperature=_checked_temperature(description["temperature"]),
            calibrated=description["calibrated"] is True,
            operating_point=description["operating_point"],
            outliers=_read_outliers(folder / OUTLIERS, description),
            extras=description["extras"],
            device=torch.device(device),
        )
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"expected {folder / DESCRIPTION} to describe a net of this version, got: {reason}; write the bundle again"
        ) from error
    net.input_contract = contract
    load_into(net, state, str(folder / MODEL))
    return predictor


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"expected a bundle with {path}, found none; give the folder 'bundle' of a run") from None
    except (ValueError, OSError, RecursionError) as error:
        raise WeightsError(f"expected JSON in {path}, got {error}; copy the bundle again") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise WeightsError(f"expected a bundle of format {FORMAT} in {path}, got {found!r}; update cxr-lab")
    return dict(description)


def _read_outliers(path: Path, description: Mapping[str, Any]) -> OutlierScorer | None:
    if OUTLIERS not in description["sha256"]:
        return None
    try:
        return OutlierScorer.from_arrays(_read_tensors(path, description, safetensors.numpy.load))
    except DataError as error:
        raise WeightsError(f"{path}: {error}") from error


def _read_tensors(
    path: Path, description: Mapping[str, Any], load: Callable[[bytes], dict[str, Tensors]]
) -> dict[str, Tensors]:
    """Read the file once, so that what is checked is what is loaded."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"expected the weights of the bundle in {path}, got {error}; copy the bundle again"
        ) from error
    checksums = description.get("sha256")
    expected = checksums.get(path.name) if isinstance(checksums, dict) else None
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise WeightsError(f"expected {path} with SHA-256 {expected}, got {digest}; copy the bundle again")
    try:
        return load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"expected {path} in safetensors format, got {error}; write the bundle again") from error


def _to_contract(values: Mapping[str, Any]) -> InputContract:
    arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return InputContract(**arguments)


def _checked_names(names: Any, fewest: int) -> list[str]:
    if not isinstance(names, list) or len(names) < fewest or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names {names!r}")
    return names


def _checked_temperature(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"temperature {value!r}")
    return float(value)


def _plain(value: Any, place: str) -> Any:
    """JSON values as they are, tuples as lists, numbers that JSON lacks as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, f"{place}: {key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, place) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ConfigError(f"expected plain values in {place}, got {type(value).__name__}; convert it to numbers and text")


def _put_in_place(part: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
