"""Rendered exposures: what lies where, what changes the pixels and what does not."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.data.phantoms.anatomy import Chest, draw_person
from cxr.data.phantoms.attenuation import frontal_layers
from cxr.data.phantoms.findings import CLASS_NAMES, TYPICAL, draw_findings
from cxr.data.phantoms.radiograph import SOURCES, draw_exam, render

SIZE = 128


def make_exam(seed=0, view="PA", findings=(), source=SOURCES[0], size=SIZE):
    person = draw_person(np.random.default_rng(seed))
    return draw_exam(person, view, source, size, findings, np.random.default_rng(seed + 1000))


def opacities(visibility=1.0, seed=2):
    return draw_findings(TYPICAL, visibility, np.random.default_rng(seed))


def at(image, exam, x, y):
    column, row = np.rint(exam.frame.to_pixels(np.array([[x, y]]))[0]).astype(int)
    return float(image[row - 1 : row + 2, column - 1 : column + 2].mean())


@pytest.mark.parametrize("view", ["PA", "AP"])
@pytest.mark.parametrize("seed", range(4))
def test_bones_and_heart_are_brighter_than_lung_and_lung_than_air(seed, view):
    exam = make_exam(seed, view)
    image = render(exam).display
    lung = np.mean([at(image, exam, side * 8, -4) for side in (-1, 1)])

    assert 0.05 < lung < 0.55
    assert at(image, exam, 2.5, 4) > lung + 0.2  # heart
    assert at(image, exam, 0, 14) > lung + 0.2  # abdomen and spine
    assert image[: SIZE // 20, : SIZE // 20].mean() < lung  # air above the shoulder


def test_heart_reaches_further_to_the_left_of_the_patient():
    exam = make_exam(3)
    x, _ = exam.frame.grid
    heart = exam.frame.fill(Chest(exam.person, exam.pose).heart())

    assert (x[heart > 0.5] > 0).mean() > 0.55


def test_air_lies_inside_the_ribcage_only():
    exam = make_exam(1)
    layers = frontal_layers(Chest(exam.person, exam.pose), exam.frame)
    x, y = exam.frame.grid
    outside = np.abs(x) > Chest(exam.person, exam.pose).half_width(y) + 0.9

    assert layers.air.max() > 8
    assert layers.air[outside].max() < 0.5
    assert layers.tissue.min() >= 0


def test_the_same_exam_gives_the_same_pixels():
    np.testing.assert_array_equal(render(make_exam(1)).signal, render(make_exam(1)).signal)


def test_an_undrawn_finding_leaves_every_pixel_as_it_was():
    plain, undrawn = render(make_exam(1)), render(make_exam(1, findings=opacities(0.0)))

    np.testing.assert_array_equal(plain.signal, undrawn.signal)
    assert undrawn.d_prime == 0
    assert undrawn.boxes == ()


def test_a_drawn_finding_changes_its_boxes_and_little_else():
    drawn, plain = render(make_exam(1, findings=opacities())), render(make_exam(1))
    change = drawn.signal - plain.signal
    inside = np.zeros_like(change, bool)
    for x, y, width, height in drawn.boxes:
        inside[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = True

    assert len(drawn.boxes) == len(opacities())
    assert inside.mean() < 0.25
    assert change[inside].sum() > 0.7 * np.abs(change).sum()


def test_detectability_grows_with_visibility_and_not_with_size():
    values = [render(make_exam(1, findings=opacities(visibility))).d_prime for visibility in (0.02, 0.2, 1.0)]
    other_size = render(make_exam(1, findings=opacities(1.0), size=64)).d_prime

    assert 0 < values[0] < values[1] < values[2]
    assert other_size == pytest.approx(values[2], rel=0.1)


def test_lateral_shows_no_findings():
    lateral = render(make_exam(1, "LATERAL", opacities()))

    np.testing.assert_array_equal(lateral.signal, render(make_exam(1, "LATERAL")).signal)
    assert lateral.boxes == ()
    assert lateral.d_prime == 0


def test_marker_lies_on_the_side_of_its_source():
    for source, in_left_half in zip(SOURCES, (True, False), strict=True):
        exam = make_exam(1, source=source)
        unmarked = replace(exam, exposure=replace(exam.exposure, marker=" "))
        changed = np.nonzero(render(exam).signal != render(unmarked).signal)

        assert (changed[1].mean() < SIZE / 2) == in_left_half
        assert changed[0].max() < 0.2 * SIZE


def test_collimator_blades_are_black():
    exam = make_exam(1)
    exposure = replace(exam.exposure, border=(0.1, 0.0, 0.0, 0.05), marker=" ")
    image = render(replace(exam, exposure=exposure)).display

    assert image[:, :12].max() < 0.01
    assert image[-6:].max() < 0.01
    assert image[40:80, 40:80].max() > 0.1


def test_noise_and_nothing_else_differs_between_two_noise_seeds():
    exam = make_exam(1)
    first, second = render(exam), render(replace(exam, seeds=(exam.seeds[0], 1)))

    assert first.signal.shape == (SIZE, SIZE)
    assert first.signal.dtype == np.float32
    assert 0 < np.abs(first.signal - second.signal)[SIZE // 3 : -SIZE // 3].mean() < 0.2


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_display_is_a_picture_in_the_unit_range(class_name):
    findings = draw_findings(class_name, 1.0, np.random.default_rng(8))
    display = render(make_exam(8, findings=findings)).display

    assert np.isfinite(display).all()
    assert 0 <= display.min() < 0.05
    assert 0.6 < display.max() <= 1
