"""The whole plan on phantoms: what it leaves, what its bundle answers, how it stops and goes on."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from sklearn.metrics import accuracy_score

from cxr.classical.convert import ParityError
from cxr.commands.compare import compare_sources
from cxr.entry import prepare_environment
from cxr.errors import ConfigError, TrainingError
from cxr.evaluation.predictions import read_predictions
from cxr.evaluation.report.collect import Options
from cxr.evaluation.report.material import read_run
from cxr.evaluation.report.page import write_report
from cxr.evaluation.statistics.bootstrap import bootstrap_metrics
from cxr.experiments.automl import contestants, views
from cxr.experiments.automl import run as automl_run
from cxr.experiments.automl.contestants import Classical
from cxr.experiments.plan_run import run_plan
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import load_bundle, write_bundle
from cxr.models.build import build_net
from cxr.training.fit import fit
from cxr.training.sources import read_pool

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
STUB = [sys.executable, "-m", "cxr.experiments.child", str(Path(__file__).with_name("cnn_stub.py"))]
QUICK = ["logistic_regression", "knn", "svm", "random_forest"]
SMALL = ["plan=automl", "plan.folds=3", "plan.size=[32,40]", f"plan.families=[{','.join(QUICK)}]", "plan.trials=4"]


@pytest.fixture
def automl(tiny, tmp_path, monkeypatch):
    """automl(*overrides): run the plan of a few quick trials in tmp_path/plan."""
    monkeypatch.chdir(tmp_path)
    prepare_environment()

    def run(*overrides):
        words = [*tiny, "run_name=small", "data.public_images=false", *SMALL, *overrides]
        with initialize_config_dir(str(ROOT / "configs")):
            config = compose("run", [*words, f"paths.output_dir={tmp_path}/plan", f"paths.log_dir={tmp_path}/logs"])
        return run_plan(config, words, STUB), config

    return run


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "plan"


def board(folder):
    return pd.read_csv(folder / "leaderboard.csv")


def test_four_families_are_compared_on_the_same_folds_and_the_winner_leaves_a_bundle(automl, folder, capsys):
    _, config = automl()
    table = board(folder)
    trials = table[table["family"] != "mixture"]
    assert set(trials["family"]) == set(QUICK)
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert table["auroc"].is_monotonic_decreasing
    tables = [read_predictions(folder / "trials" / f"{name}.csv")[0] for name in trials["name"]]
    assert all((one[["sample_id", "fold"]] == tables[0][["sample_id", "fold"]]).all(axis=None) for one in tables)
    for name, one in zip(trials["name"], tables, strict=True):
        row = trials.set_index("name").loc[name]
        probs = one[["prob_0", "prob_1"]].to_numpy()
        expected = bootstrap_metrics(one["target"], probs, one["patient_id"], ["a", "b"])["auroc"]
        assert row[["auroc", "auroc_low", "auroc_high"]].tolist() == pytest.approx(
            [expected.value, expected.low, expected.high]
        )
    assert set(table.loc[table["family"] == "mixture", "name"]) == {"single", "vote", "stack"}
    page = (folder / "leaderboard.html").read_text()
    assert all(name in page for name in table["name"])
    for name in ("report.html", "plan.yaml", "predictions_val.csv", "metrics.json", "study.db"):
        assert (folder / name).exists()

    winner = json.loads((folder / "metrics.json").read_text())
    oof, class_names = read_predictions(folder / "predictions_val.csv")
    assert sorted(oof["fold"].unique()) == [0, 1, 2]
    assert winner["metrics"]["val/accuracy"] == pytest.approx(
        accuracy_score(oof["target"], oof[["prob_0", "prob_1"]].to_numpy().argmax(axis=1))
    )
    predictor = load_bundle(folder / "bundle")
    samples, names = read_pool(config)
    assert predictor.class_names == class_names == names
    found = predictor.predict(samples["image_path"].tolist()[:8])
    assert found["prediction"].isin(names).all()
    assert predictor.extras["strategy"] == winner["winner"]["strategy"]
    shown = capsys.readouterr().out
    assert "winner: " in shown
    assert not (folder / "predictions_test.csv").exists()


def test_the_same_command_with_the_folder_goes_on_and_ends(automl, folder, capsys):
    automl("plan.trials=1", "plan.budget_minutes=2.5")
    assert "150 s for trials of logistic_regression" in capsys.readouterr().out
    first = board(folder)
    automl("plan.trials=3", "plan.folder=here")
    second = board(folder)
    trials = second[second["family"] != "mixture"]
    assert len(trials) == 3
    kept = first.loc[first["family"] != "mixture"].set_index("name")["seconds"]
    assert trials.set_index("name").loc[kept.index, "seconds"].tolist() == kept.tolist()
    before = (folder / "metrics.json").read_text()
    automl("plan.trials=3", "plan.folder=here")
    assert "nothing is left to do; raise plan.budget_minutes" in capsys.readouterr().out
    assert (folder / "metrics.json").read_text() == before
    with pytest.raises(ConfigError, match=r"plan.folds was 3 and is 4"):
        automl("plan.trials=3", "plan.folder=here", "plan.folds=4")


def test_ctrl_c_concludes_with_what_there_is_and_the_test_part_stays_closed(automl, folder, monkeypatch, capsys):
    give_test_part(monkeypatch)
    original = Classical.predict

    def stop_at_the_second(self, params, fold, trial):
        if self.name == "knn":
            raise KeyboardInterrupt
        return original(self, params, fold, trial)

    monkeypatch.setattr(Classical, "predict", stop_at_the_second)
    with pytest.raises(SystemExit, match="130"):
        automl()
    shown = capsys.readouterr().out
    assert "stopped: concluding with what there is, the test part left closed" in shown
    assert f"continue with the same command and plan.folder='{folder}'" in shown
    assert load_bundle(folder / "bundle").extras["strategy"] == "single"
    assert not (folder / "predictions_test.csv").exists()

    monkeypatch.setattr(Classical, "predict", original)
    automl("plan.trials=2", "plan.folder=here")
    assert len(read_predictions(folder / "predictions_test.csv")[0]) == 30
    assert len((folder.parent / "logs" / "test_openings.jsonl").read_text().splitlines()) == 1

    monkeypatch.setattr(Classical, "predict", stop_at_the_second)
    with pytest.raises(SystemExit, match="130"):
        automl("plan.trials=9", "plan.folder=here")
    assert "nothing is left to do" not in capsys.readouterr().out


def test_ctrl_c_before_a_trial_ended_leaves_no_conclusion(automl, folder, monkeypatch):
    def stop(self, params, fold, trial):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classical, "predict", stop)
    with pytest.raises(SystemExit, match="130"):
        automl()
    assert not (folder / "metrics.json").exists()


def give_test_part(monkeypatch):
    """Make 30 samples the dataset's official test part."""

    def read(config):
        samples, class_names = read_pool(config)
        split = pd.Series("train", index=samples.index)
        chosen = samples.groupby("label").head(15).index
        split[chosen] = "test"
        return samples.assign(split=split), class_names

    monkeypatch.setattr(automl_run, "read_pool", read)


