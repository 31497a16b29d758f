import hashlib
import json
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cxr.data.cohort import CohortSettings, gather_samples, make_cohort
from cxr.data.file_index import FileIndex
from cxr.data.labelled import read_dataset
from cxr.data.readers import make_image_folder_samples, make_siim_samples
from cxr.data.splits import write_split
from cxr.errors import ConfigError, DataError

FINDINGS = ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"]
BINARY = {FINDINGS[0]: "negative", **dict.fromkeys(FINDINGS[1:], "positive")}

pytestmark = pytest.mark.filterwarnings("ignore:the test part has")


class Images:
    """An image store that gives noise for each content and knows which files are bad by the end of their name."""

    stored_fingerprint = "noise"

    def __init__(self, bad=""):
        self.bad = bad
        self.built = []

    def build(self, paths, hashes):
        assert len(paths) == len(hashes)
        self.built += paths
        return {path: f"{path}: no pixels" for path in paths if self.bad and path.endswith(self.bad)}

    def open(self, paths, hashes):
        seeds = [int(key, 16) for key in hashes]
        return np.array([np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8) for seed in seeds])


def write_folder(root, classes=("a", "b"), count=20):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for image in range(count):
            Image.new("L", (3, 3), 40 * number + image).save(root / name / f"{image:02d}.png")
    return root


def write_dicom(path, **elements):
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid()
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)


@pytest.fixture
def siim(tmp_path):
    """40 studies of 30 patients with ids that must not show up anywhere; each fifth has a lateral beside its PA."""
    root, rows = tmp_path / "siim", []
    for study in range(40):
        patient = f"DOE-JANE-{study % 30}"
        uid = f"1.2.3.{study}"
        folder = root / "train" / uid / "s"
        write_dicom(folder / "pa.dcm", PatientID=patient, StudyInstanceUID=uid, ViewPosition="PA", PatientSex="F")
        if study % 5 == 0:
            write_dicom(folder / "lat.dcm", PatientID=patient, StudyInstanceUID=uid, ViewPosition="LL", PatientSex="F")
        rows.append(
            {"id": f"{uid}_study", **{finding: int(index == study % 4) for index, finding in enumerate(FINDINGS)}}
        )
    pd.DataFrame(rows).to_csv(root / "train_study_level.csv", index=False)
    return root


@pytest.fixture
def make(tmp_path):
    """`make_cohort` with everything a test does not speak of."""

    def run(reader, classes=None, images=None, leak_folder=tmp_path / "leaks", salt=None, **changes):
        settings = CohortSettings(**{"fractions": (0.6, 0.2, 0.2)} | changes)
        index = FileIndex(tmp_path / "files.sqlite")
        store = Images() if images is None else images
        return make_cohort(read_dataset(reader, classes), settings, store, index, leak_folder, salt)

    return run


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "folder")


def read(root):
    return lambda: make_image_folder_samples(root)


def test_dicom_studies_from_reader_to_parts(siim, make):
    cohort = make(lambda: make_siim_samples(siim), classes=BINARY, view_filter="frontal")
    samples = cohort.samples
    assert cohort.class_names == ["negative", "positive"]
    assert len(samples) == 40
    assert (samples["view_position"] == "PA").all()
    assert samples["patient_id"].nunique() == 30
    assert samples.groupby("patient_id")["split"].nunique().max() == 1
    assert samples["split"].value_counts().to_dict() == {"train": 24, "val": 8, "test": 8}
    assert samples["sex"].tolist() == ["F"] * 40
    assert samples["sample_id"].is_monotonic_increasing
    assert [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in samples["image_path"][:3]] == samples[
        "content_hash"
    ].tolist()[:3]


