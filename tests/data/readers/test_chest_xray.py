from pathlib import Path

import pytest

from cxr.data.file_index import FileIndex
from cxr.data.readers import make_chest_xray_samples
from cxr.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "datasets" / "chest_xray"


def write_files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read by the reader")
    return root


@pytest.fixture
def root(tmp_path):
    return write_files(
        tmp_path / "chest_xray",
        "train/NORMAL/IM-0115-0001.jpeg",
        "train/NORMAL/IM-0429-0001-0002.jpeg",
        "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
        "train/NORMAL/unnamed.jpeg",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person1_virus_6.jpeg",
        "train/PNEUMONIA/person447_virus_921_1.jpeg",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "test/NORMAL/IM-0001-0001.jpeg",
        "test/PNEUMONIA/person1_virus_7.jpeg",
    )


def test_child_and_finding_come_from_the_name(root):
    table = make_chest_xray_samples(root).set_index("sample_id")
    told = table[["finding", "patient_id"]].apply(tuple, axis=1).to_dict()
    assert told["train/NORMAL/IM-0115-0001"] == ("normal", "IM-0115")
    assert told["train/NORMAL/IM-0429-0001-0002"] == ("normal", "IM-0429")
    assert told["train/NORMAL/NORMAL2-IM-0115-0001"] == ("normal", "NORMAL2-IM-0115")
    assert told["train/PNEUMONIA/person1_bacteria_1"] == ("bacteria", "person1_bacteria")
    assert told["train/PNEUMONIA/person1_virus_6"] == ("virus", "person1_virus")
    assert told["train/PNEUMONIA/person447_virus_921_1"] == ("virus", "person447_virus")
    assert table["patient_id"].isna().sum() == 1


@pytest.mark.parametrize(
    ("merge", "counts"), [(True, {"train": 9, "test": 2}), (False, {"train": 7, "val": 2, "test": 2})]
)
def test_the_tiny_official_validation_part_joins_training_unless_told_otherwise(root, merge, counts):
    assert make_chest_xray_samples(root, merge_val=merge)["split"].value_counts().to_dict() == counts


@pytest.mark.parametrize("name", ["train/PNEUMONIA/person9_fungus_1.jpeg", "train/COVID/person9_virus_1.jpeg"])
def test_image_without_a_finding(root, name):
    write_files(root, name)
    with pytest.raises(DataError, match=r"but 1 images are not: train/.*9_.*_1; restore their names"):
        make_chest_xray_samples(root)


def test_absent_data_say_what_to_download(tmp_path):
    with pytest.raises(DataError, match="download_data.py --dataset chest_xray.*data=phantom net=custom_cnn"):
        make_chest_xray_samples(tmp_path / "nothing")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not beside this checkout (../shared/datasets)")
def test_real_training_part(tmp_path):
    samples = make_chest_xray_samples(REAL)
    assert samples["finding"].value_counts().to_dict() == {"bacteria": 2530, "virus": 1345, "normal": 1341}
    assert samples["patient_id"].notna().all()
    files = FileIndex(tmp_path / "index.sqlite").describe(samples["image_path"].tolist())
    assert files["error"].isna().all()
    assert files["content_hash"].duplicated().sum() == 26
