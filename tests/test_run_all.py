"""How results of benchmarks are read, kept and compared."""

import importlib.util
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "run_all.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("run_all", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_result(date, **ratios):
    one = {"command": "training.py --rounds 3", "seconds": 1.0, "rows": [], "ratios": ratios}
    return {"date": date, "machine": "A CPU (R) @ 2 GHz, 2 cores", "load": 0.1, "versions": {"torch": "9"},
            "benchmarks": {"training": one}}  # fmt: skip


def test_what_rich_prints_is_read_back(bench):
    table = Table("server", "clients", "images/s", "x plain", "p50", title="a title")
    table.add_row("onnx", "4", "1,234.5", "2.50", "3")
    stream = io.StringIO()
    Console(width=120, file=stream).print(table)
    rows = bench.read_tables(f"noise\n{stream.getvalue()}more │ noise\n")
    assert rows == [{"server": "onnx", "clients": "4", "images/s": "1,234.5", "x plain": "2.50", "p50": "3"}]
    serving = next(one for one in bench.BENCHMARKS if one.script == "serving")
    assert bench.find_ratios(serving, [*rows, {"another": "table"}]) == {"onnx, 4": 2.5}


@pytest.mark.parametrize(
    ("now", "flagged"), [(1.0, False), (0.91, False), (0.9, False), (0.89, True), (3.0, False)], ids=str
)
def test_only_a_fall_of_more_than_a_tenth_is_flagged(bench, now, flagged):
    lines = bench.find_regressions({"training: a": 1.0}, {"training: a": now, "new": 0.01})
    assert lines == (["training: a: 0.89, was 1.00 (-11%)"] if flagged else [])


@pytest.mark.parametrize("now", [{}, {"training: a": float("nan")}], ids=["gone", "nan"])
def test_what_is_not_measured_any_more_is_flagged(bench, now):
    assert bench.find_regressions({"training: a": 5.0}, now) == ["training: a: not measured, was 5.00"]


def test_others_rows_do_not_count(bench):
    rows = [{"files": "png", "pipeline": name, "warm / plain": "2.0"} for name in ("this project", "MONAI")]
    pipeline = next(one for one in bench.BENCHMARKS if one.script == "input_pipeline")
    assert bench.find_ratios(pipeline, rows) == {"png, this project": 2.0}


def test_every_benchmark_of_speed_is_among_them(bench):
    of_models = {"reference_table", "demo_seeds"}
    scripts = {path.stem for path in SCRIPT.parent.glob("*.py")}
    assert {one.script for one in bench.BENCHMARKS} == scripts - of_models - {"run_all"}


def test_absolute_numbers_do_not_count(bench):
    slow, fast = make_result("2020-01-01", a=2.0), make_result("2020-01-02", a=2.0)
    slow["benchmarks"]["training"].update(seconds=1e6, rows=[{"images/s": "1"}])
    assert bench.find_regressions(bench.ratios_of(fast), bench.ratios_of(slow)) == []


def test_the_last_result_of_the_same_machine_counts(bench, tmp_path):
    for date, ratio in (("2020-01-02", 2.0), ("2020-01-01", 1.0)):
        bench.store(make_result(date, a=ratio), tmp_path)
    bench.store({**make_result("2020-01-03", a=9.0), "machine": "another, 2 cores"}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir())[0] == "2020-01-01-a-cpu-r-2-ghz-2-cores.json"
    last = bench.read_last(tmp_path, "A CPU (R) @ 2 GHz, 2 cores")
    assert bench.ratios_of(last) == {"training: a": 2.0}
    assert last == json.loads(json.dumps(make_result("2020-01-02", a=2.0)))


def test_a_machine_without_a_result_is_told(bench, tmp_path):
    with pytest.raises(SystemExit, match="expected a stored result of x in .* run `make bench` first"):
        bench.read_last(tmp_path, "x")


def test_the_machine_is_a_processor_and_cores_and_no_host(bench):
    import platform

    assert bench.name_machine().endswith(" cores")
    assert platform.node() not in bench.name_machine()


def test_the_table_goes_between_its_marks_and_nothing_else_changes(bench):
    page = f"before\n{bench.START}\nold\n{bench.END}\nafter\n"
    table = bench.make_table(make_result("2020-01-01", **{"custom_cnn, bare loop": 0.97}))
    written = bench.put_table(page, table)
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "| `training.py --rounds 3` | custom_cnn, bare loop | 0.97 |" in written
    assert "old" not in written
    assert bench.put_table(written, table) == written
    with pytest.raises(ValueError, match="expected .*start --> and then .*end --> in the page"):
        bench.put_table("no marks", table)


def test_the_page_has_its_marks(bench):
    assert "a table" in bench.put_table(bench.PAGE.read_text(), "a table")


def test_comparing_ends_with_an_exit_code(bench, tmp_path, monkeypatch, capsys):
    before = {**make_result("2020-01-01", a=2.0), "machine": bench.name_machine()}
    bench.store(before, tmp_path)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["run_all.py", "--compare", "--only", "training"])
    for ratio, code in ((1.0, 1), (1.9, 0)):
        monkeypatch.setattr(bench, "run", lambda one, ratio=ratio: {"ratios": {"a": ratio}})
        with pytest.raises(SystemExit) as ended:
            bench.main()
        assert ended.value.code == code
    assert "training: a: 1.00, was 2.00 (-50%)" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 1


def test_without_a_stored_result_nothing_is_measured(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "run", lambda one: pytest.fail("it measured"))
    monkeypatch.setattr("sys.argv", ["run_all.py", "--compare"])
    with pytest.raises(SystemExit, match="expected a stored result"):
        bench.main()
