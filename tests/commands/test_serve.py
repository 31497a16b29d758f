import json
import shutil
from pathlib import Path

import pytest

from cxr.cli import main, make_parser, parse
from cxr.commands.serve import choose_keys, choose_settings, find_demo, make_new_key
from cxr.errors import ConfigError, MissingExtraError, WeightsError
from cxr.serving.keys import read_keys


@pytest.fixture
def bundle(tmp_path):
    """What is looked at before a worker starts."""
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    return tmp_path / "bundle"


@pytest.fixture(autouse=True)
def no_keys_in_the_environment(monkeypatch):
    monkeypatch.delenv("CXR_API_KEYS", raising=False)


def settings_of(tmp_path, *words):
    return choose_settings(options_of(*words), tmp_path)


def options_of(*words):
    return parse(make_parser(), ["serve", *map(str, words)])


def test_the_usual_server_asks_for_keys_and_is_for_this_machine(tmp_path, bundle):
    settings = settings_of(tmp_path, "--bundle", bundle)
    assert (settings.bundle, settings.host, settings.port, settings.workers) == (bundle, "127.0.0.1", 8000, 1)
    assert settings.key_file == tmp_path / "serve_keys.json"
    assert (settings.allowed_origins, settings.image_hosts, settings.metrics_open) == ((), (), False)
    assert settings.limits.max_body_bytes == 64 * 2**20


def test_every_option_counts(tmp_path, bundle):
    settings = settings_of(
        tmp_path, "--bundle", bundle, "--engine", "torch", "--host", "::1", "--port", 0, "--workers", 3,
        "--decoders", 4, "--keys", "k.json",
        "--origin", "https://a.org", "--origin", "https://b.org", "--image-host", "c.org",
        "--metrics-open", "--max-mb", 7, "--max-files", 8, "--queue", 9, "--seconds", 11,
    )  # fmt: skip
    assert (settings.engine, settings.host, settings.port) == ("torch", "::1", 0)
    assert (settings.workers, settings.decoders) == (3, 4)
    assert settings.key_file == Path("k.json")
    assert (settings.allowed_origins, settings.image_hosts) == (("https://a.org", "https://b.org"), ("c.org",))
    limits = settings.limits
    assert (limits.max_body_bytes, limits.max_files, limits.queue_length) == (7 * 2**20, 8, 9)
    assert (limits.seconds, limits.decode_seconds, settings.metrics_open) == (11, 6, True)


@pytest.mark.parametrize(("mb", "waiting"), [(64, 512), (513, 513)])
def test_the_largest_request_fits_into_the_memory_for_all(tmp_path, bundle, mb, waiting):
    limits = settings_of(tmp_path, "--bundle", bundle, "--max-mb", mb).limits
    assert (limits.max_body_bytes, limits.max_waiting_bytes) == (mb * 2**20, waiting * 2**20)
    assert limits.max_file_bytes == waiting * 2**20


def test_a_run_folder_stands_for_its_bundle(tmp_path, bundle):
    assert settings_of(tmp_path, "--bundle", tmp_path).bundle == bundle


def test_the_newest_demo_is_served(tmp_path, bundle):
    for time in ("2026-01-02", "2026-01-03", "2026-01-01"):
        shutil.copytree(bundle, tmp_path / "runs" / "demo" / time / "bundle")
    assert settings_of(tmp_path, "--demo").bundle == tmp_path / "runs" / "demo" / "2026-01-03" / "bundle"


def test_without_a_demo(tmp_path):
    with pytest.raises(ConfigError, match="found none; make one with: make demo"):
        find_demo(tmp_path)


@pytest.mark.parametrize("words", [[], ["--demo", "--bundle", "b"]])
def test_one_model_is_named(tmp_path, words):
    with pytest.raises(ConfigError, match="expected either --bundle FOLDER or --demo"):
        settings_of(tmp_path, *words)


def test_a_bundle_that_is_none(tmp_path):
    with pytest.raises(WeightsError, match="expected a bundle or a run folder with one"):
        settings_of(tmp_path, "--bundle", tmp_path)


def test_packages_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cxr-lab\[serve\]'"):
        settings_of(tmp_path, "--demo")


def test_the_first_key_is_shown_once_and_a_new_one_when_asked(tmp_path, bundle):
    settings = settings_of(tmp_path / "new", "--bundle", bundle)
    first, again = choose_keys(settings), choose_keys(settings)
    second = make_new_key(options_of(), tmp_path / "new")
    assert again is None
    ring = read_keys(settings.key_file)
    assert ring.find(first) is not None
    assert ring.find(second) is not None
    assert first not in settings.key_file.read_text()


def test_a_server_for_everybody_has_no_keys(tmp_path, bundle):
    settings = settings_of(tmp_path, "--bundle", bundle, "--without-keys")
    assert choose_keys(settings) is None
    with pytest.raises(ConfigError, match="expected --new-key or --without-keys, got both"):
        make_new_key(options_of("--without-keys"), tmp_path)


def test_keys_of_the_environment_are_not_made_anew(tmp_path, bundle, monkeypatch):
    monkeypatch.setenv("CXR_API_KEYS", "0123456789abcdef0123456789abcdef")
    assert choose_keys(settings_of(tmp_path / "none", "--bundle", bundle)) is None
    with pytest.raises(ConfigError, match="expected --new-key or CXR_API_KEYS, .*, got both; unset CXR_API_KEYS"):
        make_new_key(options_of(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made(tmp_path, bundle):
    settings = settings_of(tmp_path, "--bundle", bundle, "--keys", bundle / "bundle.json" / "keys.json")
    with pytest.raises(ConfigError, match="expected to write the key file .*Error; choose another with --keys"):
        choose_keys(settings)


def test_a_new_key_is_shown_and_nothing_served(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cxr.serving.run.serve", pytest.fail)
    path = tmp_path / "keys.json"
    shown = []
    for _ in range(3):
        assert main(["serve", "--new-key", "--keys", str(path)]) == 0
        shown.append(capsys.readouterr().out.removeprefix("new key, shown only now: ").strip())
    assert [read_keys(path).find(key) is not None for key in shown] == [False, True, True]


def test_the_command_serves_and_tells_where(tmp_path, bundle, monkeypatch, capsys):
    monkeypatch.setenv("CXR_LOG_DIR", str(tmp_path))
    served = []
    monkeypatch.setattr("cxr.serving.run.check", served.append)
    monkeypatch.setattr("cxr.serving.run.serve", lambda settings, tell: served.append(settings) or tell("http://here"))
    assert main(["serve", "--bundle", str(bundle)]) == 0
    shown = capsys.readouterr().out
    key = shown.partition("new key, shown only now: ")[2].split()[0]
    assert read_keys(served[0].key_file).find(key) is not None
    assert f"serving {bundle} at http://here" in shown
    assert served[0] is served[1]
    assert len(json.loads(served[0].key_file.read_text())["keys"]) == 1


def test_no_key_is_made_for_a_server_that_cannot_start(tmp_path, bundle, monkeypatch, capsys):
    monkeypatch.setenv("CXR_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setattr("cxr.serving.run.serve", pytest.fail)
    assert main(["serve", "--bundle", str(bundle)]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert shown.err.startswith("error: expected a bundle of format 1")
    assert not (tmp_path / "logs").exists()
