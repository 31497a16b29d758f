import numpy as np
import pytest

from cxr.errors import DataError, WeightsError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import OUTLIERS, Fitted, load_bundle, write_bundle
from cxr.inference.outliers import LEAST_IMAGES, OutlierScorer, describe, fit_outliers
from cxr.models.build import build_net

NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}


def make_chests(count, seed):
    """Two dark ovals on a bright ground, at places, sizes and brightnesses that vary: (count, 48, 48) uint8."""
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :48]
    images = []
    for _ in range(count):
        shift, height, width = draws.normal(0, 1.5, 2), draws.normal(14, 1), draws.normal(7, 0.5)
        lungs = [
            ((rows - 24 - shift[0]) / height) ** 2 + ((columns - middle - shift[1]) / width) ** 2 < 1
            for middle in (14, 34)
        ]
        image = np.where(lungs[0] | lungs[1], 60, 190) + draws.normal(0, 8, rows.shape) + draws.normal(0, 10)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return np.array(images)


@pytest.fixture(scope="module")
def scorer():
    train, validation = make_chests(400, 0), make_chests(300, 1)
    return fit_outliers(iter([train[:100], train[100:]]), [validation])


def test_others_of_the_kind_are_below_one_and_other_things_above(scorer):
    fresh = make_chests(500, 2)
    assert (scorer.score(fresh) > 1).mean() < 0.04
    rows = np.linspace(0, 255, 48)
    leg = np.where(np.abs(np.arange(48) - 24) < 6, 200, 10)[None].repeat(48, axis=0)
    others = [leg, 255 - fresh[0], np.rot90(fresh[1]), rows[:, None].repeat(48, axis=1), np.full((48, 48), 7)]
    scores = scorer.score(np.array([np.array(other, np.uint8) for other in others]))
    assert (scores[:4] > 1).all(), scores


def test_negatives_are_found_and_nothing_else(scorer):
    fresh = make_chests(200, 2)
    assert scorer.find_inverted(255 - fresh).all()
    assert not scorer.find_inverted(fresh).any()
    assert not scorer.find_inverted(np.full((1, 48, 48), 7, np.uint8)).any()


def test_brightness_and_contrast_play_no_part(scorer):
    chest = make_chests(1, 3)
    darker = (chest // 2 + 10).astype(np.uint8)
    np.testing.assert_allclose(scorer.score(darker), scorer.score(chest), rtol=0.15)


def test_thumbnails_are_standardised_and_flat_ones_stay_finite():
    described = describe(np.concatenate([make_chests(2, 0), np.zeros((1, 48, 48), np.uint8)]))
    np.testing.assert_allclose(described.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(described.std(axis=1), [1, 1, 0], atol=1e-6)
    assert describe(np.zeros((0, 48, 48), np.uint8)).shape == (0, 256)


def test_sixteen_bits_are_scored_alike(scorer):
    chest = make_chests(3, 4)
    np.testing.assert_allclose(scorer.score(chest.astype(np.uint16) * 257), scorer.score(chest), rtol=1e-6)


def test_the_distance_is_that_of_the_gaussian(scorer):
    """Against the quadratic form with the whole covariance matrix."""
    described = describe(make_chests(5, 5))
    inside = scorer.components.T @ scorer.components
    outside = np.eye(len(scorer.mean)) - inside
    inverse = scorer.components.T @ np.diag(1 / scorer.variances) @ scorer.components + outside / scorer.rest
    centred = described - scorer.mean
    expected = np.einsum("ni,ij,nj->n", centred, inverse, centred) / scorer.threshold
    np.testing.assert_allclose(scorer.score(make_chests(5, 5)), expected, rtol=1e-6)


def test_too_few_images_know_nothing():
    assert fit_outliers([make_chests(LEAST_IMAGES - 1, 0)], [make_chests(5, 1)]) is None


def write(folder, scorer):
    preprocess = Preprocess(size=(48, 48))
    write_bundle(
        folder, build_net(num_classes=2, **NET), NET, ["a", "b"], preprocess, {}, fitted=Fitted(outliers=scorer)
    )
    return folder


def test_a_bundle_keeps_it(scorer, tmp_path):
    predictor = load_bundle(write(tmp_path / "bundle", scorer))
    images = make_chests(4, 6)
    np.testing.assert_array_equal(predictor.outliers.score(images), scorer.score(images))
    assert load_bundle(write(tmp_path / "other", None)).outliers is None


def test_a_damaged_file_is_refused(scorer, tmp_path):
    bundle = write(tmp_path / "bundle", scorer)
    content = bytearray((bundle / OUTLIERS).read_bytes())
    content[-1] ^= 1
    (bundle / OUTLIERS).write_bytes(content)
    with pytest.raises(WeightsError, match=r"expected .*outliers.safetensors with SHA-256 .*; copy the bundle again"):
        load_bundle(bundle)
    (bundle / OUTLIERS).unlink()
    with pytest.raises(WeightsError, match=r"expected the weights of the bundle in .*outliers.safetensors"):
        load_bundle(bundle)


def test_other_arrays_are_refused(scorer):
    arrays = scorer.to_arrays()
    with pytest.raises(DataError, match="expected the arrays .* of an outlier score, got"):
        OutlierScorer.from_arrays({**arrays, "mean": arrays["mean"][:5]})