def test_the_test_part_is_opened_once_by_the_winner_as_it_will_be_used(automl, folder, tmp_path, monkeypatch):
    give_test_part(monkeypatch)
    _, config = automl("plan.trials=1")
    table, names = read_predictions(folder / "predictions_test.csv")
    samples, _ = automl_run.read_pool(config)
    test = samples[samples["split"] == "test"]
    probs = load_bundle(folder / "bundle").predict(test["image_path"].tolist())
    np.testing.assert_allclose(table["prob_1"], probs["prob_1"], atol=1e-9)
    assert not set(table["sample_id"]) & set(read_predictions(folder / "predictions_val.csv")[0]["sample_id"])
    (opening,) = map(json.loads, (folder.parent / "logs" / "test_openings.jsonl").read_text().splitlines())
    assert opening["run"] == "plan"
    assert "test/auroc" in json.loads((folder / "metrics.json").read_text())["metrics"]
    material = read_run(folder)
    assert list(material.questions[0].parts) == ["val", "test"]
    assert material.bundle["kind"] == "ensemble"
    write_report(material, tmp_path / "again", Options())
    assert "AUROC" in (tmp_path / "again" / "report.html").read_text()

    table.assign(run="other").to_csv(tmp_path / "other.csv", index=False)
    sources = [folder, tmp_path / "other.csv"]
    compared = compare_sources(sources, names, pool=False, costs=True, out=tmp_path, draws=1000)
    assert {one.recipe for one in compared.comparison.results} == {"small", "other"}
    assert compared.costs.empty


def test_pixels_without_features_tell_the_time_saved(automl, folder):
    automl("plan.featurize=false", "plan.trials=1")
    assert "featurize=false: about " in (folder / "run.log").read_text()
    (member,) = (folder / "bundle" / "members").iterdir()
    assert json.loads((member / "bundle.json").read_text())["features"]["kind"] == "pixels"


