"""What `cxr explain` does: a run folder -> pictures of what its model looks at, and how far they can be believed.

What is written names no file and holds ids only as the run's predictions do.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxr.data.identity import hash_ids, load_salt
from cxr.entry import prepare_environment
from cxr.errors import ConfigError, DataError
from cxr.evaluation.explain_page import write_page
from cxr.evaluation.gallery import choose_rows
from cxr.evaluation.localisation import measure_localisation
from cxr.evaluation.predictions import classes_path, read_predictions
from cxr.evaluation.report.collect import plain
from cxr.evaluation.statistics.intervals import Interval
from cxr.explanation.gallery import choose_labels, draw_gallery
from cxr.explanation.pictures import describe_maps, leading_net, make_mean_maps, nets_of, read_pictures
from cxr.inference.bundle import load_bundle
from cxr.inference.predictor import Predictor
from cxr.inference.saliency import make_maps
from cxr.inference.sanity import Explain as Method
from cxr.inference.sanity import check_method

SANITY_IMAGES = 16


@dataclass(frozen=True)
class Explanation:
    """Settings of the command.

    Attributes:
        run: The run folder.
        part: 'val' or 'test'; the run has predictions of it.
        method: A key of `cxr.inference.saliency.METHODS`.
        images: How many images the localisation is measured on, at most.
        each: How many images of each kind the gallery shows, at most.
        target: Which target of a multi-label run; None for others.
        overrides: Config values that are others than in the run, as ``data.root=PATH``.
        out: Where to; None is ``explain/<part>_<method>`` in the run folder.
    """

    run: Path
    part: str
    method: str
    images: int
    each: int
    target: str | None
    overrides: Sequence[str]
    out: Path | None


def explain(settings: Explanation) -> tuple[dict[str, Any], Path]:
    """Explain a run.

    Returns:
        `localisation` (None without boxes) and `sanity` as in their JSON files, and the page.

    Raises:
        CxrError: The run, its data or the folder cannot be used.
    """
    prepare_environment()
    config = read_config(settings.run, settings.overrides)
    predictor = load_bundle(settings.run / "bundle")
    nets_of(predictor)
    predictions, class_names = read_part(settings.run, settings.part, predictor, settings.target)
    rows = find_images(config, predictions)
    out = make_folder(settings)
    method = partial(make_maps, method=settings.method)
    chosen, scored = choose_rows(rows, settings.each), sample_rows(rows, settings.images)
    pictures = draw_gallery(predictor, method, chosen, class_names, settings.target, out)
    localisation = localise(predictor, method, scored, settings.target)
    sanity = check_sanity(predictor, method, scored, settings.target)
    facts = {"run": settings.run.absolute().name, "part": settings.part, "method": settings.method,
             "images": len(predictions), "target": settings.target, "notes": describe_maps(predictor)}  # fmt: skip
    return {"localisation": localisation, "sanity": sanity}, write_page(out, facts, pictures, localisation, sanity)


def read_config(run: Path, overrides: Sequence[str]) -> DictConfig:
    """The config of a run with some values replaced.

    Raises:
        DataError: The folder is not a run.
        ConfigError: An override is none.
    """
    if not (run / "config.yaml").is_file():
        raise DataError(f"expected a run folder with config.yaml, but {run} has none; give the folder of a run")
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.set_struct(config, True)
    expected = "expected values of the run's config, such as data.root=PATH, but"
    if bare := [word for word in overrides if "=" not in word]:
        raise ConfigError(f"{expected} got {bare[0]!r}; write key=value")
    try:
        config.merge_with_dotlist(list(overrides))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{expected} {' '.join(str(error).split())}") from error
    assert isinstance(config, DictConfig)
    return config


def read_part(run: Path, part: str, predictor: Predictor, target: str | None) -> tuple[pd.DataFrame, list[str]]:
    """The predictions of one part of a run, of one target where it has several.

    Raises:
        ConfigError: A target is missing, unknown, or given for a run that has none.
        DataError: The run has no such predictions.
    """
    check_target(predictor, target)
    table = run / f"predictions_{part}.csv" if target is None else _find_table(run, part, target)
    if not table.is_file():
        raise DataError(
            f"expected {table.name} in {run}, but there is none; choose another --part, or evaluate this one"
        )
    return read_predictions(table)


def check_target(predictor: Predictor, target: str | None) -> None:
    """Raise ConfigError unless a target is named where the net has several, and only there."""
    if predictor.multilabel and target not in predictor.class_names:
        names = ", ".join(predictor.class_names)
        raise ConfigError(f"expected --target to be one of {names}, got {target}; choose one of these")
    if not predictor.multilabel and target is not None:
        raise ConfigError(f"expected no --target for a run with one class per image, got {target}; leave it out")


def _find_table(run: Path, part: str, target: str) -> Path:
    """The table of a target, which its class names tell."""
    for table in sorted(run.glob(f"predictions_{part}_*.csv")):
        sidecar = classes_path(table)
        if not table.stem.endswith("_study") and sidecar.is_file():
            names = json.loads(sidecar.read_text(encoding="utf-8"))
            if names[-1:] == [target]:
                return table
    return run / f"predictions_{part}_{target}.csv"


def find_images(config: DictConfig, predictions: pd.DataFrame) -> pd.DataFrame:
    """The predictions with the `image_path` and, where the dataset has them, the `boxes` of each sample.

    Raises:
        CxrError: The dataset cannot be read, or does not hold the samples.
    """
    from cxr.training.sources import open_dataset

    samples = open_dataset(config).samples
    ids = samples["sample_id"]
    if config.hash_ids:
        ids = hash_ids(ids, load_salt(Path(config.paths.cache_dir)))
    known = samples.assign(sample_id=ids.astype("string"))
    columns = [name for name in ("sample_id", "image_path", "boxes") if name in known]
    found = predictions.merge(known[columns], on="sample_id", how="left", validate="many_to_one")
    missing = int(found["image_path"].isna().sum())
    if missing:
        raise DataError(
            f"expected the images of {len(found)} predictions in the dataset, but {missing} are not there; use the "
            "data and the salt (CXR_ID_SALT, or the cache folder) of the run, for example with data.root=PATH"
        )
    return found


def make_folder(settings: Explanation) -> Path:
    """The folder to write to, made before the work that it is for.

    Raises:
        DataError: It cannot be made.
    """
    words = filter(None, [settings.part, settings.target, settings.method])
    default = settings.run / "explain" / re.sub(r"[^\w.+-]+", "_", "_".join(words))
    folder = default if settings.out is None else settings.out
    try:
        (folder / "gallery").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"expected a folder to write to, but {folder} is none ({error.strerror}); choose another --out"
        ) from error
    return folder


def sample_rows(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows at most, the same ones each time whatever their order.

    Raises:
        ConfigError: `count` is below 2.
    """
    if count < 2:
        raise ConfigError(f"expected --images of 2 or more, got {count}; choose a larger number")
    ordered = rows.sort_values("sample_id").reset_index(drop=True)
    return ordered if len(ordered) <= count else ordered.sample(count, random_state=0)


