"""A small sound dataset of DICOM files, two classes in an image folder, and its report."""

from functools import partial

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from cxr.data.cohort import CohortSettings, make_cohort
from cxr.data.file_index import FileIndex
from cxr.data.image_store import UncachedImages
from cxr.data.labelled import read_dataset
from cxr.data.readers import make_image_folder_samples
from cxr.data.report.collect import Inputs, collect
from cxr.imaging.preprocess import Preprocess

SIDE = 224
PER_CLASS = 10
CLASSES = ("ill", "well")


@pytest.fixture(scope="session")
def chest():
    """chest(number): (224, 224) uint8, a bright spine between dark lungs, different for every number."""

    def draw(number):
        rows, columns = np.mgrid[-1:1:224j, -1:1:224j]
        lungs = np.exp(-14 * ((np.abs(columns) - 0.45) ** 2 + 0.4 * (rows + 0.2) ** 2))
        noise = np.random.default_rng(number).normal(0, 3, (SIDE, SIDE))
        return np.clip(150 - 120 * lungs + noise, 0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def make_file(chest):
    """make_file(number, pixels=None, **elements): a DICOM data set of a PA chest without any identity."""

    def made(number, pixels=None, **elements):
        stored = chest(number) if pixels is None else pixels
        file = Dataset()
        file.file_meta = FileMetaDataset()
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.SOPClassUID, file.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
        file.StudyInstanceUID = file.SeriesInstanceUID = generate_uid()
        file.PatientID, file.PatientSex, file.PatientAge = f"p{number}", "F", f"{20 + number:03d}Y"
        file.Modality, file.BodyPartExamined, file.ViewPosition = "CR", "CHEST", "PA"
        file.Manufacturer = "Maker"
        file.Rows, file.Columns = stored.shape
        file.SamplesPerPixel, file.PixelRepresentation, file.PhotometricInterpretation = 1, 0, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 8
        file.HighBit = 7
        file.PixelData = stored.tobytes()
        file["PixelData"].VR = "OB"
        for keyword, value in elements.items():
            setattr(file, keyword, value)
        return file

    return made


@pytest.fixture
def root(tmp_path, make_file):
    """20 sound files in two folders named by class."""
    root = tmp_path / "data"
    for number in range(2 * PER_CLASS):
        save(root / CLASSES[number // PER_CLASS] / f"{number:02d}.dcm", make_file(number))
    return root


@pytest.fixture
def save_file():
    """save_file(path, dataset): writes it, with its folder."""
    return save


@pytest.fixture
def report_on(tmp_path):
    """report_on(root, view_filter='none', **changes): report and thumbnails of an image folder."""

    def reported(root, view_filter="none", **changes):
        dataset = read_dataset(partial(make_image_folder_samples, root), None)
        index = FileIndex(tmp_path / "files.sqlite")
        chosen = {"on_bad_file": "skip", "fractions": (0.5, 0.25, 0.25), "leak_gate": "warn"} | changes
        settings = CohortSettings(view_filter=view_filter, **chosen)
        images = UncachedImages(Preprocess(size=(224, 224)), workers=1)
        leaks = tmp_path / "leaks"
        make = lambda store: make_cohort(dataset, settings, store, index, leaks)  # noqa: E731
        return collect(Inputs(dataset, images, index, view_filter, make))

    return reported


def save(path, dataset):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
