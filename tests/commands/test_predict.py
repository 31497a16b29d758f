import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from cxr.cli import main
from cxr.commands import predict as command
from cxr.commands.predict import Prediction, predict, tell
from cxr.errors import ConfigError, DataError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle_folder import bundle_version
from cxr.inference.classical_predictor import write_classical
from cxr.inference.engines import ENGINES, open_predictor
from cxr.inference.features import PIXELS, Features
from cxr.inference.predictor import Predictor, Scores
from cxr.parsers import group

from ..imaging.dicom_files import make_dataset, save

PREPROCESS = Preprocess(size=(8, 8))


@dataclass(frozen=True, kw_only=True)
class Brightness(Predictor):
    """The probability of the second class is the mean brightness."""

    preprocesses = (PREPROCESS,)

    def score_stored(self, stored):
        (images,) = stored
        bright = images.mean(axis=(1, 2)) / 255
        return Scores(np.stack([1 - bright, bright], axis=1), np.full(len(images), np.nan), np.zeros(len(images), bool))


PREDICTOR = Brightness(
    class_names=["dark", "bright"], calibrated=True,
    operating_point={"rule": "youden", "positive_class": "bright", "threshold": 0.4},
)  # fmt: skip


def save_image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24), dtype=np.uint8)
    Image.fromarray(pixels // 2 if seed % 2 else pixels).save(path)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with images, broken ones among them, and a bundle that `PREDICTOR` stands for."""
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        save_image(tmp_path / "scans" / f"{number}.png", number)
    (tmp_path / "scans" / "broken.png").write_bytes(b"\x89PNG broken")
    (tmp_path / "scans" / "notes.txt").write_text("no image")
    (tmp_path / "run" / "bundle").mkdir(parents=True)
    (tmp_path / "run" / "bundle" / "bundle.json").write_text("{}")
    monkeypatch.setattr(command, "open_predictor", lambda folder, engine: PREDICTOR)
    return tmp_path


def run(*words, listed="", **settings):
    stdout = io.StringIO()
    settings = {"bundle": Path("run"), "workers": 0, "form": "jsonl", "batch": 2, **settings}
    summary = predict(Prediction(words, **settings), io.StringIO(listed), stdout)
    return summary, stdout.getvalue()


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_image_gets_its_answer_in_order(place):
    summary, text = run("scans")
    rows = rows_of(text)
    assert [row["path"] for row in rows] == [f"scans/{name}.png" for name in (0, 1, 2, 3, 4, "broken")]
    for row in rows[:-1]:
        bright = PREPROCESS.store(read_pixels(row["path"])).mean() / 255
        assert row["probs"]["bright"] == pytest.approx(bright)
        assert row["decisions"] == {"bright": bool(bright >= 0.4)}
    assert rows[-1]["error"].startswith("expected a DICOM, PNG, JPEG, TIFF or BMP image, but got")
    assert {row["model"] for row in rows} == {bundle_version(place / "run" / "bundle")}
    assert tell(summary) == "5 predicted, 1 could not be read; skipped 1 that are no images (1 .txt)"


@pytest.mark.parametrize(
    ("elements", "warnings"),
    [
        ({"Modality": "CT"}, ["not_a_radiograph"]),
        ({"BodyPartExamined": "LEG", "ViewPosition": "LL"}, ["not_a_chest", "not_frontal"]),
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}, []),
    ],
)
def test_what_the_header_says_is_a_warning(place, elements, warnings):
    ramp = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    save(place / "a.dcm", make_dataset(ramp, bits=12, **elements), ramp)
    (row,) = rows_of(run("a.dcm")[1])
    assert row["warnings"] == warnings


def test_names_that_differ_in_a_line_end_keep_their_own_answers(place):
    first, second = save_image(Path("x\ny.png"), 0), save_image(Path("x\\ny.png"), 1)
    _, text = run(str(first), str(second), form="jsonl")
    told = [json.loads(line) for line in text.splitlines()]
    alone = [json.loads(run(str(one), form="jsonl")[1]) for one in (first, second)]
    assert [one["probs"] for one in told] == [one["probs"] for one in alone]
    assert told[0]["path"] != told[1]["path"]


