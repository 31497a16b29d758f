"""A run on a tree with damaged files of many kinds: they are listed once, counted, and follow data.on_bad_file."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from omegaconf import OmegaConf

from cxr.data.readers import make_phantom_samples
from cxr.errors import DataError
from cxr.imaging.dicom import read_dicom_header
from cxr.training.fit import fit


def cut(path):
    path.write_bytes(path.read_bytes()[:-500])


def make_constant(path):
    dataset = pydicom.dcmread(path)
    dataset.decompress()
    dataset.PixelData = np.full(dataset.pixel_array.shape, 7, dtype=dataset.pixel_array.dtype).tobytes()
    dataset.save_as(path)


def drop_rows(path):
    dataset = pydicom.dcmread(path)
    dataset.Rows = 0
    dataset.save_as(path)


def drop_pixels(path):
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)


def break_link(path):
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path)


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


def tear(path):
    path.write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI")


UNDECODABLE = {
    cut: "expected ",
    make_constant: "constant image",
    drop_rows: "at least one row and one column, but got 0 x ",
    drop_pixels: "has no pixel data",
}
UNREADABLE = {
    break_link: "expected a readable file, but got: No such file",
    link_to_itself: "expected a readable file, but got: Too many levels of symbolic links",
    make_pipe: "it is a pipe, a socket or a device",
    tear: "expected a DICOM file, but got ",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def frontal_files(compose_run, data_dir):
    """Paths of the frontal images of a cohort that may be damaged, in the order of the table."""
    shared = compose_run(data_dir).data
    settings = OmegaConf.to_container(shared.cohort)
    make_phantom_samples(shared.root, cohort=settings)
    root = shutil.copytree(shared.root, data_dir / Path(shared.root).name)
    samples = make_phantom_samples(root, cohort=settings)
    paths = [Path(path) for path in samples["image_path"]]
    return [path for path in paths if read_dicom_header(path).view_position in ("PA", "AP")]


@pytest.fixture
def damaged_run(frontal_files, data_dir, compose_run, tmp_path):
    """Function (kinds of damage, *overrides) -> (config, damaged paths); afterwards the files are whole again."""
    whole = {}

    def prepare(kinds, *overrides):
        for path, damage in zip(frontal_files, kinds, strict=False):
            whole[path] = path.read_bytes()
            damage(path)
        return compose_run(tmp_path / "run", f"paths.data_dir={data_dir}", *overrides), list(whole)

    yield prepare
    for path, content in whole.items():
        path.unlink()
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("kinds", "problem"), [(UNDECODABLE, "give no image"), (UNREADABLE, "cannot be read")], ids=["pixels", "files"]
)
def test_error_lists_every_bad_file_once(damaged_run, kinds, problem):
    config, paths = damaged_run(kinds)
    with pytest.raises(
        DataError, match=rf"but {len(kinds)} of them {problem}; mend them, or .*on_bad_file=skip"
    ) as told:
        fit(config)
    for path, sentence in zip(paths, kinds.values(), strict=True):
        assert str(told.value).count(f"{path}: ") == 1
        assert sentence in str(told.value)


def test_skip_leaves_them_out_and_counts_them_without_a_name(damaged_run):
    config, paths = damaged_run([*UNDECODABLE, *UNREADABLE], "data.on_bad_file=skip", "trainer.max_epochs=1")
    run_dir = fit(config).run_dir
    report = json.loads((run_dir / "data_report.json").read_text())
    assert report["undecodable_files"] == {"count": 4}
    assert report["unreadable_files"] == {"count": 4}
    log = (run_dir / "run.log").read_text()
    assert log.count("files that give no image") == 1
    assert log.count("files that cannot be read") == 1
    written = "".join(path.read_text() for path in run_dir.rglob("*") if path.suffix in (".log", ".json", ".csv"))
    for path in paths:
        assert path.name not in written
        assert path.parents[1].name not in written
