import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.data.leaks.gate import apply_gate, find_leaks
from cxr.data.owner_lists import guard_formulas, unguard_formulas, write_list
from cxr.errors import DataError


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "\nx", "'=x"])
def test_text_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(text):
    guarded = guard_formulas(pd.DataFrame({text: [text, "plain"], "number": [-1, 1]}))
    assert list(guarded) == [f"'{text}", "number"]
    assert guarded[f"'{text}"].tolist() == [f"'{text}", "plain"]
    assert guarded["number"].tolist() == [-1, 1]


@given(st.lists(st.text(alphabet="'=+-@\t\r\nab"), min_size=1))
def test_unguarding_gives_the_table_back(texts):
    table = pd.DataFrame({"=name": pd.Series(texts, dtype=object)})
    pd.testing.assert_frame_equal(unguard_formulas(guard_formulas(table)), table, check_dtype=False)


def test_another_list_is_another_file(tmp_path):
    table = pd.DataFrame({"path": ["=cmd.png"]})
    path = write_list(table, tmp_path / "lists", "leaks")
    assert path.name.startswith("leaks-")
    assert path.read_text() == "path\n'=cmd.png\n"
    assert write_list(table, tmp_path / "lists", "leaks") == path
    assert write_list(table.assign(path="b.png"), tmp_path / "lists", "leaks") != path


def test_the_list_of_leaks_is_guarded(tmp_path):
    samples = pd.DataFrame(
        {"sample_id": ["=a", "b"], "split": ["train", "test"], "patient_id": "p", "image_path": "/x"}
    )
    apply_gate(samples, find_leaks(samples, None), "warn", tmp_path)
    (path,) = tmp_path.iterdir()
    assert pd.read_csv(path)["sample_a"].tolist() == ["'=a"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match="cannot write the list of leaks to .*; make room or choose another paths.cache"
    ):
        write_list(pd.DataFrame({"path": ["a"]}), tmp_path / "file", "leaks")
