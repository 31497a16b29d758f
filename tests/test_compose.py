import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from cxr.compose import compose_config, find_configs, open_data
from cxr.errors import ConfigError, DataError

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.filterwarnings("ignore:the test part has")


@pytest.fixture
def folder(tmp_path):
    """60 images in two class folders, and the overrides that name them."""
    for number in range(60):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    return ["data=image_folder", f"data.root={tmp_path}/data", "net=custom_cnn", f"paths.cache_dir={tmp_path}/cache"]


def test_the_words_of_training_give_its_dataset_and_its_cohort(folder):
    source = open_data([*folder, "preprocess.size=[32,32]", "data.fractions=[0.5,0.25,0.25]"])
    assert source.name == "image_folder"
    assert source.dataset.class_names == ["a", "b"]
    cohort = source.make_cohort()
    assert cohort.samples["split"].value_counts().to_dict() == {"train": 30, "val": 15, "test": 15}
    stored = source.images.open(cohort.samples["image_path"].tolist(), cohort.samples["content_hash"].tolist())
    assert stored[np.arange(2)].shape == (2, 32, 32)


def test_a_recipe_does_not_cut_the_dataset_but_the_command_line_does(folder):
    limited = [*folder, "data.limit=20"]
    assert len(open_data(folder).make_cohort().samples) == 60
    assert len(open_data(limited).make_cohort().samples) == 20


def test_nothing_is_written_where_runs_are(folder, tmp_path):
    open_data([*folder, f"paths.log_dir={tmp_path}/logs"]).make_cohort()
    assert not (tmp_path / "logs").exists()


def test_the_split_of_a_run_is_kept(folder, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    samples = open_data(folder).make_cohort().samples
    parts = [("train", "val", "test")[number // 2 % 3] for number in range(60)]
    lines = [f"{sample},{part}" for sample, part in zip(samples["sample_id"], parts, strict=True)]
    (run / "split.csv").write_text("\n".join(["sample_id,split", *lines]))
    cohort = open_data([*folder, f"ckpt_path={run}/checkpoints/last.ckpt"]).make_cohort()
    assert cohort.samples["split"].tolist() == parts


WRONG = {
    "unknown option": ("data=foo", r"expected overrides as for train\.py, but .*Could not find 'data/foo'.*chest_xray"),
    "unknown key": ("data.rot=5", r"expected overrides as for train\.py, but Could not override 'data\.rot'"),
    "an option that others build on": ("data=foo", r"Available options in 'data': chest_xray"),
    "no override": ("foo==", r"but got 'foo=='; write them as group=option or key=value$"),
    "missing value": ("data=image_folder", r"the config cannot be resolved at data\.root"),
    "wrong value": ("data.batch_size=0", r"data\.batch_size must be a whole number >= 1, but got 0"),
}


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG)
def test_wrong_overrides_are_one_sentence(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        open_data([override])
    assert "\n" not in str(caught.value)
    assert "search path" not in str(caught.value)
    assert not GlobalHydra.instance().is_initialized()


def test_a_dataset_that_is_not_there_is_the_readers_sentence(tmp_path):
    with pytest.raises(DataError, match="but there is no such folder"):
        open_data(["data=image_folder", f"data.root={tmp_path}/none"])


def test_a_composed_config_is_that_of_a_run():
    name, config = compose_config(["data=chest_xray"])
    assert name == "chest_xray"
    assert "hydra" not in config


def test_configs_are_found_beside_the_source_then_in_the_working_folder(tmp_path, monkeypatch):
    assert find_configs() == ROOT / "configs"
    monkeypatch.setattr("cxr.compose.SOURCE_TREE", tmp_path / "installed")
    monkeypatch.chdir(ROOT)
    assert find_configs() == ROOT / "configs"


def test_absent_configs_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("cxr.compose.SOURCE_TREE", tmp_path / "installed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"expected the project's configs in .*installed/configs or .*; run the"):
        compose_config([])


def test_looking_at_data_imports_no_torch(folder):
    code = (
        "import sys, cxr.commands.data, cxr.data.report.collect, cxr.data.report.page; "
        f"cxr.commands.data.open_data({folder!r}).make_cohort(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
