"""COVIDx, all versions: lists of the COVID-Net team and the images in the folders beside them -> a table of samples.

Knows nothing of classes and of splits that are carved later, and opens no image. Nothing of the dataset comes with this
project.

A list has a line `patient file class source` for each image; the oldest ones have no source. Patients and files may
hold spaces ('COVID 70 COVID(70).png'), so a line is read from its end.
"""

import logging
import re
from pathlib import Path

import pandas as pd

from cxr.data.readers.remedy import download_remedy
from cxr.data.samples import PARTS, list_first
from cxr.errors import ConfigError, DataError

log = logging.getLogger(__name__)

FINDINGS = ("normal", "pneumonia", "COVID-19", "negative", "positive")
_LIST_NAME = re.compile(r"(train|val|test)(?:_COVIDx(?:_CXR-)?(\w+))?\.(?:txt|csv)", re.IGNORECASE)
_UNNAMED = "unnamed"
_SOURCE_TYPOS = {"rnsa": "rsna"}
_HEADERS = {
    "patient_id": ("patient_id", "patientid", "patient id", "patient"),
    "file": ("file", "filename", "file_name", "image", "imagename", "image_name", "path"),
    "finding": ("finding", "class", "label"),
    "source": ("source", "data source", "data_source", "dataset"),
}
_NAMES = {name: column for column, names in _HEADERS.items() for name in names}


def make_covidx_samples(root: str | Path, *, version: str | None = None, on_missing: str = "error") -> pd.DataFrame:
    """List the images `train|val|test/<file>` that the lists in `root` name.

    Args:
        root: Folder with the lists and the folders of images.
        version: See `read_covidx_lists`.
        on_missing: What to do about images that a list names and that are not there: 'error' lists them, 'skip' leaves
            them out and counts them, 'keep' only counts them: for an audit of the lists alone.

    Returns:
        One row per image with `sample_id` (part/file), `image_path`, `finding`, `patient_id`, `split` (the official
        part) and, where the lists name it, `source`; `attrs["report"]` holds the counts of what was left out or mended.

    Raises:
        DataError: No such folder or lists, or (with 'error') images that are missing.
    """
    if on_missing not in ("error", "skip", "keep"):
        raise ConfigError(f"expected on_missing to be 'error', 'skip' or 'keep', but got {on_missing!r}")
    root = Path(root).absolute()
    table = read_covidx_lists(root, version=version)
    relative = table["split"] + "/" + table["file"]
    found = relative.isin(_list_files(root))
    absent = relative[~found]
    if on_missing != "keep" and (absent.size == relative.size or (absent.size and on_missing == "error")):
        raise DataError(
            f"expected the {relative.size} images of the lists in {root}, but {absent.size} are not there: "
            f"{list_first(absent)}; leave single ones out with data.on_missing=skip, audit the lists alone with "
            f"data.on_missing=keep, or {download_remedy('covidx')}"
        )
    report = dict(table.attrs["report"])
    if absent.size:
        report["images not there"] = int(absent.size)
    if absent.size and on_missing == "skip":
        log.warning("left out %d of the %d images of the COVIDx lists: they are not there", absent.size, relative.size)
    columns = {"sample_id": relative, "image_path": str(root) + "/" + relative}
    samples = table.assign(**columns)[found | (on_missing == "keep")].drop(columns="file").reset_index(drop=True)
    samples.attrs["report"] = report
    return samples


