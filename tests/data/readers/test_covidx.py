from pathlib import Path

import pandas as pd
import pytest

from cxr.data.leaks.gate import find_leaks
from cxr.data.readers import make_covidx_samples, read_covidx_lists
from cxr.data.samples import make_samples
from cxr.data.splits import make_split
from cxr.errors import ConfigError, DataError

REAL = Path(__file__).parents[4] / "shared" / "datasets" / "covidx"

# Images of the official lists 9A by part, class and source.
COUNTS_9A = {
    ("train", "COVID-19", "actmed"): 25,
    ("train", "COVID-19", "bimcv"): 200,
    ("train", "COVID-19", "cohen"): 270,
    ("train", "COVID-19", "fig1"): 24,
    ("train", "COVID-19", "ricord"): 896,
    ("train", "COVID-19", "sirm"): 943,
    ("train", "COVID-19", "stonybrook"): 14132,
    ("train", "normal", "rsna"): 8085,
    ("train", "pneumonia", "cohen"): 52,
    ("train", "pneumonia", "rsna"): 5503,
    ("test", "COVID-19", "ricord"): 200,
    ("test", "normal", "rsna"): 100,
    ("test", "pneumonia", "rsna"): 100,
}


def write_lists(root, **lists):
    root.mkdir(exist_ok=True)
    for name, lines in lists.items():
        (root / f"{name.replace('__', '.')}").write_text("\n".join(lines) + "\n")
    return root


def write_images(root, *names):
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"not read by the reader")
    return root


@pytest.fixture
def root(tmp_path):
    write_lists(
        tmp_path,
        train__txt=["3 a.jpeg pneumonia cohen", "ANON1 CR.1.2.png COVID-19 actmed", "p-9 p-9.png normal rnsa"],
        test__txt=["4 a.jpeg normal rsna", "5 b.JPG COVID-19 ricord"],
    )
    return write_images(tmp_path, "train/a.jpeg", "train/CR.1.2.png", "train/p-9.png", "test/a.jpeg", "test/b.JPG")


def test_images_of_both_parts(root):
    table = make_covidx_samples(root).set_index("sample_id")
    assert table.loc["train/p-9.png"].to_dict() == {
        "patient_id": "p-9", "finding": "normal", "source": "rsna", "split": "train",
        "image_path": str(root / "train" / "p-9.png"),
    }  # fmt: skip
    assert table["split"].value_counts().to_dict() == {"train": 3, "test": 2}
    assert make_covidx_samples(root).attrs["report"] == {"sources spelled rnsa": 1}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("COVID 70 COVID(70).png positive sirm", ("COVID 70", "COVID(70).png", "positive", "sirm")),
        ("COVID 70 COVID (70).png positive sirm", ("COVID 70", "COVID (70).png", "positive", "sirm")),
        ("COVID_1 COVID (1).png COVID-19 sirm", ("COVID_1", "COVID (1).png", "COVID-19", "sirm")),
        ("COVID-19(69) COVID-19(69).png COVID-19 sirm", ("COVID-19(69)", "COVID-19(69).png", "COVID-19", "sirm")),
        ("COVID-19 (69) COVID-19 (69).png COVID-19 sirm", ("COVID-19 (69)", "COVID-19 (69).png", "COVID-19", "sirm")),
        ("31 chest film c.jpg negative cohen", ("31", "chest film c.jpg", "negative", "cohen")),
        (
            "8 SARS-10.1148rg.g05x-Fig5-day9.jpeg pneumonia",
            ("8", "SARS-10.1148rg.g05x-Fig5-day9.jpeg", "pneumonia", None),
        ),
        ("12 normal.png normal", ("12", "normal.png", "normal", None)),
    ],
)
def test_names_with_spaces_and_lists_without_a_source(tmp_path, line, expected):
    table = read_covidx_lists(write_lists(tmp_path, train__txt=[line]))
    row = table.iloc[0]
    assert (row["patient_id"], row["file"], row["finding"], row.get("source")) == expected


@pytest.mark.parametrize(
    "lines",
    [
        ["patient id,filename,class,data source", "COVID 1,COVID (1).png,positive,sirm", "9,b.png,negative,rnsa"],
        ["filename,label,patient_id,source", "COVID (1).png,positive,COVID 1,sirm", "b.png,negative,9,rnsa"],
        ["COVID 1,COVID (1).png,positive,sirm", "9,b.png,negative,rnsa"],
    ],
    ids=["header", "other order", "no header"],
)
def test_csv_lists(tmp_path, lines):
    table = read_covidx_lists(write_lists(tmp_path, val__csv=lines))
    assert table[["patient_id", "file", "finding", "source", "split"]].values.tolist() == [
        ["COVID 1", "COVID (1).png", "positive", "sirm", "val"],
        ["9", "b.png", "negative", "rsna", "val"],
    ]


def test_csv_without_patients_and_sources(tmp_path):
    table = read_covidx_lists(write_lists(tmp_path, train__csv=["file,label", "a.png,normal"]))
    assert list(table.columns) == ["file", "finding", "split"]


