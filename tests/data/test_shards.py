import json
import os
import tarfile

import numpy as np
import pytest

from cxr.commands import shards as command
from cxr.data.cache import ImageCache
from cxr.data.shards import MANIFEST, ShardReader, write_shards
from cxr.errors import ConfigError, DataError, MissingExtraError
from cxr.imaging.preprocess import Preprocess
from cxr.training.sources import open_images, read_cohort, stored_preprocess

SMALL = Preprocess(size=(6, 5), precision="uint16")
HASHES = [f"{number:064x}" for number in range(7)]
PATHS = [f"/nowhere/{number}.dcm" for number in range(7)]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 2**16, (7, 6, 5)).astype(np.uint16)


@pytest.fixture
def written(images, tmp_path):
    """A folder of several shards."""
    folder = tmp_path / "shards"
    assert write_shards(images, HASHES, SMALL, folder, bytes_per_shard=3 * 60) > 1
    return folder


def make_cache(folder, place, preprocess=SMALL):
    return ImageCache(folder / "cache", preprocess, source=ShardReader(str(place), preprocess))


def test_a_cache_is_filled_from_shards_without_the_files(written, images, tmp_path):
    cache = make_cache(tmp_path, written)
    order = [4, 0, 6]
    assert cache.build([PATHS[row] for row in order], [HASHES[row] for row in order]) == {}
    assert cache.build(PATHS, HASHES) == {}
    np.testing.assert_array_equal(cache.open(PATHS, HASHES)[np.arange(7)], images)
    assert (tmp_path / "cache" / SMALL.stored_fingerprint / "images.bin").stat().st_size == images.nbytes


def test_the_same_content_is_written_once(images, tmp_path):
    write_shards(images[[0, 1, 0]], [HASHES[0], HASHES[1], HASHES[0]], SMALL, tmp_path / "shards")
    assert json.loads((tmp_path / "shards" / MANIFEST).read_text())["images"] == 2


def test_an_image_that_no_shard_holds_is_named(written, tmp_path):
    errors = make_cache(tmp_path, written).build([*PATHS, "/nowhere/new.dcm"], [*HASHES, "f" * 64])
    assert list(errors) == ["/nowhere/new.dcm"]
    assert "/nowhere/new.dcm: not among the images in" in errors["/nowhere/new.dcm"]
    assert "write the shards anew with `cxr data shards`" in errors["/nowhere/new.dcm"]


def test_what_one_fill_did_not_get_the_next_one_does(written, images, tmp_path):
    damaged = sorted(written.glob("*.tar"))[-1]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:700])
    with pytest.raises(DataError, match="cannot read the shards in .*; copy or write them anew"):
        make_cache(tmp_path, written).build(PATHS, HASHES)
    damaged.write_bytes(whole)
    cache = make_cache(tmp_path, written)
    assert cache.build(PATHS, HASHES) == {}
    np.testing.assert_array_equal(cache.open(PATHS, HASHES)[np.arange(7)], images)


def test_images_of_another_size_are_not_taken(written, tmp_path):
    shard = sorted(written.glob("*.tar"))[0]
    with tarfile.open(shard, "w") as file:
        content = tmp_path / f"{HASHES[0]}.bin"
        content.write_bytes(b"1234")
        file.add(content, content.name)
    with pytest.raises(DataError, match="cannot read the shards in"):
        make_cache(tmp_path, written).build(PATHS, HASHES)


def test_shards_of_another_preprocessing(written, tmp_path):
    cache = make_cache(tmp_path, written, Preprocess(size=(5, 6), precision="uint16"))
    with pytest.raises(DataError, match="expected shards of the preprocessing of this run, but those in .* hold"):
        cache.build(PATHS, HASHES)


def test_where_there_are_no_shards(tmp_path):
    with pytest.raises(
        DataError, match="expected shards in .*nothing, but shards.json cannot be read .*cxr data shards"
    ):
        make_cache(tmp_path, tmp_path / "nothing").build(PATHS, HASHES)


@pytest.mark.parametrize("place", ["pipe:rm x", "ftp://host/shards"])
def test_an_address_of_another_kind(place):
    with pytest.raises(DataError, match="expected data.shards to be a folder, s3://, gs:// or https://, but got"):
        ShardReader(place, SMALL)


def test_shards_are_not_mixed(written, images):
    with pytest.raises(DataError, match="expected a folder without shards, but .* has shards.json; choose another"):
        write_shards(images, HASHES, SMALL, written)


def test_a_full_disk(images, tmp_path, monkeypatch):
    def refuse(self, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    with pytest.raises(DataError, match="cannot write shards to .*No space left on device; make room"):
        write_shards(images, HASHES, SMALL, tmp_path / "shards")


def test_without_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"webdataset is not installed.*cxr-lab\[shards\]"):
        ShardReader("shards", SMALL)


def test_object_storage_is_read_through_its_own_program(written, images, tmp_path, monkeypatch):
    """A stand-in for `aws s3 cp ADDRESS -`, since tests use no network."""
    program = tmp_path / "bin" / "aws"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/${{3#s3://bucket/}}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    cache = make_cache(tmp_path, "s3://bucket/shards/")
    assert cache.build(PATHS, HASHES) == {}
    np.testing.assert_array_equal(cache.open(PATHS, HASHES)[np.arange(7)], images)


@pytest.mark.slow
def test_the_command_writes_what_a_run_reads(compose_run, tiny, tmp_path):
    folder = tmp_path / "shards"
    words = [word for word in tiny if word.startswith(("experiment", "data.", "preprocess", "paths"))]
    shards, count, _ = command.write(words, folder)
    assert (shards, count > 100) == (1, True)
    config = compose_run(
        tmp_path / "run", f"data.shards={folder}", f"paths.cache_dir={tmp_path}/cache", without=("paths.cache_dir",)
    )
    cohort, usual = read_cohort(config), read_cohort(compose_run(tmp_path / "run"))
    paths, hashes = usual.samples["image_path"].tolist(), usual.samples["content_hash"].tolist()
    preprocess, rows = stored_preprocess(config), np.arange(len(usual.samples))
    filled = open_images(config, preprocess).open(paths, hashes)[rows]
    decoded = open_images(compose_run(tmp_path / "run"), preprocess).open(paths, hashes)[rows]
    np.testing.assert_array_equal(filled, decoded)
    assert cohort.report["fingerprint"] == usual.report["fingerprint"]
    config.data.cache = False
    with pytest.raises(ConfigError, match="expected data.cache=true with data.shards, which fill the cache"):
        open_images(config, preprocess)