def read_covidx_lists(root: str | Path, *, version: str | None = None) -> pd.DataFrame:
    """Read the lists alone, without any image.

    Args:
        root: Folder with `train.txt`, `test.txt` and maybe `val.txt`, or `train_COVIDx9A.txt` and so on, also as .csv.
        version: Which lists, where there are those of several versions: '9A' for `train_COVIDx9A.txt`, '3A' for
            `train_COVIDx_CXR-3A.txt`. None takes the only version there is.

    Returns:
        One row per line with `patient_id`, `file`, `finding`, `split` and, where the lists name it, `source` (the
        misspelt `rnsa` becomes `rsna`); `attrs["report"]` counts what was mended.

    Raises:
        DataError: No such lists, several versions, or a line of another form.
    """
    paths = _find_lists(Path(root).absolute(), version)
    table = pd.concat([_read_list(path).assign(split=part) for part, path in paths.items()], ignore_index=True)
    table = table.dropna(axis="columns", how="all")
    table.attrs["report"] = {}
    if "source" in table:
        misspelt = table["source"].isin(_SOURCE_TYPOS.keys())
        table["source"] = table["source"].replace(_SOURCE_TYPOS)
        table.attrs["report"] = {"sources spelled rnsa": int(misspelt.sum())} if misspelt.any() else {}
    return table


def _find_lists(root: Path, version: str | None) -> dict[str, Path]:
    """Part -> its list."""
    versions: dict[str, dict[str, Path]] = {}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        match = _LIST_NAME.fullmatch(path.name)
        if match:
            versions.setdefault((match[2] or _UNNAMED).upper(), {})[match[1].lower()] = path
    if not versions:
        raise DataError(
            f"expected lists such as train.txt and test.txt, or train_COVIDx9A.txt, in {root}, but found none; "
            f"{download_remedy('covidx')}"
        )
    chosen = next(iter(versions)) if version is None and len(versions) == 1 else str(version).upper()
    if chosen not in versions:
        raise DataError(
            f"expected data.version to name one of the versions {list_first(sorted(versions))} of the lists in {root}, "
            f"but got {version}; set it to one of them"
        )
    return versions[chosen]


def _read_list(path: Path) -> pd.DataFrame:
    """Read a list into `patient_id`, `file`, `finding` and `source`, which may be missing."""
    try:
        table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_lines(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"expected a COVIDx list in {path}, but it cannot be read: {error}; download it again"
        ) from error
    wrong = table["file"].isna() | ~table["finding"].isin(FINDINGS)
    if wrong.any() or table.empty:
        raise DataError(
            f"expected lines `patient file class source` in {path} with a class out of {', '.join(FINDINGS)}, but "
            f"{int(wrong.sum())} of {len(table)} are not, the first ones in line "
            f"{list_first((table.index[wrong] + 1).tolist())}; mend or download it again"
        )
    return table


def _read_lines(path: Path) -> pd.DataFrame:
    lines = pd.Series([line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()], dtype=str)
    findings = "|".join(map(re.escape, FINDINGS))
    table = lines.str.extract(rf"^\s*(?P<names>.+?)\s+(?P<finding>{findings})(?:\s+(?P<source>\S+))?\s*$")
    names = pd.DataFrame(map(_split_names, table.pop("names").fillna("")), columns=["patient_id", "file"], dtype=object)
    return names.join(table)


def _split_names(names: str) -> tuple[str | None, str | None]:
    """Part 'patient file': at the only space, else where both sides tell the same name, else at the first space."""
    places = [place for place, letter in enumerate(names) if letter == " "]
    parted = [(names[:place].strip(), names[place:].strip()) for place in places]
    same = [(patient, file) for patient, file in parted if _letters(patient) == _letters(Path(file).stem)]
    return next(iter(same or parted), (None, None))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _read_csv(path: Path) -> pd.DataFrame:
    """Read a table with a header of known names, or without a header in the order of the lines."""
    table = pd.read_csv(path, dtype=str, header=None, keep_default_na=False, na_values=[""])
    header = [_NAMES.get(str(name).strip().lower(), str(name)) for name in table.iloc[0]]
    if {"file", "finding"} <= set(header):
        table = table.iloc[1:].set_axis(header, axis="columns").reset_index(drop=True)
    else:
        table = table.rename(columns=dict(enumerate(_HEADERS)))
    return table.reindex(columns=list(_HEADERS))


def _list_files(root: Path) -> set[str]:
    """Files in the folders of the parts, as part/file."""
    folders = [root / part for part in PARTS]
    return {f"{folder.name}/{path.name}" for folder in folders if folder.is_dir() for path in folder.iterdir()}
