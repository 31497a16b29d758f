"""Copies of images that a dataset must not hold, planted among others: found, left out and counted."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from cxr.data.cohort import CohortSettings, make_cohort
from cxr.data.labelled import LabelledSamples
from cxr.data.splits import write_split
from cxr.errors import DataError

from .conftest import COPIES

SETTINGS = {"fractions": (0.6, 0.2, 0.2)}

pytestmark = pytest.mark.filterwarnings("ignore:the test part has")


class Index:
    """Knows the hash of each file by its path."""

    def __init__(self, *tables, unreadable=()):
        self.hashes = pd.concat(tables).set_index("image_path")["content_hash"].to_dict()
        self.unreadable = unreadable

    def describe(self, paths):
        errors = ["no such file" if path in self.unreadable else None for path in paths]
        hashes = [self.hashes[path] for path in paths]
        return pd.DataFrame({"image_path": paths, "content_hash": hashes, "error": errors})


@pytest.fixture
def tables(films, make_table):
    """(what a union holds, what must be avoided, both): 24 people, six films of the 8 others changed, and one file."""
    copies = [change(film) for change, film in zip(COPIES.values(), films[:6], strict=True)]
    everyone = make_table([("train", film) for film in [*films[:8], *films[8:32], *copies, films[6]]])
    avoid = everyone[:8].drop(columns=["content_hash", "split"])
    union = everyone[8:].reset_index(drop=True)
    union.loc[30, "content_hash"] = everyone.loc[6, "content_hash"]
    return union, avoid, everyone


def cohort_of(tables, drawer, folder, unreadable=(), **changes):
    union, avoid, everyone = tables
    index = Index(everyone[:8], union, unreadable=unreadable)
    label = np.arange(len(union)) % 2
    samples = union.drop(columns=["content_hash", "split"]).assign(label=label, finding=label.astype(str))
    settings = CohortSettings(**SETTINGS, avoid=avoid, **changes)
    return make_cohort(LabelledSamples(samples, ["a", "b"], {}), settings, drawer, index, folder)


@pytest.mark.parametrize("gate", ["stop", "off"])
def test_every_planted_copy_is_left_out_and_nobody_else(tables, drawer, tmp_path, caplog, gate):
    with caplog.at_level(logging.INFO):
        cohort = cohort_of(tables, drawer, tmp_path, leak_gate=gate)
    union = tables[0]
    assert set(union["sample_id"]) - set(cohort.samples["sample_id"]) == set(union["sample_id"][24:])
    assert cohort.report["avoided"] == {"images": 8, "left_out": 7, "pairs": {"file": 1, "near": 6}}
    assert "left out 7 of 31 images for what data.avoid holds (1 x file, 6 x near); see " in caplog.text
    (listed,) = tmp_path.glob("avoided-*.csv")
    assert set(pd.read_csv(listed)["path_a"]) == set(union["image_path"][24:])
    assert json.loads(json.dumps(cohort.report)) == cohort.report


def test_other_images_of_the_patient_of_a_copy_are_left_out_too(tables, drawer, tmp_path):
    union = tables[0]
    union.loc[5, "patient_id"] = union.loc[26, "patient_id"]
    cohort = cohort_of(tables, drawer, tmp_path)
    assert union.loc[5, "sample_id"] not in set(cohort.samples["sample_id"])
    assert cohort.report["avoided"] == {"images": 8, "left_out": 8, "pairs": {"file": 1, "near": 6}}


def test_what_shares_a_patient_is_left_out_too(tables, drawer, tmp_path):
    union, avoid, _ = tables
    union.loc[3, "patient_id"] = avoid.loc[7, "patient_id"]
    cohort = cohort_of(tables, drawer, tmp_path)
    assert union.loc[3, "sample_id"] not in set(cohort.samples["sample_id"])
    assert cohort.report["avoided"]["pairs"] == {"file": 1, "near": 6, "patient": 1}


def test_images_that_are_elsewhere_cost_nothing(tables, drawer, tmp_path, caplog):
    union, avoid, everyone = tables
    with caplog.at_level(logging.INFO):
        cohort = cohort_of((union[:24], avoid, everyone), drawer, tmp_path)
    assert len(cohort.samples) == 24
    assert cohort.report["avoided"] == {"images": 8, "left_out": 0, "pairs": {}}
    assert "none of 24 images is among the 8 of data.avoid" in caplog.text


def test_a_limit_counts_what_is_left_and_a_split_names_it(tables, drawer, tmp_path):
    assert len(cohort_of(tables, drawer, tmp_path, limit=20).samples) == 20
    whole = cohort_of(tables, drawer, tmp_path)
    write_split(whole.samples, tmp_path / "split.csv", class_names=["a", "b"], salt=None)
    again = cohort_of(tables, drawer, tmp_path, split_file=tmp_path / "split.csv")
    assert again.report["fingerprint"] == whole.report["fingerprint"]
    assert again.report["avoided"] == whole.report["avoided"]


def test_an_image_that_cannot_be_looked_for_is_told(tables, drawer, tmp_path):
    message = "expected 8 image files, but 1 of them of data.avoid cannot be read"
    with pytest.raises(DataError, match=message):
        cohort_of(tables, drawer, tmp_path, unreadable=["/films/002"])


def test_a_class_that_is_all_left_out_is_told(tables, drawer, tmp_path):
    union, avoid, everyone = tables
    with pytest.raises(DataError, match="expected samples of every class in what data.avoid leaves, but class"):
        cohort_of((union[24:].reset_index(drop=True), avoid, everyone), drawer, tmp_path)