def test_a_device_is_no_file_of_results(place):
    with pytest.raises(DataError, match="expected a file to write to, but /dev/full is none"):
        run("scans", out=Path("/dev/full"), form="csv")


def test_the_same_command_continues_its_file(place, monkeypatch):
    settings = {"out": Path("a.csv"), "form": None}
    run("scans", **settings)
    content = Path("a.csv").read_bytes()
    Path("a.csv").write_bytes(content[:-100])
    summary, _ = run("scans", **settings)
    assert Path("a.csv").read_bytes() == content
    assert (summary.predicted, summary.failed) == (5, 1)
    assert 0 < summary.known < 6
    assert f"({summary.known} of them were in the file before)" in tell(summary)
    monkeypatch.setattr(Brightness, "score_stored", None)  # nothing is predicted twice
    assert run("scans", **settings)[0].known == 6
    Path("run/bundle/bundle.json").write_text("{ }")
    with pytest.raises(DataError, match="to hold answers of the bundle"):
        run("scans", **settings)


def test_int8_gives_other_answers_than_the_same_bundle_without(place):
    version = bundle_version(place / "run" / "bundle")
    assert rows_of(run("scans/0.png", engine="int8")[1])[0]["model"] == f"{version}-int8"


def test_ctrl_c_leaves_a_file_that_continues(place, monkeypatch):
    expected = run("scans")[1]
    score, calls = Brightness.score_stored, []

    def interrupt(predictor, stored):
        calls.append(len(stored))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(predictor, stored)

    monkeypatch.setattr(Brightness, "score_stored", interrupt)
    words = ["predict", "scans", "--bundle", "run", "--out", "a.jsonl", "--batch", "2", "--workers", "0"]
    assert main(words) == 130
    assert len(rows_of(Path("a.jsonl").read_text())) == 2
    assert main(words) == 1
    assert Path("a.jsonl").read_text() == expected


@pytest.mark.parametrize(
    ("words", "code"), [(["scans/0.png"], 0), (["scans"], 1), (["scans/broken.png"], 2), (["scans/notes.tx?"], 2)]
)
def test_the_exit_code_tells_how_it_went(place, words, code, capsys):
    assert main(["predict", *words, "--bundle", "run", "--workers", "0"]) == code
    assert capsys.readouterr().err.strip()


def test_without_a_bundle_nothing_is_predicted(place, capsys):
    assert main(["predict", "scans", "--bundle", "scans"]) == 2
    assert "expected a bundle or a run folder with one" in capsys.readouterr().err


def test_a_list_on_standard_input(place):
    assert [row["path"] for row in rows_of(run("-", listed="scans/3.png\nscans/0.png\n")[1])] == [
        "scans/3.png", "scans/0.png",
    ]  # fmt: skip


def test_no_images(place):
    with pytest.raises(DataError, match=r"expected images, found none; skipped 1 that are no images \(1 .txt\)"):
        run("scans/*.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "expected --batch of 1 or more, got 0"),
        ({"workers": -1}, "expected --workers of 0 or more, got -1"),
        ({"out": Path("a.xlsx"), "form": None}, "expected results in a file as csv or jsonl, got 'xlsx'"),
        ({"out": Path("a.csv"), "form": "table"}, "expected results in a file as csv or jsonl, got 'table'"),
        ({"overlays": Path("o"), "engine": "onnx"}, "expected the engine torch with --overlays, .* got onnx"),
    ],
)
def test_settings_that_cannot_be(place, settings, message):
    with pytest.raises(ConfigError, match=message):
        run("scans", **settings)


def test_the_command_line_knows_the_engines():
    assert group.ENGINES == ENGINES


