import json

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from cxr.ensemble.fit import ON_VALIDATION, cross_fit, fit_ensemble
from cxr.ensemble.folder import read_config, write_folder, write_page
from cxr.ensemble.members import Rows, read_recipe, read_run
from cxr.ensemble.selection import select_weights
from cxr.errors import ConfigError, DataError
from cxr.evaluation.calibration import fit_scaling
from cxr.evaluation.ledger import FILE, read_ledger
from cxr.evaluation.predictions import read_predictions
from cxr.inference.bundle import load_bundle
from cxr.inference.combine import Rule
from cxr.inference.ensemble_predictor import list_members

POINT = "sensitivity >= 0.9"


@pytest.fixture
def runs(make_run):
    """Three runs, the first the best."""
    return [read_run(make_run(name, strength=2 / (seed + 1), seed=seed), name) for seed, name in enumerate("abc")]


@pytest.fixture
def recipes(make_recipe):
    return [
        read_recipe(make_recipe(name, strength=2 - seed, seed=seed), name) for seed, name in enumerate(("one", "two"))
    ]


def probs_of(table):
    return table[["prob_0", "prob_1"]].to_numpy()


def test_a_soft_vote_has_the_weighted_mean_and_a_scaling_of_validation(runs):
    found = fit_ensemble(runs, "soft", [2, 1, 1], "all", POINT)
    mean = {
        part: np.average([probs_of(run.tables[part]) for run in runs], axis=0, weights=[2, 1, 1])
        for part in ("val", "test")
    }
    target = runs[0].tables["val"]["target"]
    assert found.fitted.scaling == fit_scaling(target, np.log(mean["val"]))
    expected = found.fitted.scaling.to_probs(np.log(mean["test"]))
    np.testing.assert_allclose(probs_of(found.tables["test"]), expected)
    np.testing.assert_allclose(found.tables["test"][["logit_0", "logit_1"]], np.log(mean["test"]))
    assert found.fitted.operating_point is not None
    assert found.fitted.abstention["chosen_on"] == "val"
    assert set(found.tables["test"]["run"]) == {"all"}


def test_fitted_weights_are_those_of_validation_and_silent_members_are_left_out(runs):
    found = fit_ensemble(runs, "soft", "fit", "all", POINT)
    probs = np.stack([probs_of(run.tables["val"]) for run in runs])
    weights = select_weights(probs, runs[0].tables["val"]["target"])
    assert found.rule.settings["weights"] == weights[weights > 0].tolist()
    assert [member.name for member in found.members] == [
        run.name for run, one in zip(runs, weights, strict=True) if one
    ]
    assert found.notes == [ON_VALIDATION]


def test_a_weight_of_zero_leaves_a_member_out(runs):
    found = fit_ensemble(runs, "soft", [1, 0, 3], "all", POINT)
    assert [member.name for member in found.members] == ["a", "c"]
    assert found.rule == Rule("soft", {"weights": [1, 3]})


def test_the_folds_of_a_recipe_answer_together_and_their_pooled_predictions_are_the_estimate(recipes):
    found = fit_ensemble(recipes[:1], "soft", None, "all", POINT)
    assert set(found.tables) == {"oof"}
    np.testing.assert_allclose(probs_of(found.tables["oof"]), probs_of(recipes[0].tables["oof"]))
    assert found.tables["oof"]["run"].nunique() == 3
    assert found.fitted.scaling is None
    assert "none can be tested on" in found.notes[0]


def test_a_stack_is_fitted_on_all_pooled_rows_and_told_on_each_fold_by_one_fitted_on_the_others(recipes):
    found = fit_ensemble(recipes, "stack", None, "all", POINT)
    tables = [recipe.tables["oof"].reset_index(drop=True) for recipe in recipes]
    features, target = np.log(np.hstack([probs_of(table) for table in tables])), tables[0]["target"]
    everything = LogisticRegression(max_iter=1000, tol=1e-10).fit(features, target)
    np.testing.assert_allclose(found.rule.settings["coefficients"][1], everything.coef_[0], atol=1e-3)
    for fold in range(3):
        held = tables[0]["fold"] == fold
        without = LogisticRegression(max_iter=1000, tol=1e-10).fit(features[~held], target[~held])
        np.testing.assert_allclose(
            probs_of(found.tables["oof"])[held], without.predict_proba(features[held]), atol=1e-4
        )


def test_no_row_helps_to_fit_what_is_told_of_it_in_any_repeat(recipes):
    table = recipes[0].tables["oof"].reset_index(drop=True)
    twice = Rows(
        table.loc[np.repeat(table.index, 2)].assign(run=lambda rows: rows["run"] + np.tile(["", "b"], len(table))),
        np.repeat([probs_of(table)], 2, axis=1),
    )
    seen = []

    def fit(rows):
        seen.append(set(rows.table["sample_id"]))
        return Rule("soft")

    cross_fit(twice, fit)
    folds = twice.table["run"].unique()
    assert len(seen) == len(folds) == 6
    for fold, ids in zip(folds, seen, strict=True):
        assert not ids & set(twice.table.loc[twice.table["run"] == fold, "sample_id"])


