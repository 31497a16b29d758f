import pytest

from cxr.experiments.cv import CrossValidation
from cxr.training.sources import read_cohort, read_pool


@pytest.fixture(scope="module")
def config(compose_run, lab):
    return compose_run(lab / "sources")


def test_the_pool_of_a_run_is_its_cohort_not_divided(config):
    cohort = read_cohort(config)
    samples, class_names = read_pool(config)
    assert class_names == cohort.class_names
    assert set(samples["sample_id"]) == set(cohort.samples["sample_id"])


def test_folds_of_a_config_take_validation_in_its_proportion(config):
    runs = CrossValidation(2, 1).runs(config)
    left = runs[0].samples.query("split != 'test'")["split"].value_counts(normalize=True)
    assert left["val"] == pytest.approx(1 / 3, abs=0.05)
