import hashlib
import io
import json
import shutil
import threading
import zipfile
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cxr.cli import main
from cxr.data.download import fetch
from cxr.data.download.catalogue import DATASETS, data_dir, find_dataset, missing_proof
from cxr.data.download.get import get_dataset, plan_download
from cxr.errors import DataError, MissingExtraError

pytest.importorskip("kagglesdk")
SIIM = DATASETS["siim"]
WHOLE = 10**9
SERVICE = "/v1/competitions.CompetitionApiService"


def make_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return buffer.getvalue()


def noise(count: int, seed: int = 0) -> bytes:
    blocks = (hashlib.sha256(f"{seed}-{i}".encode()).digest() for i in range(count // 32 + 1))
    return b"".join(blocks)[:count]


SIIM_FILES = {"train_study_level.csv": b"id\n", "train/study/series/image.dcm": noise(200_000)}


@dataclass
class Kaggle:
    """What the stub server answers, and what it was asked."""

    archive: bytes = field(default_factory=lambda: make_zip(SIIM_FILES))
    refusals: dict[str, tuple[int, dict, bytes]] = field(default_factory=dict)
    cut_after: list[int] = field(
        default_factory=list
    )  # per storage request: close the connection after that many bytes
    listed: int = 300_000
    etag: str | None = '"one"'
    content_type: str = "application/zip"
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def ranges(self) -> list[str | None]:
        return [byte_range for path, byte_range, _ in self.requests if path == "/storage"]

    def refuse(self, status: int, message: str, **headers: str) -> None:
        body = json.dumps({"code": status, "message": message}).encode()
        headers = {"Content-Type": "application/json", **headers}
        self.refusals = {f"{SERVICE}/DownloadDataFiles": (status, headers, body)}


class Handler(BaseHTTPRequestHandler):
    kaggle: Kaggle

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.note()
        if self.path in self.kaggle.refusals:
            status, headers, body = self.kaggle.refusals[self.path]
            self.answer(status, headers, body)
        elif self.path.endswith("FilesSummary"):
            sizes = {"fileSummaryInfo": {"totalFileCount": 2, "fileTypes": [{"totalSize": self.kaggle.listed}]}}
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(sizes).encode())
        elif "/Download" in self.path:
            self.answer(302, {"Location": "/storage?signature=secret"}, b"")
        else:
            token = {"token": "fresh-token", "expiresIn": 3600}
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(token).encode())

    def do_GET(self) -> None:
        self.note()
        kaggle, start = self.kaggle, 0
        headers = {"Content-Type": kaggle.content_type}
        if kaggle.etag is not None:
            headers |= {"ETag": kaggle.etag, "Accept-Ranges": "bytes"}
        if "Range" in self.headers and self.headers.get("If-Range") == kaggle.etag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(kaggle.archive) - 1}/{len(kaggle.archive)}"
        body = kaggle.archive[start:]
        cut = kaggle.cut_after.pop(0) if kaggle.cut_after else len(body)
        self.answer(206 if start else 200, headers, body, cut)

    def note(self) -> None:
        headers = self.headers.get("Range"), self.headers.get("Authorization")
        self.kaggle.requests.append((self.path.split("?")[0], *headers))

    def answer(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    """Kaggle's real client, logged in, pointed at a stub on 127.0.0.1."""
    from kagglesdk import kaggle_env

    state = Kaggle()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("StubHandler", (Handler,), {"kaggle": state}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, endpoint)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "KAGGLE_API_ENVIRONMENT", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "a-secret-token")
    monkeypatch.setattr(fetch, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(fetch, "CHUNK_BYTES", 10_000)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_default_dataset_is_siim_and_not_car_masks(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)

    assert main(["data", "get", "--dry-run"]) == 0

    shown = capsys.readouterr().out
    assert "siim-covid19-detection" in shown
    assert "https://www.kaggle.com/competitions/siim-covid19-detection/rules" in shown
    assert str(tmp_path / "siim-covid19-detection") in shown
    assert "GiB" in shown
    assert "none found; create a token at https://www.kaggle.com/settings/api" in shown
    assert list(tmp_path.iterdir()) == []


def test_slugs():
    assert {name: dataset.slug for name, dataset in DATASETS.items()} == {
        "siim": "siim-covid19-detection",
        "chest_xray": "paultimothymooney/chest-xray-pneumonia",
        "covid19": "pranavraikokte/covid19-image-dataset",
        "radiography": "tawsifurrahman/covid19-radiography-database",
        "covidx": "andyczhao/covidx-cxr2",
    }


def test_unknown_dataset_lists_the_known_ones():
    with pytest.raises(DataError, match=r"no dataset is called 'carvana'; choose one of siim, chest_xray, covid19"):
        find_dataset("carvana")


def test_data_dir_is_an_environment_variable_away(monkeypatch):
    monkeypatch.delenv("CXR_DATA_DIR", raising=False)
    assert data_dir() == Path("data")
    monkeypatch.setenv("CXR_DATA_DIR", "/elsewhere")
    assert data_dir() == Path("/elsewhere")


def test_competition_is_downloaded_verified_and_unpacked(kaggle, tmp_path):
    folder = get_dataset(SIIM, tmp_path / "data")

    assert folder == tmp_path / "data" / "siim-covid19-detection"
    assert {name: (folder / name).read_bytes() for name in files_below(folder)} == SIIM_FILES
    assert files_below(tmp_path / "data") - {f"siim-covid19-detection/{name}" for name in SIIM_FILES} <= {
        ".siim-covid19-detection.lock"
    }
    assert kaggle.paths() == [
        f"{SERVICE}/GetCompetitionDataFilesSummary",
        f"{SERVICE}/DownloadDataFiles",
        "/storage",
    ]
    assert kaggle.requests[0][2] == "Bearer a-secret-token"


def test_complete_set_is_not_downloaded_again(kaggle, tmp_path):
    get_dataset(SIIM, tmp_path)
    kaggle.requests.clear()

    get_dataset(SIIM, tmp_path)

    assert kaggle.requests == []


def test_dataset_archive_loses_its_top_folder_its_copy_and_macos_files(kaggle, tmp_path):
    names = [pattern.replace("*", "image") for pattern in DATASETS["chest_xray"].proof]
    members = {f"chest_xray/{name}": b"jpeg" for name in names}
    copies = {f"chest_xray/chest_xray/{name}": b"jpeg" for name in names}
    kaggle.archive = make_zip(
        {**members, **copies, "chest_xray/__MACOSX/train/._image.jpeg": b"", "chest_xray/.DS_Store": b""}
    )

    folder = get_dataset(DATASETS["chest_xray"], tmp_path)

    assert files_below(folder) == set(names)
    assert kaggle.paths()[1] == "/v1/datasets.DatasetApiService/DownloadDataset"


def test_public_dataset_needs_no_credentials(kaggle, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    kaggle.archive = make_zip({pattern.replace("*", "image"): b"" for pattern in DATASETS["covidx"].proof})

    get_dataset(DATASETS["covidx"], tmp_path)

    assert {authorization for _, _, authorization in kaggle.requests} == {None}


def test_competition_without_credentials_names_the_remedy_and_asks_nothing(kaggle, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    with pytest.raises(
        DataError, match=r"needs a Kaggle account, found no credentials; create a token at .*data/README"
    ):
        get_dataset(SIIM, tmp_path)
    assert kaggle.requests == []


def test_legacy_key_and_oauth_login_are_used(kaggle, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    home = tmp_path / "home" / ".kaggle"
    home.mkdir(parents=True)
    (home / "kaggle.json").write_text('{"username": "someone", "key": "secret"}')
    get_dataset(SIIM, tmp_path / "one")
    assert kaggle.requests[0][2].startswith("Basic ")

    (home / "kaggle.json").unlink()
    (home / "credentials.json").write_text('{"refresh_token": "old", "username": "someone"}')
    kaggle.requests.clear()
    get_dataset(SIIM, tmp_path / "two")
    assert kaggle.requests[0][0].endswith("GenerateAccessToken")
    assert kaggle.requests[1][2] == "Bearer fresh-token"


@pytest.mark.parametrize(
    ("status", "said", "headers", "told"),
    [
        (
            401,
            "Unauthenticated",
            {},
            r"refuses the credentials from KAGGLE_API_TOKEN \(401: Unauthenticated\); create a",
        ),
        (
            403,
            "You must accept this competition's rules before you'll be able to download files.",
            {},
            r"accepted its rules \(403: You must .* files\); accept them at https://www.kaggle.com/competitions/siim-c",
        ),
        (
            404,
            "Not found",
            {},
            r"has no competition siim-covid19-detection \(404: Not found\); see at https://www.kaggle",
        ),
        (
            429,
            "Too many requests",
            {"Retry-After": "30"},
            r"limits .* \(429: Too many.*; repeat the command in 30 seconds",
        ),
        (429, "", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, r"repeat the command after Wed, 21 Oct 2026"),
        (429, "", {}, r"repeat the command in some minutes"),
        (503, "Busy", {}, r"could not serve siim-covid19-detection \(503: Busy\); repeat the command later"),
    ],
)
def test_refusal_is_one_sentence_with_its_remedy(kaggle, tmp_path, status, said, headers, told):
    kaggle.refuse(status, said, **headers)
    with pytest.raises(DataError, match=told) as caught:
        get_dataset(SIIM, tmp_path)
    assert "\n" not in str(caught.value)
    assert "a-secret-token" not in str(caught.value)
    assert "/storage" not in kaggle.paths()


def test_refused_dataset_names_its_page(kaggle, tmp_path):
    path = "/v1/datasets.DatasetApiService/DownloadDataset"
    kaggle.refusals = {path: (403, {"Content-Type": "text/plain"}, b"no")}
    with pytest.raises(
        DataError, match=r"refuses pranavraikokte/covid19-image-dataset \(403\); open https://www.kaggle"
    ):
        get_dataset(DATASETS["covid19"], tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"access_token": "s3cret", "access_token_expiration": "soon"},
        {"access_token": "s3cret", "access_token_expiration": 5},
        {"access_token": "s3cret", "access_token_expiration": "2030-01-01T00:00:00"},
        {"refresh_token": 5},
    ],
    ids=["text", "number", "no zone", "refresh token"],
)
def test_damaged_oauth_login_is_one_sentence(kaggle, tmp_path, monkeypatch, values):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = tmp_path / "home" / ".kaggle" / "credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"refresh_token": "s3cret", **values}))
    with pytest.raises(
        DataError, match=r"credentials.json is damaged \(.*Error\); log in again with `kaggle"
    ) as caught:
        get_dataset(SIIM, tmp_path)
    assert "s3cret" not in str(caught.value)


def test_oauth_token_that_cannot_be_sent_is_refused(kaggle, tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = tmp_path / "home" / ".kaggle" / "credentials.json"
    path.parent.mkdir(parents=True)
    values = {"refresh_token": "x", "access_token": "“s3cret”", "access_token_expiration": "2999-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=r"the credentials from .*credentials.json hold a space"):
        get_dataset(SIIM, tmp_path)


def test_dry_run_names_broken_credentials(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "“s3cret”")
    assert main(["data", "get", "--dry-run", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "credentials: the credentials from KAGGLE_API_TOKEN hold a space" in shown
    assert "s3cret" not in shown


def test_missing_sizes_do_not_stop_the_download(kaggle, tmp_path):
    kaggle.refusals = {f"{SERVICE}/GetCompetitionDataFilesSummary": (500, {"Content-Type": "text/html"}, b"oops")}
    assert not missing_proof(SIIM, get_dataset(replace(SIIM, extracted_bytes=10**6), tmp_path))


def test_a_bomb_is_measured_by_what_kaggle_lists_or_else_by_the_catalogue(kaggle, tmp_path):
    small = replace(SIIM, extracted_bytes=10)
    assert not missing_proof(small, get_dataset(small, tmp_path / "listed"))

    (tmp_path / "siim-covid19-detection.zip").write_bytes(kaggle.archive)
    with pytest.raises(DataError, match=r"is not safe to unpack: it would unpack to 0.2 MiB, expected at most 0.0 MiB"):
        get_dataset(small, tmp_path)
    assert not (tmp_path / SIIM.folder).exists()


def test_interrupted_download_continues_where_it_stopped(kaggle, tmp_path):
    kaggle.cut_after = [50_000, WHOLE, 60_000]

    folder = get_dataset(SIIM, tmp_path)

    assert (folder / "train/study/series/image.dcm").read_bytes() == SIIM_FILES["train/study/series/image.dcm"]
    assert kaggle.ranges() == [None, None, "bytes=50000-", None, "bytes=110000-"]


def test_a_later_command_continues_the_download(kaggle, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_FAILURES", 1)
    kaggle.cut_after = [50_000]
    with pytest.raises(DataError, match=r"no connection to Kaggle .*: it continues where it stopped"):
        get_dataset(SIIM, tmp_path)
    assert not (tmp_path / SIIM.folder).exists()
    assert plan_download(SIIM, tmp_path)["on disk"] == "0.0 MiB of the archive"

    get_dataset(SIIM, tmp_path)

    assert kaggle.ranges()[1:] == [None, "bytes=50000-"]


def test_stuck_download_gives_up(kaggle, tmp_path):
    kaggle.cut_after = [10_000] + [0] * 20
    with pytest.raises(DataError, match="no connection to Kaggle"):
        get_dataset(SIIM, tmp_path)
    assert (tmp_path / "siim-covid19-detection.zip.part").stat().st_size == 10_000


@pytest.mark.parametrize("etag", ['"two"', None])
def test_changed_or_nameless_file_is_downloaded_from_the_start(kaggle, tmp_path, monkeypatch, etag):
    monkeypatch.setattr(fetch, "MAX_FAILURES", 1)
    kaggle.cut_after = [50_000]
    with pytest.raises(DataError):
        get_dataset(SIIM, tmp_path)
    kaggle.etag, kaggle.archive = etag, make_zip({**SIIM_FILES, "train/study/series/image.dcm": noise(150_000, seed=1)})

    folder = get_dataset(SIIM, tmp_path)

    assert (folder / "train/study/series/image.dcm").read_bytes() == noise(150_000, seed=1)


def test_server_that_ignores_ranges_is_read_from_the_start(kaggle, tmp_path, monkeypatch):
    kaggle.cut_after = [50_000]
    original = Handler.do_GET

    def without_ranges(handler):
        del handler.headers["Range"]
        original(handler)

    monkeypatch.setattr(Handler, "do_GET", without_ranges)
    assert not missing_proof(SIIM, get_dataset(SIIM, tmp_path))


def test_a_download_killed_before_its_last_step_starts_anew_where_the_server_tells_no_size(
    kaggle, tmp_path, monkeypatch
):
    answer = Handler.answer

    def without_size(handler, status, headers, body, cut=None):
        if handler.path.startswith("/storage"):
            if status == 206 and not body:
                status, headers = 416, {}
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
            handler.close_connection = True
        else:
            answer(handler, status, headers, body, cut)

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Handler, "answer", without_size)
    small = replace(SIIM, archive_bytes=1000)
    with monkeypatch.context() as patch:
        patch.setattr(fetch.PartialFile, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            get_dataset(small, tmp_path)
    assert not missing_proof(SIIM, get_dataset(small, tmp_path))
    assert kaggle.ranges() == [None, None, f"bytes={len(kaggle.archive)}-", None]


def test_web_page_instead_of_an_archive(kaggle, tmp_path):
    kaggle.content_type = "text/html; charset=utf-8"
    with pytest.raises(
        DataError, match=r"expected the archive .*, got a web page from http://127[^?]*; log in"
    ) as caught:
        get_dataset(SIIM, tmp_path)
    assert "signature" not in str(caught.value)


def test_no_network(kaggle, tmp_path, monkeypatch):
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"no connection to Kaggle \(ConnectionError\); check the network, HTTPS_PROXY"):
        get_dataset(SIIM, tmp_path)


def test_silent_server(kaggle, tmp_path, monkeypatch):
    from cxr.data.download import kaggle_api

    release = threading.Event()
    monkeypatch.setattr(kaggle_api, "TIMEOUT", (0.2, 0.2))
    monkeypatch.setattr(Handler, "do_POST", lambda handler: release.wait(5))
    try:
        with pytest.raises(DataError, match="Kaggle did not answer within 0 seconds; check the network"):
            get_dataset(SIIM, tmp_path)
    finally:
        release.set()


def test_too_small_a_disk_is_noticed_before_the_download(kaggle, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(kaggle.archive) + kaggle.listed - 1))
    with pytest.raises(
        DataError, match=r"needs 0.5 MiB more, but 0.5 MiB are free; make room, or choose a folder on an"
    ):
        get_dataset(SIIM, tmp_path)
    assert files_below(tmp_path) <= {".siim-covid19-detection.lock"}


def test_disk_that_fills_up_keeps_what_was_downloaded(kaggle, tmp_path, monkeypatch):
    def fail(part, response, show):
        part.path.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.PartialFile, "append", fail)
    with pytest.raises(DataError, match=r"the disk of .* is full; make room, .*: it continues where it stopped"):
        get_dataset(SIIM, tmp_path)
    assert (tmp_path / "siim-covid19-detection.zip.part").read_bytes() == b"some"


def test_folder_that_cannot_be_looked_into(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cxr.data.download.get.missing_proof", refuse)
    with pytest.raises(DataError, match=r"cannot be used .*Permission denied.*; choose a writable folder with --out"):
        plan_download(SIIM, tmp_path)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be used .*; choose a writable folder with --out"):
        get_dataset(SIIM, tmp_path / "file")


def test_damaged_archive_leaves_nothing_that_looks_whole(kaggle, tmp_path):
    kaggle.archive = kaggle.archive[:1000] + b"damage" + kaggle.archive[1006:]
    with pytest.raises(DataError, match=r"siim-covid19-detection.zip is damaged .*; delete it and repeat the command"):
        get_dataset(SIIM, tmp_path)
    assert not (tmp_path / SIIM.folder).exists()
    assert not (tmp_path / f"{SIIM.folder}.partial").exists()


def test_killed_extraction_is_done_again_from_the_archive_on_disk(kaggle, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cxr.data.download.get.extract_archive", killed)
        with pytest.raises(KeyboardInterrupt):
            get_dataset(SIIM, tmp_path)
    (tmp_path / f"{SIIM.folder}.partial").mkdir()
    (tmp_path / f"{SIIM.folder}.partial" / "half").write_text("old")

    folder = get_dataset(SIIM, tmp_path)

    assert files_below(folder) == set(SIIM_FILES)
    assert not (tmp_path / "siim-covid19-detection.zip").exists()


def test_archive_put_there_by_hand_is_unpacked_without_kaggle_and_kept(tmp_path):
    archive = tmp_path / "siim-covid19-detection.zip"
    archive.write_bytes(make_zip(SIIM_FILES))
    (tmp_path / SIIM.folder).mkdir()
    assert plan_download(SIIM, tmp_path)["on disk"] == f"{archive} is there and will be unpacked"

    assert files_below(get_dataset(SIIM, tmp_path)) == set(SIIM_FILES)

    assert archive.exists()
    assert plan_download(SIIM, tmp_path)["on disk"] == "complete"


def test_archive_put_there_by_hand_after_an_interrupted_download_is_kept(kaggle, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_FAILURES", 1)
    kaggle.cut_after = [50_000]
    with pytest.raises(DataError, match="no connection"):
        get_dataset(SIIM, tmp_path)
    archive = tmp_path / "siim-covid19-detection.zip"
    archive.write_bytes(kaggle.archive)

    get_dataset(SIIM, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {archive.name, SIIM.folder, f".{SIIM.folder}.lock"}


def test_archive_put_in_the_place_of_a_damaged_download_is_kept(kaggle, tmp_path):
    whole = kaggle.archive
    kaggle.archive = whole[:1000] + b"damage" + whole[1006:]
    with pytest.raises(DataError, match="is damaged"):
        get_dataset(SIIM, tmp_path)
    archive = tmp_path / "siim-covid19-detection.zip"
    archive.unlink()
    archive.write_bytes(whole)

    get_dataset(SIIM, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {archive.name, SIIM.folder, f".{SIIM.folder}.lock"}


def test_archive_of_something_else(tmp_path):
    (tmp_path / "siim-covid19-detection.zip").write_bytes(make_zip({"train_study_level.csv": b""}))
    with pytest.raises(DataError, match=r"holds no train/\*/\*/\*.dcm, so it is not siim-covid19-detection as"):
        get_dataset(SIIM, tmp_path)
    assert not (tmp_path / SIIM.folder).exists()


def test_half_a_dataset_is_not_touched(tmp_path):
    (tmp_path / SIIM.folder).mkdir()
    (tmp_path / SIIM.folder / "train_study_level.csv").write_text("mine")
    assert plan_download(SIIM, tmp_path)["on disk"] == "incomplete: it is not empty and lacks train/*/*/*.dcm"
    with pytest.raises(
        DataError, match=r"is incomplete: it is not empty and lacks train/\*/\*/\*.dcm; move it away and repeat"
    ):
        get_dataset(SIIM, tmp_path)
    assert files_below(tmp_path / SIIM.folder) == {"train_study_level.csv"}


@pytest.mark.parametrize("there", [True, False], ids=["empty folder", "nothing"])
def test_a_link_is_refused_before_the_download(kaggle, tmp_path, there):
    big, data = tmp_path / "big", tmp_path / "data"
    data.mkdir()
    if there:
        big.mkdir()
    (data / SIIM.folder).symlink_to(big)
    assert plan_download(SIIM, data)["on disk"] == f"a link to {big}, where the dataset is not complete"
    with pytest.raises(DataError, match=r"is a link to .*/big, .*; move it away .* --out or CXR_DATA_DIR"):
        get_dataset(SIIM, data)
    assert kaggle.requests == []


def test_a_link_to_a_complete_set_is_one(kaggle, tmp_path):
    real = get_dataset(SIIM, tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SIIM.folder).symlink_to(real)
    assert get_dataset(SIIM, tmp_path / "data") == tmp_path / "data" / SIIM.folder


def test_a_file_in_the_place_of_the_dataset(kaggle, tmp_path):
    (tmp_path / SIIM.folder).write_text("mine")
    assert plan_download(SIIM, tmp_path)["on disk"] == "a file, expected a folder or nothing"
    with pytest.raises(
        DataError, match=r"siim-covid19-detection is a file, expected a folder or nothing; move it away"
    ):
        get_dataset(SIIM, tmp_path)
    assert kaggle.requests == []


def test_two_processes_do_not_fetch_the_same_dataset(tmp_path):
    from filelock import FileLock

    with (
        FileLock(tmp_path / f".{SIIM.folder}.lock"),
        pytest.raises(DataError, match=r"another process is fetching siim into .*; wait for it or stop it"),
    ):
        get_dataset(SIIM, tmp_path)


def test_missing_extra_gives_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'cxr-lab\[kaggle\]'"):
        get_dataset(SIIM, tmp_path)


def test_command_downloads_and_says_where(kaggle, tmp_path, capsys):
    assert main(["data", "get", "--dataset", "siim", "--out", str(tmp_path)]) == 0
    assert f"{tmp_path / SIIM.folder}" in capsys.readouterr().out


def test_command_tells_a_failure_in_one_line_without_a_traceback(kaggle, tmp_path, capsys):
    kaggle.refuse(404, "gone")
    assert main(["data", "get", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: Kaggle has no competition")
    assert "\n" not in told


def test_interrupted_command_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr.data.download.get.get_dataset", interrupt)
    assert main(["data", "get", "--out", str(tmp_path)]) == 130
    assert "the same command continues where it stopped" in capsys.readouterr().err
