import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cxr.errors import ConfigError, WeightsError
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.inference.bundle import Fitted, load_bundle, write_bundle, write_ensemble
from cxr.inference.combine import Rule
from cxr.inference.cost import has_cost, measure_cost
from cxr.inference.description import DESCRIPTION
from cxr.inference.ensemble_predictor import EnsemblePredictor, list_members
from cxr.inference.net_shares import find_nets
from cxr.inference.predictor import Predictor, Scores
from cxr.models.build import build_net
from cxr.scaling import Scaling

NAMES = ["well", "ill", "very ill"]
POINT = {"threshold": 0.3, "positive_class": "ill"}
SOFT = Rule("soft")
NET = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}


@dataclass(frozen=True, kw_only=True)
class Fixed(Predictor):
    """Says the same of every image."""

    probs: tuple[float, ...]
    unlike: float = np.nan
    inverted: bool = False

    preprocesses = (Preprocess(size=(8, 8)),)

    def score_stored(self, stored: Sequence[Stored]) -> Scores:
        n = len(stored[0])
        return Scores(np.tile(self.probs, (n, 1)), np.full(n, self.unlike), np.full(n, self.inverted))


def fixed(*probs, names=NAMES, **changes):
    return Fixed(class_names=list(names), probs=probs, **changes)


def ensemble(*members, rule=SOFT, names=NAMES, **changes):
    return EnsemblePredictor(class_names=list(names), members=members, rule=rule, **changes)


IMAGES = [np.zeros((20, 30), np.float32), np.ones((10, 10), np.float32)]


def test_members_are_combined_by_the_rule():
    found = ensemble(fixed(0.6, 0.3, 0.1), fixed(0.2, 0.2, 0.6), rule=Rule("soft", {"weights": [3, 1]}))
    np.testing.assert_allclose(found.predict_pixels(IMAGES), [[0.5, 0.275, 0.225]] * 2)


def test_the_same_classes_in_another_order_are_brought_into_order():
    found = ensemble(fixed(0.6, 0.3, 0.1), fixed(0.1, 0.6, 0.3, names=["very ill", "well", "ill"]))
    np.testing.assert_allclose(found.predict_pixels(IMAGES[:1]), [[0.6, 0.3, 0.1]])


def test_the_temperature_divides_the_logarithms():
    found = ensemble(fixed(0.64, 0.32, 0.04), scaling=Scaling(2.0)).predict_pixels(IMAGES[:1])
    roots = np.sqrt([0.64, 0.32, 0.04])
    np.testing.assert_allclose(found, [roots / roots.sum()])


@pytest.mark.parametrize(("known", "expected"), [((0.5, 2.0), 2.0), ((np.nan, 0.5), 0.5), ((np.nan, np.nan), np.nan)])
def test_it_is_as_unlike_as_the_most_unlike_of_those_who_know(known, expected):
    members = [fixed(0.6, 0.3, 0.1, unlike=value) for value in known]
    np.testing.assert_array_equal(ensemble(*members).score(IMAGES).unlike, [expected] * 2)


def test_an_image_is_inverted_where_a_member_says_so():
    one, other = fixed(1, 0, 0), fixed(1, 0, 0, inverted=True)
    assert ensemble(one, other).score(IMAGES).inverted.tolist() == [True, True]
    assert ensemble(one, one).score(IMAGES).inverted.tolist() == [False, False]


def test_what_members_share_is_stored_once():
    large = fixed(1, 0, 0)
    object.__setattr__(large, "preprocesses", (Preprocess(size=(16, 16)),))
    found = ensemble(fixed(1, 0, 0), large, fixed(1, 0, 0))
    assert [one.size for one in found.preprocesses] == [(8, 8), (16, 16)]
    assert found.score(IMAGES).probs.shape == (2, 3)


def test_one_vs_rest_takes_one_net_per_class_wherever_it_names_its_class():
    members = [
        fixed(0.1, 0.9, names=["not well", "well"]),
        fixed(0.4, 0.6, names=["ill", "not ill"]),
        fixed(1.0, 0.0, names=["not very ill", "very ill"]),
    ]
    found = ensemble(*members, rule=Rule("one_vs_rest")).predict_pixels(IMAGES[:1])
    np.testing.assert_allclose(found, [[0.9 / 1.3, 0.4 / 1.3, 0]], atol=1e-9)


@pytest.mark.parametrize(
    ("members", "rule", "message"),
    [
        ([fixed(0.5, 0.5, names=["well", "ill"])], "soft", "members of the classes well, ill, very ill, in any order"),
        ([fixed(1, 0, 0, 0, names=[*NAMES, "dead"])], "soft", "got one of well, ill, very ill, dead"),
        ([fixed(1, 0, 0, multilabel=True)], "soft", "one class per image, got one with several targets"),
        ([fixed(1, 0, 0)], "one_vs_rest", "expected one net of two classes for each of well, ill, very ill, got 1"),
        ([fixed(1, 0, names=["a", "b"])] * 3, "one_vs_rest", "got one of a, b; combine models of the same classes"),
        ([], "soft", r"shape \(members, images, classes\), got \(0, 1, 0\)"),
    ],
)
def test_members_that_cannot_be_combined_are_refused(members, rule, message):
    with pytest.raises(ConfigError, match=message):
        ensemble(*members, rule=Rule(rule))


@pytest.fixture
def bundles(tmp_path):
    """Two nets of other sizes and normalisers, the second with its classes in another order."""
    made = []
    for number, (size, normalizer) in enumerate([((32, 48), "minmax"), ((40, 40), "percentile")]):
        torch.manual_seed(number)
        names = NAMES if number == 0 else NAMES[::-1]
        preprocess = Preprocess(size=size, normalizer=normalizer)
        write_bundle(tmp_path / str(number), build_net(num_classes=3, **NET), NET, names, preprocess, {},
                     fitted=Fitted(scaling=Scaling(1.5)))  # fmt: skip
        made.append(tmp_path / str(number))
    return made


