import numpy as np
import pytest

from cxr.evaluation.audit.regions import average_image, cover_lungs, describe_regions, shrink_images


def draw_images(count=5, size=96, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (count, size, size)).astype(dtype)


def rows(images):
    return np.arange(len(images))


class Handle:
    """Stored images that, like those of a store, take only an array of positions."""

    def __init__(self, images):
        self.images = images
        self.largest = 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, positions):
        assert isinstance(positions, np.ndarray)
        self.largest = max(self.largest, len(positions))
        return self.images[positions]


def test_border_and_corners_do_not_see_the_middle():
    images = draw_images()
    changed = images.copy()
    changed[:, 18:-18, 18:-18] = 7
    before, after = describe_regions(images, rows(images)), describe_regions(changed, rows(images))
    np.testing.assert_array_equal(before.border, after.border)
    np.testing.assert_array_equal(before.corners, after.corners)
    assert not np.allclose(before.thumbnail, after.thumbnail)


def test_corners_do_not_see_the_sides_and_border_does():
    images = draw_images()
    changed = images.copy()
    changed[:, :9, 30:60] //= 3
    before, after = describe_regions(images, rows(images)), describe_regions(changed, rows(images))
    np.testing.assert_array_equal(before.corners, after.corners)
    assert not np.allclose(before.border, after.border)


def test_border_and_corners_see_a_marker():
    images = draw_images(1)
    changed = images.copy()
    changed[:, 3:9, 3:9] = 255
    before, after = describe_regions(images, rows(images)), describe_regions(changed, rows(images))
    assert np.abs(before.border - after.border).max() > 0.3
    assert np.abs(before.corners - after.corners).max() > 0.3


def test_another_grey_scale_changes_neither_border_nor_corners():
    blocks = np.random.default_rng(1).integers(1, 200, (3, 32, 32))
    images = np.kron(blocks, np.ones((3, 3), dtype=int))
    curved = (images**1.5 * 10).astype(np.uint16)
    plain, other = (describe_regions(one, rows(images)) for one in (images.astype(np.uint8), curved))
    np.testing.assert_allclose(plain.border, other.border)
    np.testing.assert_allclose(plain.corners, other.corners)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_features_have_shares_of_one(dtype):
    images = draw_images(dtype=dtype)
    found = describe_regions(images, rows(images))
    assert (found.border.shape, found.corners.shape, found.thumbnail.shape) == ((5, 348), (5, 144), (5, 64))
    for values in (found.border, found.corners, found.thumbnail):
        assert values.dtype == np.float32
        assert 0 <= values.min() < values.max() <= 1
    cells = (images / np.iinfo(dtype).max).reshape(5, 8, 12, 8, 12).mean(axis=(2, 4))
    np.testing.assert_allclose(found.thumbnail, cells.reshape(5, 64), atol=1e-5)


def test_images_are_read_in_batches_in_the_order_of_the_rows():
    handle = Handle(draw_images(300, 32))
    order = np.random.default_rng(0).permutation(300)
    found = describe_regions(handle, order)
    assert 1 < handle.largest < 300
    np.testing.assert_array_equal(found.border, describe_regions(handle.images, np.arange(300)).border[order])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_covered_images_differ_in_their_frame_alone(dtype):
    images = draw_images(300, 64, dtype)
    average = average_image(Handle(images), rows(images))
    covered = cover_lungs(images, average)
    assert covered.dtype == average.dtype == dtype
    np.testing.assert_array_equal(average, np.rint(images.mean(axis=0)))
    np.testing.assert_array_equal(covered[:, 6:-6, 6:-6], np.broadcast_to(average[6:-6, 6:-6], (300, 52, 52)))
    frame = np.ones((64, 64), dtype=bool)
    frame[6:-6, 6:-6] = False
    np.testing.assert_array_equal(covered[:, frame], images[:, frame])


@pytest.mark.parametrize("white", [np.uint8(255), np.uint16(65535)])
def test_small_images_are_means_of_their_cells(white):
    rng = np.random.default_rng(0)
    stored = (rng.random((200, 64, 64)) * white).astype(white.dtype)
    small = shrink_images(stored, np.array([5, 150, 7]), 16)
    cells = stored[[5, 150, 7]].reshape(3, 16, 4, 16, 4).mean(axis=(2, 4)) / white
    np.testing.assert_allclose(small, cells, atol=1e-5)
