"""Whether maps of an image point at the boxes that people drew, beside maps that know nothing of the image.

Knows nothing of nets, files or how maps are made. Maps are (N, H, W) in [0, 1]; boxes are (M, 4) arrays of x, y, width
and height in pixels of the maps, pixel (0, 0) covering [0, 1) x [0, 1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr.errors import DataError
from cxr.evaluation.statistics.bootstrap import bootstrap_statistic, proportion_interval
from cxr.evaluation.statistics.intervals import Interval
from cxr.evaluation.statistics.resampling import number_groups

Maps = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Scores = dict[str, dict[str, float]]

THRESHOLD = 0.5
"""From this share of its highest value on, a map counts as marked."""
IOU = 0.5
RECALLS = np.linspace(0, 1, 101)
SCORES, PRECISION = ("pointing", "iou", "energy"), "average_precision"
CANDIDATES = ("map", "centre", "others")


def score_maps(maps: Maps, boxes: Sequence[Boxes], threshold: float = THRESHOLD) -> pd.DataFrame:
    """Hold each map against the boxes of its image.

    Args:
        maps: (N, H, W), not negative.
        boxes: N arrays, at least one box each.
        threshold: Share of the highest value.

    Returns:
        N rows: `pointing`, 1 where the highest point lies in a box and else 0 (Zhang et al. 2018,
        https://arxiv.org/abs/1608.00507, without tolerance); `iou` of the marked area with the area of the boxes;
        `energy`, the share of the map's sum inside the boxes (Wang et al. 2020, https://arxiv.org/abs/1910.01279);
        `boxed`, the share of the image inside the boxes, which is the energy of an even map. An empty map scores 0.

    Raises:
        DataError: Lengths differ, or an image has no box.
    """
    _check(maps, boxes)
    if any(len(found) == 0 for found in boxes):
        raise DataError("expected at least one box in each image, got images without; score those with boxes alone")
    scores = [_score_map(one, draw_boxes(found, one.shape), threshold) for one, found in _pairs(maps, boxes)]
    return pd.DataFrame(scores, columns=[*SCORES, "boxed"])


def draw_boxes(boxes: Boxes, shape: tuple[int, ...]) -> Mask:
    """(H, W), true for pixels whose centre lies in one of the boxes."""
    rows, columns = (np.arange(side) + 0.5 for side in shape)
    mask = np.zeros(shape, dtype=np.bool_)
    for x, y, width, height in boxes:
        mask |= ((rows >= y) & (rows < y + height))[:, None] & ((columns >= x) & (columns < x + width))
    return mask


def _score_map(one: Maps, mask: Mask, threshold: float) -> tuple[float, float, float, float]:
    total = float(one.sum(dtype=np.float64))
    if total == 0:
        return 0.0, 0.0, 0.0, float(mask.mean())
    marked = one >= threshold * one.max()
    iou = float((marked & mask).sum() / (marked | mask).sum())
    energy = float(one.sum(where=mask, dtype=np.float64)) / total
    return float(mask.flat[one.argmax()]), iou, energy, float(mask.mean())


def centre_prior(shape: tuple[int, int]) -> Maps:
    """(H, W): a Gaussian in the middle whose standard deviations are a quarter of the sides; it has seen no image."""
    rows, columns = (np.exp(-8 * ((np.arange(side) + 0.5) / side - 0.5) ** 2) for side in shape)
    prior = np.outer(rows, columns)
    return (prior / prior.max()).astype(np.float32)


def place_prior(boxes: Sequence[Boxes], patients: npt.ArrayLike, shape: tuple[int, int]) -> Maps:
    """(N, H, W): for each image, where the boxes of all other patients lie, smoothed; it has not seen the image.

    Args:
        boxes: N arrays.
        patients: (N,) who is shown.
        shape: (H, W) of the maps.
    """
    masks = np.stack([draw_boxes(found, shape) for found in boxes]).astype(np.float32)
    codes = pd.factorize(np.asarray(patients))[0]
    own = np.stack([masks[codes == code].sum(axis=0) for code in range(codes.max() + 1)])
    return np.stack([_smooth(masks.sum(axis=0) - own[code]) for code in codes])


def _smooth(counts: Maps) -> Maps:
    height, width = counts.shape
    smooth = cv2.GaussianBlur(counts, (0, 0), sigmaX=width / 32, sigmaY=height / 32)
    return np.asarray(smooth / max(smooth.max(), np.finfo(np.float32).tiny), dtype=np.float32)


def find_boxes(one: Maps, threshold: float = THRESHOLD) -> tuple[Boxes, npt.NDArray[np.float64]]:
    """The boxes of a map: around each connected marked area (8 neighbours).

    Args:
        one: (H, W) in [0, 1].
        threshold: Share of the highest value.

    Returns:
        (M, 4) boxes and (M,) the highest value in each; none for an empty map.
    """
    if one.max() <= 0:
        return np.zeros((0, 4)), np.zeros(0)
    marked = (one >= threshold * one.max()).astype(np.uint8)
    count, areas, found, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    peaks = [float(one[areas == area].max()) for area in range(1, count)]
    return found[1:, :4].astype(np.float64), np.array(peaks)


@dataclass(frozen=True)
class Detections:
    """The found boxes of all images from the highest score down.

    Attributes:
        image: (D,) index of the image that each lies in.
        hit: (D,) whether it takes a drawn box.
        drawn: (N,) how many boxes are drawn in each image.
    """

    image: IntArray
    hit: Mask
    drawn: IntArray


def match_boxes(
    boxes: Sequence[Boxes], found: Sequence[Boxes], scores: Sequence[npt.NDArray[np.float64]], iou: float = IOU
) -> Detections:
    """Give found boxes their drawn ones, as COCO does.

    Over all images from the highest score down, a found box takes the free box of its image with which it overlaps
    most, if by at least `iou`; else it is false. Images without boxes can only give false ones.

    Args:
        boxes: N arrays (M, 4).
        found: N arrays (D, 4).
        scores: N arrays (D,).
        iou: Least overlap of a hit.
    """
    hits = np.concatenate([_match(*one, iou) for one in zip(boxes, found, scores, strict=True)])
    order = np.argsort(-np.concatenate(list(scores)), kind="stable")
    image = np.repeat(np.arange(len(boxes)), [len(one) for one in found])
    return Detections(image[order], hits[order], np.array([len(one) for one in boxes]))


def average_precision(detections: Detections, times: IntArray | None = None) -> float:
    """Average precision of found boxes as in COCO: 101 recalls, each precision the best at that recall or beyond.

    Args:
        detections: Of N images.
        times: (N,) how often each image counts, as when images are drawn again; None is once.

    Returns:
        0 to 1; nan where no image has a box. Source: https://cocodataset.org/#detection-eval.
    """
    weights = np.ones(len(detections.drawn), dtype=np.int64) if times is None else times
    total = int(weights @ detections.drawn)
    if total == 0:
        return float("nan")
    counted = weights[detections.image]
    true, every = np.cumsum(counted * detections.hit), np.cumsum(counted)
    precision = np.divide(true, every, out=np.zeros(len(every)), where=every > 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(true / total, RECALLS, side="left")
    return float(np.append(best, 0.0)[places].mean())


def _match(boxes: Boxes, found: Boxes, scores: npt.NDArray[np.float64], iou: float) -> Mask:
    """Which of the found boxes of one image are hits."""
    overlaps = measure_overlaps(found, boxes)
    hits = np.zeros(len(found), dtype=np.bool_)
    for row in np.argsort(-scores, kind="stable"):
        if len(boxes) and overlaps[row].max() >= iou:
            hits[row] = True
            overlaps[:, overlaps[row].argmax()] = -1
    return hits


def measure_overlaps(first: Boxes, second: Boxes) -> npt.NDArray[np.float64]:
    """(D, M) intersection over union of boxes (D, 4) with boxes (M, 4)."""
    starts = np.maximum(first[:, None, :2], second[None, :, :2])
    ends = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    shared = np.clip(ends - starts, 0, None).prod(axis=2)
    areas = first[:, 2:].prod(axis=1)[:, None] + second[:, 2:].prod(axis=1)[None]
    return np.asarray(shared / (areas - shared))


@dataclass(frozen=True)
class Localisation:
    """What `measure_localisation` found.

    Attributes:
        scores: Name of the maps -> score -> its mean over images, and `average_precision`, each with its interval.
        gains: Name of maps that have not seen the image -> score -> how much more the maps have, with its interval.
        even: The energy of an even map, which is the mean share of the image inside the boxes.
        rows: A row for each image with a box: `image` (index), `patient`, and ``<maps>_<score>``.
    """

    scores: dict[str, dict[str, Interval]]
    gains: dict[str, dict[str, Interval]]
    even: float
    rows: pd.DataFrame


def measure_localisation(
    maps: Maps,
    boxes: Sequence[Boxes],
    probs: npt.NDArray[np.float64],
    patients: npt.ArrayLike,
    draws: int = 1000,
    seed: int = 0,
) -> Localisation:
    """All scores of maps, `map`, and of two that have not seen the image: `centre` and `others` (`place_prior`).

    Intervals are those of whole patients drawn again, the same ones for all maps; the boxes that make up `others` stay
    as they are. A pointing game that every image wins or loses has the exact interval, of as many trials as patients.

    Args:
        maps: (N, H, W) of the class that boxes are drawn for.
        boxes: N arrays; images without a box count only in the average precision, as chances for false boxes.
        probs: (N,) probability of that class, which ranks the found boxes of different images.
        patients: (N,) who is shown.
        draws: Bootstrap samples, at least 1000.
        seed: Of the samples.

    Raises:
        DataError: Lengths differ, no image has a box, or too few draws.
    """
    _check(maps, boxes)
    boxed = np.array([len(found) > 0 for found in boxes], dtype=np.bool_)
    if not boxed.any():
        raise DataError("expected images with boxes, got none; choose more images or a part that has some")
    shape = maps.shape[1:]
    prior = np.broadcast_to(centre_prior(shape), maps.shape)
    candidates = dict(zip(CANDIDATES, (maps, prior, place_prior(boxes, patients, shape)), strict=True))
    drawn, shown = [found for found in boxes if len(found)], np.asarray(patients)
    tables = {name: score_maps(candidate[boxed], drawn) for name, candidate in candidates.items()}
    detections = {name: _detect(candidate, boxes, probs) for name, candidate in candidates.items()}
    found = _mean_intervals(tables, shown[boxed], draws, seed)
    found |= _precision_intervals(detections, shown, boxed, draws, seed)
    rows = pd.DataFrame({"image": np.flatnonzero(boxed), "patient": shown[boxed]})
    rows = rows.join([table[list(SCORES)].add_prefix(f"{name}_") for name, table in tables.items()])
    named = (*SCORES, PRECISION)
    return Localisation(
        {name: {score: found[f"{name} {score}"] for score in named} for name in candidates},
        {name: {score: found[f"map - {name} {score}"] for score in named} for name in candidates if name != "map"},
        float(tables["map"]["boxed"].mean()),
        rows,
    )


def _mean_intervals(
    tables: Mapping[str, pd.DataFrame], patients: npt.NDArray[Any], draws: int, seed: int
) -> dict[str, Interval]:
    """``<maps> <score>`` and ``map - <maps> <score>`` -> mean over the images with boxes."""
    values = {name: table[list(SCORES)].to_numpy() for name, table in tables.items()}

    def measure(rows: IntArray) -> Scores:
        return {name: dict(zip(SCORES, one[rows].mean(axis=0), strict=True)) for name, one in values.items()}

    found = _bootstrap(measure, patients, len(set(patients)), draws, seed)
    for name, table in tables.items():
        hits, groups = int(table["pointing"].sum()), number_groups(patients, len(table))
        if hits in (0, len(table)):
            found[f"{name} pointing"] = proportion_interval(hits, groups, np.zeros(0))
    return found


def _precision_intervals(
    detections: Mapping[str, Detections], patients: npt.NDArray[Any], boxed: Mask, draws: int, seed: int
) -> dict[str, Interval]:
    """The same of the average precision over all images, behind which stand the patients who have a box."""

    def measure(rows: IntArray) -> Scores:
        times = np.bincount(rows, minlength=len(patients))
        return {name: {PRECISION: average_precision(one, times)} for name, one in detections.items()}

    return _bootstrap(measure, patients, len(set(patients[boxed])), draws, seed)


def _bootstrap(
    measure: Callable[[IntArray], Scores], patients: npt.NDArray[Any], behind: int, draws: int, seed: int
) -> dict[str, Interval]:
    def statistic(rows: IntArray) -> dict[str, float]:
        scores = measure(rows)
        named = {f"{name} {score}": float(value) for name, own in scores.items() for score, value in own.items()}
        own = scores.pop("map")
        gains = {
            f"map - {name} {score}": own[score] - value for name, one in scores.items() for score, value in one.items()
        }
        return named | gains

    limits = {f"{name} {score}": (0.0, 1.0) for name in CANDIDATES for score in (*SCORES, PRECISION)}
    return bootstrap_statistic(statistic, patients, limits, draws, seed, behind=behind)


def _detect(maps: Maps, boxes: Sequence[Boxes], probs: npt.NDArray[np.float64]) -> Detections:
    found, peaks = zip(*(find_boxes(one) for one in maps), strict=True)
    return match_boxes(boxes, found, [peak * prob for peak, prob in zip(peaks, probs, strict=True)])


def _pairs(maps: Maps, boxes: Sequence[Boxes]) -> "zip[tuple[Maps, Boxes]]":
    return zip(maps, boxes, strict=True)


def _check(maps: Maps, boxes: Sequence[Boxes]) -> None:
    if maps.ndim != 3 or len(maps) != len(boxes):
        raise DataError(
            f"expected maps (N, H, W) and boxes of N images, got {maps.shape} and {len(boxes)}; give one list of boxes "
            "per map"
        )
