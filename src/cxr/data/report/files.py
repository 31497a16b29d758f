"""Every file that a dataset lists: its header, its size, what became of it. Knows nothing of findings or pages."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import pandas as pd

from cxr.data.cohort import Cohort, add_headers
from cxr.data.file_index import FileIndex
from cxr.data.image_store import ImageStore, StoredImages
from cxr.data.labelled import LabelledSamples
from cxr.data.samples import PARTS
from cxr.data.views import judge_views
from cxr.errors import ImageError
from cxr.imaging.dicom_header import DicomHeader
from cxr.imaging.dicom_identity import Identity, read_identity
from cxr.imaging.image import read_image_size
from cxr.progress import show_progress

HEADER_FIELDS = [one.name for one in fields(DicomHeader)]
IDENTITY_FIELDS = [one.name for one in fields(Identity)]
CANNOT_BE_READ = "cannot be read"
GIVES_NO_IMAGE = "gives no image"
NOT_CHOSEN = "not in the split: data.limit, balancing, a split file, or a patient of an official part"
NO_SPLIT = "no split could be made"


@dataclass
class WatchedImages:
    """An image store that remembers what it was asked to decode and which files gave no image.

    Attributes:
        images: The store.
        tried: The paths; none before the first `build`.
        errors: path -> error.
    """

    images: ImageStore
    tried: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def stored_fingerprint(self) -> str:
        """As the store's."""
        return self.images.stored_fingerprint

    def build(self, paths: Sequence[str], hashes: Sequence[str]) -> dict[str, str]:
        """As the store does."""
        self.errors = self.images.build(paths, hashes)
        self.tried = set(paths)
        return self.errors

    def open(self, paths: Sequence[str], hashes: Sequence[str]) -> StoredImages:
        """As the store does."""
        return self.images.open(paths, hashes)


def describe_files(dataset: LabelledSamples, index: FileIndex) -> pd.DataFrame:
    """The samples of a dataset with what their files say.

    Returns:
        One row per sample with `content_hash`, every field of `DicomHeader` (missing where unknown), `error` (why the
        file or its header cannot be read), `file_type` ("DICOM" or the extension in upper case), and `rows` and
        `columns` for other images too.
    """
    described = index.describe(dataset.samples["image_path"].tolist()).set_index(dataset.samples.index)
    files = add_headers(dataset.samples, described)
    for column in HEADER_FIELDS:
        if column not in files:
            files[column] = pd.Series(None, index=files.index, dtype=object)
    files["error"] = described["error"]
    is_dicom = described[HEADER_FIELDS].notna().any(axis=1)
    suffixes = files["image_path"].map(lambda path: Path(path).suffix.lstrip(".").upper())
    files["file_type"] = suffixes.replace({"JPG": "JPEG", "TIF": "TIFF"}).mask(is_dicom, "DICOM")
    return _add_sizes(files)


def _add_sizes(files: pd.DataFrame) -> pd.DataFrame:
    """Fill `rows` and `columns` of images whose header does not say them, without decoding."""
    unmeasured = files["rows"].isna() & files["error"].isna()
    sizes = [_measure(path) for path in show_progress(_paths(files, unmeasured), "measuring images")]
    for side, column in enumerate(("rows", "columns")):
        files.loc[unmeasured, column] = pd.Series([size[side] for size in sizes], files.index[unmeasured], dtype=object)
    return files


def add_identity(files: pd.DataFrame) -> pd.DataFrame:
    """Add what `read_identity` finds in each DICOM file: its fields as texts such as "PatientName, PatientAddress"."""
    is_dicom = (files["file_type"] == "DICOM") & files["error"].isna()
    found = {path: _look_for_names(path) for path in show_progress(_paths(files, is_dicom), "looking for names")}
    for name in IDENTITY_FIELDS:
        files[name] = [_tell(found.get(path), name) for path in files["image_path"]]
    return files


def judge_fates(files: pd.DataFrame, cohort: Cohort | None, errors: dict[str, str], view_filter: str) -> pd.Series:
    """What became of each file: 'train', 'val' or 'test', else the reason why it is left out."""
    fates = pd.Series(NO_SPLIT if cohort is None else NOT_CHOSEN, index=files.index, dtype=object)
    readable = files[files["error"].isna()]
    views = judge_views(readable, view_filter)
    dropped = views[~views.str.startswith("kept")]
    fates[dropped.index] = "view filter: " + dropped.str.removeprefix("dropped: ")
    fates[files["image_path"].isin(list(errors))] = GIVES_NO_IMAGE
    fates[files["error"].notna()] = CANNOT_BE_READ
    if cohort is not None:
        parts = files["sample_id"].map(cohort.samples.set_index("sample_id")["split"])
        fates = parts.where(parts.notna(), fates)
    return fates


def is_used(fates: pd.Series) -> pd.Series:
    """Whether each file is in one of the parts."""
    return fates.isin(PARTS)


def _paths(files: pd.DataFrame, wanted: pd.Series) -> list[str]:
    return [str(path) for path in files.loc[wanted, "image_path"]]


def _look_for_names(path: str) -> Identity | None:
    try:
        return read_identity(path)
    except ImageError:
        return None  # the error is told by whoever reads the pixels


def _measure(path: str) -> tuple[int | None, int | None]:
    try:
        return read_image_size(path)
    except ImageError:
        return None, None


def _tell(identity: Identity | None, name: str) -> str | None:
    value = () if identity is None else getattr(identity, name)
    if isinstance(value, bool):
        return "YES" if value else None
    return ", ".join(value) if value else None
