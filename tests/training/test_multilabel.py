"""Several targets per image, of which a dataset states some: masked in the loss, evaluated one by one."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional

from cxr.errors import ConfigError
from cxr.evaluation.predictions import read_predictions
from cxr.inference.bundle import load_bundle
from cxr.training.assemble import assemble
from cxr.training.evaluate import calibrate
from cxr.training.fit import fit
from cxr.training.losses import make_masked_bce
from cxr.training.metrics import Question
from cxr.training.run_folder import RunFolder

NAMES = ["left side", "right side"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """240 noisy images with a bright square on the left, the right, both or neither; every third states only one."""
    folder = tmp_path_factory.mktemp("targets")
    draws = np.random.default_rng(0)
    rows = []
    for number in range(240):
        left, right = draws.integers(0, 2, 2)
        pixels = draws.integers(0, 120, (32, 32))
        pixels[12:20, 4:12] += 130 * left
        pixels[12:20, 20:28] += 130 * right
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        rows.append({"path": f"{number}.png", NAMES[0]: left, NAMES[1]: right if number % 3 else None})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


@pytest.fixture
def compose_targets(compose_run, table):
    """compose_targets(folder, *overrides): a run on the table."""

    def composed(folder, *overrides):
        own = [
            "data=table", f"data.path={table}", "data.root=null", f"data.targets={NAMES}", "data.columns.finding=null",
            "data.batch_size=16", "loss=masked_bce", "sampler=none", "optimizer.lr=0.01", "trainer.max_epochs=20",
            "preprocess.normalizer=unit",
        ]  # fmt: skip
        return compose_run(folder, *own, *overrides, without=("data.cohort",))

    return composed


@pytest.mark.slow
def test_a_run_learns_every_target_from_the_images_that_state_it(compose_targets, table, tmp_path):
    result = fit(compose_targets(tmp_path / "run", "report=true"))
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    each = [written["test_left_side/auroc"], written["test_right_side/auroc"]]
    assert written["test/auroc"] == pytest.approx(np.mean(each))
    assert min(each) > 0.9
    truth = pd.read_csv(table)
    split = pd.read_csv(tmp_path / "run" / "split.csv")
    stated = split.loc[split["split"] == "test", "target_right side"].notna().sum()
    rows, names = read_predictions(tmp_path / "run" / "predictions_test_right_side.csv")
    assert names == ["no right side", "right side"]
    assert len(rows) == stated < (split["split"] == "test").sum()
    assert (tmp_path / "run" / "figures" / "test_right_side_roc.png").exists()

    predictor = load_bundle(result.run_dir / "bundle")
    assert predictor.multilabel
    predicted = predictor.predict([table.parent / name for name in truth["path"]])
    agreed = (predicted[["prob_0", "prob_1"]].to_numpy() > 0.5) == truth[NAMES].fillna(-1).to_numpy()
    assert agreed[truth[NAMES].notna().to_numpy()].mean() > 0.9
    called = {"none": (0, 0), NAMES[0]: (1, 0), NAMES[1]: (0, 1), "; ".join(NAMES): (1, 1)}
    assert [called[text] for text in predicted["prediction"]] == [
        (int(a >= 0.5), int(b >= 0.5)) for a, b in predicted[["prob_0", "prob_1"]].to_numpy()
    ]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["loss=cross_entropy"], "several targets need a loss that masks unstated ones; add loss=masked_bce"),
        (["sampler=weighted"], "images with several targets cannot be balanced by class; add sampler=none"),
        (["monitor.metric=val/f1/left side"], "val/f1/left side is not logged; expected one of: .*val/auroc/left side"),
    ],
)  # fmt: skip
def test_settings_for_one_class_per_image_are_refused(compose_targets, tmp_path, overrides, told):
    with pytest.raises(ConfigError, match=told):
        assemble(compose_targets(tmp_path / "run", *overrides))


def test_targets_that_would_write_the_same_files_are_refused(compose_targets, table, tmp_path):
    renamed = pd.read_csv(table).rename(columns={"right side": "Left_side"})
    renamed["path"] = [str(table.parent / name) for name in renamed["path"]]
    renamed.to_csv(tmp_path / "renamed.csv", index=False)
    own = [f"data.path={tmp_path}/renamed.csv", "data.targets=[left side,Left_side]", "monitor.metric=val/loss"]
    with pytest.raises(
        ConfigError, match="differ in letters or digits, .* but got 'left side' and 'Left_side'; rename"
    ):
        assemble(compose_targets(tmp_path / "run", *own))


def test_masking_is_refused_where_each_image_has_one_class(compose_run, tmp_path):
    with pytest.raises(ConfigError, match="loss=masked_bce needs several targets per image .data.targets.; choose"):
        assemble(compose_run(tmp_path / "run", "loss=masked_bce"))


@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_the_loss_is_that_of_the_stated_targets(kind):
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([[0.0, 1.0]] * 4 + [[1.0, torch.nan]] * 4)
    loss = make_masked_bce(torch.tensor([[30, 10], [5, 20]]), class_weights=kind)(logits, target)
    weight = torch.tensor([3.0, 0.25]) if kind == "balanced" else torch.ones(2)
    stated = ~target.isnan()
    expected = functional.binary_cross_entropy_with_logits(
        logits[stated], target[stated], pos_weight=weight.expand(8, 2)[stated]
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (logits.grad[4:, 1] == 0).all()
    assert logits.grad.isfinite().all()


def test_the_one_target_that_can_be_judged_has_a_temperature_and_no_bias(tmp_path):
    """A bundle has a bias per class or none: one of "no" and "yes" would be taken for that of other targets."""
    draws = torch.Generator().manual_seed(0)
    answers = torch.arange(200) % 2
    logit = 2.0 * answers + torch.randn(200, generator=draws) + 3.0
    two = torch.stack([torch.zeros(200), logit], dim=1)
    (tmp_path / "metrics.json").write_text('{"metrics": {}}')
    folder = RunFolder(tmp_path)
    calibrate({"nodule": Question(two, answers, torch.arange(200), ["no nodule", "nodule"])}, folder)
    assert folder.read_scaling().bias is None
    calibrate({"": Question(two, answers, torch.arange(200), ["well", "ill"])}, folder)
    assert folder.read_scaling().bias is not None
