"""The findings of each class against the words that define the class."""

import numpy as np
import pytest

from cxr.data.phantoms.anatomy import Chest, Pose, draw_person
from cxr.data.phantoms.drawing import Frame
from cxr.data.phantoms.findings import (
    ATYPICAL,
    CLASS_NAMES,
    FAINT,
    INDETERMINATE,
    NEGATIVE,
    TYPICAL,
    draw_findings,
    finding_box,
    finding_centre,
    finding_field,
)

FRAME = Frame(96, 40.0)


def many(class_name, count=200, visibility=1.0):
    return [draw_findings(class_name, visibility, np.random.default_rng(seed)) for seed in range(count)]


@pytest.fixture(scope="module")
def chest():
    return Chest(draw_person(np.random.default_rng(5)), Pose("PA"))


def test_negative_has_no_finding():
    assert many(NEGATIVE, 5) == [()] * 5


def test_typical_is_bilateral_peripheral_rounded_and_low():
    for findings in many(TYPICAL):
        assert {finding.side for finding in findings} == {-1, 1}
        assert 2 <= len(findings) <= 6
        for finding in findings:
            assert finding.kind == "rounded"
            assert finding.depth <= 0.3
            assert 0.5 <= finding.height <= 1.0
            assert 0.75 < finding.size_cm[0] / finding.size_cm[1] < 1.3


def test_indeterminate_is_central_unilateral_or_diffuse_and_never_rounded():
    drawn = many(INDETERMINATE)
    assert {finding.kind for findings in drawn for finding in findings} == {"hazy", "diffuse"}
    patterns = {(findings[0].kind, len(findings)) for findings in drawn}
    assert patterns == {("hazy", 1), ("hazy", 2), ("diffuse", 2)}
    central = [
        finding for findings in drawn for finding in findings if findings[0].kind == "hazy" and len(findings) == 2
    ]
    assert all(finding.depth > 0.5 for finding in central)


def test_atypical_has_all_its_kinds_one_kind_at_a_time():
    drawn = many(ATYPICAL)
    assert all(len({finding.kind for finding in findings}) == 1 for findings in drawn)
    assert {findings[0].kind for findings in drawn} == {"lobar", "nodule", "cavity", "effusion", "pneumothorax"}


@pytest.mark.parametrize("class_name", [TYPICAL, INDETERMINATE, ATYPICAL])
def test_visibility_scales_the_same_shape(class_name, chest):
    full = draw_findings(class_name, 1.0, np.random.default_rng(1))
    half = draw_findings(class_name, 0.5, np.random.default_rng(1))
    none = draw_findings(class_name, 0.0, np.random.default_rng(1))

    for strong, weak, absent in zip(full, half, none, strict=True):
        field = finding_field(strong, chest, FRAME)
        np.testing.assert_allclose(finding_field(weak, chest, FRAME), field / 2, atol=1e-6)
        assert not finding_field(absent, chest, FRAME).any()
        assert field.min() > -0.35
        assert field.max() <= 1.5 * strong.strength


@pytest.mark.parametrize("class_name", CLASS_NAMES[1:])
def test_fields_stay_on_their_own_side(class_name, chest):
    x, _ = FRAME.resized(192).grid
    for findings in many(class_name, 20):
        for finding in findings:
            assert not finding_field(finding, chest, FRAME)[finding.side * x < 0].any()


def test_field_is_strongest_at_the_centre_of_a_nodule(chest):
    nodule = next(findings[0] for findings in many(ATYPICAL) if findings[0].kind == "nodule")
    field = finding_field(nodule, chest, FRAME)
    row, column = np.unravel_index(field.argmax(), field.shape)
    peak = [axis[row, column] for axis in FRAME.resized(192).grid]

    np.testing.assert_allclose(peak, finding_centre(nodule, chest), atol=0.6)


def test_pleural_and_faint_findings_are_not_boxed():
    for findings in many(ATYPICAL):
        for finding in findings:
            assert finding.is_boxed == (finding.kind not in ("effusion", "pneumothorax"))
    assert not any(finding.is_boxed for findings in many(TYPICAL, 20, FAINT) for finding in findings)


def test_box_encloses_what_lies_in_air():
    field, air = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
    field[4:10, 5:25] = 0.5
    air[:, 10:] = 5.0

    assert finding_box(field, air) == (10, 4, 15, 6)
    assert finding_box(field, np.zeros_like(air)) is None
