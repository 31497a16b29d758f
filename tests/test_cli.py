import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr import __version__
from cxr.cli import main, make_parser, parse
from cxr.commands.data import audit, find_own_pairs, name_parts
from cxr.data.leaks.similar import Similar
from cxr.errors import DataError
from cxr.training.fit import fit

ROOT = Path(__file__).parents[1]


def run_python(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True, cwd=ROOT, **options)


def test_help_imports_nothing_heavy():
    code = "import sys, cxr.cli; cxr.cli.make_parser().format_help(); print(*sys.modules)"
    modules = run_python("-c", code).stdout.split()
    assert "cxr.cli" in modules
    assert not {"torch", "pandas", "numpy", "wandb", "kaggle", "kagglesdk", "pydicom"} & set(modules)


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("doctor", "data", "predict", "sweep", "reproduce"))


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"cxr {__version__}\n"


@pytest.mark.parametrize("words", [[], ["nonsense"], ["data"], ["sweep", "best"]])
def test_incomplete_command_shows_usage(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage: cxr" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--out", "o", "data=x", "a=b"], ["data=x", "--out", "o", "a=b"], ["data=x", "a=b", "--out", "o"]]
)
def test_overrides_may_stand_on_both_sides_of_an_option(words):
    options = parse(make_parser(), ["data", "report", *words])
    assert (options.overrides, options.out) == (["data=x", "a=b"], Path("o"))


