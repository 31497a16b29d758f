import threading

import numpy as np
import pytest
from PIL import Image

from cxr.data.readers import make_npz_samples, npz
from cxr.data.samples import make_samples
from cxr.errors import DataError


def make_arrays(shape=(6, 5), dtype=np.uint8, labels=1, count=4):
    rng = np.random.default_rng(0)
    top = np.iinfo(dtype).max + 1
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = rng.integers(0, top, (count, *shape), dtype=dtype)
        arrays[f"{part}_labels"] = (np.arange(count)[:, None] + np.arange(labels)) % 2
    return arrays


def write(path, arrays):
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("shape", "dtype"), [((6, 5), np.uint8), ((6, 5), np.uint16), ((6, 5, 3), np.uint8)], ids=["gray", "16 bits", "RGB"]
)
def test_no_pixel_changes_and_the_official_parts_are_kept(tmp_path, shape, dtype):
    arrays = make_arrays(shape, dtype)
    samples = make_npz_samples(write(tmp_path / "a.npz", arrays), unpack_to=tmp_path / "out")
    for part in ("train", "val", "test"):
        rows = samples[samples["split"] == part]
        read = [np.asarray(Image.open(path)) for path in rows["image_path"]]
        np.testing.assert_array_equal(read, arrays[f"{part}_images"])
        assert rows["finding"].tolist() == ["0", "1", "0", "1"]
        assert rows["sample_id"].tolist() == [f"{part}/{number:06d}" for number in range(4)]
    assert make_samples(samples, {0: "well", 1: "sick"})[1] == ["well", "sick"]


def test_labels_of_one_dimension(tmp_path):
    arrays = make_arrays()
    arrays |= {name: values[:, 0] for name, values in arrays.items() if name.endswith("labels")}
    samples = make_npz_samples(write(tmp_path / "a.npz", arrays), unpack_to=tmp_path / "out")
    assert samples["finding"].tolist() == ["0", "1", "0", "1"] * 3


def test_multi_label_file(tmp_path):
    path = write(tmp_path / "a.npz", make_arrays(labels=3))
    samples = make_npz_samples(path, unpack_to=tmp_path / "out", targets=["x", "y", "z"])
    assert samples["target_y"].tolist() == [1, 0, 1, 0] * 3
    assert make_samples(samples, None)[1] == ["x", "y", "z"]
    for targets in ((), ("x", "y")):
        with pytest.raises(DataError, match="labels for each image of the part train, but got 3; name the targets"):
            make_npz_samples(path, unpack_to=tmp_path / "out", targets=targets)


def test_a_file_is_unpacked_once_and_another_one_beside_it(tmp_path):
    first = make_npz_samples(write(tmp_path / "a.npz", make_arrays()), unpack_to=tmp_path / "out")
    again = make_npz_samples(write(tmp_path / "b.npz", make_arrays()), unpack_to=tmp_path / "out")
    other = make_npz_samples(write(tmp_path / "a.npz", make_arrays(count=5)), unpack_to=tmp_path / "out")
    assert first["image_path"].tolist() == again["image_path"].tolist()
    assert set(first["image_path"]).isdisjoint(other["image_path"])
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 2


def test_a_killed_process_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz", make_arrays())
    written = []

    def stop_at_the_second_part(folder, images, write_part=npz._write_part):
        if written:
            raise KeyboardInterrupt
        written.append(folder)
        write_part(folder, images)

    monkeypatch.setattr(npz, "_write_part", stop_at_the_second_part)
    with pytest.raises(KeyboardInterrupt):
        make_npz_samples(path, unpack_to=tmp_path / "out")
    monkeypatch.undo()
    assert written[0].exists()
    samples = make_npz_samples(path, unpack_to=tmp_path / "out")
    assert len(samples) == 12
    assert not written[0].exists()


