import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.special import expit

from cxr.errors import ConfigError
from cxr.evaluation.predictions import make_predictions, read_predictions, write_predictions
from cxr.experiments import ovr
from cxr.experiments.ovr import OneVsRest, count_answers
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import load_bundle, write_bundle
from cxr.models.build import build_net
from cxr.training.run_folder import RunFolder

NAMES = ["well", "ill", "very ill"]
COUNT = 600
NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}


def plan_on(monkeypatch, samples, names):
    monkeypatch.setattr(ovr, "read_cohort", lambda config: SimpleNamespace(samples=samples, class_names=names))
    return OneVsRest().runs(None)


def test_every_class_has_a_run_on_one_split(monkeypatch):
    samples = pd.DataFrame({"label": [0]})
    runs = plan_on(monkeypatch, samples, NAMES)
    assert [(run.name, run.overrides) for run in runs] == [
        ("class_0", ("data.one_class='well'",)),
        ("class_1", ("data.one_class='ill'",)),
        ("class_2", ("data.one_class='very ill'",)),
    ]
    assert all(run.samples is samples and run.class_names == NAMES for run in runs)


@pytest.mark.parametrize(
    ("samples", "names"),
    [(pd.DataFrame({"label": [0]}), ["well", "ill"]), (pd.DataFrame({"target_a": [0.0]}), ["a", "b", "c"])],
    ids=["two classes", "several targets"],
)
def test_what_one_net_tells_apart_is_no_plan(monkeypatch, samples, names):
    with pytest.raises(ConfigError, match=f"plan=ovr needs a dataset of three or more classes, .*{', '.join(names)}"):
        plan_on(monkeypatch, samples, names)


def kind_of(numbers):
    """Six tenths of the first class, three of the second."""
    return np.searchsorted([6, 9], numbers % 10, side="right")


@pytest.fixture
def runs(tmp_path):
    """Finished runs of three classes, which are not equally frequent, whose rows come in another order in each."""
    made = []
    rng = np.random.default_rng(0)
    samples = pd.DataFrame({
        "sample_id": [f"s{n:03d}" for n in range(COUNT)], "patient_id": [f"p{n:03d}" for n in range(COUNT)],
        "kind": kind_of(np.arange(COUNT)), "split": np.repeat(["val", "test"], COUNT // 2),
    })  # fmt: skip
    for index, name in enumerate(NAMES):
        folder = tmp_path / f"class_{index}"
        folder.mkdir()
        config = {"run_name": folder.name, "seed": 0, "hash_ids": True, "operating_point": "sensitivity >= 0.9",
                  "data": {"one_class": name, "split_file": None}, "paths": {"log_dir": str(tmp_path)}}  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "environment.txt").write_text("")
        (folder / "data_report.json").write_text(json.dumps({"test_fingerprint": name}))
        samples[["sample_id", "split"]].to_csv(folder / "split.csv", index=False)
        own = samples.assign(label=(samples["kind"] == index).astype(int)).sample(frac=1, random_state=index)
        two = [f"not {name}", name]
        for part in ("val", "test"):
            rows = own[own["split"] == part]
            yes = rng.normal(size=len(rows)) + 3 * rows["label"] - 1.5
            table = make_predictions(rows, np.stack([np.zeros(len(rows)), yes], axis=1), two, part, folder.name)
            write_predictions(table, two, folder / f"predictions_{part}.csv")
        (folder / "metrics.json").write_text(json.dumps({"metrics": {"test/auroc": 0.9}}))
        torch.manual_seed(index)
        write_bundle(folder / "bundle", build_net(num_classes=2, **NET), NET, two, Preprocess(size=(32, 32)), {})
        made.append(RunFolder(folder))
    return made


@pytest.fixture
def no_pages(monkeypatch):
    """Reports take seconds."""
    monkeypatch.setattr(ovr, "write_page", lambda folder: None)


def probs_of(path):
    return read_predictions(path)[0].filter(regex=r"^prob_\d+$").to_numpy()


def test_both_rules_are_told_and_compared(runs, tmp_path, no_pages):
    summary = OneVsRest().reduce(runs, tmp_path)
    assert list(summary.table.columns) == ["one_vs_rest", "one_vs_rest_vote"]
    assert summary.table.loc["test/accuracy"].nunique() == 1
    assert summary.values.index.tolist() == ["class_0", "class_1", "class_2"]
    compared = pd.read_csv(tmp_path / "comparison.csv").set_index(["recipe", "metric"])
    assert compared.loc[("one_vs_rest_vote", "accuracy"), "difference"] == 0
    assert np.isfinite(compared.loc[("one_vs_rest_vote", "auroc"), "low"])
    named = [probs_of(tmp_path / rule / "predictions_test.csv").argmax(axis=1) for rule in summary.table.columns]
    np.testing.assert_array_equal(named[0], named[1])
    assert summary.to_table().row_count > 0
    assert summary.notes[-1].startswith("Of 300 test images one net says yes to ")


def test_a_row_has_its_class_and_the_share_of_its_nets(runs, tmp_path, no_pages):
    OneVsRest().reduce(runs, tmp_path)
    table, names = read_predictions(tmp_path / "one_vs_rest" / "predictions_test.csv")
    assert names == NAMES
    assert (table["target"] == kind_of(table["sample_id"].str[1:].astype(int).to_numpy())).all()
    own = [read_predictions(run.root / "predictions_test.csv")[0].set_index("sample_id") for run in runs]
    yes = np.stack([expit(one.loc[table["sample_id"], "logit_1"]) for one in own], axis=1)
    shares = yes / yes.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(table[["logit_0", "logit_1", "logit_2"]], np.log(shares))
    predictor = load_bundle(tmp_path / "one_vs_rest" / "bundle")
    assert predictor.class_names == NAMES
    config = yaml.safe_load((tmp_path / "one_vs_rest" / "config.yaml").read_text())
    assert config["data"]["one_class"] is None


def test_answers_are_counted():
    yes = np.array([[0.9, 0.1, 0.6], [0.2, 0.1, 0.6]])
    assert count_answers(np.stack([1 - yes, yes], axis=2)) == (
        "Of 3 test images one net says yes to 1, none to 1, several to 1."
    )


@pytest.mark.slow
def test_the_recipe_trains_a_net_per_class_and_they_vote(tiny, tmp_path):
    small = [one for one in tiny if not one.startswith("experiment=")]
    three = ("{Negative for Pneumonia: negative, Typical Appearance: typical, Indeterminate Appearance: indeterminate, "
             "Atypical Appearance: null}")  # fmt: skip
    words = ["experiment=reference_b_ovr", "plan=ovr", "data=phantom", *small, f"data.classes={three}",
             f"hydra.run.dir={tmp_path}/plan", f"paths.log_dir={tmp_path}/logs"]  # fmt: skip
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "run.py", *words], cwd=root, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for rule in ("one_vs_rest", "one_vs_rest_vote"):
        table, names = read_predictions(tmp_path / "plan" / rule / "predictions_test.csv")
        assert names == ["negative", "typical", "indeterminate"]
        assert len(table) > 10
        assert load_bundle(tmp_path / "plan" / rule / "bundle").class_names == names
    runs = sorted((tmp_path / "plan").glob("class_*/config.yaml"))
    configs = [yaml.safe_load(path.read_text()) for path in runs]
    assert [one["data"]["one_class"] for one in configs] == names
    assert {(one["optimizer"]["_target_"], one["net"]["batch_norm"]) for one in configs} == {("torch.optim.SGD", False)}