@pytest.mark.parametrize("words", [["doctor", "more"], ["data", "report", "--ou=x", "--nonsense"]])
def test_words_that_no_command_takes_are_named(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(make_parser(), words)
    assert f"unrecognized arguments: {words[-1]}" in capsys.readouterr().err


def test_unknown_dataset_is_one_sentence(capsys):
    assert main(["data", "get", "--dataset", "carvana", "--dry-run"]) == 1
    assert capsys.readouterr().err.startswith("error: no dataset is called 'carvana'; choose one of siim")


def test_script_is_the_same_command(tmp_path):
    done = run_python("scripts/download_data.py", "--dry-run", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "siim-covid19-detection" in done.stdout
    assert str(tmp_path / "siim-covid19-detection") in done.stdout
    assert done.stderr == ""


def test_script_fails_with_one_line_and_exit_code_one(tmp_path):
    (tmp_path / "siim-covid19-detection.zip").write_text("no zip")
    done = run_python("scripts/download_data.py", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "is damaged" in done.stderr


def test_dot_env_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXR_DATA_DIR", "set for cleaning up")
    monkeypatch.delenv("CXR_DATA_DIR")
    (tmp_path / ".env").write_text("CXR_DATA_DIR=/from/dot/env\n")
    monkeypatch.chdir(tmp_path)
    assert main(["data", "get", "--dry-run"]) == 0
    assert "/from/dot/env/siim-covid19-detection" in capsys.readouterr().out


def test_reader_that_closes_early_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "scripts/download_data.py", "--dry-run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


@pytest.fixture
def images(tmp_path):
    """60 images in two class folders."""
    for number in range(60):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)).save(path)
    return tmp_path / "images"


@pytest.mark.filterwarnings("ignore:the test part has")
@pytest.mark.parametrize("out_first", [True, False])
def test_data_report_writes_page_and_json(out_first, images, tmp_path, capsys):
    (images / "a" / "bad.png").write_text("no image")
    out = ["--out", str(tmp_path / "out")]
    words = ["data=image_folder", f"data.root={images}", f"paths.cache_dir={tmp_path}/cache", "preprocess.size=[16,16]"]
    assert main(["data", "report", *(out + words if out_first else words + out)]) == 0
    shown = capsys.readouterr().out
    assert "       1  Gives no image" in shown
    assert shown.splitlines()[-1] == f"report: {tmp_path}/out/report.html"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["files"] == 61
    assert report["command"].startswith("cxr data report data=image_folder data.root=")
    assert [file["path"] for file in report["findings"][0]["files"]] == [str(images / "a" / "bad.png")]


@pytest.mark.filterwarnings("ignore:the test part has")
def test_data_report_lies_in_the_log_folder_by_default(images, tmp_path, capsys):
    words = [f"data.root={images}", f"paths.cache_dir={tmp_path}/cache", "preprocess.size=[16,16]"]
    assert main(["data", "report", "data=image_folder", *words, f"paths.log_dir={tmp_path}/logs"]) == 0
    assert (tmp_path / "logs" / "data_report" / "image_folder" / "report.html").exists()


@pytest.mark.filterwarnings("ignore:the test part has")
def test_data_leaks_lists_what_is_there_twice_and_what_another_dataset_shares(images, tmp_path, capsys):
    shutil.copytree(images, tmp_path / "other")
    shutil.copy(images / "a" / "0.png", images / "a" / "again.png")
    common = [f"paths.cache_dir={tmp_path}/cache", f"paths.log_dir={tmp_path}/logs", "preprocess.size=[16,16]"]
    words = ["data=image_folder", f"data.root={images}", *common]
    assert main(["data", "leaks", *words]) == 0
    table = tmp_path / "logs" / "data_leaks" / "image_folder" / "pairs.csv"
    assert capsys.readouterr().out.splitlines() == ["       1  file", f"pairs: {table}"]
    (pair,) = pd.read_csv(table).to_dict("records")
    assert {pair["sample_a"], pair["sample_b"]} == {"a/0", "a/again"}
    assert {pair["path_a"], pair["path_b"]} == {f"{images}/a/0.png", f"{images}/a/again.png"}

    other = shlex.join(["data=image_folder", f"data.root={tmp_path}/other", *common])
    assert main(["data", "leaks", *words, "--against", other, "--out", str(tmp_path / "out")]) == 0
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    assert set(pairs["part_b"]) == {"external"}
    assert len(set(pairs["sample_b"])) == 60
    assert {str(Path(path).parents[1]) for path in pairs["path_a"]} == {str(images)}
    assert {str(Path(path).parents[1]) for path in pairs["path_b"]} == {f"{tmp_path}/other"}


def test_data_leaks_lists_patients_that_given_parts_share():
    samples = pd.DataFrame(
        {"sample_id": list("abcd"), "content_hash": list("aacd"), "patient_id": ["p", "p", "q", "p"]}
    )
    samples = name_parts(samples.assign(split=["train", "train", "test", "test"], group=[0, 0, 1, 0]))
    similar = Similar({key: key for key in "acd"}, pd.DataFrame(columns=["pixel_a", "pixel_b", "score"]))
    pairs = find_own_pairs(samples, similar)
    found = pairs[["kind", "part_a", "part_b", "sample_a", "sample_b"]].values.tolist()
    assert found == [
        ["file", "train", "train", "a", "b"],
        ["patient", "train", "test", "a", "d"],
        ["patient", "train", "test", "b", "d"],
    ]


def test_data_leaks_needs_no_second_class(images, tmp_path, capsys):
    shutil.copytree(images / "a", tmp_path / "normals" / "=a")
    common = [f"paths.cache_dir={tmp_path}/cache", f"paths.log_dir={tmp_path}/logs", "preprocess.size=[16,16]"]
    normals = ["data=image_folder", f"data.root={tmp_path}/normals", *common]
    against = shlex.join(["data=image_folder", f"data.root={images}", *common])
    assert main(["data", "leaks", *normals, "--against", against, "--out", str(tmp_path / "out")]) == 0
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    assert len(set(pairs["sample_a"])) == 30
    assert pairs["sample_a"].str.startswith("'=a/").all(), "a spreadsheet would take it for a formula"
    assert capsys.readouterr().out.splitlines()[-1] == f"pairs: {tmp_path}/out/pairs.csv"
    assert main(["data", "leaks", *normals]) == 0
    assert capsys.readouterr().out == "nothing is shared\n"


@pytest.mark.filterwarnings("ignore:the test part has")
def test_data_audit_finds_the_class_in_the_border(images, tmp_path, capsys):
    for path in (images / "b").iterdir():
        pixels = np.asarray(Image.open(path)).copy()
        pixels[:, :2] = np.linspace(0, 255, 16)[:, None]
        Image.fromarray(pixels).save(path)
    words = ["data=image_folder", f"data.root={images}", f"paths.cache_dir={tmp_path}/cache", "preprocess.size=[16,16]"]
    assert main(["data", "audit", *words, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"audit: {tmp_path}/out/audit.json"
    rows = json.loads((tmp_path / "out" / "audit.json").read_text())["rows"]
    assert "shortcut" in [row["verdict"] for row in rows if row["name"] == "border"]


@pytest.fixture
def lists(tmp_path):
    """Words that name COVIDx lists of 120 patients in two parts, whose source tells the class, without any image."""
    for part, patients in (("train", range(80)), ("test", range(80, 120))):
        lines = [f"{n} {n}.png {('normal rsna', 'COVID-19 ricord')[n % 2]}" for n in patients]
        (tmp_path / f"{part}_COVIDx9A.txt").write_text("\n".join(lines))
    return ["data=covidx", f"data.root={tmp_path}", "data.version=9A", "data.on_missing=keep"]


def test_data_audit_of_lists_alone_finds_the_class_in_the_source(lists, tmp_path, caplog, capsys):
    assert main(["data", "audit", *lists, "--out", str(tmp_path / "out")]) == 0
    assert "The source alone gives AUROC 1.00" in " ".join(capsys.readouterr().out.split())
    assert "none of the 120 files is there: the lists alone are audited, without any image" in caplog.text
    rows = json.loads((tmp_path / "out" / "audit.json").read_text())["rows"]
    assert {(row["name"], row["scope"]) for row in rows if row["verdict"] == "shortcut"} >= {
        ("source", "all"), ("source", "test"),
    }  # fmt: skip
    assert not (tmp_path / "cache").exists()


def test_lists_alone_take_no_other_split(lists, tmp_path):
    with pytest.raises(DataError, match=r"files to take the parts of data.split_file=s.csv, but none of 120 is there"):
        audit([*lists, "data.split_file=s.csv"], None, tmp_path / "out")


def test_a_report_of_data_that_are_not_ready_says_why(monkeypatch, capsys):
    found = {"findings": [], "split_problem": "expected two classes"}
    monkeypatch.setattr("cxr.commands.data.report", lambda *_: (Path("report.html"), found))
    assert main(["data", "report", "data=image_folder"]) == 0
    assert capsys.readouterr().out == "not ready for training: expected two classes\nreport: report.html\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the test part has")
def test_data_audit_of_a_net_wants_the_nets_classes(compose_run, images, tmp_path, capsys):
    bundle = fit(compose_run(tmp_path / "run", "trainer.max_epochs=1")).run_dir / "bundle"
    words = ["data=image_folder", f"data.root={images}", f"paths.cache_dir={tmp_path}/cache", "data.split_file=null"]
    assert main(["data", "audit", *words, "--bundle", str(bundle)]) == 1
    assert "error: expected the bundle's classes ['negative', 'positive'], got ['a', 'b']" in capsys.readouterr().err


def test_data_report_of_no_dataset_is_one_sentence(capsys):
    assert main(["data", "report", "data=nonsense"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: expected overrides as for train.py, but")
    assert error.count("\n") == 1


@pytest.mark.parametrize("against", ["", "data='x"])
def test_against_nothing_is_one_sentence(against, images, capsys):
    assert main(["data", "leaks", "data=image_folder", f"data.root={images}", "--against", against]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: expected --against to name a dataset, such as 'data=radiography data.root=PATH'")
    assert error.endswith(f"but got {against!r}\n")


@pytest.mark.parametrize("action", ["report", "leaks", "audit"])
def test_a_folder_that_cannot_be_written_is_told_before_any_image_is_decoded(action, images, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    words = ["data=image_folder", f"data.root={images}", f"paths.cache_dir={tmp_path}/cache"]
    assert main(["data", action, *words, "--out", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err
    assert (
        error
        == f"error: expected a folder to write to, but {tmp_path}/file is none (File exists); choose another --out\n"
    )
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def several_targets(images, tmp_path):
    """Words that name a table of 60 images, 20 with an effusion, 10 of these with a nodule too."""
    rows = pd.DataFrame({"path": sorted(images.rglob("*.png")), "effusion": [1] * 20 + [0] * 40})
    rows.assign(nodule=[1] * 10 + [0] * 50).to_csv(tmp_path / "table.csv", index=False)
    table = ["data=table", f"data.path={tmp_path}/table.csv", "data.targets=[effusion,nodule]", "sampler=none"]
    return [*table, f"paths.cache_dir={tmp_path}/cache", "--out", str(tmp_path / "out")]


@pytest.mark.filterwarnings("ignore:the test part has")
def test_a_report_of_several_targets_counts_the_rarest_of_each_image(several_targets, tmp_path):
    assert main(["data", "report", *several_targets]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["classes"] == ["effusion", "no positive target", "nodule"]
    counts = pd.DataFrame(report["images"]).sum(axis=1)
    assert counts.to_dict() == {"effusion": 10, "no positive target": 40, "nodule": 10}


def test_an_audit_of_several_targets_is_refused_with_a_way_out(several_targets, capsys):
    assert main(["data", "audit", *several_targets]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: expected one class for each image, got the targets effusion, nodule; take one of")
    assert error.endswith("data.targets=[] data.columns.finding=effusion\n")


@pytest.mark.filterwarnings("default:the test part has")
def test_a_warning_is_a_sentence_without_a_line_of_code(images, tmp_path, caplog):
    words = ["data=image_folder", f"data.root={images}", f"paths.cache_dir={tmp_path}/cache", "preprocess.size=[16,16]"]
    assert main(["data", "report", *words, "--out", str(tmp_path / "out")]) == 0
    (told,) = [text for text in caplog.messages if "the test part has" in text]
    assert told.startswith("the test part has ")
    assert "\n" not in told


def test_sweep_best(tmp_path, capsys):
    record = """
study: template_optuna
number: 7
metric: val/auroc
value: 0.91234
params: {optimizer.lr: 0.001, net.drop_rate: 0.2}
run_dir: trials/0007
checkpoint: trials/0007/checkpoints/best.ckpt
test: {test/auroc: 0.9}
"""
    (tmp_path / "best.yaml").write_text(record)

    assert main(["sweep", "best", str(tmp_path)]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "trial 7 of template_optuna: val/auroc = 0.9123",
        "  optimizer.lr=0.001",
        "  net.drop_rate=0.2",
        f"checkpoint: {tmp_path}/trials/0007/checkpoints/best.ckpt",
        "  test/auroc = 0.9000",
    ]


def test_sweep_best_without_a_sweep(tmp_path, capsys):
    assert main(["sweep", "best", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} must be the folder of a sweep")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence(code, images, tmp_path, monkeypatch, capsys):
    def fill(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("cxr.commands.data.report", fill)
    assert main(["data", "report", "data=image_folder", f"data.root={images}"]) == 1
    assert capsys.readouterr().err == (
        f"error: no space left on the disk ({os.strerror(code)}); free some, or choose another folder with --out\n"
    )


def test_interruption_is_told(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr.doctor.examine", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "stopped; nothing was left half done\n"
