import contextlib
import hashlib
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr.errors import ConfigError, CxrError, ImageError, WeightsError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import MODEL, load_bundle, write_bundle
from cxr.inference.description import DESCRIPTION
from cxr.inference.net_predictor import NetPredictor
from cxr.models.build import BUILDERS, build_net
from cxr.models.custom_cnn import build_custom_cnn
from cxr.models.head import Classifier
from cxr.scaling import UNSCALED

NAMES = ["Negative for Pneumonia", "Typical Appearance", "Atypical Appearance"]
NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
PREPROCESS = Preprocess(size=(32, 48), normalizer="percentile")
EXTRAS = {"data": {"fingerprint": "abc"}, "metrics": {"val/auroc": 0.9, "test/ppv": float("nan")}, "size": (1, 2)}


def make_net(**changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    arguments = {**NET, **changes}
    return build_net(arguments.pop("name"), len(NAMES), **arguments)


def write(folder: Path, **changes: Any) -> torch.nn.Module:
    arguments = {"net_config": NET, "class_names": NAMES, "preprocess": PREPROCESS, "extras": EXTRAS, **changes}
    net = arguments.pop("net", None)
    net = make_net() if net is None else net
    write_bundle(folder, net, **arguments)
    return net


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write(tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(bundle: Path, **changes: Any) -> Path:
    path = bundle / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return bundle


def random_images(n: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((40 + i, 50 - i), dtype=np.float32) for i in range(n)]


def test_a_bundle_predicts_what_its_net_did(bundle):
    net, images = make_net().eval(), random_images()
    with torch.no_grad():
        batch = torch.from_numpy(np.stack([PREPROCESS(image) for image in images]))
        expected = net(batch).double().softmax(dim=1).numpy()
    probs = load_bundle(bundle).predict_pixels(images)
    assert probs.shape == (5, 3)
    np.testing.assert_allclose(probs, expected, atol=1e-7)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)


def test_a_bundle_knows_what_it_was_made_with(bundle):
    predictor = load_bundle(bundle)
    assert predictor.class_names == NAMES
    assert predictor.preprocess == PREPROCESS
    assert (predictor.scaling, predictor.calibrated, predictor.operating_point) == (UNSCALED, False, None)
    assert predictor.extras["metrics"] == {"val/auroc": 0.9, "test/ppv": None}
    assert predictor.net.input_contract == make_net().input_contract
    assert not predictor.net.training


def test_a_bundle_is_two_files_and_its_description_is_plain(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == [DESCRIPTION, MODEL]
    description = json.loads((bundle / DESCRIPTION).read_text())
    assert description["net"] == NET
    assert description["sha256"] == {MODEL: hashlib.sha256((bundle / MODEL).read_bytes()).hexdigest()}


def test_predict_reads_files_in_their_order(bundle, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, random_images(), strict=True):
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    predictor = load_bundle(bundle)
    table = predictor.predict(paths, batch_size=2)
    probs = table[["prob_0", "prob_1", "prob_2"]].to_numpy()
    assert table["image_path"].tolist() == [str(path) for path in paths]
    assert table["prediction"].tolist() == [NAMES[k] for k in probs.argmax(axis=1)]
    np.testing.assert_allclose(probs, predictor.predict_pixels([read_pixels(path) for path in paths]), atol=1e-6)


def test_predicting_nothing_gives_nothing(bundle):
    predictor = load_bundle(bundle)
    assert predictor.predict_pixels([]).shape == (0, 3)
    assert list(predictor.predict([])) == ["image_path", "prediction", "prob_0", "prob_1", "prob_2", "unlike_training"]


def test_a_file_without_an_image_is_refused(bundle, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.png"):
        load_bundle(bundle).predict([tmp_path / "text.png"])


def test_temperature_softens_the_probabilities(bundle):
    images = random_images()
    sharp = load_bundle(bundle).predict_pixels(images)
    soft = load_bundle(edit(bundle, temperature=4.0, calibrated=True))
    assert soft.calibrated
    expected = sharp**0.25 / (sharp**0.25).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(soft.predict_pixels(images), expected)


def test_a_bias_moves_the_probabilities(bundle):
    images = random_images()
    odds = load_bundle(bundle).predict_pixels(images) * np.exp([0.5, 0.0, -0.5])
    moved = load_bundle(edit(bundle, bias=[0.5, 0.0, -0.5])).predict_pixels(images)
    np.testing.assert_allclose(moved, odds / odds.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("kind", ["oracle", ["net"]])
def test_a_kind_that_this_version_does_not_know(bundle, kind):
    with pytest.raises(
        WeightsError, match=re.escape(f"to be of kind net, ensemble, classical, got {kind!r}; update cxr-lab")
    ):
        load_bundle(edit(bundle, kind=kind))


def test_a_bundle_can_be_moved(bundle, tmp_path):
    before = load_bundle(bundle).predict_pixels(random_images())
    bundle.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(load_bundle(tmp_path / "elsewhere").predict_pixels(random_images()), before)


def test_writing_again_replaces_the_bundle(bundle):
    (bundle.parent / ".bundle.part").mkdir()
    (bundle.parent / ".bundle.part" / "left_by_a_killed_run").write_text("")
    write(bundle, class_names=["a", "b", "c"])
    assert load_bundle(bundle).class_names == ["a", "b", "c"]
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_failed_write_keeps_the_old_bundle(bundle, monkeypatch):
    def write_until_full(path: Path, content: bytes) -> int:
        if path.name == DESCRIPTION:
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    write_bytes = Path.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_until_full)
        with pytest.raises(OSError, match="No space left"):
            write(bundle, class_names=["a", "b", "c"])
    assert load_bundle(bundle).class_names == NAMES
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_what_would_not_load_is_not_written(tmp_path):
    with pytest.raises(WeightsError, match=r"to hold the tensors of this net, got .*of another shape"):
        write(tmp_path / "bundle", net=make_net(filters_1=8))
    with pytest.raises(ConfigError, match="custom_cnn expects channels=1, but the preprocessing gives channels=3"):
        write(tmp_path / "bundle", preprocess=Preprocess(channels=3))
    with pytest.raises(ConfigError, match=r"expected plain values in bundle\.json: extras: run: path, got PosixPath"):
        write(tmp_path / "bundle", extras={"run": {"path": Path("/a")}})
    assert list(tmp_path.iterdir()) == []


def test_a_net_without_a_contract_is_not_written(tmp_path):
    net = make_net()
    net.input_contract = None
    with pytest.raises(ConfigError, match="expected a net with an InputContract, got NoneType"):
        write(tmp_path / "bundle", net=net)


@pytest.mark.parametrize("name", [DESCRIPTION, MODEL])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(WeightsError, match=rf"expected .* {bundle / name}, (found none|got)"):
        load_bundle(bundle)


def test_damaged_weights_are_found(bundle):
    content = bytearray((bundle / MODEL).read_bytes())
    content[-1] ^= 1
    (bundle / MODEL).write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"expected .*model\.safetensors with SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"
    ):
        load_bundle(bundle)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "[" * 100_000])