def test_images_too_small_to_describe_tell_no_time(automl, folder):
    automl("plan.featurize=false", "plan.trials=1", "plan.size=[16,16]")
    assert "featurize=false: about" not in (folder / "run.log").read_text()


def write_net(folder, fingerprint):
    torch.manual_seed(0)
    arguments = {"name": "custom_cnn", "filters_1": 4, "filters_2": 4, "filters_3": 4, "filters_4": 4, "dense_units": 8}
    folder.mkdir()
    net = build_net(num_classes=2, **arguments).eval()
    write_bundle(
        folder / "bundle", net, arguments, ["a", "b"], Preprocess(size=(32, 32)), {"data_fingerprint": fingerprint}
    )


def test_embeddings_of_a_net_are_taken_from_the_folder_of_a_run(automl, folder, tmp_path):
    write_net(tmp_path / "net", "other images")
    _, config = automl(f"plan.features={tmp_path}/net", "plan.trials=1")
    (member,) = (folder / "bundle" / "members").iterdir()
    assert (member / "net" / "model.safetensors").exists()
    samples, _ = read_pool(config)
    probs = load_bundle(folder / "bundle").predict(samples["image_path"].tolist()[:3])
    assert probs["prob_0"].between(0, 1).all()
    assert len(list((Path(config.paths.cache_dir) / "embeddings").glob("*.npz"))) == 1


def test_a_net_of_the_same_images_is_refused(automl, tmp_path):
    write_net(tmp_path / "net", "other images")
    from cxr.data.cohort import fingerprint

    _, config = automl(f"plan.features={tmp_path}/net", "plan.trials=1")
    description = tmp_path / "net" / "bundle" / "bundle.json"
    values = json.loads(description.read_text())
    values["extras"]["data_fingerprint"] = fingerprint(read_pool(config)[0].sort_values("sample_id"))
    description.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"must be a net of other images, .* was trained on (\d+) of these \1, so"):
        automl(f"plan.features={tmp_path}/net", "plan.trials=2", "plan.folder=here")
    values["extras"]["frozen_backbone"] = True  # then its embedding knows no labels
    description.write_text(json.dumps(values))
    automl(f"plan.features={tmp_path}/net", "plan.trials=2", "plan.folder=here")


def test_a_net_of_some_of_the_images_is_refused_where_its_run_tells(automl, folder, compose_run, tmp_path):
    part = fit(compose_run(tmp_path / "part", "data.limit=60", "trainer.max_epochs=1")).run_dir
    learnt = (pd.read_csv(part / "split.csv")["split"] != "test").sum()
    for place in (part, part / "bundle"):
        shutil.rmtree(folder, ignore_errors=True)
        with pytest.raises(ConfigError, match=rf"was trained on {learnt} of these \d+, so its embedding"):
            automl(f"plan.features={place}", "plan.trials=1")
    shutil.copytree(part / "bundle", tmp_path / "away")
    shutil.rmtree(folder)
    automl(f"plan.features={tmp_path}/away", "plan.trials=1")
    assert "is compared with these images by the fingerprint of all its data alone" in (folder / "run.log").read_text()


def test_a_net_of_other_images_is_taken(automl, folder, compose_run, lab, tmp_path):
    others = ["data.cohort.seed=7", f"data.root={lab}/data/others", "trainer.max_epochs=1"]
    run = fit(compose_run(tmp_path / "others", *others)).run_dir
    automl(f"plan.features={run}", "plan.trials=1")
    assert "by the fingerprint" not in (folder / "run.log").read_text()


def break_graphs(monkeypatch, *broken):
    """Make the graphs of these families answer otherwise than their models."""
    original = contestants.check_parity

    def check(model, graph, table, name):
        if name.rpartition("_")[0] in broken:
            raise ParityError(f"the graph of {name} answers otherwise")
        return original(model, graph, table, name)

    monkeypatch.setattr(contestants, "check_parity", check)


def test_a_trial_that_cannot_be_kept_is_left_out_and_the_winner_chosen_anew(automl, folder, monkeypatch):
    automl()
    members = json.loads((folder / "metrics.json").read_text())["winner"]["members"]
    shutil.rmtree(folder)
    broken = {name.rpartition("_")[0] for name in members}
    break_graphs(monkeypatch, *broken)
    automl()
    found = json.loads((folder / "metrics.json").read_text())
    assert not broken & {name.rpartition("_")[0] for name in found["winner"]["members"]}
    assert found["trials"] == 4
    assert len(load_bundle(folder / "bundle").class_names) == 2
    assert "is left out, and the winner chosen from the others: the graph of" in (folder / "run.log").read_text()
    assert "was not chosen from: the graph of" in (folder / "leaderboard.html").read_text()


