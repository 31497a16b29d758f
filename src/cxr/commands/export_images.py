"""The images that an export is held against, as its nets take them, and what the run said of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig

from cxr.commands.run_images import find_images, sample_rows
from cxr.data.identity import load_salt
from cxr.data.splits import SPLIT_FILE, read_split
from cxr.errors import CxrError, DataError
from cxr.evaluation.report.material import Question, read_questions
from cxr.experiments.plan import PLAN_FILE
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.predictor import Predictor
from cxr.progress import show_progress

OUT_OF_FOLD = "oof"
IMAGES_AT_ONCE = 16

Probs = NDArray[np.float64]


@dataclass(frozen=True)
class Told:
    """What a run said of the images of one part.

    Attributes:
        part: ``test``, ``val`` or ``oof``.
        by_bundle: Whether the run's bundle said it, or models of other folds.
        rows: N rows with `sample_id` and `image_path`.
        probs: (N, K); nan where a target is not stated.
        targets: (N, K) 1 where the class is true or the target present, 0 where not, nan where not stated.
    """

    part: str
    by_bundle: bool
    rows: pd.DataFrame
    probs: Probs
    targets: Probs

    def sample(self, count: int) -> "Told":
        """`count` images at most, the same ones each time."""
        rows = sample_rows(self.rows.assign(place=range(len(self.rows))), count)
        places = rows.pop("place").to_numpy()
        return Told(self.part, self.by_bundle, rows, self.probs[places], self.targets[places])


def read_told(run: Path, config: DictConfig, predictor: Predictor, parts: Sequence[str]) -> Told:
    """What a run said of the first of the parts that it has predictions of.

    Raises:
        DataError: It has none, or its images are not there.
    """
    found = [part for part in parts if any(run.glob(f"predictions_{part}*.csv"))]
    if not found:
        raise DataError(f"expected predictions of {' or '.join(parts)} in {run}, got none; finish the run")
    part = found[0]
    by_bundle = part == "test" or (part != OUT_OF_FOLD and not (run / PLAN_FILE).exists())
    questions = read_questions(run, (part,))
    tables = [question.parts[part].drop_duplicates("sample_id") for question in questions]
    rows = pd.concat(tables)[["sample_id"]].drop_duplicates().reset_index(drop=True)
    probs, targets = np.full((2, len(rows), len(predictor.class_names)), np.nan)
    for question, table in zip(questions, tables, strict=True):
        places = pd.Index(rows["sample_id"]).get_indexer(table["sample_id"])
        for column, k in _columns(question, predictor):
            probs[places, k] = table[f"prob_{column}"]
            targets[places, k] = table["target"] == column
    return Told(part, by_bundle, _locate(config, rows), probs, targets)


def _columns(question: Question, predictor: Predictor) -> list[tuple[int, int]]:
    """Which column of a question's table is which class or target of the predictor."""
    if question.name:
        return [(1, predictor.class_names.index(question.class_names[-1]))]
    return [(k, k) for k in range(len(predictor.class_names))]


def read_training(run: Path, config: DictConfig) -> pd.DataFrame:
    """Rows with `sample_id` and `image_path` of images that the run learned from.

    Raises:
        DataError: The images are not there.
    """
    if not (run / SPLIT_FILE).exists():  # a plan's: every image of its folds
        part = OUT_OF_FOLD if (run / f"predictions_{OUT_OF_FOLD}.csv").exists() else "val"
        return _locate(config, read_questions(run, (part,))[0].parts[part].drop_duplicates("sample_id"))
    from cxr.training.sources import open_dataset

    try:
        samples = open_dataset(config).samples
        parts = read_split(samples, run / SPLIT_FILE, salt=load_salt(Path(config.paths.cache_dir)))
    except CxrError as error:
        raise _absent(error) from error
    return samples.loc[parts.index[parts == "train"], ["sample_id", "image_path"]].reset_index(drop=True)


def _locate(config: DictConfig, rows: pd.DataFrame) -> pd.DataFrame:
    try:
        return find_images(config, rows)
    except CxrError as error:
        raise _absent(error) from error


def _absent(error: CxrError) -> DataError:
    return DataError(
        "expected the images of the run, which its export is measured on; where they lie elsewhere now, name their "
        f"folder by data.root=PATH after the run. Got: {error}"
    )


def read_batches(paths: Sequence[str], preprocesses: Sequence[Preprocess]) -> Iterator[tuple[Stored, ...]]:
    """Image files in batches of IMAGES_AT_ONCE at most: for each preprocessing the (B, h, w) that it stores.

    Raises:
        DataError: A file is not there or gives no image.
    """
    for start in show_progress(range(0, len(paths), IMAGES_AT_ONCE), "images"):
        try:
            images = [read_pixels(path) for path in paths[start : start + IMAGES_AT_ONCE]]
        except CxrError as error:
            raise _absent(error) from error
        yield tuple(one.store_all(images) for one in preprocesses)


def draw_batches(count: int, preprocesses: Sequence[Preprocess]) -> Iterator[tuple[Stored, ...]]:
    """The same of images that are random, the same ones each time."""
    images = np.random.default_rng(0).random((count, 48, 40), dtype=np.float32)
    for start in range(0, count, IMAGES_AT_ONCE):
        yield tuple(one.store_all(list(images[start : start + IMAGES_AT_ONCE])) for one in preprocesses)
