"""What `cxr explain` does: a run folder -> pictures of what its model looks at, and how far they can be believed.

What is written names no file and holds ids only as the run's predictions do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.commands.run_images import as_file_name, find_images, read_config, read_part, sample_rows
from cxr.entry import prepare_environment
from cxr.errors import DataError
from cxr.evaluation.explain_page import write_page
from cxr.evaluation.gallery import choose_rows
from cxr.evaluation.localisation import measure_localisation
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


def make_folder(settings: Explanation) -> Path:
    """The folder to write to, made before the work that it is for.

    Raises:
        DataError: It cannot be made.
    """
    default = settings.run / "explain" / as_file_name(settings.part, settings.target, settings.method)
    folder = default if settings.out is None else settings.out
    try:
        (folder / "gallery").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"expected a folder to write to, but {folder} is none ({error.strerror}); choose another --out"
        ) from error
    return folder


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
