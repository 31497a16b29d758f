import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from cxr.errors import DataError
from cxr.evaluation.localisation import (
    average_precision,
    centre_prior,
    draw_boxes,
    find_boxes,
    match_boxes,
    measure_localisation,
    measure_overlaps,
    place_prior,
    score_maps,
)
from cxr.evaluation.statistics.bootstrap import bootstrap_statistic
from cxr.evaluation.statistics.intervals import exact_proportion

SHAPE = (24, 32)


def boxes(*rows):
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def map_of(*rows):
    return draw_boxes(boxes(*rows), SHAPE).astype(np.float32)


def test_a_map_that_is_the_box_has_every_score():
    scores = score_maps(map_of((4, 6, 8, 10))[None], [boxes((4, 6, 8, 10))])
    assert scores.iloc[0].to_dict() == {"pointing": 1, "iou": 1, "energy": 1, "boxed": 80 / (24 * 32)}


def test_scores_are_those_of_counted_pixels():
    rng = np.random.default_rng(0)
    maps = rng.random((20, *SHAPE)).astype(np.float32)
    found = [boxes((x, y, 9, 7), (x + 4, y + 3, 6, 6)) for x, y in rng.integers(0, 16, (20, 2))]
    scores = score_maps(maps, found, threshold=0.8)
    for one, some, (_, row) in zip(maps, found, scores.iterrows(), strict=True):
        inside = np.zeros(SHAPE, bool)
        for x, y, w, h in some.astype(int):
            inside[y : y + h, x : x + w] = True
        assert row["pointing"] == inside[np.unravel_index(one.argmax(), SHAPE)]
        assert row["iou"] == pytest.approx(jaccard_score(inside.ravel(), (one >= 0.8 * one.max()).ravel()))
        assert row["energy"] == pytest.approx(one[inside].sum() / one.sum(), rel=1e-5)


def test_the_energy_of_an_even_map_is_the_boxed_share_and_an_empty_map_scores_nothing():
    even, empty = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    scores = score_maps(np.stack([even, empty]), [boxes((0, 0, 8, 6))] * 2)
    assert scores["energy"].tolist() == [pytest.approx(1 / 16), 0]
    assert scores.loc[1, ["pointing", "iou"]].tolist() == [0, 0]


def test_the_centre_prior_points_at_the_middle():
    prior = centre_prior((101, 51))
    assert np.unravel_index(prior.argmax(), prior.shape) == (50, 25)
    assert (prior.max(), prior.dtype) == (1, np.float32)
    np.testing.assert_allclose(prior, prior[::-1, ::-1], atol=1e-6)
    assert prior[0, 25] == pytest.approx(np.exp(-0.5 * (50 / (101 / 4)) ** 2), rel=1e-5)


def test_the_place_prior_has_not_seen_the_patient():
    drawn = [boxes((0, 0, 8, 8)), boxes((0, 0, 8, 8)), boxes((20, 12, 8, 8)), boxes()]
    priors = place_prior(drawn, ["a", "a", "b", "c"], SHAPE)
    assert priors[0][:8, :8].max() < 1e-3
    np.testing.assert_array_equal(priors[0], priors[1])
    assert priors[0][16, 24] > 0.9
    assert priors[2][4, 4] > 0.9
    assert priors[2][16, 24] < 1e-3
    assert priors[3][4, 4] > priors[3][16, 24] > 0


def test_found_boxes_are_the_drawn_ones():
    one = np.maximum(map_of((2, 3, 5, 6)), 0.75 * map_of((20, 10, 4, 8)))
    found, peaks = find_boxes(one)
    order = np.argsort(-peaks)
    np.testing.assert_array_equal(found[order], boxes((2, 3, 5, 6), (20, 10, 4, 8)))
    np.testing.assert_allclose(peaks[order], [1, 0.75])
    assert len(find_boxes(one, threshold=0.9)[0]) == 1
    assert find_boxes(np.zeros(SHAPE, np.float32))[0].shape == (0, 4)


