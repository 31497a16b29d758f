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
from cxr.evaluation.localisation import Boxes
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Stored
from cxr.imaging.resize import boxes_to_size, resize
from cxr.inference.embedding import embed_stored
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.saliency import Maps
from cxr.inference.sanity import Explain as Method

LEAST_SIDE = 384
"""Pixels of the shown images: those of the net's input, times the whole number that reaches this."""
TOLERANCE = 0.05
"""By how much probabilities may differ from the table's on average: other devices compute a little differently."""


def draw_gallery(
    predictor: NetPredictor, method: Method, rows: pd.DataFrame, class_names: list[str], target: str | None, out: Path
) -> list[Picture]:
    """Write a picture of each row to ``gallery/<kind>_<number>.png``."""
    (out / "gallery").mkdir(exist_ok=True)
    for old in (out / "gallery").glob("*.png"):
        old.unlink()
    stored, _ = read_images(predictor, rows)
    check_same(predictor, stored, rows, target)
    labels = choose_labels(predictor, rows, target)
    maps = method(predictor, stored, labels)
    pictures = []
    numbers = rows.groupby("kind").cumcount() + 1
    for one, label, number, (_, row) in zip(maps, labels, numbers, rows.iterrows(), strict=True):
        path = out / "gallery" / f"{row['kind']}_{number:02d}.png"
        pictures.append(_draw(predictor, one, row, class_names, label, path))
    return pictures


def _draw(
    predictor: NetPredictor, one: Maps, row: "pd.Series[Any]", class_names: list[str], label: int, path: Path
) -> Picture:
    preprocess, explained = predictor.preprocess, class_names.index(predictor.class_names[label])
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


def read_images(predictor: NetPredictor, rows: pd.DataFrame) -> tuple[NDArray[Any], list[Boxes | None]]:
    """Stored images (N, h, w), and their boxes in pixels of these; None where it is not known whether there are any.

    Raises:
        ImageError: A file gives no image.
    """
    preprocess = predictor.preprocess
    stored = np.empty((len(rows), *preprocess.size), preprocess.precision)
    boxes: list[Boxes | None] = []
    given = rows["boxes"] if "boxes" in rows else [None] * len(rows)
    for index, (path, drawn) in enumerate(zip(rows["image_path"], given, strict=True)):
        pixels = read_pixels(path)
        stored[index] = preprocess.store(pixels)
        boxes.append(None if drawn is None else preprocess.place_boxes(drawn, pixels.shape))
    return stored, boxes


def check_same(predictor: NetPredictor, stored: Stored, rows: pd.DataFrame, target: str | None) -> None:
    """Raise DataError unless the net says of the images what the table says."""
    _, probs = embed_stored(predictor, stored)
    if target is not None:
        probs = probs[:, [predictor.class_names.index(target)]]
    told = rows[["prob_1"]] if target is not None else rows.filter(regex=r"^prob_\d+$")
    difference = float(np.abs(probs - told.to_numpy(dtype=np.float64)).mean())
    if difference > TOLERANCE:
        raise DataError(
            f"expected the images that the run was evaluated on, but the probabilities differ by {difference:.2f} on "
            "average; use the data and the bundle of the run, for example with data.root=PATH"
        )


def choose_labels(predictor: NetPredictor, rows: pd.DataFrame, target: str | None) -> NDArray[np.int64]:
    """The class to explain in each row: the predicted one, or the target that was asked for."""
    if target is not None:
        return np.full(len(rows), predictor.class_names.index(target))
    return rows.filter(regex=r"^prob_\d+$").to_numpy(dtype=np.float64).argmax(axis=1)
