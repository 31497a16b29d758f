"""DICOM pixels, as a table: bit depth x photometric interpretation x display elements x transfer syntax.

The reference is pydicom's own modality and VOI functions in the order of the standard, then the stated rule.
"""

import io

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless

from cxr.imaging.dicom import read_dicom

from .dicom_files import COMPRESSED, UNCOMPRESSED, make_dataset, make_lut, save_encoded

BITS = (8, 10, 12, 15, 16)
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")


def full_ramp(bits: int, signed: bool = False) -> np.ndarray:
    """(64, 64) integers from the lowest to the highest value that `bits` can hold."""
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.linspace(low, low + 2**bits - 1, 64 * 64)
    return np.rint(values).astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}").reshape(64, 64)


def shown(values: np.ndarray, low: float, high: float, photometric: str) -> np.ndarray:
    unit = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)
    return 1 - unit if photometric == "MONOCHROME1" else unit


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
@pytest.mark.parametrize("bits", BITS)
def test_without_a_window_the_nominal_range_is_shown(write_dicom, bits, photometric):
    stored = full_ramp(bits)
    pixels = read_dicom(write_dicom(stored, bits=bits, photometric=photometric))
    assert pixels.dtype == np.float32
    assert pixels.shape == stored.shape
    np.testing.assert_allclose(pixels, shown(stored, 0, 2**bits - 1, photometric), atol=1e-6)


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
@pytest.mark.parametrize("bits", BITS)
def test_signed_pixels(write_dicom, bits, photometric):
    stored = full_ramp(bits, signed=True)
    pixels = read_dicom(write_dicom(stored, bits=bits, photometric=photometric))
    np.testing.assert_allclose(pixels, shown(stored, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, photometric), atol=1e-6)


WINDOWS = {
    "linear": {"WindowCenter": 2000, "WindowWidth": 3000},
    "linear, narrow": {"WindowCenter": 700.5, "WindowWidth": 300, "VOILUTFunction": "LINEAR"},
    "linear exact": {"WindowCenter": 1500, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 2100, "WindowWidth": 1700, "VOILUTFunction": "SIGMOID"},
    "first of several": {"WindowCenter": [900, 2000], "WindowWidth": [1200, 4000]},
    "rescaled": {"WindowCenter": 2500, "WindowWidth": 5000, "RescaleSlope": 2, "RescaleIntercept": -1000},
    "rescaled downwards": {"WindowCenter": -1800, "WindowWidth": 3000, "RescaleSlope": -1, "RescaleIntercept": 0},
}


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
@pytest.mark.parametrize("elements", WINDOWS.values(), ids=WINDOWS.keys())
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_windows_agree_with_pydicom(write_dicom, elements, photometric, signed):
    stored = (np.arange(64 * 64).reshape(64, 64) % 4096).astype("i2" if signed else "u2")
    bits = 13 if signed else 12
    path = write_dicom(stored, bits=bits, photometric=photometric, **elements)
    dataset = pydicom.dcmread(path)
    ends = np.array([-(2**12) if signed else 0, 2**12 - 1])
    low, high = apply_modality_lut(ends, dataset)
    expected = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
    np.testing.assert_allclose(read_dicom(path), shown(expected, low, high, photometric), atol=1e-6)