@pytest.mark.parametrize(
    ("kind", "count", "rule", "weights", "message"),
    [
        ("runs", 1, "soft", None, "expected two or more runs, or a folder of plan=cv or plan=seeds, got one run"),
        ("runs", 3, "mean", None, "expected --rule to be one of soft, majority, stack, got 'mean'"),
        ("runs", 3, "majority", "fit", "expected --weights with --rule soft, .* got --rule majority"),
        ("runs", 3, "stack", None, "expected two or more folders of plan=cv on the same folds to stack"),
        ("recipes", 1, "stack", None, "expected --rule soft without --weights for one folder of plan=cv"),
        ("recipes", 1, "soft", "fit", "expected --rule soft without --weights for one folder of plan=cv"),
        ("runs", 3, "soft", [1, 2], "one weight from 0 for each of 3 members"),
    ],
)
def test_what_does_not_go_together_is_refused(request, kind, count, rule, weights, message):
    members = request.getfixturevalue(kind)[:count]
    with pytest.raises(ConfigError, match=message):
        fit_ensemble(members, rule, weights, "all", POINT)


def test_runs_and_recipes_are_not_mixed(runs, recipes):
    with pytest.raises(ConfigError, match="expected runs on one split, or folders of plan=cv, but got both"):
        fit_ensemble([runs[0], recipes[0]], "soft", None, "all", POINT)


def test_a_folder_looks_like_a_run_and_its_bundle_says_what_its_members_say(runs, tmp_path):
    ensemble = fit_ensemble(runs, "soft", None, "all", POINT)
    metrics = write_folder(ensemble, tmp_path / "all")
    folder = tmp_path / "all"
    table, names = read_predictions(folder / "predictions_test.csv")
    assert (len(table), names) == (80, ["well", "ill"])
    assert json.loads((folder / "metrics.json").read_text())["metrics"]["test/auroc"] == metrics["test/auroc"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["run_name"] == "soft ensemble of a, b, c"
    assert "net" not in config
    assert [one["name"] for one in yaml.safe_load((folder / "ensemble.yaml").read_text())["members"]] == ["a", "b", "c"]
    predictor = load_bundle(folder / "bundle")
    assert (predictor.scaling, predictor.calibrated) == (ensemble.fitted.scaling, True)
    assert predictor.operating_point["threshold"] == ensemble.fitted.operating_point["threshold"]
    (opening,) = read_ledger(tmp_path / FILE).openings
    assert (opening.run, opening.fingerprint, opening.score) == ("all", "tested", metrics["test/auroc"])


def test_classes_in_another_order_are_the_same_test(make_run, tmp_path):
    runs = [read_run(make_run("a"), "a"), read_run(make_run("b", names=["ill", "well"], seed=1), "b")]
    report = runs[1].runs[0] / "data_report.json"
    report.write_text(report.read_text().replace("tested", "tested with other numbers for labels"))
    write_folder(fit_ensemble(runs, "majority", None, "all", POINT), tmp_path / "all")
    assert read_ledger(tmp_path / FILE).openings[0].fingerprint == "tested"


def test_a_member_without_a_data_report_goes_along(runs, tmp_path):
    (runs[0].runs[0] / "data_report.json").unlink()
    write_folder(fit_ensemble(runs, "soft", None, "all", POINT), tmp_path / "all")
    assert not (tmp_path / "all" / "data_report.json").exists()
    assert read_ledger(tmp_path / FILE).openings[0].fingerprint == "tested"


def test_the_folds_of_one_recipe_are_members_themselves(recipes, tmp_path):
    write_folder(fit_ensemble(recipes[:1], "soft", None, "all", POINT), tmp_path / "all")
    assert len(load_bundle(tmp_path / "all" / "bundle").members) == 3


def test_a_folder_of_recipes_holds_what_is_out_of_fold_and_opens_no_test(recipes, tmp_path):
    ensemble = fit_ensemble(recipes, "stack", None, "all", POINT)
    write_folder(ensemble, tmp_path / "all")
    folder = tmp_path / "all"
    assert not (folder / "predictions_test.csv").exists()
    assert not (tmp_path / FILE).exists()
    predictor = load_bundle(folder / "bundle")
    assert len(list_members(predictor)) == 6
    assert not predictor.calibrated
    assert not list(folder.glob("tmp*"))


@pytest.mark.slow
def test_the_report_is_that_of_a_run(runs, recipes, tmp_path):
    write_folder(fit_ensemble(runs, "soft", None, "all", POINT), tmp_path / "all")
    assert "ensemble of 3 models by the rule soft" in write_page(tmp_path / "all").read_text()
    net = json.loads((tmp_path / "all" / "metrics.json").read_text())["evaluation"]["net"]
    assert (net["name"], net["parameters"]) == ("ensemble of 3", 30)
    write_folder(fit_ensemble(recipes, "stack", None, "all", POINT), tmp_path / "stack")
    assert "out of fold" in write_page(tmp_path / "stack").read_text()


def test_members_tested_on_other_files_are_refused(runs, tmp_path):
    report = runs[1].runs[0] / "data_report.json"
    report.write_text(report.read_text().replace("tested", "others"))
    with pytest.raises(DataError, match="expected members that were tested on the same images, but their files differ"):
        write_folder(fit_ensemble(runs, "soft", None, "all", POINT), tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_a_place_that_cannot_be_written_is_told(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected a folder to write to, but .* choose another --out"):
        write_folder(fit_ensemble(runs, "soft", None, "all", POINT), tmp_path / "file")


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(DataError, match="expected a run folder with config.yaml, but .* has none"):
        read_config(tmp_path)
