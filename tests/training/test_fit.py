"""fit() on small phantoms: everything that a run folder must hold, and what must not be in it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.utils.class_weight import compute_class_weight

from cxr.data.identity import hash_ids, load_salt
from cxr.data.readers import make_phantom_samples
from cxr.errors import ConfigError, DataError, MissingExtraError, TrainingError
from cxr.evaluation.metrics import classification_metrics
from cxr.evaluation.predictions import read_predictions
from cxr.inference.bundle import load_bundle
from cxr.training.assemble import assemble
from cxr.training.building import build
from cxr.training.fit import fit, is_backbone_frozen, preflight
from cxr.training.fit import test_run as open_test_part
from cxr.training.run_folder import RunFolder

FIGURES = ("confusion", "confusion_normalised", "f1_heatmap", "roc", "precision_recall")


@pytest.fixture(scope="module")
def finished(compose_run, tmp_path_factory):
    """(result, config) of a finished run."""
    config = compose_run(tmp_path_factory.mktemp("finished") / "run", "net.drop_rate=0.3", "report=true")
    return fit(config), config


def test_the_run_folder_holds_everything(finished):
    run_dir = finished[0].run_dir
    for name in ("config.yaml", "environment.txt", "run.log", "split.csv", "data_report.json", "history.csv",
                 "metrics.json", "predictions_val.csv", "predictions_test.csv", "bundle/bundle.json",
                 "bundle/model.safetensors", "checkpoints/last.ckpt", "figures/learning_curves.png", "report.html",
                 "predictions_train.csv", "model_card.md", "datasheet.md", "claim.md",
                 "gallery/correct_01.png"):  # fmt: skip
        assert (run_dir / name).stat().st_size > 0, name
    for part in ("val", "test"):
        for figure in FIGURES:
            assert (run_dir / "figures" / f"{part}_{figure}.png").stat().st_size > 5_000


def test_metrics_are_those_of_the_written_predictions(finished):
    result, _ = finished
    written = json.loads((result.run_dir / "metrics.json").read_text())
    assert written["best"]["score"] == pytest.approx(written["metrics"]["val/auroc"], abs=1e-6)
    assert (result.run_dir / written["best"]["checkpoint"]) == result.best_checkpoint
    for part in ("val", "test"):
        table, names = read_predictions(result.run_dir / f"predictions_{part}.csv")
        expected = classification_metrics(table["target"], table[["prob_0", "prob_1"]], names)
        for name, value in expected.items():
            got = written["metrics"][f"{part}/{name}"]
            assert got == (None if np.isnan(value) else pytest.approx(value)), name


def test_the_best_score_is_the_best_of_all_epochs(finished):
    result, _ = finished
    history = pd.read_csv(result.run_dir / "history.csv")
    assert result.best_score == pytest.approx(history["val/auroc"].max(), abs=1e-6)


def test_the_bundle_predicts_from_the_files_what_the_run_predicted(finished):
    result, config = finished
    predictor = load_bundle(result.run_dir / "bundle")
    raw = make_phantom_samples(config.data.root, cohort=config.data.cohort)
    table, names = read_predictions(result.run_dir / "predictions_test.csv")
    assert predictor.class_names == names
    raw["hashed"] = hash_ids(raw["sample_id"], load_salt(Path(config.paths.cache_dir)))
    paths = table.merge(raw, left_on="sample_id", right_on="hashed", validate="one_to_one")["image_path"]
    assert len(paths) == len(table)
    probs = predictor.predict(paths.tolist())[["prob_0", "prob_1"]].to_numpy()
    np.testing.assert_allclose(probs, table[["prob_0", "prob_1"]], atol=1e-4)


def test_checkpoints_load_without_running_code(finished):
    for path in (finished[0].run_dir / "checkpoints").glob("*.ckpt"):
        assert "state_dict" in torch.load(path, weights_only=True)


def test_no_id_of_a_patient_leaves_in_the_run_folder(finished):
    result, config = finished
    truth = pd.read_csv(f"{config.data.root}/phantom_truth.csv", dtype=str)
    ids = set(truth["patient_id"]) | set(truth["study_id"]) | set(truth["image_id"])
    for path in result.run_dir.rglob("*"):
        if path.is_file() and path.suffix not in (".png", ".ckpt", ".safetensors"):
            text = path.read_text()
            assert [identifier for identifier in ids if identifier in text] == [], path


def test_ids_stay_as_they_are_when_hashing_is_off(compose_run, tmp_path):
    config = compose_run(tmp_path / "run", "hash_ids=false", "trainer.max_epochs=1")
    fit(config)
    truth = pd.read_csv(f"{config.data.root}/phantom_truth.csv", dtype=str)
    split = pd.read_csv(tmp_path / "run" / "split.csv", dtype=str)
    assert set(split["patient_id"]) <= set(truth["patient_id"])


def test_the_same_seed_gives_the_same_split_and_the_same_numbers(finished, compose_run, tmp_path):
    again = fit(compose_run(tmp_path / "again", "net.drop_rate=0.3"))
    first = finished[0].run_dir
    assert (again.run_dir / "split.csv").read_bytes() == (first / "split.csv").read_bytes()
    one, two = (pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (first, again.run_dir))
    pd.testing.assert_frame_equal(one, two)


def test_another_seed_gives_another_split(finished, compose_run, tmp_path):
    other = fit(compose_run(tmp_path / "other", "seed=1", "trainer.max_epochs=1"))
    assert (other.run_dir / "split.csv").read_bytes() != (finished[0].run_dir / "split.csv").read_bytes()


def test_a_split_file_is_used_again(finished, compose_run, tmp_path):
    split = finished[0].run_dir / "split.csv"
    fit(compose_run(tmp_path / "again", "seed=3", f"data.split_file={split}", "trainer.max_epochs=1"))
    assert (tmp_path / "again" / "split.csv").read_bytes() == split.read_bytes()


def test_without_a_best_checkpoint_nothing_is_evaluated(compose_run, tmp_path):
    result = fit(compose_run(tmp_path / "run", "callbacks.checkpoint=null", "trainer.max_epochs=1"))
    assert np.isnan(result.best_score)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_trial_leaves_the_test_part_alone_until_it_is_chosen(compose_run, tmp_path):
    result = fit(compose_run(tmp_path / "trial", "test=false", "trainer.max_epochs=1"))
    assert not (result.run_dir / "predictions_test.csv").exists()
    assert not any(name.startswith("test") for name in result.metrics)
    metrics = open_test_part(result.run_dir)
    assert load_bundle(result.run_dir / "bundle").extras["metrics"]["test/auroc"] == metrics["test/auroc"]
    written = json.loads((result.run_dir / "metrics.json").read_text())["metrics"]
    assert written["test/auroc"] == metrics["test/auroc"]
    assert written["val/auroc"] == result.metrics["val/auroc"]
    assert (result.run_dir / "predictions_test.csv").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="expected a run folder with config.yaml, but .* has none"):
        open_test_part(tmp_path)


def test_the_data_report_counts_every_image(finished):
    result, _ = finished
    report = json.loads((result.run_dir / "data_report.json").read_text())
    split = pd.read_csv(result.run_dir / "split.csv")
    for part, counts in report["images"].items():
        assert counts == split[split["split"] == part]["class"].value_counts().to_dict()


@pytest.mark.parametrize("mode", ["fast", "limit", "overfit", "profiler"])
def test_every_debug_mode_runs(compose_run, tmp_path, mode):
    result = fit(compose_run(tmp_path / mode, f"debug={mode}", "trainer.max_epochs=2"))
    assert np.isnan(result.best_score) == (mode == "fast")


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_loggers_write_their_files(compose_run, tmp_path, logger):
    fit(compose_run(tmp_path / logger, f"logger={logger}", "trainer.max_epochs=1"))
    files = {path.name.split(".")[0] for path in (tmp_path / logger / logger).rglob("*") if path.is_file()}
    assert {"hparams", "metrics" if logger == "csv" else "events"} <= files


def test_the_logger_gets_the_config_and_the_parameter_counts(compose_run, tmp_path):
    fit(compose_run(tmp_path / "run", "logger=csv", "trainer.max_epochs=1"))
    values = yaml.safe_load(next((tmp_path / "run").rglob("hparams.yaml")).read_text())
    assert values["optimizer"]["lr"] == 0.003
    assert values["parameters"]["total"] == values["parameters"]["trainable"] > 0


@pytest.mark.parametrize("part", ["optimizer=adam", "optimizer=sgd", "optimizer=rmsprop", "scheduler=plateau",
                                  "scheduler=one_cycle", "scheduler=inverse_time", "scheduler=none", "loss=focal",
                                  "data.cache=false", "data.scheme=4class"])  # fmt: skip
def test_every_choice_trains(compose_run, tmp_path, part):
    score = fit(compose_run(tmp_path / "run", part, "trainer.max_epochs=1", "optimizer.lr=0.001")).best_score
    assert 0 <= score <= 1


OPTIMISERS = [
    ("adam", {"amsgrad": True, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}),
    ("adamw", {"amsgrad": True, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1}),
    ("sgd", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    ("sgd", {"momentum": 0.8, "dampening": 0.2}),  # which excludes nesterov
    ("rmsprop", {"alpha": 0.9, "centered": True, "eps": 1e-6, "momentum": 0.3, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMISERS, ids=[" ".join((name, *keys)) for name, keys in OPTIMISERS])
def test_optimiser_options_reach_the_optimiser(compose_run, tmp_path, name, options):
    options = {**options, "lr": 0.002}
    words = [f"optimizer.{key}={list(value) if isinstance(value, tuple) else value}" for key, value in options.items()]
    config = compose_run(tmp_path / "run", f"optimizer={name}", *words)
    make = build(config.optimizer, "optimizer")
    (group,) = make([torch.nn.Parameter(torch.zeros(1))]).param_groups
    assert {key: group[key] for key in options} == options


def test_trainer_and_loaders_have_what_the_config_says(compose_run, tmp_path):
    config = compose_run(tmp_path / "run", "trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=2",
                         "trainer.min_epochs=5", "trainer.max_epochs=50", "data.batch_size=7", "data.num_workers=2",
                         "optimizer.weight_decay=0.1")  # fmt: skip
    experiment = assemble(config)
    trainer, data = experiment.trainer, experiment.datamodule
    assert (trainer.gradient_clip_val, trainer.accumulate_grad_batches) == (0.5, 2)
    assert (trainer.min_epochs, trainer.max_epochs) == (5, 50)
    assert experiment.task.make_optimizer(experiment.task.net.parameters()).param_groups[0]["weight_decay"] == 0.1
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert (loader.batch_size, loader.num_workers) == (7, 2)


@pytest.mark.parametrize(
    ("words", "frozen"),
    [
        ([], False),
        (["transfer.freeze_upto=backbone"], True),
        (["transfer.freeze_upto=block4"], False),
        (["transfer.freeze_upto=backbone", "transfer.unfreeze_every=2"], False),
        (["transfer.freeze_upto=backbone", "transfer.init_from=somewhere"], False),  # which may have seen these images
    ],
)
def test_a_backbone_is_frozen_where_no_image_of_the_run_can_have_changed_it(compose_run, tmp_path, words, frozen):
    assert is_backbone_frozen(compose_run(tmp_path / "run", *words)) == frozen


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["monitor.metric=val/aurok"], ConfigError, "val/aurok is not logged; expected one of: val/loss"),
        (["preprocess.low=-1024"], ConfigError, "custom_cnn"),
        (["optimizer.betas=[2,3]"], ConfigError, "the config group optimizer cannot be built: Invalid beta parameter"),
        (["trainer.precision=17"], ConfigError, "the config group trainer cannot be built"),
        (["callbacks.history._target_=os.system"], ConfigError, "callbacks cannot be built: .*whitelist"),
        (["data.fractions=[0.5,0.5,0.5]"], ConfigError, "fractions"),
        (["data.fractions=0.5"], ConfigError, "data.fractions must be three numbers such as .*, but got 0.5"),
        (["data.classes=[a,b]"], ConfigError, "data.classes must be null or a mapping such as .*, but got"),
        (["data.scheme=5class"], ConfigError, "data.scheme must be one of binary, 4class, but got '5class'"),
        (["data.root=???"], ConfigError, "the config cannot be resolved at data.root: Missing mandatory value"),
        (["data.root=${nowhere}"], ConfigError, "the config cannot be resolved at data.root: Interpolation key"),
        (["callbacks.early_stopping.patience=soon"], ConfigError, "patience must be null or a whole number >= 0, but"),
        (["data.fractions=[0.99,0.005,0.005]"], DataError, "val|test"),
        (["data.view_filter=sideways"], ConfigError, "view_filter"),
        (["ckpt_path=nowhere.ckpt"], DataError, "ckpt_path must be a checkpoint of an earlier run, but nowhere.ckpt"),
        (["data.limit=100000"], DataError, "expected data.limit from 1 to the [0-9]+ samples there are"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_before_the_first_batch(compose_run, tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        fit(compose_run(tmp_path / "run", *overrides))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_preflight_trains_nothing(compose_run, tmp_path):
    preflight(compose_run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_missing_data_say_what_to_do(compose_run, tmp_path):
    message = "python scripts/download_data.py.*python train.py experiment=template data=phantom net=custom_cnn"
    config = compose_run(tmp_path / "run")
    config.data.reader = {"_target_": "cxr.data.readers.make_siim_samples", "_partial_": True, "root": str(tmp_path)}
    with pytest.raises(DataError, match=message):
        fit(config)


@pytest.mark.parametrize("logger", ["wandb", "tensorboard", "mlflow", "comet", "neptune"])
def test_a_missing_extra_gives_its_install_line(compose_run, tmp_path, monkeypatch, logger):
    real = importlib.util.find_spec
    absent = {
        "wandb": "wandb",
        "tensorboard": "tensorboard",
        "mlflow": "mlflow",
        "comet": "comet_ml",
        "neptune": "neptune",
    }
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == absent[logger] else real(name))

    with pytest.raises(MissingExtraError, match=rf"pip install 'cxr-lab\[{logger}\]'"):
        preflight(compose_run(tmp_path / "run", f"logger={logger}"))


def test_compile_compiles_the_net(compose_run, tmp_path, monkeypatch):
    compiled = []

    def record(net):
        compiled.append(net)

    monkeypatch.setattr(torch.nn.Module, "compile", record)
    experiment = assemble(compose_run(tmp_path / "run", "compile=true"))
    assert compiled == [experiment.task.net]


def test_a_dataset_of_one_class_is_told_before_any_image_is_decoded(compose_run, tmp_path):
    (tmp_path / "images" / "alone").mkdir(parents=True)
    (tmp_path / "images" / "alone" / "0.png").write_bytes(b"no image")
    words = ["data=image_folder", f"data.root={tmp_path}/images", "data.classes=null"]
    with pytest.raises(DataError, match="expected at least 2 classes in the dataset, but got alone"):
        fit(compose_run(tmp_path / "run", *words, without=("data",)))


def test_too_little_memory_of_a_gpu_is_told_with_what_helps(compose_run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", fail)
    with pytest.raises(TrainingError, match="out of memory with data.batch_size=24; set data.largest_batch=true"):
        fit(compose_run(tmp_path / "run", "data.batch_size=24"))


def test_the_test_part_is_not_opened_where_another_run_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("cxr.training.run_folder.SECONDS_TO_WAIT", 0.1)
    (tmp_path / "config.yaml").write_text("paths: {}")
    with RunFolder(tmp_path).held(), pytest.raises(TrainingError, match="another run is writing to"):
        open_test_part(tmp_path)


def test_class_weights_are_those_of_the_training_part(compose_run, tmp_path):
    experiment = assemble(compose_run(tmp_path / "run", "loss.class_weights=balanced"))
    samples = experiment.cohort.samples
    labels = samples.loc[samples["split"] == "train", "label"]
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    assert experiment.task.loss.weight.tolist() == pytest.approx(expected.tolist())
    whole = compute_class_weight("balanced", classes=np.arange(2), y=samples["label"])
    assert experiment.task.loss.weight.tolist() != pytest.approx(whole.tolist(), rel=1e-4)