def test_report_counts_everything_and_names_nobody(siim, make, caplog):
    (siim / "train" / "1.2.3.6" / "s" / "pa.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cohort = make(
            lambda: make_siim_samples(siim, on_missing="skip"), classes=BINARY | {FINDINGS[3]: None},
            view_filter="frontal", on_bad_file="skip", images=Images(bad="1.2.3.4/s/pa.dcm"), limit=29,
        )  # fmt: skip
    report = cohort.report
    assert json.loads(json.dumps(report)) == report
    assert report["findings"] == dict(zip(FINDINGS, [12, 12, 12, 12], strict=True))
    assert report["findings_left_out"] == 12
    assert report["unreadable_files"] == {"count": 1}
    assert report["views"] == {"dropped: not a frontal view": 6, "kept: PA": 29}
    assert report["undecodable_files"] == {"count": 1}
    assert sum(sum(part.values()) for part in report["images"].values()) == len(cohort.samples) == 28
    assert report["patients"]["test"] == cohort.samples.query("split == 'test'")["group"].nunique()
    spoken = json.dumps(report) + caplog.text + " ".join(str(warning.message) for warning in caught)
    assert "DOE" not in spoken
    assert "1.2.3" not in spoken


def test_files_without_ids_are_their_own_patients_and_the_report_says_so(folder, make, caplog):
    cohort = make(read(folder))
    assert cohort.report["missing_patient_ids"] == 40
    assert cohort.report["official_parts"] == []
    assert cohort.report["patients"] == {"train": 24, "val": 8, "test": 8}
    assert cohort.report["images"]["test"] == {"a": 4, "b": 4}
    assert "40 of 40 files have no patient id" in caplog.text
    assert cohort.samples[["patient_id", "study_id"]].isna().all(axis=None)
    assert "view_position" not in cohort.samples


def test_identical_files_stay_together_and_are_counted(folder, make, caplog):
    for number in range(12):
        (folder / "a" / f"copy{number}.png").write_bytes((folder / "a" / "00.png").read_bytes())
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "01.png").read_bytes())
    cohort = make(read(folder))
    assert cohort.report["exact_duplicates"] == {"extra_files": 13, "with_several_classes": 1}
    assert cohort.samples.groupby("content_hash")["split"].nunique().max() == 1
    assert "1 images lie in several files with different classes" in caplog.text


def test_reader_goes_before_header(siim, make):
    def reader():
        samples = make_siim_samples(siim)
        known = samples["study_id"] == "1.2.3.0"
        return samples.assign(patient_id=np.where(known, "from the reader", None), sex=np.where(known, "M", None))

    samples = make(reader, classes=BINARY).samples
    told = samples.groupby("study_id")[["patient_id", "sex"]].first()
    assert told.loc["1.2.3.0"].tolist() == ["from the reader", "M"]
    assert told.loc["1.2.3.1"].tolist() == ["DOE-JANE-1", "F"]


def test_views_are_filtered_before_anything_is_counted_or_decoded(siim, make):
    images = Images()
    cohort = make(
        lambda: make_siim_samples(siim), classes=BINARY, view_filter="frontal", balance_all=True, images=images
    )
    assert cohort.samples["label"].value_counts().to_dict() == {0: 10, 1: 10}
    assert cohort.report["views"] == {"dropped: not a frontal view": 8, "kept: PA": 40}
    assert sorted(images.built) == sorted(cohort.samples["image_path"])


def test_balance_all_says_what_it_does(folder, make, caplog):
    write_folder(folder / "more", ["c"], 5)
    (folder / "more" / "c").rename(folder / "c")
    (folder / "more").rmdir()
    cohort = make(read(folder), balance_all=True)
    assert cohort.samples["label"].value_counts().to_dict() == {0: 5, 1: 5, 2: 5}
    assert "validation and test lose their real prevalence" in caplog.text


def test_limit(folder, make):
    cohort = make(read(folder), limit=20)
    assert cohort.report["images"] == {"train": {"a": 6, "b": 6}, "val": {"a": 2, "b": 2}, "test": {"a": 2, "b": 2}}
    assert cohort.report["limit"] == 20


def test_same_seed_same_cohort_and_another_another(folder, make):
    one, same, other = (make(read(folder), limit=30, seed=seed).samples for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, same)
    assert not one["sample_id"].equals(other["sample_id"])


def test_fingerprint_changes_with_a_single_file(folder, make):
    before = make(read(folder)).report["fingerprint"]
    assert make(read(folder)).report["fingerprint"] == before
    Image.new("L", (3, 3), 255).save(folder / "a" / "00.png")
    assert make(read(folder)).report["fingerprint"] != before


