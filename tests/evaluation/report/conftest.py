import json

import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.evaluation.ledger import FILE, make_opening, record_opening
from cxr.evaluation.predictions import make_predictions, write_predictions

NAMES = ["well", "ill"]
SIZES = {"train": 120, "val": 90, "test": 100}


def make_part(part, count, class_names=NAMES, strength=2.0, seed=0, patients=True):
    """Predictions of a net of some use: two images to a patient, two groups of sex, ages up to 90."""
    draws = np.random.default_rng([seed, count])
    label = draws.integers(0, len(class_names), count // 2).repeat(2)
    logits = draws.normal(size=(count, len(class_names)))
    logits[np.arange(count), label] += strength
    samples = pd.DataFrame(
        {
            "sample_id": [f"{part}-{row}" for row in range(count)],
            "label": label,
            "sex": draws.choice(["F", "M"], count // 2).repeat(2),
            "age": draws.integers(18, 90, count // 2).repeat(2).astype(float),
        }
    )
    if patients:
        samples["patient_id"] = [f"{part}-{row // 2}" for row in range(count)]
        samples["study_id"] = samples["patient_id"]
    return make_predictions(samples, logits, class_names, part, "a-run")


@pytest.fixture
def tables(tmp_path):
    """Part -> path of a table of predictions."""
    paths = {part: tmp_path / f"{part}.csv" for part in SIZES}
    for part, path in paths.items():
        write_predictions(make_part(part, SIZES[part]), NAMES, path)
    return paths


@pytest.fixture
def run(tmp_path):
    """A run folder as training leaves it, without a bundle."""
    return write_run(tmp_path / "2026-01-01")


def write_run(folder):
    (folder / "baselines").mkdir(parents=True)
    for part, count in SIZES.items():
        write_predictions(make_part(part, count), NAMES, folder / f"predictions_{part}.csv")
        baseline = make_part(part, count, strength=0.5, seed=1)
        write_predictions(baseline, NAMES, folder / "baselines" / f"{part}_random_features.csv")
    config = {
        "run_name": "recipe",
        "seed": 7,
        "hash_ids": True,
        "monitor": {"metric": "val/auroc", "mode": "max"},
        "net": {"name": "custom_cnn"},
        "optimizer": {"_target_": "torch.optim.AdamW"},
        "scheduler": {"_target_": None},
        "loss": {"_target_": "cxr.training.losses.make_cross_entropy"},
        "data": {
            "split_file": None,
            "batch_size": 16,
            "reader": {"_target_": "cxr.data.readers.make_image_folder_samples"},
        },
        "trainer": {"max_epochs": 3},
        "paths": {"log_dir": str(folder.parent)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    data = {
        "classes": NAMES,
        "findings": {"ill": 150, "well": 160},
        "findings_left_out": 3,
        "unreadable_files": {"count": 1},
        "undecodable_files": {"count": 0},
        "missing_patient_ids": 0,
        "exact_duplicates": {"extra_files": 2},
        "views": {"kept: PA": 310},
        "from_split_file": False,
        "images": {part: {"well": count // 2, "ill": count // 2} for part, count in SIZES.items()},
        "patients": {part: count // 2 for part, count in SIZES.items()},
        "fingerprint": "abc",
        "test_fingerprint": "abcd",
    }
    (folder / "data_report.json").write_text(json.dumps(data))
    (folder / "metrics.json").write_text(json.dumps({"best": {"score": 0.9}, "metrics": {"test/auroc": 0.9}}))
    (folder / "environment.txt").write_text("python==3.11\ntorch==2.11\nattrs==1\n")
    history = {"epoch": [0, 1, 2], "seconds": [1.0, 1.0, 1.0], "val/auroc": [0.6, 0.9, 0.8], "val/loss": [3, 2, 1]}
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    for _ in range(3):
        record_opening(folder.parent / FILE, make_opening(folder.name, "hash", "abcd", "auroc", 0.9))
    return folder
