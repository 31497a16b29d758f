import json
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from cxr.cli import main
from cxr.errors import ConfigError, DataError
from cxr.evaluation.predictions import make_predictions, write_predictions
from cxr.experiments import reproduce as module
from cxr.experiments.reproduce import (
    Reproduction,
    choose_folder,
    compare_predictions,
    compare_versions,
    metric_differences,
    repeat_config,
    reproduce,
)
from cxr.training.fit import fit
from cxr.training.run_folder import RunFolder, environment

CLASSES = ["normal", "covid"]


def write_table(folder, shift=0.0, rows=("a", "b", "c"), name="test"):
    folder.mkdir(exist_ok=True)
    samples = pd.DataFrame({"sample_id": rows, "label": 0})
    logits = np.arange(2.0 * len(rows)).reshape(-1, 2)
    logits[0, 0] += shift
    write_predictions(
        make_predictions(samples, logits, CLASSES, name, "run"), CLASSES, folder / f"predictions_{name}.csv"
    )
    return folder


def test_equal_predictions_differ_by_nothing(tmp_path):
    old, new = write_table(tmp_path / "old"), write_table(tmp_path / "new")
    write_table(old, name="val")
    write_table(new, name="val")
    assert compare_predictions(old, new) == (6, 0.0)


def test_the_largest_difference_of_a_probability_is_found(tmp_path):
    old, new = write_table(tmp_path / "old"), write_table(tmp_path / "new", shift=1e-9)
    rows, largest = compare_predictions(old, new)
    assert rows == 3
    probability = 1 / (1 + np.e)
    assert largest == pytest.approx(1e-9 * probability * (1 - probability), rel=1e-5)


def test_rows_are_compared_by_sample(tmp_path):
    old, new = write_table(tmp_path / "old"), write_table(tmp_path / "new")
    table = pd.read_csv(new / "predictions_test.csv")
    table.iloc[::-1].to_csv(new / "predictions_test.csv", index=False)
    assert compare_predictions(old, new) == (3, 0.0)


def test_other_samples_are_refused(tmp_path):
    old, new = write_table(tmp_path / "old"), write_table(tmp_path / "new", rows=("a", "b", "d"))
    with pytest.raises(DataError, match="expected the samples of .*old.* but they are others; use the salt"):
        compare_predictions(old, new)


def test_headlines_that_both_have_are_compared():
    old = {"test/auroc": 0.9, "val/auroc": None, "test/recall/covid": 0.1}
    new = {"test/auroc": 0.8, "val/auroc": 0.7, "test/recall/covid": 0.2}
    assert metric_differences(old, new) == {"test/auroc": pytest.approx(-0.1)}


def test_versions_that_differ_are_named(tmp_path):
    kept = [line for line in environment() if not line.startswith(("numpy==", "# "))]
    (tmp_path / "environment.txt").write_text("\n".join([*kept, "numpy==1.0", "# elsewhere", "gone==3"]))
    told = compare_versions(RunFolder(tmp_path))
    assert [line.split(" before")[0] for line in told] == ["gone 3", "numpy 1.0", "platform elsewhere"]
    assert told[0] == "gone 3 before, absent now"


def test_a_run_without_its_environment_is_told(tmp_path):
    with pytest.raises(
        DataError, match="expected environment.txt in .*, but there is none; give the folder of a whole"
    ):
        compare_versions(RunFolder(tmp_path))


def test_the_answer_in_words(tmp_path):
    same = Reproduction(tmp_path, 6, 0.0, {"test/auroc": 0.0}, []).to_text()
    assert same.startswith("the same: all 6 predictions are equal to the last bit")
    other = Reproduction(
        tmp_path, 6, 1e-7, {"test/auroc": 0.0, "val/auroc": -0.02}, ["torch 1 before, 2 now"]
    ).to_text()
    assert other.splitlines()[:3] == [
        "differs from then: torch 1 before, 2 now",
        "not the same: a probability differs by up to 1e-07",
        "  val/auroc -0.02",
    ]


def test_a_folder_that_holds_something_is_not_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="--out must be a new or an empty folder, but .* holds something"):
            choose_folder(tmp_path / "run", out)


def test_a_new_folder_lies_beside_the_run(tmp_path):
    found = choose_folder(tmp_path / "run", None)
    assert found.parent == tmp_path
    assert found.name.startswith("run_reproduced_")


def write_config(folder, **trainer):
    folder.mkdir()
    values = {
        "paths": {"output_dir": "/then/run", "cache_dir": "/then/run-cache"},
        "callbacks": {"history": {"path": "/then/run/history.csv"}, "more": ["/then/run", 3]},
        "data": {"split_file": None},
        "ckpt_path": "/then/run/checkpoints/last.ckpt",
        "logger": {"csv": {}},
        "trainer": trainer,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return RunFolder(folder)


def test_the_config_is_the_old_one_in_a_new_place(tmp_path):
    config = repeat_config(write_config(tmp_path / "old"), tmp_path / "new")
    assert config.callbacks == {"history": {"path": f"{tmp_path}/new/history.csv"}, "more": [f"{tmp_path}/new", 3]}
    assert config.paths == {"output_dir": f"{tmp_path}/new", "cache_dir": "/then/run-cache"}
    assert config.data.split_file == f"{tmp_path}/old/split.csv"
    assert (config.ckpt_path, config.logger) == (None, {})


def test_a_run_of_several_devices_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="reproduced on one device, but this one was trained with trainer.strategy=ddp"
    ):
        repeat_config(write_config(tmp_path / "old", strategy="ddp"), tmp_path / "new")


def test_a_run_that_has_not_finished_is_refused(tmp_path):
    write_config(tmp_path / "old")
    with pytest.raises(DataError, match="the run has not finished"):
        reproduce(tmp_path / "old", None)


def test_what_is_no_run_is_one_sentence(tmp_path, capsys):
    assert main(["reproduce", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: expected a run folder with config.yaml")


@pytest.mark.parametrize(("largest", "code"), [(0.0, 0), (0.1, 1)])
def test_the_exit_code_says_whether_the_numbers_are_the_same(monkeypatch, capsys, tmp_path, largest, code):
    monkeypatch.setattr(module, "reproduce", lambda run, out: Reproduction(tmp_path, 3, largest, {}, []))
    assert main(["reproduce", "some/run"]) == code
    assert f"run folder: {tmp_path}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_is_reproduced_to_the_last_bit_unless_the_data_changed(compose_run, tmp_path, capsys):
    run = fit(compose_run(tmp_path / "run", "net.drop_rate=0.4", "augment=light")).run_dir
    assert main(["reproduce", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "predictions are equal to the last bit" in shown
    assert "differs from then" not in shown
    (again,) = tmp_path.glob("run_reproduced_*")
    assert (again / "split.csv").read_bytes() == (run / "split.csv").read_bytes()
    assert not (again / "csv").exists()

    shutil.copytree(run, tmp_path / "other")
    report = json.loads((run / "data_report.json").read_text())
    (tmp_path / "other" / "data_report.json").write_text(json.dumps(report | {"fingerprint": "0" * 64}))
    assert main(["reproduce", str(tmp_path / "other"), "--out", str(tmp_path / "new")]) == 1
    assert "the images or labels are not those that the run in" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
