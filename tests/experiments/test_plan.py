import shlex

import pandas as pd
import pytest
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cxr.errors import ConfigError, DataError
from cxr.experiments import plan
from cxr.experiments.plan import PlanFolder, PlannedRun, recipe_words, word


def make_config(**changes):
    values = {
        "plan": {"name": "seeds", "seeds": [0, 1], "jobs": 1, "folder": None},
        "optimizer": {"lr": 0.1},
        "paths": {"log_dir": "logs"},
        "data": {"root": "${paths.log_dir}/data", "num_workers": 0},
    }
    config = OmegaConf.create(values)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config


def make_runs(label=0, split="train"):
    samples = pd.DataFrame({
        "sample_id": ["a", "b"], "label": [0, label], "content_hash": ["1", "2"], "split": [split, "test"],
    })  # fmt: skip
    return [PlannedRun("seed_0", samples, ["x", "y"]), PlannedRun("seed_1", samples, ["x", "y"])]


@pytest.fixture
def folder(tmp_path):
    folder = PlanFolder(tmp_path / "plan")
    with folder.locked():
        folder.begin(make_config(), make_runs(), salt=None)
    return folder


def test_every_run_has_its_split(folder):
    split = pd.read_csv(folder.split("seed_1"))
    assert split[["sample_id", "split"]].to_numpy().tolist() == [["a", "train"], ["b", "test"]]


def test_the_record_tells_which_plan_it_is_and_its_runs(folder):
    assert (folder.kind(), folder.run_names()) == ("seeds", ["seed_0", "seed_1"])


def test_a_new_folder_takes_any_settings(tmp_path):
    PlanFolder(tmp_path).check_same_settings(make_config())


def test_places_and_pace_may_change(folder):
    folder.check_same_settings(
        make_config(plan__jobs=2, plan__folder="there", paths__log_dir="elsewhere", data__num_workers=2)
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"optimizer__lr": 0.2}, "optimizer.lr was 0.1 and is 0.2"),
        ({"plan__seeds": [0, 2]}, r"plan.seeds was \[0, 1\] and is \[0, 2\]"),
        ({"plan__name": "cv"}, "plan.name was seeds and is cv"),
        ({"data__root": "other"}, "data.root was .*paths.log_dir.*/data and is other"),
    ],
    ids=["recipe", "runs", "another plan", "data"],
)
def test_other_settings_are_refused(folder, changes, told):
    with pytest.raises(
        ConfigError, match=f"was started with others: {told}; repeat its first command with plan.folder"
    ):
        folder.check_same_settings(make_config(**changes))


def test_the_same_data_leave_the_splits_alone(folder):
    before = folder.split("seed_0").stat().st_mtime_ns
    folder.begin(make_config(), make_runs(), salt=None)
    assert folder.split("seed_0").stat().st_mtime_ns == before


@pytest.mark.parametrize("runs", [make_runs(label=1), make_runs(split="val"), make_runs()[:1]])
def test_other_data_are_refused(folder, runs):
    with pytest.raises(DataError, match="the images or labels are not those that the plan in .* was started with"):
        folder.begin(make_config(), runs, salt=None)


@pytest.mark.parametrize("text", ["config: [", "", "- a\n- b"])
def test_a_damaged_record_is_told(folder, text):
    folder.record.write_text(text)
    with pytest.raises(DataError, match="plan.yaml is damaged .*; start a new plan without plan.folder"):
        folder.check_same_settings(make_config())


def test_a_second_process_is_kept_out(folder, monkeypatch):
    monkeypatch.setattr(plan, "LOCK_SECONDS", 0.1)
    with FileLock(folder.root / ".lock"), pytest.raises(ConfigError, match="another process is running the plan in"):
        folder.locked().__enter__()


def test_words_of_the_plan_are_left_out_and_others_are_not():
    words = shlex.split("experiment=demo plan=cv plan.folds=5 +plan.more=1 ++plan.jobs=2 planner=1 ~callbacks a=plan=b")
    assert recipe_words(words) == ["experiment=demo", "planner=1", "~callbacks", "a=plan=b"]


@pytest.mark.parametrize("text", ["/a b/c", "it's", "a,b", "[x]", "{y}=z", "ünïcode", "a:b", "*"])
def test_a_quoted_word_arrives_as_it_is(text):
    override = OverridesParser.create().parse_override(word("run_name", text))
    assert override.key_or_group == "run_name"
    assert str(override.value()) == text


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"], exclude_characters="\\$"), min_size=1)
)
def test_any_path_is_quoted(text):
    assert str(OverridesParser.create().parse_override(word("key", text)).value()) == text
