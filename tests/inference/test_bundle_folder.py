import hashlib

import pytest

from cxr.errors import WeightsError
from cxr.inference.bundle_folder import bundle_version, find_bundle


def make_bundle(folder):
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text("{}")
    return folder


def test_a_bundle_is_itself_and_of_a_run_the_export_goes_first(tmp_path):
    bundle = make_bundle(tmp_path / "run" / "bundle")
    assert find_bundle(bundle) == find_bundle(tmp_path / "run") == bundle
    assert find_bundle(tmp_path / "run") == bundle
    export = make_bundle(tmp_path / "run" / "export")
    assert find_bundle(tmp_path / "run") == export


def test_a_folder_without_one(tmp_path):
    with pytest.raises(WeightsError, match="expected a bundle or a run folder with one"):
        find_bundle(tmp_path)


def test_the_version_is_the_hash_of_the_description(tmp_path):
    assert bundle_version(make_bundle(tmp_path / "bundle")) == hashlib.sha256(b"{}").hexdigest()[:12]
