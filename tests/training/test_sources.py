import shutil

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from cxr.data.identity import hash_ids
from cxr.errors import DataError
from cxr.experiments.cv import CrossValidation
from cxr.training.sources import read_avoided, read_cohort, read_learnt, read_pool


@pytest.fixture(scope="module")
def config(compose_run, lab):
    return compose_run(lab / "sources")


def test_the_pool_of_a_run_is_its_cohort_not_divided(config):
    cohort = read_cohort(config)
    samples, class_names = read_pool(config)
    assert class_names == cohort.class_names
    assert set(samples["sample_id"]) == set(cohort.samples["sample_id"])


def test_folds_of_a_config_take_validation_in_its_proportion(config):
    runs = CrossValidation(2, 1).runs(config)
    left = runs[0].samples.query("split != 'test'")["split"].value_counts(normalize=True)
    assert left["val"] == pytest.approx(1 / 3, abs=0.05)


PARTS = {"train/a/1": "train", "train/a/2": "val", "train/b/3": "train", "train/b/4": "test"}
OFFICIAL = ("test/a/5", "test/b/6")
SALT = "a salt of tests"


@pytest.fixture
def make_folder(compose_run, tmp_path):
    """make_folder(name, *overrides): a run or fold that divided a train part and took nothing of the test part."""
    for number, name in enumerate([*PARTS, *OFFICIAL]):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(path)

    def made(name, *overrides):
        words = ("data=image_folder", f"data.root={tmp_path}/images", *overrides)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        OmegaConf.save(compose_run(folder, *words, without=("data.cohort",)), folder / "config.yaml", resolve=True)
        parts = pd.DataFrame({"sample_id": hash_ids(pd.Series(list(PARTS)), SALT), "split": PARTS.values()})
        parts.to_csv(folder / "split.csv", index=False)
        return folder

    return made


def ids(samples):
    return sorted(samples["sample_id"])


def test_a_test_part_that_folds_do_not_take_is_avoided_too(make_folder):
    run = make_folder("plan/fold_0")
    assert ids(read_avoided(run, SALT)) == sorted(["train/a/2", "train/b/4", *OFFICIAL])
    assert ids(read_avoided(run.parent, SALT)) == ids(read_avoided(run, SALT))


def test_a_net_has_learnt_training_and_validation_and_what_it_started_from(make_folder, tmp_path):
    first = make_folder("first")
    assert ids(read_learnt(first, SALT)) == ["train/a/1", "train/a/2", "train/b/3"]
    shutil.copytree(tmp_path / "images", tmp_path / "others")
    second = make_folder("second", f"data.root={tmp_path}/others", f"transfer.init_from={first}/bundle")
    paths = read_learnt(second, SALT)["image_path"]
    assert paths.str.contains("/images/").sum() == paths.str.contains("/others/").sum() == 3


def test_a_bundle_away_from_its_run_tells_nothing(tmp_path):
    with pytest.raises(DataError, match="the folder of a bundle must be the folder of a run, but .* no config.yaml"):
        read_learnt(tmp_path, SALT)
