import re

import pandas as pd
import pytest

from cxr.errors import DataError
from cxr.evaluation.compare import compare
from cxr.evaluation.report.comparison import Compared, list_notes, to_markdown, write_comparison

from .conftest import NAMES, make_part

METRICS = ("auroc", "accuracy")


@pytest.fixture(scope="module")
def comparison():
    """A good net, a poor one and one whose name has signs of Markdown and HTML."""
    strengths = {"good": 2.0, "poor": 0.3, "<b>|other": 1.9}
    tables = {name: (make_part("test", 80, strength=strength), NAMES) for name, strength in strengths.items()}
    return compare(tables, METRICS)


@pytest.fixture(scope="module")
def costs():
    return pd.DataFrame(
        {"run": ["good"], "parameters": [12_345], "megabytes": [0.5], "gflops": [1.234], "latency_ms": [2.0]}
    )


def test_markdown_csv_and_page_tell_the_same(comparison, costs, tmp_path):
    write_comparison(Compared(comparison, costs), tmp_path)
    table = pd.read_csv(tmp_path / "comparison.csv")
    page, text = (tmp_path / "comparison.html").read_text(), (tmp_path / "comparison.md").read_text()
    assert len(table) == 3 * len(METRICS)
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert page.count('src="data:image/png;base64,') == 1
    for row in table.itertuples():
        value = f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})"
        assert value in page
        assert value in text
    for told in ("12,345", "0.5 MB", "1.23 GFLOP", "2.0 ms"):
        assert told in page
        assert told in text


def test_names_break_neither_markdown_nor_the_page(comparison, tmp_path):
    write_comparison(Compared(comparison, pd.DataFrame()), tmp_path)
    assert "&lt;b&gt;|other" in (tmp_path / "comparison.html").read_text()
    rows = [line for line in (tmp_path / "comparison.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert "What they cost" not in (tmp_path / "comparison.html").read_text()


def test_no_cell_starts_a_formula(tmp_path):
    tables = {
        name: (make_part("test", 80, strength=strength), NAMES) for name, strength in {"=1+1": 2, "@other": 1}.items()
    }
    write_comparison(Compared(compare(tables, METRICS), pd.DataFrame()), tmp_path)
    assert set(pd.read_csv(tmp_path / "comparison.csv")["recipe"]) == {"'=1+1", "'@other"}


def test_the_reference_has_no_difference(comparison, costs):
    lines = [
        line for line in to_markdown(Compared(comparison, costs)).splitlines() if line.startswith("| auroc | good")
    ]
    assert len(lines) == 1
    assert "| reference |" in lines[0]


def test_why_a_second_test_was_not_made_is_told(comparison):
    assert list_notes(comparison)  # every patient has two rows here


def test_a_folder_that_cannot_be_written(comparison, costs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"expected to write to .*file, but got: .*; choose another --out"):
        write_comparison(Compared(comparison, costs), tmp_path / "file")