def smooth_curve(entries: int, top: int) -> np.ndarray:
    return np.rint(top * np.linspace(0, 1, entries) ** 0.5)


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
@pytest.mark.parametrize(
    ("depth", "entries", "first", "bits"), [(12, 4096, 0, 16), (12, 4096, 0, 12), (12, 3000, 500, 10), (8, 200, 30, 8)]
)
def test_voi_luts_agree_with_pydicom(write_dicom, depth, entries, first, bits, photometric):
    stored = full_ramp(depth)
    lut = make_lut(smooth_curve(entries, 2**bits - 1), first, bits)
    window = {"WindowCenter": 100, "WindowWidth": 50}  # the LUT comes before a window
    path = write_dicom(stored, bits=depth, photometric=photometric, VOILUTSequence=[lut], **window)
    expected = apply_voi_lut(stored, pydicom.dcmread(path))
    np.testing.assert_allclose(read_dicom(path), shown(expected, 0, 2**bits - 1, photometric), atol=1e-6)


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
@pytest.mark.parametrize("voi", ["none", "window", "lut"])
def test_modality_lut_comes_first_and_before_rescale(write_dicom, voi, photometric):
    stored = full_ramp(10)
    elements = {
        "none": {},
        "window": {"WindowCenter": 30000, "WindowWidth": 40000},
        "lut": {"VOILUTSequence": [make_lut(smooth_curve(2**16, 2**16 - 1), 0, 16)]},
    }[voi]
    modality = [make_lut(smooth_curve(1024, 2**16 - 1), 0, 16)]
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 0}
    path = write_dicom(
        stored, bits=10, photometric=photometric, ModalityLUTSequence=modality, **rescale, **elements
    )  # fmt: skip
    dataset = pydicom.dcmread(path)
    expected = apply_voi_lut(apply_modality_lut(stored, dataset), dataset)
    np.testing.assert_allclose(read_dicom(path), shown(expected, 0, 2**16 - 1, photometric), atol=1e-6)


def test_lut_entries_far_below_the_declared_bits_still_give_a_bright_image(write_dicom):
    stored = full_ramp(10)
    path = write_dicom(stored, bits=10, ModalityLUTSequence=[make_lut(np.arange(1024), 0, 16)])
    np.testing.assert_allclose(read_dicom(path), stored / 1023, atol=1e-6)


