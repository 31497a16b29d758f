"""Folders of runs and of cross-validations as training leaves them, with untrained nets and made-up predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cxr.data.splits import SPLIT_FILE
from cxr.evaluation.predictions import make_predictions, write_predictions
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import write_bundle
from cxr.models.build import build_net

NAMES = ["well", "ill"]
NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
SIZES = {"train": 40, "val": 60, "test": 80}


def make_samples(parts=SIZES):
    """One row per patient, classes in turn."""
    split = np.repeat(list(parts), list(parts.values()))
    ids = [f"s{number:03d}" for number in range(len(split))]
    label = np.arange(len(split)) % 2
    return pd.DataFrame({"sample_id": ids, "patient_id": ids, "label": label, "split": split})


def draw_logits(samples, strength, seed):
    logits = np.random.default_rng(seed).normal(size=(len(samples), 2))
    logits[np.arange(len(samples)), samples["label"]] += strength
    return logits


def write_run(folder: Path, samples, strength=1.0, seed=0, names=NAMES, parts=("val", "test"), **config):
    """A finished run; `names` in another order turn its columns and labels round."""
    folder.mkdir(parents=True)
    told = {"run_name": "recipe", "study_name": None, "seed": 0, "hash_ids": True,
            "operating_point": "sensitivity >= 0.9", "net": {"name": "custom_cnn"},
            "data": {"split_file": None, "reader": {"_target_": "reader"}},
            "paths": {"log_dir": str(folder.parent)}}  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(told | config))
    (folder / "environment.txt").write_text("python==3.11\n")
    report = {
        "classes": NAMES, "findings": {"ill": 90, "well": 90}, "findings_left_out": 0,
        "unreadable_files": {"count": 0}, "undecodable_files": {"count": 0}, "missing_patient_ids": 0,
        "exact_duplicates": {"extra_files": 0}, "views": {}, "from_split_file": False, "fingerprint": "abc",
        "images": {"test": {"well": 40, "ill": 40}}, "patients": {"test": 80}, "test_fingerprint": "tested",
    }  # fmt: skip
    (folder / "data_report.json").write_text(json.dumps(report))
    samples[["sample_id", "patient_id", "split", "label"]].to_csv(folder / SPLIT_FILE, index=False)
    for part in parts:
        rows = samples[samples["split"] == part]
        order = [NAMES.index(name) for name in names]
        logits = draw_logits(rows, strength, seed)[:, order]
        rows = rows.assign(label=np.argsort(order)[rows["label"]])
        write_predictions(make_predictions(rows, logits, list(names), part, folder.name), list(names),
                          folder / f"predictions_{part}.csv")  # fmt: skip
    torch.manual_seed(seed)
    write_bundle(folder / "bundle", build_net(num_classes=2, **NET), NET, list(names), Preprocess(size=(32, 32)),
                 {"parameters": 10})  # fmt: skip
    return folder


def write_recipe(folder: Path, strength=1.0, seed=0, folds=3, name="cv", fold_of=None):
    """A finished cross-validation of 90 rows."""
    samples = make_samples({"train": 90})
    fold_of = np.random.default_rng(0).permutation(np.arange(90) // 2 % folds) if fold_of is None else fold_of
    tables, runs = [], []
    for fold in range(folds):
        split = samples.assign(split=np.where(fold_of == fold, "test", "train"))
        run = write_run(folder / f"fold_{fold}", split, strength, 10 * seed + fold, parts=("test",), study_name=name)
        tables.append(pd.read_csv(run / "predictions_test.csv", dtype={"sample_id": str}).assign(fold=fold))
        runs.append(run.name)
    write_predictions(pd.concat(tables), NAMES, folder / "predictions_oof.csv")
    (folder / "plan.yaml").write_text(yaml.safe_dump({"config": {"plan": {"name": "cv"}}}))
    pd.DataFrame({"run": runs}).to_csv(folder / "runs.csv", index=False)
    return folder


@pytest.fixture
def samples():
    return make_samples()


@pytest.fixture
def make_run(tmp_path, samples):
    """make_run(name, **settings): a run on the split of the fixture `samples`."""
    return lambda name, **settings: write_run(tmp_path / name, settings.pop("samples", samples), **settings)


@pytest.fixture
def make_recipe(tmp_path):
    """make_recipe(name, **settings): a cross-validation."""
    return lambda name, **settings: write_recipe(tmp_path / name, name=name, **settings)