def test_a_bundle_gives_the_mean_of_what_its_members_give_by_themselves(bundles, tmp_path):
    write_ensemble(tmp_path / "all", bundles, Rule("soft"), NAMES, {"a": 1}, Fitted(operating_point=POINT))
    found = load_bundle(tmp_path / "all")
    rng = np.random.default_rng(0)
    images = [rng.random((50, 60), dtype=np.float32), rng.random((64, 40), dtype=np.float32)]
    first, second = (load_bundle(bundle).predict_pixels(images) for bundle in bundles)
    np.testing.assert_allclose(found.predict_pixels(images), (first + second[:, ::-1]) / 2, atol=1e-9)
    assert (found.class_names, found.calibrated, found.extras) == (NAMES, False, {"a": 1})
    assert found.operating_point == POINT


@pytest.mark.parametrize("change", [{"positive_class": "dead"}, {"threshold": True}], ids=str)
def test_an_operating_point_of_another_class_or_without_a_number_is_not_written(bundles, tmp_path, change):
    with pytest.raises(WeightsError, match="describe a predictor of this version, got: operating_point"):
        write_ensemble(tmp_path / "all", bundles, Rule("soft"), NAMES, {}, Fitted(operating_point={**POINT, **change}))


def test_an_ensemble_may_be_a_member(bundles, tmp_path):
    write_ensemble(tmp_path / "inner", bundles, Rule("majority"), NAMES, {})
    write_ensemble(
        tmp_path / "outer", [tmp_path / "inner", bundles[0]], Rule("soft", {"weights": [0.25, 0.75]}), NAMES, {}
    )
    outer = load_bundle(tmp_path / "outer")
    assert len(list_members(outer)) == 3
    nets = find_nets(outer, 0)
    assert [(one.share, one.label) for one in nets] == [(0.125, 0), (0.125, 2), (0.75, 0)]
    alone = [load_bundle(bundle) for bundle in (tmp_path / "inner", bundles[0])]
    expected = np.average([one.predict_pixels(IMAGES) for one in alone], axis=0, weights=[0.25, 0.75])
    np.testing.assert_allclose(outer.predict_pixels(IMAGES), expected, atol=1e-9)


def test_no_file_of_a_bundle_is_pickled(bundles, tmp_path):
    write_ensemble(tmp_path / "all", bundles, Rule("soft"), NAMES, {})
    files = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_a_member_that_was_changed_is_refused(bundles, tmp_path):
    write_ensemble(tmp_path / "all", bundles, Rule("soft"), NAMES, {})
    path = tmp_path / "all" / "members" / "1" / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 9.0}))
    with pytest.raises(WeightsError, match=r"members/1/bundle.json with SHA-256 .*; copy the bundle again"):
        load_bundle(tmp_path / "all")


def test_a_rule_of_another_version_is_refused(bundles, tmp_path):
    write_ensemble(tmp_path / "all", bundles, Rule("soft"), NAMES, {})
    path = tmp_path / "all" / DESCRIPTION
    for rule in ({"name": "oracle", "settings": {}}, {"name": "soft", "settings": {"power": 2}}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"rule": rule}))
        with pytest.raises(WeightsError, match=r"describe a predictor of this version, got: .*(oracle|power)"):
            load_bundle(tmp_path / "all")


@pytest.mark.parametrize(
    "values",
    [
        {"members": 0}, {"members": 3}, {"members": 10**9}, {"members": "2"}, {"members": None}, {"rule": []},
        {"rule": {"name": "soft"}}, {"rule": {"name": ["soft"], "settings": {}}},
        {"rule": {"name": "soft", "settings": {"weights": ["a", None]}}},
        {"rule": {"name": "stack", "settings": {"coefficients": [[1], [2, 3]], "intercepts": 1}}},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_description_is_a_clear_error(bundles, tmp_path, values):
    write_ensemble(tmp_path / "all", bundles, Rule("soft"), NAMES, {})
    path = tmp_path / "all" / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(WeightsError, match=r"expected .*(bundle.json|members/\d+)"):
        load_bundle(tmp_path / "all")


def test_bundles_that_cannot_be_combined_are_never_written(bundles, tmp_path):
    with pytest.raises(WeightsError, match="one weight from 0 for each of 2 members"):
        write_ensemble(tmp_path / "all", bundles, Rule("soft", {"weights": [1]}), NAMES, {})
    assert not (tmp_path / "all").exists()


def test_the_nets_of_a_class_in_one_vs_rest_are_its_own():
    members = [fixed(0.1, 0.9, names=[f"not {name}", name]) for name in NAMES]
    found = ensemble(*members, rule=Rule("one_vs_rest"))
    assert found.shares(1) == [0, 1, 0]
    assert find_nets(found, 1) == []


def test_an_ensemble_costs_what_its_members_cost(bundles, tmp_path):
    write_ensemble(tmp_path / "all", bundles, Rule("soft"), NAMES, {})
    whole = measure_cost(load_bundle(tmp_path / "all"), repeats=1)
    parts = [measure_cost(load_bundle(bundle), repeats=1) for bundle in bundles]
    assert whole.parameters == sum(part.parameters for part in parts)
    assert whole.gflops == pytest.approx(sum(part.gflops for part in parts))
    assert whole.latency_ms > 0


def test_the_cost_of_what_is_no_net_is_refused():
    assert not has_cost(ensemble(fixed(1, 0, 0)))
    with pytest.raises(ConfigError, match="expected nets to measure the cost of, .*leave it out"):
        measure_cost(ensemble(fixed(1, 0, 0)))
