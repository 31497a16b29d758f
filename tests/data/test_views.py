import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.data.view_words import find_view
from cxr.data.views import filter_views, find_views
from cxr.errors import ConfigError


def make_images(*images):
    """(study, view position, acquired) of each image."""
    rows = [
        {"sample_id": f"s{number}", "study_id": study, "view_position": view, "acquired": acquired}
        for number, (study, view, acquired) in enumerate(images)
    ]
    return pd.DataFrame(rows).astype(object)


def kept_ids(samples, mode="frontal"):
    kept, report = filter_views(samples, mode)
    assert sum(report.values()) == len(samples)
    assert sum(count for reason, count in report.items() if reason.startswith("kept")) == len(kept)
    return kept["sample_id"].tolist()


@pytest.mark.parametrize(
    ("code", "view"),
    [
        ("PA", "pa"), ("pa", "pa"), ("POSTERO_ANTERIOR", "pa"), ("Postero-Anterior", "pa"),
        ("AP", "ap"), ("AP AXIAL", "ap"), ("AP_horizontal", "ap"), ("ANTEROPOSTERIOR", "ap"), ("FRONTAL", "frontal"),
        ("LL", "other"), ("LLAT", "other"), ("RLAT", "other"),
        ("RL", "other"), ("LATERAL", "other"), ("LLD", "other"), ("AP LLD", "other"), ("RAO", "other"),
        ("XTABLE LATERAL", "other"), ("", "unknown"), (None, "unknown"), ("UNKNOWN", "unknown"), ("PALM", "unknown"),
    ],
)  # fmt: skip
def test_view_position(code, view):
    assert find_views(make_images(("a", code, None))).tolist() == [view]


@pytest.mark.parametrize(
    ("description", "view"),
    [
        ("Chest PA", "pa"), ("W034 Thorax p.a.", "pa"), ("CHEST AP PORTABLE", "ap"), ("Chest, lat.", "other"),
        ("Thorax seitl.", "other"), ("Thorax seitlich", "other"), ("Thorax Profil", "other"), ("Flat chest", "unknown"),
        ("Chest PA and LAT", "unknown"), ("view: PA", "pa"), ("CHEST PA/AP", "frontal"), ("Chest", "unknown"),
    ],
)  # fmt: skip
def test_series_description_is_next(description, view):
    samples = make_images(("a", None, None)).assign(series_description=description)
    assert find_views(samples).tolist() == [view]


@pytest.mark.parametrize(
    ("orientation", "view"),
    [
        ("L\\F", "frontal"), ("R\\F", "frontal"), ("LA\\F", "frontal"), ("A\\F", "other"), ("P\\FL", "other"),
        ("L\\P", "unknown"), ("", "unknown"),
    ],
)  # fmt: skip
def test_patient_orientation_is_last(orientation, view):
    samples = make_images(("a", None, None)).assign(series_description="Chest", patient_orientation=orientation)
    assert find_views(samples).tolist() == [view]


def test_view_position_goes_before_description_before_orientation():
    samples = make_images(("a", "LL", None), ("b", None, None)).assign(
        series_description="CHEST PA", patient_orientation="A\\F"
    )
    assert find_views(samples).tolist() == ["other", "pa"]


CODES = st.sampled_from(["PA", "ap", "FRONTAL", "AP LLD", "LL", "", "x", None])
DESCRIPTIONS = st.sampled_from(["Chest PA", "CHEST PA/AP", "Chest PA and LAT", "Thorax seitl.", "Chest", None])
ORIENTATIONS = st.sampled_from(["L\\F", "a\\f", "L\\P", "", None])


@given(st.lists(st.tuples(CODES, DESCRIPTIONS, ORIENTATIONS), min_size=1))
def test_one_header_is_judged_as_in_a_table(headers):
    columns = ["view_position", "series_description", "patient_orientation"]
    table = pd.DataFrame(headers, columns=columns, dtype=object)
    assert find_views(table).tolist() == [find_view(*header) for header in headers]


def test_pa_goes_before_ap_before_direction_unknown():
    assert kept_ids(make_images(("a", "AP", "2022"), ("a", "PA", "2020"), ("a", "FRONTAL", "2023"))) == ["s1"]
    assert kept_ids(make_images(("a", "FRONTAL", "2023"), ("a", "AP", "2020"))) == ["s1"]


def test_then_the_latest_then_the_first_id():
    assert kept_ids(make_images(("a", "PA", "2020-01-01"), ("a", "PA", "2020-01-02"), ("a", "PA", None))) == ["s1"]
    assert kept_ids(make_images(("a", "PA", "2020"), ("a", "PA", "2020"))) == ["s0"]


def test_laterals_are_dropped_even_if_alone():
    _, report = filter_views(make_images(("a", "LL", None), ("b", "PA", None)), "frontal")
    assert report == {"dropped: not a frontal view": 1, "kept: PA": 1}


@pytest.mark.parametrize(
    ("views", "kept"),
    [
        ([None], ["s0"]),
        ([None, "LL"], ["s0"]),
        ([None, "PA"], ["s1"]),
        ([None, None], []),
        ([None, None, "AP"], ["s2"]),
    ],
    ids=["only image", "beside a lateral", "beside a PA", "two unknown", "two unknown beside an AP"],
)
def test_unknown_views(views, kept):
    assert kept_ids(make_images(*(("a", view, None) for view in views))) == kept


def test_images_without_a_study_are_studies_of_their_own():
    assert kept_ids(make_images((None, None, None), (None, None, None), (None, "PA", None))) == ["s0", "s1", "s2"]


def test_tables_without_any_header_column_are_kept():
    samples = pd.DataFrame({"sample_id": ["a", "b"]})
    for mode in ("none", "frontal", "single_image_study"):
        assert kept_ids(samples, mode) == ["a", "b"]


def test_single_image_study_drops_every_study_with_more():
    samples = make_images(("a", "PA", None), ("a", "LL", None), ("b", "LL", None), ("c", None, None))
    kept, report = filter_views(samples, "single_image_study")
    assert kept["sample_id"].tolist() == ["s2", "s3"]
    assert report == {"dropped: study with several images": 2, "kept: only image of its study": 2}


def test_none_keeps_all():
    samples = make_images(("a", "LL", None), ("a", "PA", None))
    kept, report = filter_views(samples, "none")
    pd.testing.assert_frame_equal(kept, samples)
    assert report == {"kept without a filter": 2}


def test_unknown_mode():
    with pytest.raises(
        ConfigError, match="view_filter to be one of none, frontal, single_image_study, but got 'lateral'"
    ):
        filter_views(make_images(("a", "PA", None)), "lateral")