def overlap(first, second):
    grid = np.zeros((2, 200, 200), bool)
    for layer, (x, y, w, h) in zip(grid, (first, second), strict=True):
        layer[y : y + h, x : x + w] = True
    return (grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum()


def test_overlaps_are_those_of_counted_pixels():
    rng = np.random.default_rng(1)
    first, second = (np.hstack([rng.integers(0, 90, (8, 2)), rng.integers(1, 90, (8, 2))]) for _ in range(2))
    expected = [[overlap(a, b) for b in second] for a in first]
    np.testing.assert_allclose(measure_overlaps(first.astype(float), second.astype(float)), expected)


def reference_average_precision(truth, found, scores, least):
    """The rule of COCO in plain loops: every detection in order, then the best precision at each of 101 recalls."""
    detections = sorted(
        (
            (-score, image, box)
            for image in range(len(found))
            for score, box in zip(scores[image], found[image], strict=True)
        ),
        key=lambda detection: detection[0],
    )
    taken, true, curve = set(), 0, []
    for count, (_, image, box) in enumerate(detections, start=1):
        best = None
        for index, other in enumerate(truth[image]):
            share = measure_overlaps(box[None], other[None])[0, 0]
            if (image, index) not in taken and share >= least and (best is None or share > best[0]):
                best = (share, index)
        if best is not None:
            taken.add((image, best[1]))
            true += 1
        curve.append((true / sum(map(len, truth)), true / count))
    best_at = [max([p for r, p in curve if r >= recall], default=0.0) for recall in np.linspace(0, 1, 101)]
    return sum(best_at) / 101


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_average_precision_is_that_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    truth, found, scores = [], [], []
    for _ in range(6):
        count = int(rng.integers(0, 4))
        drawn = np.hstack([rng.uniform(0, 40, (count, 2)), rng.uniform(5, 30, (count, 2))])
        moved = drawn[rng.random(count) < 0.8] + rng.normal(0, 2, (1, 4))
        extra = int(rng.integers(0, 3))
        noise = np.hstack([rng.uniform(0, 40, (extra, 2)), rng.uniform(5, 30, (extra, 2))])
        truth.append(drawn)
        found.append(np.abs(np.vstack([moved, noise])) + 0.1)
        scores.append(rng.random(len(found[-1])))
    if sum(map(len, truth)) == 0:
        assert np.isnan(average_precision(match_boxes(truth, found, scores)))
    else:
        expected = reference_average_precision(truth, found, scores, 0.5)
        assert average_precision(match_boxes(truth, found, scores)) == pytest.approx(expected, abs=1e-12)


def test_average_precision_of_a_worked_example():
    # Two boxes; the first detection hits, the second is false, the third hits: precision 1 up to recall 0.5, then 2/3.
    truth = [boxes((0, 0, 10, 10), (20, 0, 10, 10)), boxes()]
    found = [boxes((0, 0, 10, 10), (20, 1, 10, 10)), boxes((5, 5, 5, 5))]
    scores = [np.array([0.9, 0.3]), np.array([0.5])]
    assert average_precision(match_boxes(truth, found, scores)) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert average_precision(match_boxes(truth, [boxes(), boxes()], [np.zeros(0), np.zeros(0)])) == 0


def test_a_box_is_found_once():
    truth = [boxes((0, 0, 10, 10))]
    found = [boxes((0, 0, 10, 10), (0, 0, 10, 9))]
    assert average_precision(match_boxes(truth, found, [np.array([0.4, 0.9])])) == 1
    assert average_precision(match_boxes([np.vstack([truth[0], truth[0] + 50])], found, [np.array([0.9, 0.4])])) < 0.6


@pytest.fixture
def drawn():
    rng = np.random.default_rng(4)
    return [boxes((x, y, 8, 8)) if i % 4 else boxes() for i, (x, y) in enumerate(rng.integers(0, 16, (12, 2)))]


def test_perfect_maps_beat_both_priors(drawn):
    maps = np.stack([draw_boxes(found, SHAPE) for found in drawn]).astype(np.float32)
    found = measure_localisation(maps, drawn, np.ones(12), [f"p{i // 2}" for i in range(12)])
    scores = {name: {score: one.value for score, one in own.items()} for name, own in found.scores.items()}
    assert scores["map"] == {"pointing": 1, "iou": 1, "energy": 1, "average_precision": 1}
    assert found.even == pytest.approx(64 / 768)
    for name in ("centre", "others"):
        assert all(scores["map"][key] > scores[name][key] for key in ("pointing", "iou"))
        gains = {score: one.value for score, one in found.gains[name].items()}
        assert gains == pytest.approx({score: scores["map"][score] - scores[name][score] for score in scores["map"]})
        assert found.gains[name]["iou"].low > 0
    assert found.rows["image"].tolist() == [i for i in range(12) if i % 4]
    assert found.rows["patient"].tolist() == [f"p{i // 2}" for i in found.rows["image"]]
    assert found.rows["centre_iou"].mean() == scores["centre"]["iou"]


def test_a_pointing_game_that_is_always_won_has_the_exact_interval_of_its_patients(drawn):
    maps = np.stack([draw_boxes(found, SHAPE) for found in drawn]).astype(np.float32)
    found = measure_localisation(maps, drawn, np.ones(12), [f"p{i // 2}" for i in range(12)]).scores["map"]
    exact = exact_proportion(6, 6)
    assert (found["pointing"].low, found["pointing"].high) == (exact.low, exact.high)
    assert found["pointing"].method == "Clopper-Pearson, patients: 6"
    assert found["iou"].method == "every bootstrap sample gives the same value"


def blurred_case(count=40):
    """Maps that are near their boxes, two images to a patient, every fourth image without a box."""
    rng = np.random.default_rng(7)
    drawn = [boxes((x, y, 8, 8)) if i % 4 else boxes() for i, (x, y) in enumerate(rng.integers(2, 16, (count, 2)))]
    shown = [
        found + np.array([*rng.integers(-3, 4, 2), 0, 0]) if len(found) else boxes((2, 2, 6, 6)) for found in drawn
    ]
    maps = np.stack([draw_boxes(found, SHAPE) for found in shown]).astype(np.float32)
    maps *= rng.uniform(0.2, 1, (count, 1, 1)).astype(np.float32)
    return maps, drawn, rng.uniform(0.5, 1, count), np.arange(count) // 2


def test_intervals_are_those_of_images_repeated_as_their_patients_are_drawn():
    maps, drawn, probs, patients = blurred_case()
    measured = measure_localisation(maps, drawn, probs, patients)
    found, peaks = zip(*map(find_boxes, maps), strict=True)
    scores = [peak * prob for peak, prob in zip(peaks, probs, strict=True)]

    def precision(rows):
        return {"ap": average_precision(match_boxes(*([one[i] for i in rows] for one in (drawn, found, scores))))}

    behind = len(set(patients[[len(one) > 0 for one in drawn]]))
    expected = bootstrap_statistic(precision, patients, {"ap": (0, 1)}, behind=behind)["ap"]
    ap = measured.scores["map"]["average_precision"]
    assert (ap.value, ap.low, ap.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert 0 < ap.low < ap.value < ap.high < 1

    table = measured.rows
    gap = (table["map_iou"] - table["centre_iou"]).to_numpy()
    expected = bootstrap_statistic(lambda rows: {"gap": gap[rows].mean()}, table["patient"], {})["gap"]
    gain = measured.gains["centre"]["iou"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_false_boxes_on_images_without_any_count_by_their_probability(drawn):
    maps = np.stack([draw_boxes(found if len(found) else boxes((2, 2, 5, 5)), SHAPE) for found in drawn])
    sure = np.array([0.9 if len(found) else 0.1 for found in drawn])
    right, wrong = (
        measure_localisation(maps.astype(np.float32), drawn, probs, range(12)).scores["map"]["average_precision"]
        for probs in (sure, 1 - sure)
    )
    assert right.value == 1
    assert wrong.value < 0.8


def test_what_cannot_be_scored_is_told():
    maps = np.ones((2, *SHAPE), np.float32)
    with pytest.raises(DataError, match=r"expected maps \(N, H, W\) and boxes of N images, got \(2, 24, 32\) and 1"):
        score_maps(maps, [boxes((0, 0, 4, 4))])
    with pytest.raises(DataError, match="expected at least one box in each image, got images without"):
        score_maps(maps, [boxes((0, 0, 4, 4)), boxes()])
    with pytest.raises(DataError, match="expected images with boxes, got none; choose more images"):
        measure_localisation(maps, [boxes(), boxes()], np.ones(2), ["a", "b"])
