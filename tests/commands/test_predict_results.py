import csv
import errno
import io
import json

import pytest
from filelock import FileLock

from cxr.commands.predict_results import CsvLayout, JsonLayout, Row, TableResults, open_results
from cxr.errors import DataError
from cxr.inference.sources import Source
from cxr.inference.verdict import Verdict

from ..inference.test_verdict import POINT, Silent

PREDICTOR = Silent(class_names=["well", "ill, very"], operating_point={**POINT, "positive_class": "ill, very"})
ROWS = [
    Row("a.png", Verdict("well", {"well": 0.75, "ill, very": 0.25}, {"ill, very": True}, False, ("inverted",))),
    Row('b"1".png', error="expected an image, got none; look"),
    Row("c.png", Verdict("well", {"well": 1.0, "ill, very": 1e-9}, {"ill, very": False}, None, ()), overlay="1.png"),
]
LAYOUTS = {
    "csv": lambda model="m1": CsvLayout(PREDICTOR, model, overlays=True),
    "jsonl": lambda model="m1": JsonLayout(model),
}


def write(out, rows, layout, model="m1"):
    with open_results(out, LAYOUTS[layout](model), io.StringIO(), model) as results:
        done = dict(results.done)
        results.write(rows)
    return done


def test_a_csv_file_says_everything(tmp_path):
    write(tmp_path / "new" / "a.csv", ROWS, "csv")
    with (tmp_path / "new" / "a.csv").open(newline="", encoding="utf-8") as file:
        first, second, third = csv.DictReader(file)
    assert first == {
        "path": "a.png", "status": "ok", "label": "well", "prob_well": "0.75", "prob_ill, very": "0.25",
        "decision_ill, very": "positive", "abstained": "no", "warnings": "inverted", "error": "", "overlay": "",
        "model": "m1",
    }  # fmt: skip
    assert (second["path"], second["status"], second["error"]) == ('b"1".png', "error", ROWS[1].error)
    assert second["label"] == second["prob_well"] == second["abstained"] == ""
    assert (third["prob_ill, very"], third["abstained"], third["overlay"]) == ("1e-09", "", "1.png")


@pytest.mark.parametrize("name", ["=1+1.png", "'=1.png", "-2.png", "'a.png"])
def test_no_cell_is_a_formula_and_the_file_is_continued(tmp_path, name):
    write(tmp_path / "a.csv", [Row(name, error="@expected")], "csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"][0], row["error"]) == ("'", "'@expected")
    assert write(tmp_path / "a.csv", [], "csv") == {name: False}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_name_with_a_backslash_is_continued(tmp_path, layout):
    path = str(Source("a\\b\n.png"))
    write(tmp_path / "a", [Row(path, error="x")], layout)
    assert write(tmp_path / "a", [], layout) == {path: False}


def test_json_lines_say_everything(tmp_path):
    write(tmp_path / "a.jsonl", ROWS, "jsonl")
    first, second, third = (json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines())
    assert first == {"path": "a.png", "status": "ok", **ROWS[0].verdict.to_dict(), "model": "m1"} | {
        "decisions": {"ill, very": True}
    }
    assert second == {"path": 'b"1".png', "status": "error", "error": ROWS[1].error, "model": "m1"}
    assert third["overlay"] == "1.png"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_a_kill_tears_the_file_it_is_continued_to_the_same(tmp_path, layout):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    write(whole, ROWS, layout)
    content = whole.read_bytes()
    for length in (*range(0, len(content), 3), len(content)):
        torn.write_bytes(content[:length])
        done = write(torn, [], layout)
        assert write(torn, [row for row in ROWS if row.path not in done], layout) == done
        assert torn.read_bytes() == content
    assert done == {"a.png": True, 'b"1".png': False, "c.png": True}


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    write(tmp_path / "a", ROWS, "csv")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match=r"expected a file to write to, but .*a is none \(Permission denied\)"):
        write(tmp_path / "a", [], "csv")


def test_a_file_that_cannot_be_locked(tmp_path, monkeypatch, caplog):
    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    write(tmp_path / "a", ROWS, "csv")
    assert write(tmp_path / "a", [], "csv").keys() == {row.path for row in ROWS}
    assert "cannot be locked: see to it that no other command writes there" in caplog.text


def test_a_file_that_another_process_writes(tmp_path):
    with (
        FileLock(tmp_path / ".a.lock"),
        pytest.raises(DataError, match=r"another process is writing .*a; wait for its end, or choose another --out"),
    ):
        write(tmp_path / "a", ROWS, "csv")
    assert write(tmp_path / "a", ROWS, "csv") == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_of_another_bundle_are_not_continued(tmp_path, layout):
    write(tmp_path / "a", ROWS, layout)
    with pytest.raises(DataError, match="to hold answers of the bundle m2, got some of m1; choose another --out"):
        write(tmp_path / "a", [], layout, "m2")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("content", ["my own notes", "name,age\nx,1\n"])
def test_another_file_is_left_as_it_is(tmp_path, layout, content):
    (tmp_path / "a").write_text(content)
    with pytest.raises(DataError, match="to begin as results of this bundle and these options do, got"):
        write(tmp_path / "a", ROWS, layout)
    assert (tmp_path / "a").read_text() == content


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("line", ["nonsense\n", '"\n', "[1]\n", "{}\n"])
def test_a_line_that_is_no_result(tmp_path, layout, line):
    write(tmp_path / "a", ROWS, layout)
    with (tmp_path / "a").open("a") as file:
        file.write(line)
    with pytest.raises(DataError, match=r"expected results of cxr predict in .*, but line \d is none"):
        write(tmp_path / "a", [], layout)


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(DataError, match=r"expected a file to write to, but .* is none \(Is a directory\)"):
        write(tmp_path, [], "csv")


def test_a_table_names_its_columns_once_and_takes_brackets_as_they_are():
    stream = io.StringIO()
    table = TableResults(stream)
    table.write([Row("[red]a\x1b[31m.png", ROWS[0].verdict)])
    table.write(ROWS[1:])
    shown = stream.getvalue()
    assert shown.count("answer") == 1
    assert "[red]a\\x1b" in shown
    assert all(word in shown for word in ("well 0.750", "positive", "inverted", "error", "look"))
