import copy
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from cxr.errors import ConfigError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.saliency import make_maps
from cxr.inference.sanity import (
    LIMIT,
    Likeness,
    Sanity,
    check_method,
    learn_random_labels,
    rank_correlation,
    shuffle_parameters,
)
from cxr.models.build import build_net

SIDE = 32


def draw_images(count):
    """Noise with a bright square on the left or on the right, and which of the two."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 120, (count, SIDE, SIDE)).astype(np.uint8), np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        top = rng.integers(2, 22)
        image[top : top + 8, 3 + 18 * label : 11 + 18 * label] += 120
    return images, labels


@pytest.fixture(scope="module")
def trained():
    """A small net that tells the sides apart, with twelve images."""
    torch.manual_seed(0)
    net = build_net("custom_cnn", 2, filters_1=8, filters_2=8, filters_3=8, filters_4=8, pool=2, dense_units=8)
    preprocess = Preprocess(size=(SIDE, SIDE), normalizer="unit")
    predictor = NetPredictor(class_names=["left", "right"], net=net.eval(), preprocess=preprocess)
    stored, labels = draw_images(64)
    images, target = torch.from_numpy(predictor.preprocess.finish(stored)), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.train()(images), target).backward()
        optimizer.step()
    assert (net.eval()(images).argmax(1) == target).float().mean() > 0.95
    return predictor, stored[:12], labels[:12]


def find_edges(predictor, stored, labels):
    """A planted method that looks at the image alone, as an edge detector does."""
    del predictor, labels
    edges = np.stack([np.abs(cv2.Laplacian(image.astype(np.float32), cv2.CV_32F)) for image in stored])
    return edges / edges.max(axis=(1, 2), keepdims=True)


def test_a_method_that_ignores_the_net_is_marked(trained):
    result = check_method(find_edges, *trained)
    assert result.failed == ["parameters", "labels"]
    assert result.verdict.startswith("failed (parameters, labels): the maps hardly depend on the net")
    assert all(row.spearman == row.ssim == pytest.approx(1) for row in result.rows)


def test_a_method_that_hardly_heeds_the_net_is_marked_too(trained):
    def mixed(predictor, stored, labels):
        return 0.9 * find_edges(predictor, stored, labels) + 0.1 * make_maps(predictor, stored, labels)

    assert check_method(mixed, *trained).failed == ["parameters", "labels"]


def test_grad_cam_passes(trained):
    predictor = trained[0]
    before = copy.deepcopy(predictor.net.state_dict())
    result = check_method(make_maps, *trained)
    assert result.failed == []
    assert result.verdict == "passed: the maps change with the parameters and with the labels"
    assert [row.net for row in result.rows] == [
        "head", "head and last 1/4 of the backbone", "head and last 2/4 of the backbone",
        "head and last 3/4 of the backbone", "all layers", "trained on random labels",
    ]  # fmt: skip
    assert result.memorised >= 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in predictor.net.state_dict().items())
    assert not any(module.training for module in predictor.net.modules())
    assert result.to_dict()["rows"][0] == {"check": "parameters", "net": "head", "spearman": result.rows[0].spearman,
                                           "ssim": result.rows[0].ssim, "compared": 1.0}  # fmt: skip


def test_shuffling_goes_down_from_the_head_and_keeps_the_entries(trained):
    predictor, stored, _ = trained
    stages = [dict(other.net.named_parameters()) for _, other in shuffle_parameters(predictor, stored, seed=1)]
    own = dict(predictor.net.named_parameters())
    changed = [{name for name in own if not torch.equal(own[name], stage[name])} for stage in stages]
    assert all(name.startswith("head.") for name in changed[0])
    assert all(one < other for one, other in pairwise(changed))
    assert "backbone.block1.convolution.weight" in changed[-1]
    assert "backbone.block1.convolution.weight" not in changed[-2]
    for name, tensor in own.items():
        torch.testing.assert_close(stages[-1][name].flatten().sort()[0], tensor.flatten().sort()[0])


def test_shuffling_is_a_matter_of_the_seed(trained):
    predictor, stored, _ = trained
    one, again, other = (
        list(shuffle_parameters(predictor, stored, seed))[-1][1].net.state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("multilabel", [False, True])
def test_random_labels_are_learnt_by_heart(trained, multilabel):
    predictor, stored, _ = trained
    _, *rest = shuffle_parameters(predictor, stored, 0)
    start = NetPredictor(**{**vars(rest[-1][1]), "multilabel": multilabel})
    other, learnt = learn_random_labels(start, stored, seed=0)
    assert learnt >= 0.9
    assert not torch.equal(*(net.get_parameter("head.output.weight") for net in (other.net, start.net)))


def test_labels_that_were_not_learnt_decide_nothing():
    rows = (Likeness("parameters", "all layers", 0.1, 0.1), Likeness("labels", "trained on random labels", 0.1, 0.1))
    assert Sanity(rows, memorised=0.6).to_dict()["state"] == "undecided"
    unlike = Likeness("parameters", "head", LIMIT, 0.1)
    assert Sanity((unlike, *rows), memorised=1.0).failed == []


def test_one_image_is_too_few(trained):
    predictor, stored, labels = trained
    with pytest.raises(ConfigError, match="expected at least 2 images for a sanity check, got 1; choose more"):
        check_method(make_maps, predictor, stored[:1], labels[:1])


def test_rank_correlation_is_that_of_ranks():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 8, 9)).astype(np.float32)
    ranks = [one.ravel().argsort().argsort() for one in (first, second)]
    assert rank_correlation(first, second) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rank_correlation(first, first**3) == pytest.approx(1)


def empty_but(count):
    """A method whose maps are empty but those of the first images, which are edges."""

    def explain(predictor, stored, labels):
        maps = find_edges(predictor, stored, labels)
        maps[count:] = 0
        return maps

    return explain


def test_even_maps_are_no_evidence(trained):
    result = check_method(empty_but(0), *trained)
    assert (result.failed, result.to_dict()["state"]) == ([], "undecided")
    assert result.verdict == "undecided: too many maps are even, so there is little to compare"
    assert all((row.spearman, row.ssim, row.compared) == (None, None, 0) for row in result.rows)
    assert check_method(empty_but(5), *trained).to_dict()["state"] == "undecided"


def test_even_maps_hide_no_method_that_fails(trained):
    result = check_method(empty_but(6), *trained)
    assert result.failed == ["parameters", "labels"]
    assert all(row.spearman == pytest.approx(1) and row.compared == 0.5 for row in result.rows)


def test_maps_that_become_empty_have_not_been_shown_to_depend_on_the_net(trained):
    own = trained[0].net

    def only_for_the_own_net(predictor, stored, labels):
        return empty_but(len(stored) if predictor.net is own else 0)(predictor, stored, labels)

    assert check_method(only_for_the_own_net, *trained).to_dict()["state"] == "undecided"


def test_a_batch_of_one_image_of_one_place_is_never_trained_on():
    torch.manual_seed(0)
    net = build_net("custom_cnn", 2, filters_1=4, filters_2=4, filters_3=4, filters_4=4, pool=1, dense_units=4)
    preprocess = Preprocess(size=(SIDE, SIDE), normalizer="unit")
    net.backbone = nn.Sequential(net.backbone, nn.BatchNorm1d(4))
    predictor = NetPredictor(class_names=["left", "right"], net=net.eval(), preprocess=preprocess)
    for count in (2, 3, 9, 17):
        learn_random_labels(predictor, draw_images(count)[0], seed=0)