def test_a_version_is_chosen_among_several(tmp_path):
    write_lists(tmp_path, train_COVIDx9A__txt=["1 a.png normal rsna"], test_COVIDx9A__txt=["2 b.png normal rsna"])
    assert read_covidx_lists(tmp_path)["split"].tolist() == ["test", "train"]
    write_lists(
        tmp_path, **{"train_COVIDx_CXR-3B__txt": ["1 a.png negative rsna"], "train__txt": ["1 a.png positive x"]}
    )
    assert read_covidx_lists(tmp_path, version="3b")["finding"].tolist() == ["negative"]
    assert read_covidx_lists(tmp_path, version="unnamed")["finding"].tolist() == ["positive"]
    for version in (None, "8A"):
        with pytest.raises(DataError, match=f"one of the versions 3B, 9A, UNNAMED .* but got {version}; set it"):
            read_covidx_lists(tmp_path, version=version)


@pytest.mark.parametrize("line", ["1 a.png healthy rsna", "a.png normal rsna", "1 a.png", "1 a.png normal rsna more"])
def test_lines_of_another_form(tmp_path, line):
    write_lists(tmp_path, train__txt=["1 a.png normal rsna", line])
    with pytest.raises(
        DataError, match=r"expected lines `patient file class source` in .* but 1 of 2 .* in line 2; mend"
    ):
        read_covidx_lists(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01"], ids=["empty", "binary"])
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_files_that_are_no_list(tmp_path, content, suffix):
    (tmp_path / f"train.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=rf"expected .*train\.{suffix}.* download it again"):
        read_covidx_lists(tmp_path)


def test_missing_images_are_listed_or_left_out(root, caplog):
    (root / "train" / "a.jpeg").unlink()
    with pytest.raises(DataError, match="the 5 images .* but 1 are not there: train/a.jpeg; leave .*on_missing=skip"):
        make_covidx_samples(root)
    samples = make_covidx_samples(root, on_missing="skip")
    assert samples.attrs["report"] == {"sources spelled rnsa": 1, "images not there": 1}
    assert sorted(samples["sample_id"]) == ["test/a.jpeg", "test/b.JPG", "train/CR.1.2.png", "train/p-9.png"]
    assert "left out 1 of the 5 images" in caplog.text


def test_lists_without_any_image_are_an_error_even_with_skip(tmp_path):
    write_lists(tmp_path, train__txt=["1 a.png normal rsna"])
    with pytest.raises(DataError, match="the 1 images .* but 1 are not there: train/a.png; .*--dataset covidx"):
        make_covidx_samples(tmp_path, on_missing="skip")


def test_lists_are_kept_without_their_images(root, caplog):
    whole = make_covidx_samples(root)
    (root / "train" / "a.jpeg").unlink()
    kept = make_covidx_samples(root, on_missing="keep")
    pd.testing.assert_frame_equal(kept, whole)
    assert kept.attrs["report"] == {"sources spelled rnsa": 1, "images not there": 1}
    assert caplog.text == ""


def test_unknown_policy(root):
    with pytest.raises(ConfigError, match="expected on_missing to be 'error', 'skip' or 'keep', but got 'ignore'"):
        make_covidx_samples(root, on_missing="ignore")


def test_the_test_part_stays_and_what_it_shares_with_training_is_a_leak(tmp_path):
    train = [f"{n} t{n}.png {'normal' if n % 2 else 'COVID-19'} rsna" for n in range(40)]
    test = [f"{n} e{n}.png {'normal' if n % 2 else 'COVID-19'} rsna" for n in range(36, 50)]
    write_lists(tmp_path, train__txt=train, test__txt=test)
    write_images(tmp_path, *[f"train/t{n}.png" for n in range(40)], *[f"test/e{n}.png" for n in range(36, 50)])
    samples, _ = make_samples(make_covidx_samples(tmp_path), None)
    split = make_split(samples, (0.8, 0.2, 0), 0)
    assert (split[samples["split"] == "test"] == "test").all()
    assert (split == "test").sum() == 14
    leaks = find_leaks(samples.assign(split=split), None)
    assert leaks["kind"].tolist() == ["patient"] * 4
    assert set(leaks["part_b"]) == {"test"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real lists are not beside this checkout (../shared/datasets)")
def test_real_lists():
    table = read_covidx_lists(REAL)
    assert table.groupby(["split", "finding", "source"]).size().to_dict() == COUNTS_9A
    assert table.attrs["report"] == {"sources spelled rnsa": 199}
    patients = table.groupby("split")["patient_id"].unique()
    assert {part: len(ids) for part, ids in patients.items()} == {"train": 16424, "test": 378}
    assert set(patients["train"]).isdisjoint(patients["test"])
    assert not table.duplicated(["split", "file"]).any()
    assert (table["source"] == "sirm").sum() == table["file"].str.fullmatch(r"COVID\(\d+\)\.png").sum() == 943
    assert pd.notna(table).all(axis=None)
