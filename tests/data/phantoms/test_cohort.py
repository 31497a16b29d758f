"""The plan of a cohort and its settings."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.data.phantoms.chance import make_uid, stream
from cxr.data.phantoms.cohort import plan_cohort
from cxr.data.phantoms.findings import CLASS_NAMES, FAINT, NEGATIVE
from cxr.data.phantoms.radiograph import SOURCES
from cxr.data.phantoms.spec import BITS, ENCODINGS, PHOTOMETRICS, VOIS, CohortSpec
from cxr.errors import ConfigError

shares = st.floats(0, 1)
specs = st.builds(
    CohortSpec,
    studies=st.integers(1, 60),
    seed=st.integers(0, 2**40),
    prevalence=st.tuples(*[st.floats(0.01, 1)] * 4),
    invisible=shares,
    faint=shares,
    plain=shares,
    ap=shares,
    repeat_patients=shares,
    second_images=shares,
    exact_duplicates=st.floats(0, 0.3),
    near_duplicates=st.floats(0, 0.3),
    missing_views=shares,
    confounded_source=st.booleans(),
)


@given(specs)
@settings(max_examples=40)
def test_every_plan_keeps_its_promises(spec):
    plans = plan_cohort(spec)

    assert [plan.index for plan in plans] == list(range(spec.studies))
    originals = [plan for plan in plans if plan.duplicate_of is None]
    for plan in plans:
        assert 1 <= len(plan.images) <= 2
        assert plan.images[0].view in ("PA", "AP")
        assert (plan.visibility == 0) >= (plan.class_name == NEGATIVE)
        if plan.duplicate_of is not None:
            assert plan.duplicate_of in originals
            assert plan.duplicate_of.class_name == plan.class_name
    if spec.confounded_source:
        assert all(plan.source == SOURCES[plan.class_name != NEGATIVE] for plan in plans)
    assert plan_cohort(spec) == plans


@given(specs)
@settings(max_examples=40)
def test_classes_are_as_frequent_as_asked(spec):
    counts = Counter(plan.class_name for plan in plan_cohort(spec))
    asked = np.asarray(spec.prevalence) / sum(spec.prevalence) * spec.studies

    assert all(abs(counts[name] - share) < 1 for name, share in zip(CLASS_NAMES, asked, strict=True))


def test_default_prevalences_are_those_of_siim():
    counts = Counter(plan.class_name for plan in plan_cohort(CohortSpec(studies=1000)))

    assert [counts[name] for name in CLASS_NAMES] == [277, 472, 173, 78]


def test_shares_of_visibility_are_kept():
    plans = plan_cohort(CohortSpec(studies=1000, invisible=0.1, faint=0.05, plain=0.4, exact_duplicates=0))
    values = np.array([plan.visibility for plan in plans if plan.class_name != NEGATIVE])

    assert (values == 0).sum() == pytest.approx(72, abs=3)
    assert ((values > 0) & (values <= FAINT)).sum() == pytest.approx(33, abs=3)
    assert values[values > FAINT].min() >= 0.4
    assert 0.67 < values[values > FAINT].mean() < 0.73


def test_file_traits_all_occur_and_do_not_depend_on_the_class():
    images = [image for plan in plan_cohort(CohortSpec(studies=24)) for image in plan.images]

    assert {image.encoding for image in images} == set(ENCODINGS)
    assert {image.photometric for image in images} == set(PHOTOMETRICS)
    assert {image.voi for image in images} == set(VOIS)
    assert {image.bits_stored for image in images} == set(BITS)
    assert {image.rescale for image in images} == {True, False}
    other = plan_cohort(CohortSpec(studies=24, prevalence=(0.1, 0.1, 0.1, 0.7), exact_duplicates=0, near_duplicates=0))
    same = plan_cohort(CohortSpec(studies=24, exact_duplicates=0, near_duplicates=0))
    assert [plan.images for plan in other] == [plan.images for plan in same]


@pytest.mark.parametrize(
    ("switch", "shows"),
    [
        ("repeat_patients", lambda plans: len({plan.patient for plan in plans}) < len(plans)),
        ("second_images", lambda plans: any(len(plan.images) == 2 for plan in plans)),
        ("exact_duplicates", lambda plans: any(plan.duplicate_kind == "exact" for plan in plans)),
        ("near_duplicates", lambda plans: any(plan.duplicate_kind == "near" for plan in plans)),
        ("missing_views", lambda plans: any(plan.images[0].view_known != "position" for plan in plans)),
        ("ap", lambda plans: any(plan.images[0].view == "AP" for plan in plans)),
        ("invisible", lambda plans: any(plan.visibility == 0 and plan.class_name != NEGATIVE for plan in plans)),
        ("faint", lambda plans: any(0 < plan.visibility <= FAINT for plan in plans)),
    ],
)
def test_each_share_is_a_switch(switch, shows):
    off = dict.fromkeys(["repeat_patients", "exact_duplicates", "near_duplicates", "faint", switch], 0.0)

    assert shows(plan_cohort(CohortSpec(studies=30, **{**off, switch: 0.2})))
    assert not shows(plan_cohort(CohortSpec(studies=30, **off)))


def test_second_images_are_laterals_and_other_frontals_in_turn():
    doubles = [plan for plan in plan_cohort(CohortSpec(studies=40, second_images=0.4)) if len(plan.images) == 2]
    views = Counter(plan.images[1].view == "LATERAL" for plan in doubles)

    assert views[True] == views[False]
    assert all(plan.images[0].view != plan.images[1].view for plan in doubles)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"studies": 0}, "studies >= 1.*studies=0"),
        ({"size": 8}, "size >= 32.*size=8"),
        ({"seed": -1}, "seed >= 0.*seed=-1"),
        ({"invisible": 1.5}, "invisible between 0 and 1, but got 1.5"),
        ({"prevalence": (0.5, 0.5)}, "prevalence as 4 shares"),
        ({"encodings": ("zip",)}, r"encodings out of .*'zip'"),
        ({"vois": ()}, "vois out of .*name at least one"),
        ({"bits_stored": (8,)}, r"bits_stored out of \[10, 12, 16\], but got \[8\]"),
    ],
)
def test_settings_that_cannot_be_used_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        CohortSpec(**values)


def test_spec_survives_the_way_through_plain_values():
    spec = CohortSpec(studies=7, encodings=("rle",), confounded_source=True)

    assert CohortSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(ConfigError, match=r"settings of CohortSpec, but got \['studdies'\]"):
        CohortSpec.from_dict({"studdies": 3})


def test_streams_and_uids_depend_on_seed_and_key_alone():
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()
    assert len({stream(seed, key).random() for seed in (0, 1) for key in ("a", "b")}) == 4
    uids = {make_uid(seed, "image", number) for seed in (0, 1) for number in range(50)}
    assert len(uids) == 100
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and uid[5] != "0" for uid in uids)
