"""What is known without the model, to stand beside it: the majority class, the metadata, and random features of images.

Each is fitted on the train part alone and gives probabilities for the rows of val and test. A model that is no better
than these has not learnt to read images. Knows nothing of the model, of files or of metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr.errors import DataError
from cxr.evaluation.audit.metadata import METADATA, describe_columns
from cxr.evaluation.audit.regions import FloatArray, Images, IntArray, shrink_images

HELD_OUT = ("val", "test")

SIDE = 32
FILTERS = 64
WINDOW = 5
POOLED = 4
METADATA_STRENGTH = 1.0
FEATURE_STRENGTH = 0.01
_BATCH = 64


@dataclass(frozen=True)
class Baseline:
    """One baseline on the held-out parts.

    Attributes:
        name: majority, metadata or random_features.
        probs: Part (val, test) -> (M, K) probabilities of its rows, in the order of the table; none where `omitted`.
        omitted: Why it could not be made; empty where it was.
    """

    name: str
    probs: dict[str, FloatArray]
    omitted: str = ""


def fit_baselines(
    samples: pd.DataFrame, class_names: Sequence[str], images: Images | None = None, seed: int = 0
) -> list[Baseline]:
    """Fit every baseline on the train part.

    Args:
        samples: N rows with `label` and `split`, and where known `source` and columns of `METADATA`.
        class_names: The K names in order.
        images: The stored image of each row, in order; without them the random features are omitted.
        seed: Of the random filters.

    Returns:
        majority, metadata and random_features.

    Raises:
        DataError: A column is absent, train has no two classes, or there is not one image for each row.
    """
    _check_table(samples, class_names, images)
    task = _Task(samples["label"].to_numpy(dtype=np.int64), samples["split"].to_numpy(dtype=object), len(class_names))
    return [_fit_majority(task), _fit_metadata(task, samples), _fit_random_features(task, images, seed)]


def describe_by_random_filters(small: FloatArray, seed: int) -> FloatArray:
    """Random features: fixed random filters, rectified, and averaged over a grid.

    Saxe et al. 2011, "On random weights and unsupervised feature learning". Each filter has zero mean, so that the
    brightness of an image alone does nothing.

    Args:
        small: (N, 32, 32) images in [0, 1].
        seed: Of the filters.

    Returns:
        (N, 1024): 64 filters on a grid of 4 x 4.
    """
    filters = np.random.default_rng(seed).standard_normal((WINDOW * WINDOW, FILTERS)).astype(np.float32)
    filters -= filters.mean(axis=0)
    batches = np.split(small.astype(np.float32), range(_BATCH, len(small), _BATCH))
    return np.concatenate([_filter_and_pool(batch, filters) for batch in batches])


@dataclass(frozen=True)
class _Task:
    """Labels and parts of N rows."""

    label: IntArray
    split: NDArray[np.object_]
    num_classes: int

    @property
    def train_label(self) -> IntArray:
        return self.label[self.split == "train"]

    def fit(self, name: str, features: FloatArray, strength: float) -> Baseline:
        """A logistic regression on features (N, D); `strength` is the inverse of its penalty."""
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        model.fit(features[self.split == "train"], self.train_label)
        known = model.classes_
        probs: dict[str, FloatArray] = {}
        for part in self.parts():
            probs[part] = np.zeros((int((self.split == part).sum()), self.num_classes))
            probs[part][:, known] = model.predict_proba(features[self.split == part].astype(np.float64))
        return Baseline(name, probs)

    def parts(self) -> list[str]:
        """The held-out parts that have rows."""
        return [part for part in HELD_OUT if (self.split == part).any()]


def _fit_majority(task: _Task) -> Baseline:
    """The shares of the classes in train, for every row alike: the most probable class is the most common one."""
    shares = np.bincount(task.train_label, minlength=task.num_classes) / len(task.train_label)
    probs: dict[str, FloatArray] = {}
    for part in task.parts():
        probs[part] = np.tile(shares, (int((task.split == part).sum()), 1))
    return Baseline("majority", probs)


def _fit_metadata(task: _Task, samples: pd.DataFrame) -> Baseline:
    """Logistic regression on what the table tells; its columns are coded over all parts, without a look at labels."""
    columns = [name for name in (*METADATA, "source") if name in samples and samples[name].notna().any()]
    if not columns:
        return Baseline("metadata", {}, "the table tells nothing but labels")
    return task.fit("metadata", describe_columns(samples, columns), METADATA_STRENGTH)


def _fit_random_features(task: _Task, images: Images | None, seed: int) -> Baseline:
    if images is None:
        return Baseline("random_features", {}, "no images were given")
    small = shrink_images(images, np.arange(len(task.label)), SIDE)
    return task.fit("random_features", describe_by_random_filters(small, seed), FEATURE_STRENGTH)


def _filter_and_pool(batch: FloatArray, filters: FloatArray) -> FloatArray:
    windows = sliding_window_view(batch, (WINDOW, WINDOW), axis=(1, 2))
    count, height, width = windows.shape[:3]
    answers = np.maximum(windows.reshape(count * height * width, -1) @ filters, 0)
    cell = height // POOLED
    grid = answers.reshape(count, POOLED, cell, POOLED, cell, FILTERS).mean(axis=(2, 4))
    return grid.reshape(count, -1)


def _check_table(samples: pd.DataFrame, class_names: Sequence[str], images: Images | None) -> None:
    absent = [name for name in ("label", "split") if name not in samples]
    if absent:
        raise DataError(f"expected the columns label and split in the samples, got no {absent}; split them first")
    known = np.arange(len(class_names))
    if not samples["label"].isin(known).all():
        raise DataError(f"expected labels from 0 to {known[-1]} in every row, got others; leave these rows out")
    if samples.loc[samples["split"] == "train", "label"].nunique() < 2:
        raise DataError("expected two classes or more in train to fit baselines on, got fewer; check the split")
    if images is not None and len(images) != len(samples):
        raise DataError(f"expected one image for each of {len(samples)} samples, got {len(images)}; pass matching rows")