def test_lut_of_eight_bits_may_have_more_than_256_entries(write_dicom):
    stored = full_ramp(12)
    path = write_dicom(stored, bits=12, VOILUTSequence=[make_lut(np.arange(4096) // 16, 0, 8)])
    np.testing.assert_allclose(read_dicom(path), stored // 16 / 255, atol=1e-6)


def test_lut_in_an_unsigned_element_may_start_below_zero(write_dicom):
    stored = full_ramp(12, signed=True)
    path = write_dicom(stored, bits=12, VOILUTSequence=[make_lut(np.arange(4096)[::-1], 2**16 - 2048, 12)])
    np.testing.assert_allclose(read_dicom(path), 1 - (stored + 2048) / 4095, atol=1e-6)


def test_lut_with_packed_bytes_or_a_list_of_numbers(write_dicom):
    stored = full_ramp(8)
    packed, listed = make_lut(np.arange(256)[::-1], 0, 8), make_lut(np.arange(256)[::-1], 0, 8)
    packed.LUTData = bytes(range(255, -1, -1))
    listed["LUTData"] = DataElement("LUTData", "US", list(range(255, -1, -1)))
    for lut in (packed, listed):
        np.testing.assert_allclose(read_dicom(write_dicom(stored, VOILUTSequence=[lut])), 1 - stored / 255, atol=1e-6)


def test_pixels_that_use_little_of_the_nominal_range_are_stretched(write_dicom):
    stored = full_ramp(12) // 2 + 100
    np.testing.assert_allclose(read_dicom(write_dicom(stored, bits=16)), shown(stored, 100, 2147, ""), atol=1e-6)


def test_pixels_beyond_the_nominal_range_set_the_range(write_dicom):
    stored = full_ramp(12)
    path = write_dicom(stored, bits=12, RescaleSlope=1, RescaleIntercept=-1000)
    np.testing.assert_allclose(read_dicom(path), stored / 4095, atol=1e-6)


@pytest.mark.parametrize(("photometric", "expected"), [("MONOCHROME1", 0.75), ("MONOCHROME2", 0.25)])
def test_constant_image_keeps_its_place_in_the_nominal_range(write_dicom, photometric, expected):
    stored = np.full((8, 8), 64, dtype=np.uint8)
    np.testing.assert_allclose(read_dicom(write_dicom(stored, photometric=photometric)), expected, atol=2e-3)


BAD_WINDOWS = {
    "CT units": {"WindowCenter": 40, "WindowWidth": 80},
    "far away": {"WindowCenter": 60000, "WindowWidth": 100},
    "far too wide": {"WindowCenter": 2048, "WindowWidth": 2**20},
    "width 0": {"WindowCenter": 2048, "WindowWidth": 0},
    "unknown function": {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "CUBIC"},
}


@pytest.mark.parametrize("elements", BAD_WINDOWS.values(), ids=BAD_WINDOWS.keys())
def test_unusable_windows_are_ignored_with_a_warning(write_dicom, chest_like, elements):
    stored = np.rint(chest_like * 3500 + 500).astype(np.uint16)
    with pytest.warns(UserWarning, match=r"window or VOI LUT does not fit the pixel values"):
        pixels = read_dicom(write_dicom(stored, bits=12, **elements))
    np.testing.assert_allclose(pixels, stored / 4095, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("elements", [{"WindowCenter": [], "WindowWidth": []}, {"WindowCenter": 50}, {}])
def test_absent_windows_are_no_reason_to_warn(write_dicom, elements):
    np.testing.assert_allclose(read_dicom(write_dicom(full_ramp(8), **elements)), full_ramp(8) / 255, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_window_of_a_constant_or_binary_image_is_kept(write_dicom):
    window = {"WindowCenter": 100, "WindowWidth": 1}
    binary = np.where(np.eye(16, dtype=bool), np.uint8(200), np.uint8(10))
    np.testing.assert_array_equal(read_dicom(write_dicom(binary, **window)), binary == 200)


@pytest.mark.parametrize("photometric", PHOTOMETRIC)
def test_padding_is_black_and_sets_no_range(write_dicom, chest_like, photometric):
    stored = np.rint(chest_like * 1000 + 5000).astype(np.uint16)
    stored[:10], stored[-5:] = 0, 3
    path = write_dicom(stored, photometric=photometric, PixelPaddingValue=0, PixelPaddingRangeLimit=3)
    pixels, inside = read_dicom(path), stored[10:-5]
    assert not pixels[:10].any()
    assert not pixels[-5:].any()
    np.testing.assert_allclose(pixels[10:-5], shown(inside, inside.min(), inside.max(), photometric), atol=1e-6)


def test_inverting_twice_is_identity(write_dicom, chest_like):
    stored = np.rint(chest_like * 4095).astype(np.uint16)
    once = read_dicom(write_dicom(stored, bits=12, photometric="MONOCHROME1"))
    again = np.rint(once * 4095).astype(np.uint16)
    twice = read_dicom(write_dicom(again, bits=12, photometric="MONOCHROME1"))
    np.testing.assert_allclose(twice, stored / 4095, atol=1e-6)


SYNTAXES = [
    pytest.param(syntax, kind, bits, id=f"{UID(syntax).keyword}-{kind}-{bits}")
    for syntax in (*UNCOMPRESSED, *COMPRESSED)
    for kind, bits in [("u1", 8), ("u2", 10), ("u2", 12), ("u2", 16), ("i2", 16)]
    if (syntax, kind) not in [(JPEGLSLossless, "i2"), (JPEGLosslessSV1, "i2")]
]


@pytest.mark.parametrize(("syntax", "kind", "bits"), SYNTAXES)
def test_every_lossless_transfer_syntax_gives_the_same_pixels(write_dicom, chest_like, syntax, kind, bits):
    stored = np.rint(chest_like * (2**bits - 1) - (2 ** (bits - 1) if kind == "i2" else 0)).astype(kind)
    path = write_dicom(stored, syntax, bits=bits, photometric="MONOCHROME1")
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    low = -(2 ** (bits - 1)) if kind == "i2" else 0
    np.testing.assert_allclose(read_dicom(path), shown(stored, low, low + 2**bits - 1, "MONOCHROME1"), atol=1e-6)


@pytest.fixture(scope="session")
def colours():
    """(48, 40, 3) uint8 with saturated and mixed colours."""
    red, green = np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 48))
    return np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)


def luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_becomes_luminance(write_dicom, colours, bits):
    stored = colours if bits == 8 else colours.astype(np.uint16) * 257
    expected = luminance(colours) / 255
    np.testing.assert_allclose(read_dicom(write_dicom(stored, photometric="RGB")), expected, atol=1 / 255)


def test_ybr_becomes_luminance(write_dicom, colours):
    ybr = pydicom.pixels.convert_color_space(colours, "RGB", "YBR_FULL")
    pixels = read_dicom(write_dicom(ybr, photometric="YBR_FULL"))
    np.testing.assert_allclose(pixels, luminance(colours) / 255, atol=2 / 255)


def test_jpeg_2000_colour_transform(write_dicom, colours):
    pixels = read_dicom(write_dicom(colours, JPEG2000Lossless, photometric="RGB"))
    np.testing.assert_allclose(pixels, luminance(colours) / 255, atol=1 / 255)


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_becomes_luminance(write_dicom, bits):
    index = full_ramp(8)
    ramps = [np.arange(256), np.arange(256)[::-1], np.full(256, 30)]
    elements = {}
    for name, ramp in zip(("Red", "Green", "Blue"), ramps, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        entries = ramp.astype(np.uint8) if bits == 8 else (ramp * 257).astype(np.uint16)
        elements[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    pixels = read_dicom(write_dicom(index, photometric="PALETTE COLOR", **elements))
    expected = luminance(np.stack(ramps, axis=-1))[index]
    np.testing.assert_allclose(pixels, expected / 255, atol=2 / 255)


def test_of_several_frames_the_first_is_read_with_a_warning(write_dicom):
    frames = np.concatenate([full_ramp(8), 255 - full_ramp(8)])
    path = write_dicom(frames, Rows=64, NumberOfFrames=2)
    with pytest.warns(UserWarning, match=r"has 2 frames; only the first is read"):
        pixels = read_dicom(path)
    np.testing.assert_allclose(pixels, full_ramp(8) / 255, atol=1e-6)


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "explicit"])
def test_file_without_preamble_and_meta(tmp_path, implicit):
    dataset = make_dataset(full_ramp(12), bits=12, photometric="MONOCHROME1")
    dataset.preamble = None
    del dataset.file_meta
    path = tmp_path / "bare.dcm"
    dataset.save_as(path, implicit_vr=implicit, little_endian=True)
    np.testing.assert_allclose(read_dicom(path), 1 - full_ramp(12) / 4095, atol=1e-6)


def test_jpeg_baseline(tmp_path, chest_like):
    stored = np.rint(chest_like * 255).astype(np.uint8)
    coded = io.BytesIO()
    Image.fromarray(stored).save(coded, "JPEG", quality=98)
    path = save_encoded(tmp_path / "baseline.dcm", make_dataset(stored), coded.getvalue(), JPEGBaseline8Bit)
    np.testing.assert_allclose(read_dicom(path), stored / 255, atol=6 / 255)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from(BITS),
    signed=st.booleans(),
    center=st.floats(-5000, 70000),
    width=st.floats(0, 70000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    slope=st.sampled_from([-3.5, -1, 0.01, 1, 2]),
)
@pytest.mark.filterwarnings("ignore:.*does not fit the pixel values")
def test_polarity_is_exact_whatever_the_display_elements(write_dicom, bits, signed, center, width, function, slope):
    elements = {
        "bits": bits,
        "WindowCenter": round(center, 2),
        "WindowWidth": round(width, 2),
        "VOILUTFunction": function,
        "RescaleSlope": slope,
        "RescaleIntercept": -10,
    }
    stored = full_ramp(bits, signed)
    dark, bright = (read_dicom(write_dicom(stored, photometric=name, **elements)) for name in PHOTOMETRIC)
    assert dark.min() >= 0
    assert dark.max() <= 1
    np.testing.assert_allclose(dark + bright, 1, atol=1e-6)
