import numpy as np
import pytest

from cxr.imaging.intensity import LookupTable, Rendering, Rescale, Window, choose_range, scale_to_unit

NOMINAL = (0.0, 4095.0)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ((0, 4095), NOMINAL),
        ((1000, 3048), NOMINAL),
        ((1000, 3047), (1000, 3047)),
        ((0, 100), (0, 100)),
        ((-1, 4095), (-1, 4095)),
        ((0, 4096), (0, 4096)),
        ((7, 7), NOMINAL),
        ((5000, 5000), (5000, 5000)),
    ],
)
def test_nominal_range_is_shown_if_at_least_half_of_it_is_used(used, expected):
    assert choose_range(used, NOMINAL) == expected


def test_empty_range_is_black():
    np.testing.assert_array_equal(scale_to_unit(np.array([5.0, 5.0]), 5, 5), 0)


@pytest.mark.parametrize(
    ("window", "values", "expected"),
    [
        # PS3.3 C.11.2.1.2: center 2048 and width 4096 are the identity on 12 bits
        (Window(2048, 4096), [0, 4095, 819], [0, 1, 0.2]),
        (Window(0, 100), [-50, 49, 200], [0, 1, 1]),
        (Window(0, 1), [-1, -0.5, 0], [0, 0, 1]),
        (Window(0, 100, "LINEAR_EXACT"), [-50, 0, 50], [0, 0.5, 1]),
        (Window(0, 100, "SIGMOID"), [0, 25 * np.log(3), -1e9, 1e9], [0.5, 0.75, 0, 1]),
    ],
)
def test_windows_by_hand(window, values, expected):
    assert window.is_valid
    np.testing.assert_allclose(window.unit(np.array(values, dtype=np.float64)), expected, atol=1e-12)


@pytest.mark.parametrize(
    "window",
    [Window(0, 0.5), Window(0, 0, "LINEAR_EXACT"), Window(0, -5, "SIGMOID"), Window(np.nan, 5), Window(0, 5, "CUBIC")],
)
def test_invalid_windows(window):
    assert not window.is_valid
    assert Rendering(NOMINAL, voi=window).voi_is_unusable(np.arange(100).reshape(10, 10))


def test_lookup_table_takes_the_nearest_entry_beyond_its_ends():
    table = LookupTable(10, np.array([3.0, 5.0, 9.0]), 8)
    np.testing.assert_array_equal(table(np.array([-7, 10, 11.4, 12, 50])), [3, 3, 5, 9, 9])


def test_rescale_by_a_negative_slope_turns_the_nominal_range():
    assert Rescale(-2, 10).nominal(0, 100) == (-190, 10)


@pytest.mark.parametrize("offset", [0.0, 0.25], ids=["integers", "floats"])
def test_levels_that_do_not_occur_set_no_range(offset):
    entries = np.arange(4096.0)
    entries[100] = 65000
    stored = np.delete(np.arange(4096), 100).reshape(63, 65) + offset
    rendering = Rendering(NOMINAL, modality=LookupTable(0, entries, 16))
    np.testing.assert_allclose(rendering.render(stored), np.rint(stored) / 4095, atol=1e-6)


def test_padded_levels_of_a_modality_lut_set_no_range():
    entries = np.append(65000, np.arange(1.0, 101))
    stored = np.arange(101)[None]
    result = Rendering((0, 255), modality=LookupTable(0, entries, 16), padding=(0, 0)).render(stored)
    np.testing.assert_allclose(result, np.append(0, np.linspace(0, 1, 100))[None], atol=1e-6)


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u4", "f4", ">u2", ">i2"])
def test_every_stored_type_is_rendered_alike(kind):
    stored = np.linspace(0, 120, 64).round().reshape(8, 8)
    offset = -60 if np.dtype(kind).kind == "i" else 0
    rendering = Rendering((offset, 127 + offset), modality=Rescale(2, 5), inverted=True)
    result = rendering.render((stored + offset).astype(kind))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 1 - stored / 127, atol=1e-6)


def test_wide_integers_need_no_table():
    stored = np.array([[-(2**31), 0], [2**30, 2**31 - 1]], dtype=np.int32)
    result = Rendering((-(2**31), 2**31 - 1)).render(stored)
    np.testing.assert_allclose(result, [[0, 0.5], [0.75, 1]], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value):
    with pytest.raises(ValueError, match="NaN or infinity among the pixel values"):
        Rendering((0, 1)).render(np.array([[0.5, value]]))


def test_image_that_is_all_padding_is_black():
    assert not Rendering((0, 255), inverted=True, padding=(9, 9)).render(np.full((3, 3), 9)).any()
