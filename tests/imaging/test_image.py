"""Image files of every mode, the door that tells them from DICOM, and any bytes at all."""

import io
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import RLELossless

from cxr.errors import ImageError
from cxr.imaging.image import is_dicom, read_image, read_image_size, read_pixels

from .dicom_files import make_dataset, save

GREY = np.arange(48 * 40, dtype=np.int64).reshape(48, 40) % 256
RGB = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1).astype(np.uint8)
LUMINANCE = RGB @ np.array([0.299, 0.587, 0.114]) / 255
LEVEL = 1 / 255


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "grey.bmp"])
def test_eight_bit_levels_are_kept(tmp_path, name):
    path = saved(tmp_path, Image.fromarray((GREY // 4).astype(np.uint8)), name)
    pixels = read_image(path)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, (GREY // 4).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("RGB", kind) for kind in ("png", "jpg", "tif", "bmp")),
        *(("RGBA", kind) for kind in ("png", "tif")),
        *(("CMYK", kind) for kind in ("jpg", "tif")),
        *(("YCbCr", kind) for kind in ("jpg", "tif")),
    ],
)
def test_colour_becomes_luminance(tmp_path, mode, kind):
    smooth = np.asarray(Image.fromarray(RGB).resize((40, 48), Image.Resampling.BOX, (4, 4, 8, 8)))
    options = {"quality": 100, "subsampling": 0} if kind == "jpg" else {}
    path = saved(tmp_path, Image.fromarray(smooth).convert(mode), f"colour.{kind}", **options)
    expected = smooth @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(read_image(path), expected, atol=4 * LEVEL)


def test_alpha_is_ignored(tmp_path):
    alpha = np.where(GREY > 100, 255, 0).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(np.dstack([RGB, alpha])), "alpha.png")
    np.testing.assert_allclose(read_image(path), LUMINANCE, atol=LEVEL)
    grey = Image.merge("LA", [Image.fromarray(GREY.astype(np.uint8)), Image.fromarray(alpha)])
    np.testing.assert_allclose(read_image(saved(tmp_path, grey, "grey_alpha.png")), GREY / 255, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(256))], ids=["opaque", "one colour", "table"])
def test_palette_becomes_luminance(tmp_path, transparency):
    image = Image.fromarray(RGB).quantize(256)
    expected = np.asarray(image.convert("RGB")) @ np.array([0.299, 0.587, 0.114]) / 255
    options = {} if transparency is None else {"transparency": transparency}
    np.testing.assert_allclose(read_image(saved(tmp_path, image, "p.png", **options)), expected, atol=LEVEL)


def test_black_and_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(GREY > 100), "bits.png")
    np.testing.assert_array_equal(read_image(path), (GREY > 100).astype(np.float32))


