"""How often the audit calls a shortcut: where there is none, on the phantoms with and without one, on real lists."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from cxr.data.phantoms.cohort import plan_cohort
from cxr.data.phantoms.radiograph import render
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.study import exams, identify
from cxr.evaluation.audit.audit import audit_samples
from cxr.imaging.preprocess import Preprocess

COVIDX = Path(__file__).resolve().parents[4] / "shared" / "datasets" / "covidx"
COVIDX_CLASSES = ["normal", "pneumonia", "COVID-19"]
NORMALIZERS = ["minmax", "equalize"]


@pytest.mark.verify
def test_tables_without_a_shortcut_rarely_raise_an_alarm(make_table):
    rng = np.random.default_rng(0)
    alarms = 0
    for seed in range(200):
        table = make_table(seed, patients=int(rng.integers(60, 500)), classes=int(rng.integers(2, 5)))
        alarms += len(audit_samples(table, ["w", "x", "y", "z"], seed=seed).shortcuts) > 0
    assert binomtest(alarms, 200).proportion_ci(0.95, method="exact").high <= 0.08


def draw_phantoms(seed, confounded, normalizer):
    """The frontal images of 400 studies as a samples table and stored images, without the files between."""
    preprocess = Preprocess(size=(96, 96), normalizer=normalizer)
    spec = CohortSpec(studies=400, size=128, seed=seed, confounded_source=confounded)
    rows, images = [], []
    for plan in plan_cohort(spec):
        exam = exams(plan, spec)[0]
        images.append(preprocess.store(render(exam).display))
        rows.append(
            {
                "label": int(plan.class_name != "Negative for Pneumonia"),
                "patient_id": plan.patient,
                "source": plan.source,
                "sex": exam.person.sex,
                "age": exam.person.age,
                "view_position": exam.pose.view,
                "manufacturer": identify(plan, spec).equipment[1],
            }
        )
    return pd.DataFrame(rows), np.array(images)


@pytest.mark.verify
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("seed", range(5))
def test_phantoms_without_a_shortcut_raise_no_alarm(seed, normalizer):
    samples, images = draw_phantoms(seed, False, normalizer)
    audit = audit_samples(samples, ["negative", "positive"], images=images)
    assert audit.shortcuts == []
    (thumbnail,) = [row for row in audit.rows if row.name == "thumbnail"]
    assert thumbnail.separation.p_value <= 0.01  # findings show there: the images are not empty


@pytest.mark.verify
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("seed", range(5))
def test_phantoms_with_a_confounded_marker_raise_every_alarm(seed, normalizer):
    samples, images = draw_phantoms(seed, True, normalizer)
    audit = audit_samples(samples, ["negative", "positive"], images=images)
    assert {row.name for row in audit.shortcuts} == {"source", "metadata", "border", "corners"}


def read_covidx(part):
    """One row for each line of a list; the last three words of a line are file, class and source."""
    lines = (COVIDX / f"{part}_COVIDx9A.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines]
    return pd.DataFrame(
        {
            "patient_id": [word[0] for word in words],
            "label": [COVIDX_CLASSES.index(word[-2]) for word in words],
            "source": [word[-1] for word in words],
            "split": part,
        }
    )


needs_covidx = pytest.mark.skipif(not COVIDX.is_dir(), reason="the COVIDx lists are not in ../shared/datasets/covidx")


def source_row(audit, scope):
    (row,) = [row for row in audit.rows if (row.name, row.scope) == ("source", scope)]
    return row


@needs_covidx
def test_the_covidx_test_list_gives_covid_away_by_its_source():
    row = source_row(audit_samples(read_covidx("test"), COVIDX_CLASSES), "test")
    assert row.verdict == "shortcut"
    assert row.separation.by_class[row.separation.strongest] == 1
    assert row.sentence == (
        "The source alone gives AUROC 1.00 (95% interval 0.99 to 1.00) for COVID-19 against the rest on the test "
        "split: a score there says little about disease."
    )


@needs_covidx
@pytest.mark.verify
def test_the_whole_covidx_lists_give_covid_away_by_their_source():
    audit = audit_samples(pd.concat([read_covidx("train"), read_covidx("test")], ignore_index=True), COVIDX_CLASSES)
    assert {row.scope for row in audit.shortcuts} == {"all", "test"}
    row = source_row(audit, "all")
    assert row.class_names[row.separation.strongest] == "COVID-19"
    assert row.separation.by_class[row.separation.strongest] > 0.99