def test_a_description_that_is_none(bundle, text):
    (bundle / DESCRIPTION).write_text(text)
    with pytest.raises(WeightsError, match=r"expected (JSON in|a bundle of format 1 in) .*bundle\.json"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"expected a bundle of format 1 in .*, got 2; update cxr-lab"),
        ({"net": {"name": "os.system", "command": "true"}}, "expected net.name to be one of"),
        ({"net": {"name": "torch.nn.Linear", "in_features": 3}}, "expected net.name to be one of"),
        ({"net": {**NET, "_target_": "os.system"}}, "got _target_; remove them"),
        ({"net": {}}, "to describe a predictor of this version, got: 'name'"),
        ({"class_names": ["one"]}, r"class_names \['one'\]"),
        ({"class_names": None}, "to describe a predictor of this version"),
        ({"temperature": 0}, "temperature 0"),
        ({"bias": [0.1]}, r"bias \(0.1,\)"),
        ({"operating_point": [1]}, r"operating_point \[1\]"),
        ({"operating_point": {"x": 1}}, "operating_point 1 of 'x'"),
        ({"operating_point": {NAMES[0]: 1}}, f"operating_point {NAMES[0]} 1"),
        ({"operating_point": {NAMES[0]: None}}, f"operating_point None of '{NAMES[0]}'"),
        ({"operating_point": {"threshold": 0.5}}, "operating_point .* of None"),
        ({"operating_point": {"threshold": 0.5, "positive_class": "x"}}, "operating_point .* of 'x'"),
        ({"operating_point": {"threshold": float("nan"), "positive_class": NAMES[0]}}, "operating_point .*nan"),
        ({"operating_point": {"threshold": True, "positive_class": NAMES[0]}}, "operating_point .*True"),
        ({"abstention": "x"}, "abstention 'x'"),
        ({"preprocess": {"sizes": [1, 1]}}, "expected preprocess settings among"),
        ({"preprocess": {"channels": 3}}, "custom_cnn expects channels=1, but the preprocessing gives channels=3"),
        ({"input_contract": {"colours": 1}}, "to describe a predictor of this version"),
        ({"sha256": None}, "with SHA-256 None"),
    ],
)
def test_a_description_that_does_not_fit(bundle, changes, message):
    with pytest.raises(WeightsError, match=message):
        load_bundle(edit(bundle, **changes))


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_weights_that_are_a_pickle_are_not_run(bundle, tmp_path):
    content = pickle.dumps(Payload(str(tmp_path / "ran")))
    (bundle / MODEL).write_bytes(content)
    edit(bundle, sha256={MODEL: hashlib.sha256(content).hexdigest()})
    with pytest.raises(WeightsError, match="in safetensors format"):
        load_bundle(bundle)
    assert not (tmp_path / "ran").exists()


