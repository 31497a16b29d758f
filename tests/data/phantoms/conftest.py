"""One small phantom cohort in each layout, shared by the tests of the written files."""

import numpy as np
import pytest

from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.tree import write_folder_cohort, write_siim_cohort

SPEC = CohortSpec(studies=20, size=96, seed=3, prevalence=(0.3, 0.3, 0.2, 0.2), second_images=0.2, missing_views=0.2)


@pytest.fixture(scope="session")
def siim_cohort(tmp_path_factory):
    """A written SIIM tree: its root; made from SPEC."""
    root = tmp_path_factory.mktemp("phantoms") / "siim"
    write_siim_cohort(SPEC, root, workers=1)
    return root


@pytest.fixture(scope="session")
def folder_cohort(tmp_path_factory):
    """A written image folder with a test part of a quarter of the patients: its root."""
    root = tmp_path_factory.mktemp("phantoms") / "folder"
    write_folder_cohort(CohortSpec(studies=12, size=48, seed=3), root, workers=1, test_fraction=0.25)
    return root


@pytest.fixture
def spec():
    """The settings of `siim_cohort`."""
    return SPEC


@pytest.fixture
def rng():
    return np.random.default_rng(0)
