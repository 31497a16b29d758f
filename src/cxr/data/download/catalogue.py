"""The public datasets that can be fetched: where they are, how big, and the files that prove a folder holds one.

Knows nothing of the network and of archives.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxr.errors import DataError

GIB = 2**30


@dataclass(frozen=True)
class Dataset:
    """One dataset on Kaggle and its place on disk.

    Attributes:
        name: Short name used on the command line and in ``configs/data``.
        kind: A competition asks for its rules to be accepted; a dataset does not.
        slug: Kaggle's name, ``<competition>`` or ``<owner>/<dataset>``.
        folder: Folder below the data folder, named as in the archive.
        archive_root: Folder inside the archive whose content is the dataset.
        skip: Parts of the archive, relative to `archive_root`, that repeat other parts.
        proof: Glob patterns; a folder holds the dataset when each finds a file.
        archive_bytes: Approximate size of the download; Kaggle's answer replaces it.
        extracted_bytes: Approximate size on disk; Kaggle's answer replaces it.
    """

    name: str
    kind: Literal["competition", "dataset"]
    slug: str
    folder: str
    archive_root: str
    proof: tuple[str, ...]
    archive_bytes: int
    extracted_bytes: int
    skip: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """Its page on Kaggle, with a download button."""
        return f"https://www.kaggle.com/{self.kind}s/{self.slug}"

    @property
    def terms(self) -> str:
        """Where its rules or its licence are read and accepted."""
        return f"{self.page}/rules" if self.kind == "competition" else self.page

    @property
    def archive_name(self) -> str:
        """File name of its archive."""
        return f"{self.slug.rsplit('/', maxsplit=1)[-1]}.zip"


_ALL = (
    Dataset(
        name="siim",
        kind="competition",
        slug="siim-covid19-detection",
        folder="siim-covid19-detection",
        archive_root="",
        proof=("train_study_level.csv", "train/*/*/*.dcm"),
        archive_bytes=100 * GIB,
        extracted_bytes=120 * GIB,
    ),
    Dataset(
        name="chest_xray",
        kind="dataset",
        slug="paultimothymooney/chest-xray-pneumonia",
        folder="chest_xray",
        archive_root="chest_xray/",
        skip=("chest_xray/",),
        proof=(
            "train/NORMAL/*.jpeg",
            "train/PNEUMONIA/*.jpeg",
            "val/NORMAL/*.jpeg",
            "val/PNEUMONIA/*.jpeg",
            "test/NORMAL/*.jpeg",
            "test/PNEUMONIA/*.jpeg",
        ),
        archive_bytes=int(2.3 * GIB),
        extracted_bytes=int(2.3 * GIB),
    ),
    Dataset(
        name="covid19",
        kind="dataset",
        slug="pranavraikokte/covid19-image-dataset",
        folder="Covid19-dataset",
        archive_root="Covid19-dataset/",
        proof=(
            "train/Covid/*",
            "train/Normal/*",
            "train/Viral Pneumonia/*",
            "test/Covid/*",
            "test/Normal/*",
            "test/Viral Pneumonia/*",
        ),
        archive_bytes=int(0.2 * GIB),
        extracted_bytes=int(0.2 * GIB),
    ),
    Dataset(
        name="radiography",
        kind="dataset",
        slug="tawsifurrahman/covid19-radiography-database",
        folder="COVID-19_Radiography_Dataset",
        archive_root="COVID-19_Radiography_Dataset/",
        proof=("COVID/images/*", "Normal/images/*", "Lung_Opacity/images/*", "Viral Pneumonia/images/*"),
        archive_bytes=int(0.8 * GIB),
        extracted_bytes=int(0.9 * GIB),
    ),
    Dataset(
        name="covidx",
        kind="dataset",
        slug="andyczhao/covidx-cxr2",
        folder="covidx",
        archive_root="",
        proof=("train.txt", "test.txt", "train/*", "test/*"),
        archive_bytes=35 * GIB,
        extracted_bytes=35 * GIB,
    ),
)

DATASETS = {dataset.name: dataset for dataset in _ALL}


def find_dataset(name: str) -> Dataset:
    """The dataset called `name`; DataError lists the names there are."""
    if name not in DATASETS:
        raise DataError(f"no dataset is called {name!r}; choose one of {', '.join(DATASETS)}")
    return DATASETS[name]


def data_dir() -> Path:
    """The data folder: environment variable ``CXR_DATA_DIR``, else ``data`` in the current folder."""
    return Path(os.environ.get("CXR_DATA_DIR", "data"))


def missing_proof(dataset: Dataset, folder: Path) -> list[str]:
    """The patterns of `dataset.proof` that find nothing in `folder`; empty when the folder holds the dataset."""
    return [pattern for pattern in dataset.proof if next(folder.glob(pattern), None) is None]
