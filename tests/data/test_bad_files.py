import pandas as pd
import pytest

from cxr.data.bad_files import report_bad_files
from cxr.errors import DataError

SAMPLES = pd.DataFrame({"image_path": ["/in/a.png", "/in/b.png", "/in/c.png"]})


def errors(*bad):
    return SAMPLES["image_path"].where(SAMPLES["image_path"].isin(bad))


def listed(folder):
    (path,) = folder.glob("bad-files-*.csv")
    return pd.read_csv(path)["image_path"].tolist()


def test_without_bad_files_nothing_is_listed(tmp_path):
    assert report_bad_files(SAMPLES, errors(), "error", tmp_path, "cannot be read") == {"count": 0}
    assert list(tmp_path.iterdir()) == []


def test_some_are_counted_and_listed(tmp_path, caplog):
    assert report_bad_files(SAMPLES, errors("/in/b.png"), "skip", tmp_path, "give no image") == {"count": 1}
    assert listed(tmp_path) == ["/in/b.png"]
    assert "left out 1 of 3 files that give no image" in caplog.text


@pytest.mark.parametrize(
    ("bad", "policy", "remedy"),
    [
        (["/in/a.png"], "error", "mend them, or leave them out with data.on_bad_file=skip"),
        (list(SAMPLES["image_path"]), "skip", "mend the files"),
    ],
    ids=["not to be skipped", "none left"],
)
def test_what_cannot_be_left_out_is_an_error(bad, policy, remedy, tmp_path):
    message = rf"expected 3 image files, but {len(bad)} of them cannot be read; {remedy} \(all are in .*\): /in/a.png"
    with pytest.raises(DataError, match=message):
        report_bad_files(SAMPLES, errors(*bad), policy, tmp_path, "cannot be read")
    assert listed(tmp_path) == bad
