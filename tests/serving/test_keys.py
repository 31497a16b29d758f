import hashlib
import hmac
import json

import pytest

from cxr.errors import ConfigError
from cxr.serving.keys import KeyRing, make_key, open_keys, read_keys, read_variable, rotate_keys

GOOD = "0123456789abcdef0123456789abcdef"


def test_a_key_is_made_once_and_stored_as_a_hash_for_its_owner(tmp_path):
    path = tmp_path / "keys.json"
    rings, made = open_keys(path, {})
    assert rings().find(made) is not None
    assert made not in path.read_text()
    assert hashlib.sha256(made.encode()).hexdigest() in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]
    again, shown = open_keys(path, {})
    assert shown is None
    assert again() == rings()


def test_made_keys_are_long_and_differ():
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 43


def test_the_newest_two_keys_are_valid_and_a_running_server_notices(tmp_path):
    path = tmp_path / "keys.json"
    rings, first = open_keys(path, {})
    first_id = rings().find(first).key_id
    second = rotate_keys(path)
    assert None not in [rings().find(key) for key in (first, second)]
    third = rotate_keys(path)
    assert [rings().find(key) is not None for key in (first, second, third)] == [False, True, True]
    assert not rings().has(first_id)
    assert rings().has(rings().find(third).key_id)


def test_keys_of_the_environment_come_first(tmp_path):
    other = GOOD[::-1]
    rings, made = open_keys(tmp_path / "keys.json", {"CXR_API_KEYS": f"{GOOD}, {other}"})
    assert (made, list(tmp_path.iterdir())) == (None, [])
    assert rings().find(GOOD) != rings().find(other)
    assert rings().find(GOOD[:-1]) is None
    assert rings().find("\ud800 \udcff ü") is None


def test_every_key_is_compared_whichever_matches(monkeypatch):
    ring, compared = read_variable(f"{GOOD},{GOOD[::-1]}"), []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or compare(*pair))
    for text in (GOOD, GOOD[::-1], "wrong"):
        ring.find(text)
    assert len(compared) == 6


def test_no_key_opens_an_empty_ring():
    assert KeyRing(()).find("") is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (",".join([GOOD] * 3), "at most 2 keys in CXR_API_KEYS, got 3"),
        ("secret", "at least 32 characters, 8 of them different, in CXR_API_KEYS, got one of 6"),
        ("", "at least 32 characters"),
        (f"{GOOD},", "at least 32 characters"),
        ("abc" * 20, "8 of them different"),
        ("ü" * 40, "keys of plain characters"),
        (f"{GOOD} {GOOD}", "keys of plain characters"),
    ],
)
def test_keys_that_are_easy_to_guess(tmp_path, value, message):
    with pytest.raises(ConfigError, match=message) as caught:
        open_keys(tmp_path / "keys.json", {"CXR_API_KEYS": value})
    assert GOOD not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 1, "keys": 3}', '{"format": 1, "keys": [{"id": "a"}]}']
)
def test_a_damaged_file_opens_nothing(tmp_path, content):
    path = tmp_path / "keys.json"
    rings, _ = open_keys(path, {})
    path.write_text(content)
    with pytest.raises(ConfigError, match="expected a key file in .*delete it"):
        rings()
    with pytest.raises(ConfigError, match="expected a key file in .*delete it"):
        rotate_keys(path)


def test_a_file_that_is_gone_opens_nothing(tmp_path):
    rings, _ = open_keys(tmp_path / "keys.json", {})
    (tmp_path / "keys.json").unlink()
    with pytest.raises(ConfigError, match="got FileNotFoundError"):
        rings()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="expected to write the key file .*got FileNotFoundError; make its folder"):
        open_keys(tmp_path / "none" / "keys.json", {})


@pytest.mark.parametrize("values", [{"format": 2}, {"keys": []}])
def test_a_file_of_another_kind(tmp_path, values):
    path = tmp_path / "keys.json"
    rotate_keys(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ConfigError, match="one or two keys of format 1"):
        read_keys(path)


def test_a_file_that_others_may_read(tmp_path):
    path = tmp_path / "keys.json"
    rotate_keys(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="readable by its owner alone, got mode 640; chmod 600"):
        read_keys(path)