def test_two_at_once_unpack_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz", make_arrays())
    written, tables = [], []
    write_part = npz._write_part
    monkeypatch.setattr(npz, "_write_part", lambda *args: (written.append(1), write_part(*args)))
    threads = [
        threading.Thread(target=lambda: tables.append(make_npz_samples(path, unpack_to=tmp_path / "out"))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 3
    assert tables[0].equals(tables[1])


def test_a_target_may_be_not_stated(tmp_path):
    arrays = make_arrays(labels=2)
    arrays |= {name: np.where(values == 1, np.nan, 0) for name, values in arrays.items() if name.endswith("labels")}
    samples = make_npz_samples(write(tmp_path / "a.npz", arrays), unpack_to=tmp_path / "out", targets=["x", "y"])
    assert samples["target_x"].isna().tolist() == [False, True] * 6


def test_a_part_without_images_is_left_out(tmp_path):
    nothing = {"val_images": np.zeros((0, 6, 5), np.uint8), "val_labels": np.zeros((0, 1), np.int64)}
    samples = make_npz_samples(write(tmp_path / "a.npz", make_arrays() | nothing), unpack_to=tmp_path / "out")
    assert samples["split"].value_counts().to_dict() == {"train": 4, "test": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{part}_labels": np.zeros((0, 1), int) for part in ("train", "val", "test")}, "no image in any part"),
        ({"train_labels": np.array(3)}, r"train_labels of shape \(\) and type int64; expected whole numbers"),
        (
            {"train_labels": np.array([0.0, 1.0, np.nan, 1.0])},
            r"train_labels of shape \(4,\) and type float64; expected",
        ),
        (
            {"train_images": np.zeros((4, 6, 5), dtype=np.float32)},
            "train_images of shape .* float32 for 4 labels; expected",
        ),
        ({"val_images": np.zeros((3, 6, 5), dtype=np.uint8)}, r"val_images of shape \(3, 6, 5\) .* for 4 labels"),
        ({"test_images": np.zeros((4, 6), dtype=np.uint8)}, "test_images of shape"),
        ({"test_images": np.array(5)}, "test_images of shape"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, change, message):
    path = write(tmp_path / "a.npz", make_arrays() | change)
    with pytest.raises(DataError, match=f"expected images and labels as .* but got {message}.*; save the file anew"):
        make_npz_samples(path, unpack_to=tmp_path / "out")


def test_arrays_of_objects_are_not_loaded(tmp_path):
    path = write(tmp_path / "a.npz", make_arrays() | {"train_labels": np.array([None, 1, 2, 3])})
    with pytest.raises(DataError, match="got: Object arrays cannot be loaded .*; download it again"):
        make_npz_samples(path, unpack_to=tmp_path / "out")


@pytest.mark.parametrize("name", ["train_images", "train_labels"])
def test_a_part_that_lacks_images_or_all_parts_that_lack_labels(tmp_path, name):
    arrays = make_arrays()
    if name == "train_labels":
        arrays = {key: values for key, values in arrays.items() if key.endswith("images")}
    else:
        del arrays[name]
    with pytest.raises(
        DataError, match=r"expected an .npz file .* but got: .*(train_images is not|no labels of train)"
    ):
        make_npz_samples(write(tmp_path / "a.npz", arrays), unpack_to=tmp_path / "out")


@pytest.mark.parametrize("damage", [b"", b"no archive", None], ids=["empty", "text", "cut"])
def test_damaged_files(tmp_path, damage):
    path = write(tmp_path / "a.npz", make_arrays(shape=(50, 50)))
    path.write_bytes(path.read_bytes()[:400] if damage is None else damage)
    with pytest.raises(
        DataError, match="expected an .npz file .* but got: it is no archive of arrays; download it again"
    ):
        make_npz_samples(path, unpack_to=tmp_path / "out")


def test_wrong_bytes_inside_the_archive(tmp_path):
    path = write(tmp_path / "a.npz", make_arrays(shape=(50, 50)))
    content = bytearray(path.read_bytes())
    content[200:600] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected an .npz file .* but got: .*; download it again"):
        make_npz_samples(path, unpack_to=tmp_path / "out")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="expected to read .*a.npz and to unpack it to .*out, but got: .*; free space"):
        make_npz_samples(write(tmp_path / "a.npz", make_arrays()), unpack_to=tmp_path / "out")
