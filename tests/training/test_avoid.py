"""Pretraining that must not see a target's validation and test images: from one run folder to another run's cohort."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cxr.data.identity import hash_ids, load_salt
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.tree import write_folder_cohort
from cxr.errors import DataError
from cxr.training.fit import fit
from cxr.training.sources import read_avoided, read_cohort

NO_COPIES = {"exact_duplicates": 0, "near_duplicates": 0, "second_images": 0, "repeat_patients": 0}
WORDS = ("data=image_folder", "preprocess.size=[128,128]", "data.fractions=[0.5,0.25,0.25]", "trainer.max_epochs=1")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(target, union): chests of 24 people; 16 other people, and all of the target, as files or developed anew."""
    root = tmp_path_factory.mktemp("folders")
    for seed, studies, name in ((1, 24, "target"), (2, 16, "union")):
        spec = CohortSpec(studies=studies, size=192, seed=seed, prevalence=(0.5, 0.5, 0.0, 0.0), **NO_COPIES)
        write_folder_cohort(spec, root / name, None, 0.0)
    for number, path in enumerate(sorted((root / "target").rglob("*.png"))):
        copy = root / "union" / path.parent.name / f"copy_of_{path.stem}"
        if number % 2:
            shutil.copy(path, copy.with_suffix(".png"))
        else:
            developed = Image.open(path).convert("L").point(lambda value: min(255, int(1.1 * value + 8)))
            developed.save(copy.with_suffix(".jpg"), quality=70)
    return root / "target", root / "union"


@pytest.fixture(scope="module")
def compose_folder(compose_run):
    def composed(folder, root, *overrides):
        return compose_run(folder, *WORDS, f"data.root={root}", *overrides, without=("data.cohort",))

    return composed


@pytest.fixture(scope="module")
def trained(compose_folder, folders, tmp_path_factory):
    """(run on the target, salt of its ids)."""
    config = compose_folder(tmp_path_factory.mktemp("trained") / "run", folders[0])
    return fit(config).run_dir, load_salt(Path(config.paths.cache_dir))


def test_a_union_holds_the_training_part_of_the_target_and_none_of_the_others(
    trained, folders, compose_folder, tmp_path
):
    run, salt = trained
    cohort = read_cohort(compose_folder(tmp_path / "union", folders[1], f"data.avoid={run}"))
    copied = cohort.samples["image_path"].str.extract(r"/([^/]+)/copy_of_(.*)\.")
    kept = set(hash_ids((copied[0] + "/" + copied[1]).dropna(), salt))
    parts = pd.read_csv(run / "split.csv").set_index("sample_id")["split"]
    assert kept == set(parts.index[parts == "train"])
    held = int((parts != "train").sum())
    assert (cohort.report["avoided"]["images"], cohort.report["avoided"]["left_out"]) == (held, held)
    assert copied[0].isna().sum() == 16
    assert set(cohort.report["avoided"]["pairs"]) == {"file", "near"}


def test_what_is_avoided_is_validation_and_test(trained):
    run, salt = trained
    parts = pd.read_csv(run / "split.csv").set_index("sample_id")["split"]
    avoided = read_avoided(run, salt)
    assert set(hash_ids(avoided["sample_id"], salt)) == set(parts.index[parts.isin(["val", "test"])])


def test_of_folds_everything_is_avoided(trained, tmp_path):
    run, salt = trained
    parts = pd.read_csv(run / "split.csv")
    for name, shown in (("fold_0", "val"), ("fold_1", "train")):
        (tmp_path / name).mkdir()
        shutil.copy(run / "config.yaml", tmp_path / name)
        held = parts["split"].map({shown: "test"}).fillna("train")
        parts.assign(split=held).to_csv(tmp_path / name / "split.csv", index=False)
    avoided = read_avoided(tmp_path, salt)["sample_id"]
    assert sorted(hash_ids(avoided, salt)) == sorted(parts.loc[parts["split"].isin(["val", "train"]), "sample_id"])


@pytest.mark.parametrize("absent", ["config.yaml", "split.csv"])
def test_what_is_no_run_folder_is_refused(trained, tmp_path, absent):
    run, salt = trained
    for name in ("config.yaml", "split.csv"):
        if name != absent:
            shutil.copy(run / name, tmp_path / name)
    with pytest.raises(DataError, match=f"data.avoid must be the folder of a run, but .* has no {absent}; train that"):
        read_avoided(tmp_path, salt)