@pytest.fixture(scope="module")
def graph_bundle(tmp_path_factory):
    """A bundle that onnxruntime runs: the mean of 64 pixels is the probability."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["features"], ["bright"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["probabilities"], axis=1),
    ]
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    graph = helper.make_graph(
        nodes, "mean", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])], [one],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    folder = tmp_path_factory.mktemp("graph") / "bundle"
    features = Features(PIXELS, PREPROCESS)
    write_classical(folder, model.SerializeToString(), "mean", {}, features, ["dark", "bright"], {})
    onnx.checker.check_model(model)
    return folder


def start(*words, **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "cxr.cli", "predict", *map(str, words)], **pipes | options)


@pytest.mark.slow
def test_dicom_png_and_zip_from_the_shell_are_what_the_predictor_says(graph_bundle, tmp_path):
    ramp = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    save(tmp_path / "a.dcm", make_dataset(ramp, bits=12, ViewPosition="LL"), ramp)
    save_image(tmp_path / "b.png", 0)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as packed:
        packed.write(tmp_path / "a.dcm", "inside.dcm")
    process = start(tmp_path / "a.dcm", tmp_path / "b.png", tmp_path / "c.zip", "--bundle", graph_bundle,
                    "--format", "jsonl")  # fmt: skip
    text, said = process.communicate()
    assert (process.returncode, said.splitlines()[-1]) == (0, "3 predicted")
    expected = open_predictor(graph_bundle).predict([tmp_path / "a.dcm", tmp_path / "b.png", tmp_path / "a.dcm"])
    assert [row["probs"]["bright"] for row in rows_of(text)] == pytest.approx(expected["prob_1"].tolist())
    assert [row["warnings"] for row in rows_of(text)] == [
        ["not_frontal", "not_calibrated"], ["not_calibrated"], ["not_frontal", "not_calibrated"],
    ]  # fmt: skip


@pytest.mark.slow
def test_neither_torch_nor_pandas_is_imported(graph_bundle, tmp_path):
    save_image(tmp_path / "a.png", 0)
    code = (
        "import sys\nfrom cxr.cli import main\nif __name__ == '__main__':\n"
        f"    main(['predict', {str(tmp_path / 'a.png')!r}, '--bundle', {str(graph_bundle)!r}, '--format', 'csv'])\n"
        "    print(sorted({'onnxruntime', 'torch', 'pandas', 'scipy', 'rich', 'pydicom', 'gdcm'} & set(sys.modules)))\n"
    )
    (tmp_path / "code.py").write_text(code)
    result = subprocess.run([sys.executable, tmp_path / "code.py"], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "['onnxruntime']"


@pytest.mark.slow
def test_a_killed_command_is_continued(graph_bundle, tmp_path):
    for number in range(400):
        save_image(tmp_path / "scans" / f"{number:03d}.png", number)
    words = (tmp_path / "scans", "--bundle", graph_bundle, "--batch", "4")
    assert start(*words, "--out", tmp_path / "whole.csv").wait() == 0
    killed = start(*words, "--out", tmp_path / "killed.csv")
    while not (tmp_path / "killed.csv").exists() or (tmp_path / "killed.csv").read_bytes().count(b"\n") < 20:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(pd.read_csv(tmp_path / "killed.csv")) < 400
    continued = start(*words, "--out", tmp_path / "killed.csv")
    assert continued.communicate()[1].splitlines()[-1].startswith("400 predicted (")
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(graph_bundle, tmp_path):
    image = save_image(tmp_path / "a.png", 0)
    highest = {}
    for count in (500, 5000):
        (tmp_path / str(count)).mkdir()
        for number in range(count):
            os.link(image, tmp_path / str(count) / f"{number}.png")
        process = start(tmp_path / str(count), "--bundle", graph_bundle, "--out", tmp_path / f"{count}.csv")
        seen = [0]
        while process.poll() is None:
            seen.append(psutil.Process(process.pid).memory_info().rss)
            time.sleep(0.01)
        assert process.returncode == 0
        highest[count] = max(seen)
    assert highest[5000] < highest[500] + 10 * 2**20
