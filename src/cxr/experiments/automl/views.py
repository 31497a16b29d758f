"""The tables of features that trials choose from, made once. Knows nothing of labels, folds or models."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr.data.image_store import ImageStore, Rows, StoredImages
from cxr.errors import ConfigError
from cxr.imaging.descriptors import DESCRIPTORS, LEAST_SIDE
from cxr.imaging.preprocess import Preprocess
from cxr.inference import features
from cxr.inference.embedding_cache import embed_images
from cxr.inference.features import Features, Table
from cxr.inference.net_predictor import NetPredictor
from cxr.models.head import Classifier

log = logging.getLogger(__name__)

ALL = "all"
IMAGES_AT_ONCE = 64
TIMED_IMAGES = 16


@dataclass(frozen=True)
class View:
    """One way to see the images.

    Attributes:
        features: Makes the row of an image.
        table: (N, D) of the images at hand.
        net: The bundle of the features' net.
    """

    features: Features
    table: Table
    net: Path | None = None


def find_bundle(place: str) -> Path:
    """The bundle that a folder is, or holds as the folder of a run.

    Raises:
        ConfigError: There is none.
    """
    for folder in (Path(place), Path(place) / "bundle"):
        if (folder / "bundle.json").exists():
            return folder
    raise ConfigError(f"plan.features must be pixels, or the folder of a run or bundle, but {place} holds no bundle")


def pixel_preprocess(recipe: Preprocess, size: tuple[int, int]) -> Preprocess:
    """One channel in [0, 1] of another size, fitted and normalised as the recipe has it."""
    return replace(recipe, size=size, channels=1, low=0.0, high=1.0, mean=None, std=None)


def make_pixel_views(preprocess: Preprocess, images: StoredImages, featurize: bool) -> dict[str, View]:
    """The pixels themselves, or each kind of descriptors and all of them together."""
    if not featurize:
        view = _make_view(Features(features.PIXELS, preprocess), images)
        _tell_saving(preprocess, images)
        return {features.PIXELS: view}
    started = time.perf_counter()
    views = {name: _make_view(Features(features.DESCRIPTORS, preprocess, (name,)), images) for name in DESCRIPTORS}
    whole = np.concatenate([view.table for view in views.values()], axis=1)
    log.info("features of %d images: %d columns in %.1f s", *whole.shape, time.perf_counter() - started)
    return {**views, ALL: View(Features(features.DESCRIPTORS, preprocess, tuple(DESCRIPTORS)), whole)}


def make_embedding_view(
    net: NetPredictor, images: StoredImages, hashes: list[str], cache: Path, bundle: Path
) -> dict[str, View]:
    """What a net makes of the images, before its head; computed once, whatever the number of searches.

    Args:
        net: The predictor of `bundle`.
        images: N stored images.
        hashes: Of each one's file.
        cache: Folder of embeddings.
        bundle: Where the net lies.
    """
    assert isinstance(net.net, Classifier)  # what a bundle's net is made by
    made_by = Features(features.EMBEDDING, net.preprocess, (), net)
    table = embed_images(net.net, net.preprocess, images, hashes, cache)
    return {features.EMBEDDING: View(made_by, table, bundle)}


def open_images(store: ImageStore, paths: list[str], hashes: list[str]) -> StoredImages:
    """The stored images of files that gave one before.

    Raises:
        ConfigError: A file gives none of this preprocessing.
    """
    bad = store.build(paths, hashes)
    if bad:
        raise ConfigError(
            f"expected an image in each file, but {next(iter(bad.values()))}; mend or leave out that file"
        )
    return store.open(paths, hashes)


def _make_view(made_by: Features, images: StoredImages) -> View:
    batches = np.split(np.arange(len(images)), range(IMAGES_AT_ONCE, len(images), IMAGES_AT_ONCE))
    return View(made_by, np.concatenate([made_by(images[batch]) for batch in batches]))


def _tell_saving(preprocess: Preprocess, images: StoredImages) -> None:
    """Log what featurization would have taken, by the time of a few images."""
    if min(preprocess.size) < LEAST_SIDE:
        return
    rows: Rows = np.arange(min(TIMED_IMAGES, len(images)))
    described = Features(features.DESCRIPTORS, preprocess, tuple(DESCRIPTORS))
    started = time.perf_counter()
    described(images[rows])
    each = (time.perf_counter() - started) / len(rows)
    log.info("featurize=false: about %.1f s saved for %d images", each * len(images), len(images))