@pytest.mark.parametrize("salt", [None, "salt"])
def test_split_file_decides_samples_and_parts(folder, make, tmp_path, salt):
    first = make(read(folder), limit=30)
    path = tmp_path / "split.csv"
    write_split(first.samples, path, class_names=first.class_names, salt=salt)
    again = make(read(folder), split_file=path, salt="salt", seed=9, limit=10, fractions=(0.8, 0.1, 0.1))
    pd.testing.assert_frame_equal(again.samples[first.samples.columns], first.samples)
    assert again.report["from_split_file"]


@pytest.fixture
def leaking_split(siim, make, tmp_path):
    """A split file in which patients lie in several parts."""
    first = make(lambda: make_siim_samples(siim), classes=BINARY)
    leaking = first.samples.assign(split=np.resize(["train", "val", "test"], len(first.samples)))
    write_split(leaking, tmp_path / "split.csv", class_names=first.class_names, salt=None)
    return tmp_path / "split.csv"


def test_split_file_with_a_leak_stops(siim, make, leaking_split):
    with pytest.raises(DataError, match=r"expected nothing shared between parts, but found \d+ pairs \(.*patient"):
        make(lambda: make_siim_samples(siim), classes=BINARY, split_file=leaking_split)


@pytest.mark.parametrize("policy", ["warn", "drop", "off"])
def test_split_file_with_a_leak_that_is_let_through(policy, siim, make, leaking_split, caplog):
    cohort = make(lambda: make_siim_samples(siim), classes=BINARY, split_file=leaking_split, leak_gate=policy)
    shared = cohort.samples.groupby("patient_id")["split"].nunique().max() > 1
    assert shared == (policy != "drop")
    assert ("leaks" in cohort.report) == (policy != "off")
    if policy != "off":
        assert sum(cohort.report["leaks"]["pairs"].values()) > 0
        assert cohort.report["leaks"]["dropped"] == 48 - len(cohort.samples)
        assert (cohort.report["leaks"]["dropped"] > 0) == (policy == "drop")
    spoken = json.dumps(cohort.report) + caplog.text
    assert "DOE" not in spoken
    assert "1.2.3" not in spoken


@pytest.fixture
def parts(tmp_path):
    """Official train and test parts with one file in both."""
    root = tmp_path / "parts"
    for part, shift in (("train", 0), ("test", 100)):
        for label, name in enumerate("ab"):
            (root / part / name).mkdir(parents=True)
            for number in range(10):
                Image.new("L", (3, 3), shift + 20 * label + number).save(root / part / name / f"{number}.png")
    (root / "train" / "a" / "copy.png").write_bytes((root / "test" / "a" / "0.png").read_bytes())
    return root


def test_a_file_of_the_official_test_part_in_training_stops(parts, make):
    with pytest.raises(DataError, match=r"found 1 pairs \(1 x file (train|val)/test\): train/a/copy .* test/a/0"):
        make(read(parts))


def test_a_file_of_the_official_test_part_leaves_training(parts, make, caplog):
    cohort = make(read(parts), leak_gate="drop")
    assert cohort.report["leaks"]["dropped"] == 1
    assert cohort.report["official_parts"] == ["test"]
    assert "train/a/copy" not in cohort.samples["sample_id"].tolist()
    assert sum(cohort.report["images"]["test"].values()) == 20
    assert "left out 1 samples that another part holds as well" in caplog.text


class Doubles(Images):
    """Every file of class b shows what the file of that name in class a shows, a little brighter."""

    def open(self, paths, hashes):
        seeds = [int(Path(path).stem) for path in paths]
        films = [np.random.default_rng(seed).integers(0, 200, (64, 64)) for seed in seeds]
        brighter = [10 * (Path(path).parent.name == "b") for path in paths]
        return np.array([film + more for film, more in zip(films, brighter, strict=True)], np.uint8)


