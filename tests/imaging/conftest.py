"""Images made by the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from .dicom_files import make_dataset, save


@pytest.fixture
def write_dicom(tmp_path):
    """Function (stored, syntax=..., bits=..., photometric=..., **elements) -> path of a new DICOM file."""

    def write(stored: np.ndarray, syntax: str = ExplicitVRLittleEndian, **described: Any) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.dcm"
        return save(path, make_dataset(stored, **described), stored, syntax)

    return write


@pytest.fixture(scope="session")
def chest_like():
    """(96, 80) float64 in [0, 1] with smooth shapes, flat parts and both ends of the range."""
    rows, columns = np.mgrid[-1:1:96j, -1:1:80j]
    lungs = np.exp(-8 * ((np.abs(columns) - 0.45) ** 2 + 0.4 * rows**2))
    image = 0.75 - 0.6 * lungs + 0.1 * np.cos(20 * rows) * (np.abs(columns) < 0.8)
    return (image - image.min()) / (image.max() - image.min())