SIXTEEN = (np.arange(256 * 256) % 2**16).reshape(256, 256).astype(np.uint16)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits(tmp_path, kind):
    pixels = read_image(saved(tmp_path, Image.fromarray(SIXTEEN), f"deep.{kind}"))
    np.testing.assert_allclose(pixels, SIXTEEN / 65535, atol=1e-6)
    assert len(np.unique(pixels)) == 2**16


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_twelve_bits_in_a_sixteen_bit_file_are_not_nearly_black(tmp_path, kind):
    path = saved(tmp_path, Image.fromarray(SIXTEEN // 16), f"deep.{kind}")
    np.testing.assert_allclose(read_image(path), SIXTEEN // 16 / 4095, atol=1e-6)


def write_png(path, samples, colour_type, *chunks):
    """A PNG of (H, W, C) uint16 `samples`, of which Pillow and OpenCV write only some kinds."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts))
    return path


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


GREY_ALPHA, COLOUR, COLOUR_ALPHA = 4, 2, 6
DEEP_KINDS = [(GREY_ALPHA, "ga"), (COLOUR, "ggg"), (COLOUR_ALPHA, "ggga")]


@pytest.mark.parametrize("divisor", [1, 16], ids=["16 bits", "12 bits in 16"])
@pytest.mark.parametrize(("colour_type", "channels"), DEEP_KINDS, ids=["LA", "RGB", "RGBA"])
def test_sixteen_bits_with_alpha_or_colour(tmp_path, colour_type, channels, divisor):
    planes = {"g": SIXTEEN // divisor, "a": np.full_like(SIXTEEN, 7)}
    path = write_png(tmp_path / "deep.png", np.stack([planes[name] for name in channels], axis=-1), colour_type)
    np.testing.assert_allclose(read_image(path), SIXTEEN // divisor / (65535 // divisor), atol=1e-6)


DEEP_RGB = np.stack([SIXTEEN, SIXTEEN[:, ::-1], np.full_like(SIXTEEN, 900)], axis=-1)
DEEP_LUMINANCE = DEEP_RGB @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits_of_each_colour_become_luminance(tmp_path, kind):
    path = tmp_path / f"colour.{kind}"
    cv2.imwrite(str(path), DEEP_RGB[..., ::-1])
    np.testing.assert_allclose(read_image(path), DEEP_LUMINANCE / 65535, atol=2 / 65535)


def test_sixteen_bit_colour_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    chunk = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = write_png(tmp_path / "turned.png", DEEP_RGB[:200], COLOUR, chunk)
    np.testing.assert_allclose(read_image(path), np.rot90(DEEP_LUMINANCE[:200], -1) / 65535, atol=2 / 65535)


def test_sixteen_bit_colour_that_opencv_cannot_decode(tmp_path, monkeypatch):
    path = write_png(tmp_path / "deep.png", DEEP_RGB, COLOUR)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    with pytest.raises(ImageError, match=r"deep\.png: .* OpenCV cannot decode the 16 bits of each colour; export"):
        read_image(path)


def test_sixteen_bit_tiff_with_white_as_zero(tmp_path):
    path = saved(tmp_path, Image.fromarray(SIXTEEN), "negative.tif", tiffinfo={262: 0})
    np.testing.assert_allclose(read_image(path), 1 - SIXTEEN / 65535, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-2, 30)])
def test_float_tiff(tmp_path, low, high):
    values = np.linspace(low, high, 48 * 40, dtype=np.float32).reshape(48, 40)
    pixels = read_image(saved(tmp_path, Image.fromarray(values), "float.tif"))
    np.testing.assert_allclose(pixels, (values - low) / (high - low), atol=1e-6)


def test_float_tiff_that_is_not_finite(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "nan.tif")
    with pytest.raises(ImageError, match=r"nan\.tif: .* NaN or infinity among the pixel values; export"):
        read_image(path)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    path = saved(tmp_path, Image.fromarray(GREY.astype(np.uint8)), "turned.png", exif=exif)
    np.testing.assert_allclose(read_image(path), np.rot90(GREY, -1) / 255, atol=1e-6)


def test_of_several_pages_the_first_is_read_with_a_warning(tmp_path):
    first, second = Image.fromarray(GREY.astype(np.uint8)), Image.new("L", (40, 48), 7)
    path = saved(tmp_path, first, "pages.tif", save_all=True, append_images=[second])
    with pytest.warns(UserWarning, match=r"has 2 pages; only the first is read"):
        pixels = read_image(path)
    np.testing.assert_allclose(pixels, GREY / 255, atol=1e-6)


def test_what_is_no_image(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not an image")
    with pytest.raises(ImageError, match=r"notes\.png: expected a DICOM, PNG, .* image, but got Unidentified"):
        read_pixels(path)


def test_formats_that_are_not_offered(tmp_path):
    with pytest.raises(ImageError, match="expected a DICOM, PNG, JPEG, TIFF or BMP image"):
        read_image(saved(tmp_path, Image.fromarray(RGB), "picture.gif"))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_image(tmp_path, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), "cut.jpg")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ImageError, match=r"cut\.jpg: expected a DICOM, PNG, JPEG, TIFF or BMP image, but got"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 40_000])
def test_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    path = tmp_path / "bomb.bmp"
    content = bytearray(encoded("BMP"))
    content[18:26] = struct.pack("<ii", side, side)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bomb\.bmp: expected .*(at most 100000000 pixels|DecompressionBombError)"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_pixels, is_dicom])
def test_missing_file(tmp_path, read):
    with pytest.raises(ImageError, match=r"absent\.png: expected .*, but there is no such file; check the path"):
        read(tmp_path / "absent.png")


def test_folder(tmp_path):
    with pytest.raises(ImageError, match="expected an image file, but it is a folder; name the files in it"):
        read_pixels(tmp_path)


def test_content_decides_and_not_the_name(tmp_path, write_dicom):
    picture = saved(tmp_path, Image.fromarray(GREY.astype(np.uint8)), "picture.dcm", format="PNG")
    study = write_dicom(GREY.astype(np.uint8)).rename(tmp_path / "study.png")
    bare = tmp_path / "bare"
    dataset = make_dataset(GREY.astype(np.uint8))
    dataset.preamble = None
    del dataset.file_meta
    dataset.save_as(bare, implicit_vr=True, little_endian=True)
    assert [is_dicom(path) for path in (picture, study, bare)] == [False, True, True]
    for path in (picture, study, bare):
        np.testing.assert_allclose(read_pixels(path), GREY / 255, atol=1e-6)


def test_images_are_read_without_loading_pydicom():
    code = "import sys, cxr.imaging.image; sys.exit(bool({'pydicom', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def encoded(kind: str) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(RGB).save(memory, kind)
    return memory.getvalue()


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory):
    """Valid files of several kinds, to be damaged."""
    path = tmp_path_factory.mktemp("whole") / "x.dcm"
    stored = GREY.astype(np.uint16) * 16
    native = save(path, make_dataset(stored, bits=12), stored).read_bytes()
    rle = save(path, make_dataset(stored, bits=12), stored, RLELossless).read_bytes()
    return [native, native[132:], rle, encoded("PNG"), encoded("JPEG"), encoded("TIFF"), encoded("BMP")]


def assert_image_or_image_error(path):
    try:
        pixels = read_pixels(path)
    except ImageError:
        return
    assert pixels.dtype == np.float32
    assert pixels.ndim == 2
    assert pixels.size
    assert 0 <= pixels.min() <= pixels.max() <= 1


HEADS = [b"", b"\0" * 128 + b"DICM", b"\x08\x00", b"\x89PNG\r\n\x1a\n"]


@settings(max_examples=80, deadline=None)
@given(
    head=st.sampled_from([b"", b"\0" * 128 + b"DICM", b"\x08\x00", b"\x89PNG\r\n\x1a\n"]), tail=st.binary(max_size=300)
)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_are_an_image_or_an_image_error(tmp_path_factory, head, tail):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + tail)
    assert_image_or_image_error(path)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_an_image_or_an_image_error(tmp_path_factory, whole_files, data):
    content = bytearray(data.draw(st.sampled_from(whole_files)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 900) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.sampled_from([1.0, 1.0, 0.7]))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: int(kept * len(content))])
    assert_image_or_image_error(path)


@pytest.mark.parametrize(("orientation", "size"), [(None, (3, 5)), (1, (3, 5)), (6, (5, 3))])
def test_size_is_that_of_the_upright_image(orientation, size, tmp_path):
    image = Image.new("L", (5, 3))
    exif = image.getexif()
    if orientation is not None:
        exif[274] = orientation
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image_size(tmp_path / "a.jpg") == size == read_image(tmp_path / "a.jpg").shape


def test_size_of_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(ImageError, match=r"a\.png: expected a PNG, JPEG, TIFF or BMP image, but got UnidentifiedImage"):
        read_image_size(tmp_path / "a.png")
