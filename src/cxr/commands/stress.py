"""What `cxr stress` does: a run folder -> what changes to its images cost it. Writes no file names and no new ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.commands.run_images import as_file_name, find_images, read_config, read_part, sample_rows
from cxr.entry import prepare_environment
from cxr.evaluation.figure_stress import plot_stress
from cxr.evaluation.figures import write_figure
from cxr.evaluation.stress import METRICS, Change, measure_stress
from cxr.imaging.image import read_pixels
from cxr.imaging.stress import STRESSES
from cxr.inference.bundle import load_bundle
from cxr.inference.predictor import Predictor
from cxr.progress import show_progress

BATCH = 32

Probs = NDArray[np.float64]


@dataclass(frozen=True)
class StressTest:
    """Settings of the command.

    Attributes:
        run: The run folder.
        part: 'val' or 'test'; the run has predictions of it.
        images: How many images at most; the same ones each time.
        target: Which target of a multi-label run; None for others.
        overrides: Config values that are others than in the run, as ``data.root=PATH``.
        out: Where to; None is ``stress/<part>`` in the run folder, with the target added where there is one.
    """

    run: Path
    part: str
    images: int
    target: str | None
    overrides: Sequence[str]
    out: Path | None


def stress(settings: StressTest) -> tuple[pd.DataFrame, Path]:
    """Predict the images of a run under every change.

    Returns:
        The table of `measure_stress`, and the folder that holds it.

    Raises:
        CxrError: The run or its data cannot be used.
    """
    prepare_environment()
    config = read_config(settings.run, settings.overrides)
    predictor = load_bundle(settings.run / "bundle")
    predictions, class_names = read_part(settings.run, settings.part, predictor, settings.target)
    rows = sample_rows(find_images(config, predictions), settings.images)
    plain, changed = predict_changed(predictor, rows["image_path"].tolist(), settings.target)
    scores = {f"prob_{k}": column for k, column in enumerate(plain.T)}
    table = measure_stress(rows.assign(**scores), changed, class_names)
    default = settings.run / "stress" / as_file_name(settings.part, settings.target)
    folder = default if settings.out is None else settings.out
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "stress.csv", index=False)
    for metric in METRICS:
        write_figure(plot_stress(table, metric), folder / f"stress_{metric}.png")
    return table, folder


def predict_changed(
    predictor: Predictor, paths: Sequence[str], target: str | None
) -> tuple[Probs, dict[Change, Probs]]:
    """(N, K) probabilities of image files as they are, and under every change; each file is read once.

    Args:
        predictor: Of a run.
        paths: The files.
        target: Of several, the one that is asked for: K is 2, no and yes.

    Raises:
        ImageError: A file gives no image.
    """
    found: list[list[Probs]] = [[] for _ in range(1 + len(STRESSES))]
    starts = range(0, len(paths), BATCH)
    for start in show_progress(starts, "images under changes"):
        images = [read_pixels(path) for path in paths[start : start + BATCH]]
        found[0].append(predictor.predict_pixels(images))
        for parts, one in zip(found[1:], STRESSES, strict=True):
            parts.append(predictor.predict_pixels([one.apply(image) for image in images]))
    plain, *changed = (choose_target(np.concatenate(parts), predictor.class_names, target) for parts in found)
    return plain, {(one.kind, one.strength): probs for one, probs in zip(STRESSES, changed, strict=True)}


def choose_target(probs: Probs, class_names: Sequence[str], target: str | None) -> Probs:
    """(N, 2) probabilities of no and yes to one target; without one, all as they are."""
    if target is None:
        return probs
    yes = probs[:, list(class_names).index(target)]
    return np.stack([1 - yes, yes], axis=1)
