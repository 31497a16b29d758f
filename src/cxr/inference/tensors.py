"""The safetensors files of a bundle, checked, and what of them needs no torch. Knows nothing of nets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.numpy

from cxr.errors import DataError, WeightsError
from cxr.inference.description import read_checked
from cxr.inference.outliers import OutlierScorer

OUTLIERS = "outliers.safetensors"

Tensors = TypeVar("Tensors")


def read_tensors(
    folder: Path, name: str, description: Mapping[str, Any], load: Callable[[bytes], dict[str, Tensors]]
) -> dict[str, Tensors]:
    """The tensors in one file of a bundle.

    Args:
        folder: The bundle.
        name: Of the file.
        description: Its ``bundle.json``.
        load: Of safetensors, for the kind of tensors that is wanted.

    Raises:
        WeightsError: The file is missing, damaged, or of another format.
    """
    content = read_checked(folder, name, description)
    try:
        return load(content)
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"expected {folder / name} in safetensors format, got {error}; write the bundle again"
        ) from error


def read_outliers(folder: Path, description: Mapping[str, Any]) -> OutlierScorer | None:
    """What tells images unlike those of training; None where the bundle has none.

    Raises:
        WeightsError: The file is missing or damaged.
    """
    if OUTLIERS not in description["sha256"]:
        return None
    try:
        return OutlierScorer.from_arrays(read_tensors(folder, OUTLIERS, description, safetensors.numpy.load))
    except DataError as error:
        raise WeightsError(f"{folder / OUTLIERS}: {error}") from error
