import hashlib
import hmac
import multiprocessing
import stat

import pandas as pd
import pytest

from cxr.data.identity import hash_id, hash_ids, load_salt
from cxr.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_salt_in_environment(monkeypatch):
    monkeypatch.delenv("CXR_ID_SALT", raising=False)


def test_hash_is_the_beginning_of_hmac_sha256():
    assert hash_id("patient 7", "secret") == hmac.new(b"secret", b"patient 7", hashlib.sha256).hexdigest()[:16]


def test_hash_ids_keeps_equality_index_and_missing_values():
    ids = pd.Series(["a", None, "b", "a"], index=[3, 1, 4, 5], name="patient_id")
    hashed = hash_ids(ids, "salt")
    assert hashed.index.tolist() == [3, 1, 4, 5]
    assert hashed.name == "patient_id"
    assert hashed.isna().tolist() == [False, True, False, False]
    assert hashed[3] == hashed[5] != hashed[4]


def test_another_salt_gives_other_hashes():
    assert hash_id("a", "one") != hash_id("a", "two")


def test_salt_is_made_once_and_private(tmp_path):
    salt = load_salt(tmp_path / "cache")
    assert len(salt) == 64
    assert load_salt(tmp_path / "cache") == salt
    assert load_salt(tmp_path / "other") != salt
    assert stat.S_IMODE((tmp_path / "cache" / "id_salt").stat().st_mode) == 0o600


def test_environment_goes_before_the_file(tmp_path, monkeypatch):
    load_salt(tmp_path)
    monkeypatch.setenv("CXR_ID_SALT", "shared by several machines")
    assert load_salt(tmp_path) == "shared by several machines"


def test_environment_alone_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_ID_SALT", "x")
    load_salt(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_ask_at_once_get_one_salt(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(load_salt, [tmp_path] * 8))) == 1


def test_empty_variable_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_ID_SALT", "")
    with pytest.raises(ConfigError, match="expected the environment variable CXR_ID_SALT .* is empty; .*unset it"):
        load_salt(tmp_path)


def test_empty_file_is_an_error(tmp_path):
    (tmp_path / "id_salt").write_text("\n")
    with pytest.raises(ConfigError, match="id_salt .* is empty; delete it"):
        load_salt(tmp_path)


def test_unusable_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="expected to keep the salt .*CXR_ID_SALT"):
        load_salt(tmp_path / "file" / "cache")
