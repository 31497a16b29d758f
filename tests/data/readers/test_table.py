import sys

import numpy as np
import pandas as pd
import pytest

from cxr.data.readers import make_table_samples
from cxr.data.samples import make_samples
from cxr.errors import DataError, MissingExtraError

COLUMNS = {"image_path": "path", "finding": "label"}


def write(folder, text, name="table.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_paths_start_at_the_folder_of_the_table_or_at_the_root(tmp_path):
    table = write(tmp_path, "path,label\na/1.png,x\n/elsewhere/2.png,y\n")
    own = make_table_samples(table, columns=COLUMNS)
    assert own["image_path"].tolist() == [str(tmp_path / "a/1.png"), "/elsewhere/2.png"]
    assert own["sample_id"].tolist() == ["a/1.png", "/elsewhere/2.png"]
    assert make_table_samples(table, columns=COLUMNS, root="/images")["image_path"][0] == "/images/a/1.png"


def test_columns_by_other_names_and_by_their_own(tmp_path):
    table = write(
        tmp_path,
        "path,label,PatientID,study_id,fold,ViewPosition,sex,age,source,secret\n"
        "1.png,NA,007,s1,Valid,PA,F,41,north,x\n2.png,None,008,s2,TRAIN,AP,M,,south,y\n3.png,NA,,s3,,AP,M,7,,z\n",
    )
    columns = {**COLUMNS, "patient_id": "PatientID", "split": "fold", "view_position": "ViewPosition", "source": None}
    samples = make_table_samples(table, columns=columns)
    assert set(samples) == {
        "sample_id", "image_path", "finding", "patient_id", "split", "view_position", "study_id", "sex", "age",
    }  # fmt: skip
    assert samples["finding"].tolist() == ["NA", "None", "NA"]
    assert samples["patient_id"].tolist()[:2] == ["007", "008"]
    assert samples["patient_id"].isna().tolist() == [False, False, True]
    assert samples["split"].tolist()[:2] == ["val", "train"]
    assert samples["split"].isna()[2]
    np.testing.assert_equal(samples["age"].to_numpy(), [41, np.nan, 7])
    assert make_samples(samples, None)[1] == ["NA", "None"]


def test_a_split_that_is_none_is_left_to_the_gate(tmp_path):
    samples = make_table_samples(write(tmp_path, "path,label,split\n1.png,a,holdout\n2.png,b,train\n"), columns=COLUMNS)
    with pytest.raises(DataError, match="1 x split other than train, val, test: holdout"):
        make_samples(samples, None)


def test_sample_ids_of_the_table(tmp_path):
    samples = make_table_samples(write(tmp_path, "sample_id,path,label\n01,1.png,a\n02,2.png,b\n"), columns=COLUMNS)
    assert samples["sample_id"].tolist() == ["01", "02"]


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".parquet"])
def test_other_files_give_the_same_table(tmp_path, suffix):
    table = pd.DataFrame({"path": ["1.png", "2.png"], "label": ["a", "b"], "edema": [1.0, np.nan], "mass": [0.0, 1.0]})
    expected = write(tmp_path, table.to_csv(index=False))
    path = tmp_path / f"other{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    for settings in ({"columns": COLUMNS}, {"columns": COLUMNS, "targets": ["mass", "edema"]}):
        pd.testing.assert_frame_equal(
            make_table_samples(path, **settings), make_table_samples(expected, **settings), check_dtype=False
        )


def test_parquet_without_the_extra(tmp_path, monkeypatch):
    pd.DataFrame({"path": ["1.png"], "label": ["a"]}).to_parquet(tmp_path / "t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pyarrow is not installed; .*pip install 'cxr-lab\[parquet\]'"):
        make_table_samples(tmp_path / "t.parquet", columns=COLUMNS)


def test_targets(tmp_path):
    table = write(tmp_path, "path,Edema,Pleural Other,extra\n1.png,1,,9\n2.png,0.0,1,9\n3.png,nan,0,9\n")
    samples = make_table_samples(table, columns=COLUMNS, targets=["Edema", "Pleural Other"])
    assert list(samples) == ["sample_id", "image_path", "target_Edema", "target_Pleural Other"]
    np.testing.assert_equal(samples["target_Edema"].to_numpy(), [1, 0, np.nan])
    assert make_samples(samples, None)[1] == ["Edema", "Pleural Other"]


@pytest.mark.parametrize("value", ["-1", "yes", "0.5"])
def test_targets_that_are_neither_stated_nor_blank(tmp_path, value):
    table = write(tmp_path, f"path,edema\n1.png,1\n2.png,0\n3.png,{value}\n")
    with pytest.raises(
        DataError, match=r"1 x target other than 1, 0 or nothing \(sample_id\); write nothing .*: 3.png"
    ):
        make_samples(make_table_samples(table, columns=COLUMNS, targets=["edema"]), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"columns": {"image_path": "file", "finding": "label"}},
            "expected the column file in .* but it has path, label",
        ),
        ({"columns": {}}, "expected the column image_path, finding in"),
        ({"columns": COLUMNS | {"patient_id": "who"}}, "expected the column who in .*; set data.columns"),
        ({"columns": COLUMNS, "targets": ["mass"]}, "expected the column mass in"),
        (
            {"columns": COLUMNS | {"hospital": "label"}},
            "expected data.columns to name some of sample_id, .* got hospital",
        ),
    ],
)
def test_columns_that_are_not_there(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        make_table_samples(write(tmp_path, "path,label\n1.png,a\n"), **settings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"", "expected a table that ends in .csv, .tsv or .parquet, but got .*t.xlsx; convert"),
        ("t.csv", b"", "expected a table of images in .*t.csv, but it cannot be read"),
        ("t.csv", b"path,label\n\xff\xfe,\x00", "cannot be read"),
        ("t.csv.gz", b"no gzip", "cannot be read"),
        ("t.parquet", b"no parquet", "cannot be read"),
    ],
)
def test_files_that_are_no_table(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        make_table_samples(tmp_path / name, columns=COLUMNS)
