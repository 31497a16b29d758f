"""Made-up predictions for the tests of this folder."""

import numpy as np
import pandas as pd

from cxr.evaluation.predictions import make_predictions

NAMES = ["Negative", "Typical", "Indeterminate", "Atypical"]


def make_case(classes, rows=120, patients=50, seed=0, digits=2, skill=1.2):
    """(target, probs, groups); few digits give ties."""
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    return target, make_probs(rng, target, classes, digits, skill), rng.integers(patients, size=rows)


def make_probs(rng, target, classes, digits=2, skill=1.2):
    powers = np.exp(rng.normal(size=(len(target), classes)) + skill * np.eye(classes)[target])
    return np.round(powers / powers.sum(axis=1, keepdims=True), digits)


def make_table(classes=2, rows=200, patients=100, seed=0, skill=1.2, run="run", samples_seed=0):
    """A predictions table; the same `samples_seed` gives the same rows, another `seed` another model of them."""
    rng = np.random.default_rng(samples_seed)
    patient = np.arange(rows) % patients
    samples = pd.DataFrame(
        {
            "sample_id": [f"s{i:04d}" for i in range(rows)],
            "patient_id": [f"p{i}" for i in patient],
            "study_id": [f"t{i}" for i in range(rows)],
            "label": rng.integers(classes, size=rows),
            "sex": np.array(["F", "M"])[patient % 2],
            "age": 5 + (patient * 7) % 85,
            "view_position": rng.choice(["PA", "AP"], rows),
        }
    )
    logits = np.random.default_rng(seed + 1000).normal(size=(rows, classes)) + skill * np.eye(classes)[samples["label"]]
    return make_predictions(samples, logits, NAMES[:classes], split="test", run=run)
