import io
import re

import numpy as np
import pytest
from PIL import Image

from cxr.commands.predict import Prediction, predict
from cxr.commands.predict_overlays import Overlays, lay_over
from cxr.errors import ConfigError, DataError
from cxr.imaging.resize import undo_fit
from cxr.inference.bundle import load_bundle
from cxr.inference.bundle_folder import find_bundle
from cxr.inference.intake import take_in
from cxr.inference.saliency import make_maps

from ..inference.test_bundle import NAMES, write
from ..inference.test_verdict import Silent


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    write(tmp_path_factory.mktemp("overlays") / "bundle")
    return load_bundle(tmp_path_factory.getbasetemp() / "overlays0" / "bundle")


def take(predictor, path, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return take_in(path, predictor.preprocesses, 45)


def test_a_clear_map_shows_the_picture_and_a_full_one_three_quarters_of_its_colour():
    picture = np.full((2, 3), 100, np.uint8)
    np.testing.assert_array_equal(lay_over(picture, np.zeros((2, 3))), np.full((2, 3, 3), 100))
    brightest = np.array([253, 231, 37])  # the last colour of viridis
    np.testing.assert_allclose(lay_over(picture, np.ones((2, 3)))[0, 0], 25 + 0.75 * brightest, atol=1)


def test_pictures_show_the_map_of_the_answer_in_their_own_proportions(predictor, tmp_path):
    intakes = [take(predictor, tmp_path / f"Doe_Jane_{seed}.png", seed) for seed in range(len(NAMES))]
    stored = np.stack([one.stored[0] for one in intakes])
    drawn = Overlays(tmp_path / "new" / "maps", predictor).draw([7, 8, 12], intakes, [stored], np.eye(len(NAMES)))
    maps = make_maps(predictor, stored, range(len(NAMES)))
    assert maps.any()
    for name, intake, one in zip(drawn, intakes, maps, strict=True):
        covered = np.asarray(Image.open(tmp_path / "new" / "maps" / name))
        whole = undo_fit(one, (45, 30), predictor.preprocess.aspect)
        np.testing.assert_array_equal(covered, lay_over(intake.picture, whole))


def test_names_of_pictures_tell_a_number_and_the_content(predictor, tmp_path):
    intake = take(predictor, tmp_path / "Doe_Jane.png", 0)
    overlays, probs = Overlays(tmp_path, predictor), np.eye(len(NAMES))[:1]
    first, second = (overlays.draw([number], [intake], [intake.stored[0][None]], probs)[0] for number in (7, 12))
    assert re.fullmatch("000007_[0-9a-f]{12}.png", first)
    assert first[7:] == second[7:]


def test_pictures_of_an_earlier_call_are_not_predicted(predictor, tmp_path):
    take(predictor, tmp_path / "Doe_Jane.png", 0)
    bundle = find_bundle(tmp_path.parent / "overlays0")
    settings = Prediction([str(tmp_path)], bundle, form="jsonl", overlays=tmp_path, workers=0)
    for skipped in ({}, {"overlay": 1}):
        summary = predict(settings, io.StringIO(), io.StringIO())
        assert (summary.predicted, dict(summary.skipped)) == (1, skipped)


def test_a_model_without_a_net_has_no_maps(tmp_path):
    with pytest.raises(ConfigError, match="expected a model with a net in it"):
        Overlays(tmp_path, Silent(class_names=["a", "b"]))


def test_a_folder_that_cannot_be_made(predictor, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected a folder for overlays, but .* is none"):
        Overlays(tmp_path / "file", predictor)
