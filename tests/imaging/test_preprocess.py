import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxr.errors import ConfigError, ImageError
from cxr.imaging.preprocess import InputContract, Preprocess

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
XRV = Preprocess(low=-1024, high=1024)
IMAGENET = Preprocess(channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD)
SETTINGS = {"unit": Preprocess(normalizer="unit"), "xrv": XRV, "imagenet": IMAGENET}


@pytest.mark.parametrize("precision", ["uint8", "uint16"])
@pytest.mark.parametrize("normalizer", ["unit", "minmax", "equalize", "clahe", "percentile"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_stored_ramps_keep_at_least_200_grey_levels(bits, normalizer, precision):
    levels = np.rint(np.linspace(0, 2**bits - 1, 256 * 256)).reshape(256, 256)
    preprocess = Preprocess(size=(256, 256), normalizer=normalizer, precision=precision)
    stored = preprocess.store((levels / (2**bits - 1)).astype(np.float32))
    assert stored.dtype == precision
    assert stored.shape == (256, 256)
    assert len(np.unique(stored)) >= 200


@pytest.mark.parametrize(("precision", "white"), [("uint8", 255), ("uint16", 65535)])
def test_store_rounds_to_the_nearest_level(precision, white):
    image = np.random.default_rng(0).random((30, 20)).astype(np.float32)
    stored = Preprocess(size=(30, 20), normalizer="unit", precision=precision).store(image)
    assert abs(stored / white - image).max() <= 0.5 / white + 1e-6


def test_unit_without_resizing_is_the_image_divided_by_its_white():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    result = Preprocess(size=(16, 16), normalizer="unit")(levels.astype(np.float32) / np.float32(255))
    np.testing.assert_allclose(result[0], levels / 255, atol=1e-6)


def test_normaliser_works_on_the_full_resolution_before_padding():
    image = np.full((40, 20), 0.5, dtype=np.float32)
    image[::2] = 0.3
    stored = Preprocess(size=(20, 20)).store(image)
    assert (stored[:, 5:15] == 128).all()
    assert not stored[:, :5].any()


@pytest.mark.parametrize("preprocess", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("precision", ["uint8", "uint16"])
def test_finish_is_scale_and_offset_with_a_batch_in_front(preprocess, precision):
    preprocess = replace(preprocess, precision=precision)
    stored = (
        np.random.default_rng(0).integers(0, np.iinfo(precision).max, (2, 5, 7, 9), endpoint=True).astype(precision)
    )
    result = preprocess.finish(stored)
    scale, offset = preprocess.scale_offset
    assert result.shape == (2, 5, preprocess.channels, 7, 9)
    assert result.dtype == scale.dtype == offset.dtype == np.float32
    for channel in range(preprocess.channels):
        np.testing.assert_array_equal(result[:, :, channel], stored * scale[channel] + offset[channel])


def test_finished_values_of_the_known_contracts():
    stored = np.array([[0, 51, 255]], dtype=np.uint8)
    np.testing.assert_allclose(XRV.finish(stored), [[[-1024, -614.4, 1024]]], rtol=1e-6)
    expected = (stored / 255 - np.reshape(IMAGENET_MEAN, (3, 1, 1))) / np.reshape(IMAGENET_STD, (3, 1, 1))
    np.testing.assert_allclose(IMAGENET.finish(stored), expected, atol=1e-6)
    centred = Preprocess(low=-1, high=1, mean=[0.5], std=[2.0])
    np.testing.assert_allclose(centred.finish(stored), [[[-0.75, -0.55, 0.25]]], rtol=1e-6)


@pytest.mark.parametrize("preprocess", SETTINGS.values(), ids=SETTINGS.keys())
def test_black_is_the_finished_value_of_stored_zero(preprocess):
    finished = preprocess.finish(np.zeros((1, 1), dtype=np.uint8))
    np.testing.assert_array_equal(preprocess.black, finished[:, 0, 0])


def test_call_is_finish_of_store(chest_like):
    image = chest_like.astype(np.float32)
    np.testing.assert_array_equal(XRV(image), XRV.finish(XRV.store(image)))


IMAGES = arrays(np.float32, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.floats(0, 1, width=32))
PREPROCESSES = st.builds(
    Preprocess,
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    normalizer=st.sampled_from(["unit", "minmax", "equalize", "clahe", "percentile"]),
    aspect=st.sampled_from(["pad", "crop", "stretch"]),
    precision=st.sampled_from(["uint8", "uint16"]),
    low=st.floats(-2000, 0),
    high=st.floats(1, 2000),
)


@settings(max_examples=80, deadline=None)
@given(image=IMAGES, preprocess=PREPROCESSES)
def test_finished_images_stay_between_low_and_high(image, preprocess):
    result = preprocess(image)
    span = preprocess.high - preprocess.low
    assert result.shape == (1, *preprocess.size)
    assert result.min() >= preprocess.low - 1e-6 * span
    assert result.max() <= preprocess.high + 1e-6 * span


@settings(max_examples=60, deadline=None)
@given(preprocess=PREPROCESSES, image=IMAGES, data=st.data())
def test_brighter_pixels_never_store_darker(preprocess, image, data):
    preprocess = replace(preprocess, normalizer="unit")
    step = data.draw(arrays(np.float32, image.shape, elements=st.floats(0, 1, width=32)))
    assert (preprocess.store(np.minimum(image + step, 1)) >= preprocess.store(image)).all()


def test_store_fingerprint_changes_with_what_changes_the_store():
    base = Preprocess()
    other = [
        replace(base, size=(224, 225)),
        replace(base, normalizer="unit"),
        replace(base, aspect="crop"),
        replace(base, precision="uint16"),
    ]
    assert len({preprocess.stored_fingerprint for preprocess in [base, *other]}) == 5
    assert XRV.stored_fingerprint == IMAGENET.stored_fingerprint == base.stored_fingerprint
    assert base.stored_fingerprint == "8fb68ed21c535a90"


@pytest.mark.parametrize("preprocess", SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_survive_json(preprocess):
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_unknown_settings_are_refused():
    with pytest.raises(
        ConfigError, match=r"expected preprocess settings among \['size', .* but got \['colour'\]; remove"
    ):
        Preprocess.from_dict({"colour": 3})


INVALID = [
    ({"size": 224}, r"preprocess\.size to be \[height, width\] in whole pixels, but got 224; set"),
    ({"size": (0, 3)}, r"preprocess\.size .* got \(0, 3\)"),
    ({"size": (2.5, 3)}, r"preprocess\.size .* got \(2\.5, 3\)"),
    ({"channels": 0}, r"preprocess\.channels to be an integer of at least 1, but got 0"),
    ({"channels": True}, r"preprocess\.channels .* got True"),
    ({"normalizer": "none"}, r"normalizer to be one of unit, minmax, equalize, clahe, percentile, but got 'none'"),
    ({"aspect": "fill"}, r"aspect to be one of pad, crop, stretch, but got 'fill'"),
    ({"precision": "float32"}, r"precision to be one of uint8, uint16, but got 'float32'"),
    ({"low": 1.0, "high": 1.0}, r"preprocess\.low below preprocess\.high, both finite numbers, but got 1\.0 and 1\.0"),
    ({"high": float("inf")}, r"both finite numbers, but got 0\.0 and inf"),
    ({"mean": (0.5, 0.5)}, r"preprocess\.mean to be 1 finite numbers, one per channel, but got \(0\.5, 0\.5\)"),
    ({"mean": "half"}, r"preprocess\.mean .* got 'half'"),
    ({"std": (0.0,)}, r"preprocess\.std to be 1 positive numbers, one per channel, but got \(0\.0,\)"),
]


@pytest.mark.parametrize(("settings", "message"), INVALID, ids=[str(case[0]) for case in INVALID])
def test_invalid_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Preprocess(**settings)


BAD_PIXELS = {
    "three axes": (np.zeros((3, 4, 5)), r"shape \(H, W\), but got \(3, 4, 5\)"),
    "no pixels": (np.zeros((0, 5)), r"shape \(H, W\), but got \(0, 5\)"),
    "0 to 255": (np.array([[0.0, 255.0]]), r"pixels in \[0, 1\], but got 0 to 255; read the image with read_pixels"),
    "NaN": (np.array([[0.0, np.nan]]), r"pixels in \[0, 1\], but got nan to nan"),
}


@pytest.mark.parametrize(("pixels", "message"), BAD_PIXELS.values(), ids=BAD_PIXELS.keys())
def test_pixels_of_another_kind_are_refused(pixels, message):
    with pytest.raises(ImageError, match=message):
        Preprocess().store(pixels.astype(np.float32))


def test_stored_images_of_another_precision_are_refused():
    with pytest.raises(ImageError, match=r"stored images of type uint16, but got uint8; rebuild the cache"):
        Preprocess(precision="uint16").finish(np.zeros((2, 2), dtype=np.uint8))


def test_weights_statistics_are_filled_from_the_contract():
    contract = InputContract(channels=3, size=(224, 224), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    open_settings = Preprocess(channels=3, mean="weights", std="weights")
    assert contract.complete(open_settings) == IMAGENET
    assert contract.complete(XRV) == XRV
    assert InputContract(channels=1).complete(Preprocess(mean="weights", std="weights")) == Preprocess()
    assert Preprocess.from_dict(open_settings.to_dict()) == open_settings


def test_weights_statistics_must_be_filled_before_use():
    with pytest.raises(ConfigError, match=r'expected numbers in preprocess\.mean .* got "weights"; complete'):
        _ = Preprocess(mean="weights").scale_offset


FITTING = [
    (InputContract(channels=1, size=(224, 224), low=-1024, high=1024), XRV),
    (InputContract(channels=3, mean=IMAGENET_MEAN, std=IMAGENET_STD), IMAGENET),
    (InputContract(channels=1, size_multiple=32), Preprocess(size=(64, 96))),
]


@pytest.mark.parametrize(("contract", "preprocess"), FITTING)
def test_fitting_preprocessing_passes(contract, preprocess):
    contract.check(preprocess, "net")


MISFITS = [
    (
        FITTING[0][0],
        Preprocess(),
        r"net expects low=-1024, high=1024, .* gives low=0\.0, high=1\.0; choose preprocess=xrv",
    ),
    (FITTING[0][0], replace(XRV, size=(96, 96)), r"expects size=\[224, 224\], .* or set preprocess\.size=\[224,224\]"),
    (FITTING[1][0], XRV, r"expects channels=3, low=0\.0, .* choose preprocess=imagenet_224"),
    (
        FITTING[1][0],
        replace(IMAGENET, mean=(0.5, 0.5, 0.5)),
        r"expects mean=\[0\.485, .* gives mean=\[0\.5, 0\.5, 0\.5\]",
    ),
    (FITTING[1][0], replace(IMAGENET, std="weights"), r"expects std=\[0\.229, .* gives std=weights"),
    (
        InputContract(channels=1),
        replace(Preprocess(), mean=(0.5,)),
        r"expects mean=null, .* choose preprocess=unit_224 or",
    ),
    (FITTING[2][0], Preprocess(size=(64, 100)), r"sides that are multiples of 32, .* gives size=\[64, 100\]; choose"),
]


@pytest.mark.parametrize(("contract", "preprocess", "message"), MISFITS)
def test_misfits_are_refused(contract, preprocess, message):
    with pytest.raises(ConfigError, match=message):
        contract.check(preprocess, "net")


def test_preprocessing_needs_neither_pydicom_nor_torch():
    code = "import sys, cxr.imaging.preprocess; sys.exit(bool({'pydicom', 'torch', 'PIL'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
