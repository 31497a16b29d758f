import base64

import cv2
import numpy as np
import pytest

from cxr.data.report.pixels import find_inverted, find_low_contrast, has_text, look_at_pixels, make_thumbnail


@pytest.fixture(scope="module")
def chests(chest):
    return np.stack([chest(number) for number in range(6)])


def test_grey_levels_are_counted_by_class():
    images = np.stack([np.full((4, 4), 0), np.full((4, 4), 255), np.full((4, 4), 130)]).astype(np.uint8)
    look = look_at_pixels(images, np.array([0, 1, 1]), 2)
    assert look.levels.shape == (2, 64)
    assert look.levels.sum(axis=1).tolist() == [16, 32]
    assert (look.levels[0, 0], look.levels[1, 63], look.levels[1, 32]) == (16, 16, 16)


def test_deep_images_look_as_flat_ones_do(chests):
    labels = np.zeros(len(chests), dtype=np.int64)
    deep = look_at_pixels(chests.astype(np.uint16) * 257, labels, 1)
    np.testing.assert_array_equal(deep.levels, look_at_pixels(chests, labels, 1).levels)


def test_negatives_and_only_they_look_inverted(chests):
    assert not find_inverted(chests).any()
    assert find_inverted(255 - chests).all()


def test_flat_images_and_only_they_lack_contrast(chests):
    assert not find_low_contrast(chests).any()
    assert find_low_contrast((chests // 32 + 100).astype(np.uint8)).all()


@pytest.mark.parametrize("row", [12, 215])
def test_a_line_of_text_is_seen_at_both_borders(chests, row):
    assert not has_text(chests[0])
    assert has_text(cv2.putText(chests[0].copy(), "DOE JOHN 1970", (20, row), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 255, 1))


def test_images_too_small_to_read_are_not_judged():
    noise = np.random.default_rng(0).integers(0, 255, (2, 111, 111), dtype=np.uint8)
    assert not any(has_text(image) for image in noise)


def test_one_letter_is_no_text(chests):
    marked = cv2.putText(chests[0].copy(), "R", (20, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    assert not has_text(marked)


def test_a_thumbnail_is_a_small_picture_of_the_image(chests):
    tall = np.concatenate([chests[0], chests[0]])
    kind, _, data = make_thumbnail(tall).partition(",")
    assert kind == "data:image/jpeg;base64"
    small = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert small.shape == (144, 72)
    assert abs(float(small.mean()) - float(tall.mean())) < 2