def localise(predictor: Predictor, method: Method, rows: pd.DataFrame, target: str | None) -> dict[str, Any] | None:
    """Hold the maps of the rows against their boxes; None where no image has any."""
    known = rows[rows["boxes"].notna()] if "boxes" in rows else rows.head(0)
    pictures = read_pictures(predictor, known)
    found = [one for one in pictures.boxes if one is not None]
    boxed = np.array([len(one) > 0 for one in found], dtype=np.bool_)
    if not boxed.any():
        return None
    classes = sorted(set(known["target"][boxed])) if target is None else [1]
    probs = known[[f"prob_{k}" for k in classes]].to_numpy(dtype=np.float64)
    labels = np.asarray(classes)[probs.argmax(axis=1)] if target is None else choose_labels(predictor, known, target)
    patients = known["patient_id"].fillna(known["sample_id"]).to_numpy()
    maps = make_mean_maps(predictor, method, pictures, labels)
    measured = measure_localisation(maps, found, probs.max(axis=1), patients)
    table = measured.rows.copy()
    table.insert(0, "sample_id", known["sample_id"].to_numpy()[table.pop("image")])
    return {
        "images": len(known),
        "boxed": int(boxed.sum()),
        "patients": int(table["patient"].nunique()),
        "classes": [predictor.class_names[k] for k in classes] if target is None else [target],
        "scores": _plain(measured.scores),
        "gains": _plain(measured.gains),
        "even": measured.even,
        "rows": table.to_dict("records"),
    }


def _plain(found: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Any]]:
    return {maps: {score: plain(interval) for score, interval in own.items()} for maps, own in found.items()}


def check_sanity(predictor: Predictor, method: Method, rows: pd.DataFrame, target: str | None) -> dict[str, Any]:
    """Both sanity checks of the method on the first of the rows, for the predicted classes, by the leading net."""
    few = rows.head(SANITY_IMAGES)
    pictures, labels = read_pictures(predictor, few), choose_labels(predictor, few, target)
    sanity = check_method(method, *leading_net(predictor, pictures, labels))
    return {"images": len(few)} | sanity.to_dict()