def test_films_that_are_alike_stay_together(folder, make):
    cohort = make(read(folder), images=Doubles())
    films = cohort.samples["sample_id"].str.removeprefix("a/").str.removeprefix("b/")
    assert cohort.samples.groupby(films)["split"].nunique().max() == 1
    assert cohort.report["leaks"] == {
        "gate": "stop", "pairs": {}, "dropped": 0, "groups_joined_by_similar_images": 20
    }  # fmt: skip
    assert make(read(folder), images=Doubles(), leak_gate="off").samples.groupby(films)["split"].nunique().max() > 1


def test_samples_that_are_not_divided_have_the_same_groups(folder, make, tmp_path):
    cohort = make(read(folder), images=Doubles()).samples.set_index("sample_id")
    samples = gather_samples(
        read_dataset(read(folder), None), CohortSettings(), Doubles(), FileIndex(tmp_path / "files.sqlite"),
        tmp_path / "leaks",
    ).set_index("sample_id")  # fmt: skip
    assert "split" not in samples
    assert samples.loc[cohort.index, "group"].equals(cohort["group"])
    assert samples["group"].nunique() == len(samples) / 2


def with_sources(root, sources):
    return lambda: make_image_folder_samples(root).assign(source=sources)


def test_a_class_that_one_source_alone_has_is_told(folder, make, caplog):
    """20 samples of a, then 20 of b."""
    cohort = make(with_sources(folder, ["north"] * 30 + ["south"] * 10))
    assert cohort.report["classes_by_source"] == {"north": {"a": 20, "b": 10}, "south": {"a": 0, "b": 10}}
    told = [record.getMessage() for record in caplog.records if "comes from source" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("every sample of class a comes from source north alone, others do not: a net may learn")


@pytest.mark.parametrize("sources", [["north"] * 40, ["north", "south"] * 20], ids=["one source", "both have both"])
def test_sources_that_do_not_give_the_class_away(folder, make, caplog, sources):
    make(with_sources(folder, sources))
    assert "comes from source" not in caplog.text


def make_target_cohort(folder, make, **changes):
    values = {"target_x": [1.0, 0.0, None, 1.0] * 10, "target_y": [None, 1.0, 0.0, None] * 10}
    return make(lambda: make_image_folder_samples(folder).drop(columns="finding").assign(**values), **changes)


def test_a_table_with_targets_from_reader_to_parts(folder, make, tmp_path):
    cohort = make_target_cohort(folder, make)
    assert cohort.class_names == ["x", "y"]
    assert "label" not in cohort.samples
    assert cohort.report["findings"] == {"no positive target": 10, "x": 20, "y": 10}
    assert {name: sum(part[name] for part in cohort.report["images"].values()) for name in "xy"} == {"x": 20, "y": 10}
    assert len({tuple(part.values()) for part in cohort.report["images"].values()}) == 2  # in proportion
    assert len(make_target_cohort(folder, make, limit=20).samples) == 20
    write_split(cohort.samples, tmp_path / "split.csv", class_names=cohort.class_names, salt=None)
    assert list(pd.read_csv(tmp_path / "split.csv")) == ["sample_id", "patient_id", "split", "target_x", "target_y"]
    again = make_target_cohort(folder, make, split_file=tmp_path / "split.csv", seed=5)
    assert again.report["fingerprint"] == cohort.report["fingerprint"]


def test_the_fingerprint_changes_with_a_target(folder, make):
    first = make_target_cohort(folder, make).report["fingerprint"]
    values = {"target_x": [1.0, 0.0, None, 1.0] * 10, "target_y": [None, 1.0, 0.0, None] * 9 + [None, 1.0, 0.0, 0.0]}
    other = make(lambda: make_image_folder_samples(folder).drop(columns="finding").assign(**values))
    assert other.report["fingerprint"] != first


def test_equal_images_with_other_targets_are_counted(folder, make):
    (folder / "b" / "00.png").write_bytes((folder / "a" / "00.png").read_bytes())  # rows 20 and 0: both x
    (folder / "b" / "01.png").write_bytes((folder / "a" / "00.png").read_bytes())  # row 21: y, x is negative
    assert make_target_cohort(folder, make).report["exact_duplicates"] == {"extra_files": 2, "with_several_classes": 1}


def test_few_test_patients_warn(folder, make):
    with pytest.warns(UserWarning, match="the test part has 8 patients"):
        make(read(folder))


def test_bad_files_are_listed(folder, make):
    with pytest.raises(
        DataError, match=r"expected 40 image files, but 2 of them give no image; .*on_bad_file=skip .*: .*/a/03.png: no"
    ):
        make(read(folder), images=Images(bad="03.png"))


def test_bad_files_are_skipped_and_counted(folder, make, caplog):
    cohort = make(read(folder), images=Images(bad="03.png"), on_bad_file="skip")
    assert len(cohort.samples) == 38
    assert cohort.report["undecodable_files"] == {"count": 2}
    assert "left out 2 of 40 files that give no image" in caplog.text


@pytest.mark.parametrize("on_bad_file", ["error", "skip"])
def test_every_bad_file_is_in_a_list_for_the_owner(on_bad_file, folder, make, tmp_path, caplog):
    with pytest.raises(DataError) if on_bad_file == "error" else nullcontext() as caught:
        make(read(folder), images=Images(bad=("5.png", "6.png", "7.png")), on_bad_file=on_bad_file)
    (path,) = (tmp_path / "leaks").glob("bad-files-*.csv")
    listed = pd.read_csv(path)
    assert len(listed) == 12
    assert (listed["error"] == listed["image_path"] + ": no pixels").all()
    assert f"all are in {path}" in (caplog.text if caught is None else str(caught.value))


def test_all_images_bad_is_an_error_even_with_skip(folder, make):
    with pytest.raises(DataError, match="expected 40 image files, but 40 of them give no image; mend the files .*: "):
        make(read(folder), images=Images(bad="png"), on_bad_file="skip")


def test_missing_files_are_listed(folder, make):
    def reader():
        samples = make_image_folder_samples(folder)
        samples.loc[samples["sample_id"] == "a/00", "image_path"] = "/nowhere/x.png"
        return samples

    with pytest.raises(DataError, match="but 1 of them cannot be read; .*/nowhere/x.png: expected a readable file"):
        make(reader)
    assert make(reader, on_bad_file="skip").report["unreadable_files"] == {"count": 1}


def test_class_that_the_view_filter_empties(siim, make):
    for path in siim.glob("train/*/*/pa.dcm"):
        if int(path.parts[-3].split(".")[-1]) % 4 == 0:
            write_dicom(path, ViewPosition="LL")
    with pytest.raises(DataError, match="that data.view_filter=frontal keeps, but class negative has none"):
        make(lambda: make_siim_samples(siim), classes=BINARY, view_filter="frontal")


def test_class_missing_in_a_part(folder, make):
    for number in range(2, 20):
        (folder / "b" / f"{number:02d}.png").unlink()
    with pytest.raises(DataError, match="every class in the part (train|val|test), but class b has none"):
        make(read(folder))


def test_part_that_skipping_empties(folder, make, tmp_path):
    first = make(read(folder))
    split = first.samples.assign(split=np.where(first.samples["sample_id"].str.endswith("03"), "test", "train"))
    split.loc[0, "split"] = "val"
    write_split(split, tmp_path / "split.csv", class_names=first.class_names, salt=None)
    with pytest.raises(DataError, match="every class in the part val, but class b has none"):
        make(read(folder), split_file=tmp_path / "split.csv")
    split["split"] = split["split"].replace("val", "train")
    write_split(split, tmp_path / "split.csv", class_names=first.class_names, salt=None)
    with pytest.raises(DataError, match="expected samples in train, val and test, but val is empty; check the split"):
        make(read(folder), split_file=tmp_path / "split.csv")


def test_unknown_policy(folder, make):
    with pytest.raises(ConfigError, match="expected data.on_bad_file to be 'error' or 'skip', but got 'ignore'"):
        make(read(folder), on_bad_file="ignore")
    with pytest.raises(ConfigError, match="expected data.leak_gate to be one of stop, warn, drop, off, but got 'no'"):
        make(read(folder), leak_gate="no")
