"""What every reader must hold to. A new one adds a class with a fixture; it does not repeat these tests."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr.data.readers import (
    make_chest_xray_samples,
    make_covidx_samples,
    make_image_folder_samples,
    make_merged_samples,
    make_npz_samples,
    make_phantom_samples,
    make_siim_samples,
    make_table_samples,
)
from cxr.data.samples import PARTS, make_samples
from cxr.errors import DataError

FINDINGS = ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"]


def write_files(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not read by the reader")
    return root


@dataclass
class Case:
    """A small dataset and its reader.

    Attributes:
        root: Where it lies; images lie nowhere else unless `images` says so.
        read: Reads it.
        read_from: Reads another place with the same settings.
        count: Images in it.
        remedy: What the error for an absent dataset must tell.
        images: Folder of the images.
    """

    root: Path
    read: Any
    read_from: Any
    count: int
    remedy: str
    images: Path | None = None


class ReaderContract:
    def test_the_gate_lets_the_table_pass(self, case):
        samples, class_names = make_samples(case.read(), None)
        assert len(samples) == case.count
        assert len(class_names) >= 1
        assert set(samples.get("split", pd.Series(dtype=object)).dropna()) <= set(PARTS)

    def test_paths_are_absolute_and_the_files_are_there(self, case):
        paths = [Path(path) for path in case.read()["image_path"]]
        assert all(path.is_absolute() and path.is_file() for path in paths)
        assert len(set(paths)) == case.count

    def test_no_file_lies_outside_the_dataset(self, case):
        folder = (case.images or case.root).resolve()
        assert all(folder in Path(path).resolve().parents for path in case.read()["image_path"])

    def test_the_same_files_give_the_same_table_in_the_same_order(self, case):
        first = case.read()
        pd.testing.assert_frame_equal(first, case.read())
        assert first["sample_id"].is_unique

    def test_nothing_is_written_into_the_dataset(self, case):
        case.read()
        before = {path: path.stat().st_mtime_ns for path in case.root.rglob("*")}
        case.read()
        assert {path: path.stat().st_mtime_ns for path in case.root.rglob("*")} == before

    def test_the_report_holds_counts_alone(self, case):
        report = case.read().attrs.get("report", {})
        assert all(isinstance(name, str) and type(count) is int for name, count in report.items())

    def test_an_absent_dataset_is_one_sentence_with_the_remedy(self, case, tmp_path):
        with pytest.raises(DataError, match=f"(?s)^expected .*nothing.* but .*{case.remedy}.*data=phantom") as caught:
            case.read_from(tmp_path / "nothing")
        assert "\n" not in str(caught.value)

    def test_an_empty_folder_is_one_too(self, case, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=f"(?s)^expected .*empty.* but .*{case.remedy}.*data=phantom"):
            case.read_from(tmp_path / "empty")


class FolderContract(ReaderContract):
    """Of readers whose only setting that matters is the root."""

    def make(self, reader, root, count, remedy):
        return Case(root, partial(reader, root), reader, count, remedy)


class TestImageFolder(FolderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = write_files(tmp_path / "mine", "b/2.png", "b/1.png", "a/3.JPG", "a/masks/3.png")
        return self.make(make_image_folder_samples, root, 3, "point data.root")


class TestCovid19(FolderContract):
    @pytest.fixture
    def case(self, tmp_path):
        names = ["train/Covid/1.jpg", "train/Viral Pneumonia/1.jpeg", "train/Normal/1.png", "test/Covid/1.png"]
        root = write_files(tmp_path / "Covid19-dataset", *names)
        return self.make(partial(make_image_folder_samples, dataset="covid19"), root, 4, "--dataset covid19")


class TestRadiography(FolderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = tmp_path / "COVID-19_Radiography_Dataset"
        for name in ("COVID", "Normal", "Viral Pneumonia"):
            write_files(root / name, "images/1.png", "images/2.png", "masks/1.png")
        write_files(root, "Normal.metadata.xlsx")
        return self.make(partial(make_image_folder_samples, dataset="radiography"), root, 6, "--dataset radiography")


class TestChestXray(FolderContract):
    @pytest.fixture
    def case(self, tmp_path):
        names = ["train/NORMAL/IM-0115-0001.jpeg", "train/PNEUMONIA/person1_virus_6.jpeg", "test/NORMAL/IM-1-1.jpeg"]
        return self.make(
            make_chest_xray_samples, write_files(tmp_path / "chest_xray", *names), 3, "--dataset chest_xray"
        )


class TestSiim(FolderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = write_files(tmp_path / "siim", "train/a/s/1.dcm", "train/a/s/2.dcm", "train/b/s/1.dcm")
        marks = np.eye(4, dtype=int)[:2]
        table = pd.DataFrame(marks, columns=FINDINGS).assign(id=["a_study", "b_study"])
        table.to_csv(root / "train_study_level.csv", index=False)
        return self.make(make_siim_samples, root, 3, "download_data.py")


class TestCovidx(FolderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = write_files(tmp_path / "covidx", "train/a.png", "train/COVID (2).png", "test/a.png")
        (root / "train.txt").write_text("1 a.png negative rsna\nCOVID 2 COVID (2).png positive sirm\n")
        (root / "test.txt").write_text("3 a.png positive ricord\n")
        return self.make(make_covidx_samples, root, 3, "--dataset covidx")


class TestTable(ReaderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = write_files(tmp_path / "mine", "images/1.png", "images/2.png")
        (root / "table.csv").write_text("path,label\nimages/2.png,sick\nimages/1.png,well\n")
        read = partial(make_table_samples, columns={"image_path": "path", "finding": "label"})
        return Case(root, partial(read, root / "table.csv"), read, 2, "point data.path")


class TestTableOfTargets(ReaderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = write_files(tmp_path / "mine", "1.png", "2.png", "3.png")
        (root / "table.tsv").write_text("path\tedema\tmass\n1.png\t1\t\n2.png\t0\t0\n3.png\t\t1\n")
        read = partial(make_table_samples, columns={"image_path": "path"}, targets=["edema", "mass"])
        return Case(root, partial(read, root / "table.tsv"), read, 3, "point data.path")


class TestNpz(ReaderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root, unpacked = tmp_path / "medmnist", tmp_path / "unpacked"
        root.mkdir()
        arrays = {}
        for part, count in (("train", 3), ("val", 2), ("test", 2)):
            arrays[f"{part}_images"] = np.random.default_rng(count).integers(0, 256, (count, 5, 4), dtype=np.uint8)
            arrays[f"{part}_labels"] = np.arange(count)[:, None] % 2
        np.savez_compressed(root / "small.npz", **arrays)
        read = partial(make_npz_samples, unpack_to=unpacked)
        return Case(root, partial(read, root / "small.npz"), read, 7, "point data.path", images=unpacked)


class TestMerge(ReaderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = tmp_path / "both"
        write_files(root / "one", "a/1.png", "b/1.png")
        write_files(root / "two", "train/a/1.png", "test/b/1.png")

        def read_from(folder):
            readers = {name: partial(make_image_folder_samples, folder / name) for name in ("one", "two")}
            return make_merged_samples({name: {"reader": reader} for name, reader in readers.items()})

        return Case(root, partial(read_from, root), read_from, 4, "point data.root")


class TestPhantom(ReaderContract):
    @pytest.fixture
    def case(self, tmp_path):
        root = tmp_path / "phantom"
        read = partial(make_phantom_samples, cohort={"studies": 8, "size": 32, "seed": 0})
        return Case(root, partial(read, root), read, len(read(root)), "")

    def test_an_absent_dataset_is_one_sentence_with_the_remedy(self, case, tmp_path):
        """An absent cohort is made."""
        assert len(case.read_from(tmp_path / "nothing")) == case.count

    def test_an_empty_folder_is_one_too(self, case, tmp_path):
        (tmp_path / "empty").mkdir()
        assert len(case.read_from(tmp_path / "empty")) == case.count
