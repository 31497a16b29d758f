"""bundle.json and the files beside it: read, checked and put in place, whatever the bundle holds.

Knows nothing of torch and of what the files mean. It does not guarantee that a bundle comes from where it says: the
checksum finds damage, not forgery.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cxr.errors import ConfigError, WeightsError
from cxr.scaling import UNSCALED, Scaling

FORMAT = 1
DESCRIPTION = "bundle.json"


def write_folder(
    folder: Path, description: Mapping[str, Any], files: Mapping[str, bytes], prove: Callable[[Path], object]
) -> None:
    """Write a bundle, prove that it loads, and only then put it in place of an older one.

    Args:
        folder: The bundle to make; the folder above exists.
        description: Plain values; format and checksums are added. NaN and infinity become null.
        files: Name, which may lie in a folder of its own (``members/0/model.onnx``) -> content.
        prove: Loads the bundle in a folder, and raises where it cannot.

    Raises:
        ConfigError: A value is not plain.
    """
    described = to_content(description, files)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        for name, content in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
        (part / DESCRIPTION).write_bytes(described)
        prove(part)
        _put_in_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def to_content(description: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """bundle.json of some files; see `write_folder`.

    Raises:
        ConfigError: A value is not plain.
    """
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    values = _plain({**description, "format": FORMAT, "sha256": checksums}, DESCRIPTION)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_description(folder: Path) -> dict[str, Any]:
    """The values of bundle.json.

    Raises:
        WeightsError: There is none, it is damaged, or of another format.
    """
    path = folder / DESCRIPTION
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


def read_files(folder: Path) -> dict[str, bytes]:
    """bundle.json and every file that belongs to the bundle, name -> content; what else lies there is left out.

    Raises:
        WeightsError: A file is missing or damaged, or the format is unknown.
    """
    description = read_description(folder)
    names = description.get("sha256")
    if not isinstance(names, dict) or not all(map(_stays_inside, names)):
        raise WeightsError(f"expected {folder / DESCRIPTION} to name files in its folder, got {names}; copy it again")
    files = {name: read_checked(folder, name, description) for name in names}
    return {DESCRIPTION: (folder / DESCRIPTION).read_bytes(), **files}


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path != PurePosixPath(DESCRIPTION)


def read_checked(folder: Path, name: str, description: Mapping[str, Any]) -> bytes:
    """The content of one file, read once, so that what is checked is what is loaded.

    Raises:
        WeightsError: The file is missing or damaged.
    """
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"expected the weights of the bundle in {path}, got {error}; copy the bundle again"
        ) from error
    checksums = description.get("sha256")
    expected = checksums.get(name) if isinstance(checksums, dict) else None
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise WeightsError(f"expected {path} with SHA-256 {expected}, got {digest}; copy the bundle again")
    return content


def described_answer(description: Mapping[str, Any]) -> dict[str, Any]:
    """What every `Predictor` is made with: class names, scaling and the like, checked.

    Raises:
        KeyError: A value is missing.
        ValueError: A value cannot be.
    """
    multilabel = description["multilabel"] is True
    names = _checked_names(description["class_names"], 1 if multilabel else 2)
    return {
        "class_names": names,
        "multilabel": multilabel,
        "scaling": _checked_scaling(description, len(names)),
        "calibrated": description["calibrated"] is True,
        "operating_point": _checked_points(description["operating_point"], names),
        "abstention": _checked_point("abstention", description.get("abstention")),
        "extras": description["extras"],
    }


def describe_scaling(scaling: Scaling | None) -> dict[str, Any]:
    """What bundle.json says of a scaling; None where none was fitted."""
    return {**(UNSCALED if scaling is None else scaling).to_dict(), "calibrated": scaling is not None}


def _checked_names(names: Any, fewest: int) -> list[str]:
    if not isinstance(names, list) or len(names) < fewest or not all(isinstance(name, str) for name in names):
        raise ValueError(f"class_names {names!r}")
    return names


def _checked_points(value: Any, names: list[str]) -> Any:
    """An operating point with the class that it calls positive, or one for each of several classes or targets."""
    if not isinstance(value, dict):
        return _checked_point("operating_point", value)
    alone = "threshold" in value
    points = {value.get("positive_class"): value} if alone else value
    for name, point in points.items():
        if point is None or name not in names:
            raise ValueError(f"operating_point {point!r} of {name!r}")
        _checked_point(f"operating_point {name}", point)
    return value


def _checked_point(name: str, value: Any) -> Any:
    if value is not None and not (isinstance(value, dict) and _is_number(value.get("threshold"))):
        raise ValueError(f"{name} {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _checked_scaling(description: Mapping[str, Any], classes: int) -> Scaling:
    scaling = Scaling.from_dict(description)
    if scaling.bias is not None and len(scaling.bias) != classes:
        raise ValueError(f"bias {scaling.bias!r}")
    return scaling


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
