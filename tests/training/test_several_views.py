"""Test-time augmentation in a run: what is evaluated, bundled and predicted is one and the same answer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxr.data.identity import hash_ids, load_salt
from cxr.data.readers import make_phantom_samples
from cxr.errors import ConfigError, WeightsError
from cxr.evaluation.predictions import read_predictions
from cxr.imaging.image import read_pixels
from cxr.inference.bundle import load_net, write_bundle
from cxr.inference.saliency import METHODS, make_maps
from cxr.models.views import SeveralViews, single_view
from cxr.training.assemble import assemble
from cxr.training.fit import fit


@pytest.fixture(scope="module")
def finished(compose_run, tmp_path_factory):
    """(run folder, predictor of its bundle, paths and table of its test part)."""
    config = compose_run(tmp_path_factory.mktemp("views") / "run", "tta=light", "ema=0.9", "trainer.max_epochs=1")
    folder = fit(config).run_dir
    table, _ = read_predictions(folder / "predictions_test.csv")
    raw = make_phantom_samples(config.data.root, cohort=config.data.cohort)
    raw["hashed"] = hash_ids(raw["sample_id"], load_salt(Path(config.paths.cache_dir)))
    paths = table.merge(raw, left_on="sample_id", right_on="hashed", validate="one_to_one")["image_path"].tolist()
    return folder, load_net(folder / "bundle"), paths, table


def test_the_bundle_answers_by_views_as_the_run_was_evaluated(finished):
    folder, predictor, paths, table = finished
    assert json.loads((folder / "bundle" / "bundle.json").read_text())["tta"] == "light"
    assert isinstance(predictor.net, SeveralViews)
    probs = predictor.predict(paths)[["prob_0", "prob_1"]].to_numpy()
    np.testing.assert_allclose(probs, table[["prob_0", "prob_1"]], atol=1e-4)


def test_embeddings_are_of_the_image_itself_and_probabilities_of_the_views(finished):
    _, predictor, paths, table = finished
    stored = np.stack([predictor.preprocess.store(read_pixels(path)) for path in paths[:6]])
    embeddings, probs = predictor.embed_stored(stored)
    np.testing.assert_allclose(probs, table[["prob_0", "prob_1"]].to_numpy()[:6], atol=1e-4)
    plain, _ = _single(predictor).embed_stored(stored)
    np.testing.assert_allclose(embeddings, plain, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_maps_explain_the_image_as_it_is(finished, method):
    _, predictor, paths, _ = finished
    stored = np.stack([predictor.preprocess.store(read_pixels(path)) for path in paths[:2]])
    maps = make_maps(predictor, stored, [0, 1], method)
    np.testing.assert_allclose(maps, make_maps(_single(predictor), stored, [0, 1], method), atol=1e-5)


def _single(predictor):
    return replace(predictor, net=single_view(predictor.net))


def test_a_bundle_without_views_says_so_and_one_of_unknown_views_is_refused(finished, tmp_path):
    folder, predictor, _, _ = finished
    description = json.loads((folder / "bundle" / "bundle.json").read_text())
    write_bundle(
        tmp_path / "plain", single_view(predictor.net), description["net"], predictor.class_names,
        predictor.preprocess, {},
    )  # fmt: skip
    path = tmp_path / "plain" / "bundle.json"
    description = json.loads(path.read_text())
    assert description["tta"] is None
    path.write_text(json.dumps(description | {"tta": "heavy"}))
    with pytest.raises(WeightsError, match="expected tta to be one of light, got 'heavy'"):
        load_net(tmp_path / "plain")


def test_unknown_views_are_refused_before_anything_is_read(compose_run, tmp_path):
    with pytest.raises(ConfigError, match="tta must be null or one of light, but got 'heavy'"):
        assemble(compose_run(tmp_path / "run", "tta=heavy"))
