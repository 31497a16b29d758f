"""Rows of a predictions table -> pictures of the images under maps of what the net looks at.

Knows nothing of how maps are made, of runs or of configs. Pictures name no file, and samples only as the table does.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import DataError
from cxr.evaluation.drawing import drawable_names
from cxr.evaluation.explain_page import Picture
from cxr.evaluation.figure_saliency import plot_explanation
from cxr.evaluation.figures import write_figure
from cxr.explanation.pictures import frame_of, make_mean_maps, read_pictures
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.imaging.resize import boxes_to_size, resize
from cxr.inference.predictor import Predictor, Probs
from cxr.inference.saliency import Maps
from cxr.inference.sanity import Explain as Method

LEAST_SIDE = 384
"""Pixels of the shown images: those of the net's input, times the whole number that reaches this."""
TOLERANCE = 0.05
"""By how much probabilities may differ from the table's on average: other devices compute a little differently."""


def draw_gallery(
    predictor: Predictor, method: Method, rows: pd.DataFrame, class_names: list[str], target: str | None, out: Path
) -> list[Picture]:
    """Write a picture of each row to ``gallery/<kind>_<number>.png``."""
    (out / "gallery").mkdir(exist_ok=True)
    for old in (out / "gallery").glob("*.png"):
        old.unlink()
    pictures = read_pictures(predictor, rows)
    check_same(pictures.probs, rows, predictor.class_names, target)
    labels = choose_labels(predictor, rows, target)
    maps = make_mean_maps(predictor, method, pictures, labels)
    drawn = []
    numbers = rows.groupby("kind").cumcount() + 1
    for one, label, number, (_, row) in zip(maps, labels, numbers, rows.iterrows(), strict=True):
        path = out / "gallery" / f"{row['kind']}_{number:02d}.png"
        explained = class_names.index(predictor.class_names[label])
        drawn.append(_draw(frame_of(predictor), one, row, class_names, explained, path))
    return drawn


def _draw(
    preprocess: Preprocess, one: Maps, row: "pd.Series[Any]", class_names: list[str], explained: int, path: Path
) -> Picture:
    factor = -(-LEAST_SIDE // max(preprocess.size))
    large = replace(preprocess, size=(preprocess.size[0] * factor, preprocess.size[1] * factor))
    pixels = read_pixels(row["image_path"])
    shown = large.store(pixels)
    drawn = row.get("boxes")
    boxes = boxes_to_size(() if drawn is None else drawn, pixels.shape, large.size, large.aspect)
    titles = _describe(row, drawable_names(class_names), explained)
    figure = plot_explanation(shown / np.iinfo(shown.dtype).max, resize(one, large.size), *titles,
                              row["prediction"] == row["target"], boxes)  # fmt: skip
    write_figure(figure, path)
    return Picture(str(row["kind"]), path, "; ".join(_describe(row, class_names, explained)))


def _describe(row: "pd.Series[Any]", class_names: list[str], explained: int) -> tuple[str, str]:
    said, true = class_names[row["prediction"]], class_names[row["target"]]
    title = f"predicted {said} {row['certainty']:.2f}, truth {true}"
    return title, f"what speaks for {class_names[explained]} · sample {row['sample_id']}"


def check_same(probs: Probs, rows: pd.DataFrame, class_names: list[str], target: str | None) -> None:
    """Raise DataError unless the model, of these classes, says of the images what the table says."""
    if target is not None:
        probs = probs[:, [class_names.index(target)]]
    told = rows[["prob_1"]] if target is not None else rows.filter(regex=r"^prob_\d+$")
    difference = float(np.abs(probs - told.to_numpy(dtype=np.float64)).mean())
    if difference > TOLERANCE:
        raise DataError(
            f"expected the images that the run was evaluated on, but the probabilities differ by {difference:.2f} on "
            "average; use the data and the bundle of the run, for example with data.root=PATH"
        )


def choose_labels(predictor: Predictor, rows: pd.DataFrame, target: str | None) -> NDArray[np.int64]:
    """The class to explain in each row: the predicted one, or the target that was asked for."""
    if target is not None:
        return np.full(len(rows), predictor.class_names.index(target))
    return rows.filter(regex=r"^prob_\d+$").to_numpy(dtype=np.float64).argmax(axis=1)