def test_where_no_trial_can_be_kept_the_reason_is_told(automl, monkeypatch):
    break_graphs(monkeypatch, "knn")
    message = "expected a trial that can be kept as a bundle, but none of 1 can: the graph of knn_0 answers otherwise"
    with pytest.raises(TrainingError, match=message):
        automl("plan.families=[knn]", "plan.trials=1")


def test_a_folder_without_a_bundle():
    with pytest.raises(
        ConfigError, match="plan.features must be pixels, or the folder of a run or bundle, but nowhere"
    ):
        views.find_bundle("nowhere")


def test_a_file_that_gives_no_image_any_more():
    class Store:
        def build(self, paths, hashes):
            return {paths[0]: "a.png: cut off"}

    with pytest.raises(ConfigError, match=r"expected an image in each file, but a.png: cut off; mend or leave out"):
        views.open_images(Store(), ["a.png"], ["1"])


def test_small_cnns_race_on_the_same_folds_and_their_nets_vote(automl, folder):
    automl("plan.families=[]", "plan.include_dnn=true", "plan.trials=1", "net=custom_cnn")
    assert board(folder)["name"].tolist()[0] == "cnn_0"
    oof, _ = read_predictions(folder / "trials" / "cnn_0.csv")
    for fold in range(3):
        words = json.loads((folder / "trials" / "cnn_0" / f"fold_{fold}" / "words.json").read_text())
        assert words.count("net=custom_cnn") == 1
        assert "optimizer.lr=0.003" in words
        assert f"data.split_file='{folder}/splits/fold_{fold}.csv'" in words
        told, _ = read_predictions(folder / "trials" / "cnn_0" / f"fold_{fold}" / "predictions_test.csv")
        own = oof[oof["fold"] == fold].set_index("sample_id").loc[told["sample_id"]]
        np.testing.assert_allclose(own["prob_1"], told["prob_1"])
    (member,) = (folder / "bundle" / "members").iterdir()
    assert len(list((member / "members").iterdir())) == 3


def test_a_cnn_trial_is_runs_of_train_py(automl, folder, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "STUB", [*STUB[:-1], str(ROOT / "train.py")])
    automl("plan.families=[knn]", "plan.include_dnn=true", "plan.trials=2")
    assert {"cnn_0", "knn_0"} <= set(board(folder)["name"])
    run = folder / "trials" / "cnn_0" / "fold_1"
    split = pd.read_csv(run / "split.csv")
    expected = pd.read_csv(folder / "splits" / "fold_1.csv")
    assert split.set_index("sample_id")["split"].to_dict() == expected.set_index("sample_id")["split"].to_dict()


def test_the_runs_of_cnns_are_told_how_many_cores(automl, folder):
    automl("plan.families=[]", "plan.include_dnn=true", "plan.trials=1", "plan.max_cores=1")
    for fold in range(3):
        threads = json.loads((folder / "trials" / "cnn_0" / f"fold_{fold}" / "threads.json").read_text())
        assert threads == {"OMP_NUM_THREADS": "1", "torch": 1}


def test_a_cnn_that_fails_is_told_with_its_log(automl, folder, tmp_path):
    (tmp_path / "behaviour.txt").write_text("fail")
    automl("plan.families=[knn]", "plan.include_dnn=true", "plan.trials=2")
    page = (folder / "leaderboard.html").read_text()
    assert "cnn 0, fold 0 ended with exit code 1; see " in page


def test_several_targets_are_refused(automl, monkeypatch):
    monkeypatch.setattr(
        automl_run, "read_pool", lambda config: (pd.DataFrame({"target_a": [1.0], "target_b": [0.0]}), ["a", "b"])
    )
    with pytest.raises(ConfigError, match="takes one class per image, but these images have several targets"):
        automl()


def test_cores_are_limited_for_everything_that_counts(automl, monkeypatch):
    seen = []
    original = Classical.predict

    def watched(self, params, fold, trial):
        from threadpoolctl import threadpool_info

        seen.append((self.threads, {pool["num_threads"] for pool in threadpool_info()}))
        return original(self, params, fold, trial)

    monkeypatch.setattr(Classical, "predict", watched)
    automl("plan.max_cores=1", "plan.trials=1")
    assert seen == [(1, {1})] * 3
