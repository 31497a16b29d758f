"""Made-up tables of samples for the audit."""

import numpy as np
import pandas as pd
import pytest

CLASSES = ["normal", "pneumonia", "covid"]


@pytest.fixture
def make_table():
    """make_table(seed, patients, classes): independent metadata, one to four images a patient, a fifth for testing."""

    def make(seed=0, patients=200, classes=2):
        rng = np.random.default_rng(seed)
        table = pd.DataFrame(
            {
                "label": rng.permutation(np.arange(patients) % classes),
                "group": np.arange(patients),
                "split": rng.choice(["train", "val", "test"], patients, p=[0.5, 0.1, 0.4]),
                "source": rng.choice(["a", "b", "c"], patients, p=[0.6, 0.3, 0.1]),
                "age": np.where(rng.random(patients) < 0.2, np.nan, rng.normal(55, 18, patients).round()),
                "sex": rng.choice(["F", "M", None], patients, p=[0.45, 0.45, 0.1]),
                "view_position": rng.choice(["PA", "AP"], patients),
                "manufacturer": rng.choice([f"maker {k}" for k in range(6)], patients),
                "rows": rng.choice([1024, 2048, 2500], patients),
                "columns": rng.choice([1024, 2048, 2500], patients),
            }
        )
        return table.loc[table.index.repeat(rng.integers(1, 5, patients))].reset_index(drop=True)

    return make


@pytest.fixture
def covidx_like():
    """A table that imitates COVIDx: in the test part the source gives one class away."""
    rng = np.random.default_rng(0)
    parts = [
        ("train", "covid", {"s1": 200, "s2": 40, "s3": 10}),
        ("train", "normal", {"rsna": 120}),
        ("train", "pneumonia", {"rsna": 80, "s3": 10}),
        ("test", "covid", {"ricord": 60}),
        ("test", "normal", {"rsna": 30}),
        ("test", "pneumonia", {"rsna": 30}),
    ]
    rows = [
        (CLASSES.index(finding), split, source)
        for split, finding, sources in parts
        for source, count in sources.items()
        for _ in range(count)
    ]
    table = pd.DataFrame(rows, columns=["label", "split", "source"])
    table["patient_id"] = [f"patient {number}" for number in rng.permutation(len(table))]
    return table
