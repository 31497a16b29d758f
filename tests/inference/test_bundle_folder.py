import hashlib
import json

import pytest

from cxr.errors import WeightsError
from cxr.inference.bundle_folder import bundle_version, find_bundle


def make_bundle(folder, **described):
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text(json.dumps({"format": 1, **described}))
    return folder


@pytest.fixture
def run(tmp_path):
    """The folder of a run with a bundle."""
    make_bundle(tmp_path / "run" / "bundle")
    return tmp_path / "run"


def test_a_bundle_is_itself_and_of_a_run_the_export_goes_first(run):
    assert find_bundle(run / "bundle") == find_bundle(run) == run / "bundle"
    export = make_bundle(run / "export", export={"bundle": bundle_version(run / "bundle")})
    assert find_bundle(run) == export
    (run / "bundle" / "bundle.json").unlink()
    assert find_bundle(run) == export


@pytest.mark.parametrize("told", [{"bundle": "0123456789ab"}, {}, None])
def test_an_export_of_another_bundle_is_refused_unless_it_is_named(run, told):
    export = make_bundle(run / "export", export=told)
    with pytest.raises(WeightsError, match=f"expected {export} to be made from .* again by cxr export {run}, or"):
        find_bundle(run)
    assert find_bundle(export) == export


def test_a_folder_without_one(tmp_path):
    with pytest.raises(WeightsError, match="expected a bundle or a run folder with one"):
        find_bundle(tmp_path)


def test_the_version_is_the_hash_of_the_description(run):
    written = (run / "bundle" / "bundle.json").read_bytes()
    assert bundle_version(run / "bundle") == hashlib.sha256(written).hexdigest()[:12]