def test_other_weights_are_never_followed(tmp_path, monkeypatch):
    def build_careless(num_classes: int, *, pretrained: bool = False, weights_path: str | None = None) -> Classifier:
        if pretrained:
            pickle.loads(Path(str(weights_path)).read_bytes())
        return build_custom_cnn(num_classes, filters_1=4, filters_2=4, filters_3=4, filters_4=4)

    monkeypatch.setitem(BUILDERS, "careless", build_careless)
    (tmp_path / "other.pt").write_bytes(pickle.dumps(Payload(str(tmp_path / "ran"))))
    asked = {"name": "careless", "pretrained": True, "weights_path": str(tmp_path / "other.pt")}
    net = write(tmp_path / "bundle", net=build_careless(len(NAMES)), net_config=asked)
    stored = json.loads((tmp_path / "bundle" / DESCRIPTION).read_text())["net"]
    assert stored == {"name": "careless", "pretrained": False, "weights_path": None}
    loaded = load_bundle(edit(tmp_path / "bundle", net=asked)).net.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in net.state_dict().items())
    assert not (tmp_path / "ran").exists()


def test_mean_and_std_of_the_weights_travel_with_the_bundle(tmp_path):
    net = make_net()
    statistics = {"mean": (0.5,), "std": (0.25,)}
    net.input_contract = type(net.input_contract)(channels=1, **statistics)
    write(tmp_path / "bundle", net=net, preprocess=Preprocess(size=(32, 32), **statistics))
    predictor = load_bundle(tmp_path / "bundle")
    assert predictor.net.input_contract == net.input_contract
    assert predictor.preprocess.mean == (0.5,)


def test_channels_last_weights_are_kept(tmp_path):
    net = make_net().to(memory_format=torch.channels_last)
    write(tmp_path / "bundle", net=net)
    loaded = load_bundle(tmp_path / "bundle").net.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in net.state_dict().items())


LEAVES = st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=5) | st.just("weights")
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def spoil(description: dict[str, Any], data: st.DataObject) -> None:
    """Replace, remove or add one value anywhere in the description."""
    place: Any = description
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    action = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if action == "remove":
        del place[key]
    else:
        place[key if action == "replace" else data.draw(st.text(max_size=5))] = data.draw(VALUES)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_description_is_a_predictor_or_a_clear_error(tmp_path_factory, data):
    bundle = tmp_path_factory.mktemp("fuzz") / "bundle"
    write(bundle)
    description = json.loads((bundle / DESCRIPTION).read_text())
    spoil(description, data)
    (bundle / DESCRIPTION).write_text(json.dumps(description))
    with contextlib.suppress(CxrError):
        assert isinstance(load_bundle(bundle), NetPredictor)
