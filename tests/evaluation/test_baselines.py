import numpy as np
import pandas as pd
import pytest
from scipy.signal import correlate2d
from sklearn.metrics import roc_auc_score

from cxr.errors import DataError
from cxr.evaluation.baselines import POOLED, SIDE, WINDOW, describe_by_random_filters, fit_baselines

CLASSES = ["normal", "pneumonia", "covid"]


def make_samples(n=600, classes=2, told=True, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.choice(classes, n, p=[0.6, *[0.4 / (classes - 1)] * (classes - 1)])
    samples = pd.DataFrame({"label": label, "split": rng.choice(["train", "val", "test"], n, p=[0.6, 0.2, 0.2])})
    if told:
        samples["age"] = np.where(rng.random(n) < 0.2, np.nan, rng.normal(50, 10, n) + 12 * label)
        samples["sex"] = rng.choice(["F", "M", None], n)
        samples["source"] = np.where(rng.random(n) < 0.8, label, 0).astype(str)
    return samples


def draw_images(label, size=64, seed=0):
    """Noise with a fine texture on images of class 1."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 190, (len(label), size, size)).astype(np.uint8)
    stripes = (np.arange(size) // 4 % 2 * 60).astype(np.uint8)
    images[label == 1] += stripes
    return images


def score(baseline, samples, part):
    return roc_auc_score(samples["label"][samples["split"] == part], baseline.probs[part][:, 1])


def test_each_baseline_gives_probabilities_for_the_held_out_rows():
    samples = make_samples(classes=3)
    found = fit_baselines(samples, CLASSES, draw_images(samples["label"].to_numpy()))
    assert [one.name for one in found] == ["majority", "metadata", "random_features"]
    for one in found:
        assert one.omitted == ""
        for part in ("val", "test"):
            assert one.probs[part].shape == ((samples["split"] == part).sum(), 3)
            np.testing.assert_allclose(one.probs[part].sum(axis=1), 1)


def test_the_majority_has_the_shares_of_train():
    samples = make_samples()
    majority = fit_baselines(samples, CLASSES[:2])[0]
    share = samples.loc[samples["split"] == "train", "label"].mean()
    np.testing.assert_allclose(majority.probs["test"], np.tile([1 - share, share], (len(majority.probs["test"]), 1)))


def test_metadata_that_tells_the_class_is_found_and_chance_is_not():
    samples = make_samples()
    assert score(fit_baselines(samples, CLASSES[:2])[1], samples, "test") > 0.85
    shuffled = samples.assign(label=np.random.default_rng(1).permutation(samples["label"]))
    assert score(fit_baselines(shuffled, CLASSES[:2])[1], shuffled, "test") == pytest.approx(0.5, abs=0.15)


def test_random_features_see_a_texture_that_the_mean_does_not_show():
    samples = make_samples(told=False)
    images = draw_images(samples["label"].to_numpy())
    images = (images - images.mean(axis=(1, 2), keepdims=True) + 125).clip(0, 255).astype(np.uint8)
    found = fit_baselines(samples, CLASSES[:2], images)[2]
    assert score(found, samples, "test") > 0.9


def test_held_out_labels_play_no_part():
    samples = make_samples()
    images = draw_images(samples["label"].to_numpy())
    changed = samples.assign(label=samples["label"].where(samples["split"] == "train", 0))
    for one, other in zip(
        fit_baselines(samples, CLASSES[:2], images), fit_baselines(changed, CLASSES[:2], images), strict=True
    ):
        np.testing.assert_array_equal(one.probs["test"], other.probs["test"])


def test_random_features_against_a_convolution_by_scipy():
    small = np.random.default_rng(0).random((3, SIDE, SIDE)).astype(np.float32)
    filters = np.random.default_rng(7).standard_normal((WINDOW * WINDOW, 64)).astype(np.float32)
    filters -= filters.mean(axis=0)
    found = describe_by_random_filters(small, seed=7).reshape(3, POOLED, POOLED, 64)
    for k in (0, 63):
        answer = np.maximum(correlate2d(small[1], filters[:, k].reshape(WINDOW, WINDOW), mode="valid"), 0)
        pooled = answer.reshape(POOLED, 7, POOLED, 7).mean(axis=(1, 3))
        np.testing.assert_allclose(found[1, :, :, k], pooled, rtol=1e-4, atol=1e-5)


def test_brightness_alone_does_nothing():
    flat = np.stack([np.full((SIDE, SIDE), value, np.float32) for value in (0.2, 0.9)])
    np.testing.assert_allclose(describe_by_random_filters(flat, seed=0), 0, atol=1e-4)


def test_the_seed_decides():
    samples = make_samples(told=False)
    images = draw_images(samples["label"].to_numpy())
    one, same, other = (fit_baselines(samples, CLASSES[:2], images, seed)[2].probs["test"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_what_cannot_be_made_is_told():
    found = fit_baselines(make_samples(told=False), CLASSES[:2])
    assert [one.omitted for one in found] == ["", "the table tells nothing but labels", "no images were given"]
    assert [one.probs for one in found[1:]] == [{}, {}]


def test_a_class_that_train_does_not_have_gets_no_probability():
    samples = make_samples(classes=3)
    samples.loc[(samples["split"] == "train") & (samples["label"] == 1), "split"] = "test"
    found = fit_baselines(samples, CLASSES)[1].probs["test"]
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_a_part_without_rows_is_left_out():
    samples = make_samples()
    assert list(fit_baselines(samples[samples["split"] != "val"], CLASSES[:2])[0].probs) == ["test"]


@pytest.mark.parametrize(
    ("change", "images", "message"),
    [
        (
            lambda table: table.drop(columns="split"),
            None,
            r"columns label and split in the samples, got no \['split'\]",
        ),
        (lambda table: table.assign(label=table["label"] + 1), None, "labels from 0 to 1 in every row"),
        (lambda table: table.assign(label=0), None, "two classes or more in train to fit baselines on"),
        (lambda table: table, np.zeros((3, 8, 8), np.uint8), "one image for each of 600 samples, got 3"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, images, message):
    with pytest.raises(DataError, match=message):
        fit_baselines(change(make_samples()), CLASSES[:2], images)
