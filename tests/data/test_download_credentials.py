import pytest

from cxr.data.download.credentials import KaggleLogin, find_login
from cxr.errors import DataError

VARIABLES = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME")


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kaggle").mkdir()
    return tmp_path


def test_nothing_found(home):
    assert find_login() is None


def test_token_in_the_environment(home, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", " KGAT_abc ")
    assert find_login() == KaggleLogin("KAGGLE_API_TOKEN", token="KGAT_abc")


def test_environment_names_a_token_file(home, monkeypatch):
    (home / "token").write_text("KGAT_file\n")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(home / "token"))
    assert find_login() == KaggleLogin("KAGGLE_API_TOKEN", token="KGAT_file")


def test_very_long_token_is_no_file_name(home, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x" * 5000)
    assert find_login().token == "x" * 5000


@pytest.mark.parametrize("name", ["access_token", "access_token.txt"])
def test_token_file(home, name):
    (home / ".kaggle" / name).write_text("KGAT_abc\n")
    assert find_login() == KaggleLogin(str(home / ".kaggle" / name), token="KGAT_abc")


def test_empty_token_file_is_none(home):
    (home / ".kaggle" / "access_token").write_text("\n")
    assert find_login() is None


def test_key_in_the_environment(home, monkeypatch):
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    assert find_login() is None
    monkeypatch.setenv("KAGGLE_KEY", "abc")
    assert find_login() == KaggleLogin("KAGGLE_USERNAME and KAGGLE_KEY", username="someone", key="abc")


@pytest.mark.parametrize("folder", [".kaggle", ".config/kaggle"])
def test_key_file(home, folder):
    path = home / folder / "kaggle.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"username": "someone", "key": "abc"}')
    assert find_login() == KaggleLogin(str(path), username="someone", key="abc")


def test_key_file_elsewhere(home, monkeypatch):
    (home / "kaggle.json").write_text('{"username": "someone", "key": "abc"}')
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home))
    assert find_login().source == str(home / "kaggle.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"username": "someone"}', '{"username": "", "key": "abc"}'])
def test_broken_key_file_is_named(home, text):
    (home / ".kaggle" / "kaggle.json").write_text(text)
    with pytest.raises(
        DataError, match=r"kaggle.json is no Kaggle API key: expected a JSON object .*; delete it and create"
    ):
        find_login()


def test_unreadable_token_file_is_named(home):
    (home / ".kaggle" / "access_token").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        DataError, match=r"access_token cannot be read .*; make it a readable text file, or create a token"
    ):
        find_login()


@pytest.mark.parametrize(
    ("text", "found"), [('{"refresh_token": "abc"}', True), ('{"refresh_token": ""}', False), ("{", False)]
)
def test_oauth_login(home, text, found):
    (home / ".kaggle" / "credentials.json").write_text(text)
    assert (find_login() is not None) == found


def test_current_token_comes_before_the_legacy_key(home, monkeypatch):
    (home / ".kaggle" / "kaggle.json").write_text('{"username": "someone", "key": "abc"}')
    (home / ".kaggle" / "access_token").write_text("KGAT_abc")
    assert find_login().token == "KGAT_abc"
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_env")
    assert find_login().token == "KGAT_env"


@pytest.mark.parametrize(
    "secret",
    ["“s3cret”", "s3\ncret", "s3 cret", "s3crét", "s3cret\x7f"],
    ids=["quotes", "line", "space", "accent", "control"],
)
@pytest.mark.parametrize("name", ["KAGGLE_API_TOKEN", "KAGGLE_KEY", "KAGGLE_USERNAME"])
def test_what_cannot_be_sent_is_refused_without_showing_it(home, monkeypatch, name, secret):
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "abc")
    monkeypatch.setenv(name, secret)
    with pytest.raises(
        DataError, match="the credentials from KAGGLE_.* hold a space, .*; copy them again, or"
    ) as caught:
        find_login()
    assert "s3" not in str(caught.value)


def test_secrets_are_not_shown():
    shown = repr(KaggleLogin("here", token="s3cret", username="someone", key="k3y"))
    assert "s3cret" not in shown
    assert "k3y" not in shown
    assert "here" in shown
