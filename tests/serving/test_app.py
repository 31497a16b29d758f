import asyncio
import base64
import io
import re
import shutil
from tempfile import SpooledTemporaryFile
from typing import get_args

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.formparsers import MultiPartParser

from cxr.errors import WeightsError
from cxr.imaging.preprocess import Preprocess
from cxr.imaging.resize import resize
from cxr.inference.engines import open_predictor
from cxr.inference.verdict import WARNINGS
from cxr.serving import service as service_module
from cxr.serving.app import make_app
from cxr.serving.compat import to_told
from cxr.serving.decoding import NoDecoderError
from cxr.serving.schemas import Explanation, Failure, ModelFacts, Prediction, Shown, SystemB, Warned
from cxr.serving.settings import usable_cores

from .conftest import KEY, NAMES, to_png


def send(client, *files, path="/v1/predict"):
    return client.post(path, files=[("files", ("PATIENT^NAME.png", content, "image/png")) for content in files])


def as_json(*images):
    return {"images": list(images)}


def test_an_answer_has_everything_the_page_shows(client, png, bundle):
    answer = send(client, png)
    assert answer.status_code == 200
    told = answer.json()
    (result,) = told["results"]
    probs = open_predictor(bundle).predict_pixels([np.asarray(Image.open(io.BytesIO(png)), np.float32) / 255])[0]
    np.testing.assert_allclose([result["probs"][name] for name in NAMES], probs, atol=1e-6)
    assert result["label"] == NAMES[int(probs.argmax())]
    assert (result["index"], result["status"], result["shape"]) == (0, "ok", [60, 40])
    assert result["decisions"] == {"pneumonia": True}
    assert result["abstained"] is None
    assert result["warnings"] == []
    assert result["seconds"] > 0
    assert told["model"].items() <= client.get("/v1/model").json().items()
    assert told["request_id"] == answer.headers["x-request-id"]
    assert "PATIENT" not in answer.text


def test_an_image_is_the_same_however_it_comes(client, png, pixels):
    file = {"name": "PATIENT^NAME", "base64": base64.b64encode(png).decode()}
    array = {"pixels": pixels.tolist(), "max": 255}
    one, two = client.post("/v1/predict", json=as_json(file, array)).json()["results"]
    alone = pytest.approx(send(client, png).json()["results"][0]["probs"], abs=1e-6)
    assert one["probs"] == alone
    assert two["probs"] == alone


@pytest.mark.parametrize("pixels", [[[7]], [[0, 90]], [[0], [90]], [[0, 30, 90]] * 2], ids=["1x1", "1x2", "2x1", "2x3"])
def test_a_small_array_is_treated_as_a_small_file(client, pixels):
    file, array = {"base64": base64.b64encode(to_png(pixels)).decode()}, {"pixels": pixels, "max": 255}
    one, two = client.post("/v1/predict", json=as_json(file, array)).json()["results"]
    if pixels == [[7]]:
        assert "at least two grey values" in one["error"]
        assert "at least two grey values" in two["error"]
    else:
        assert one["probs"] == pytest.approx(two["probs"], abs=1e-6)
        assert one["shape"] == two["shape"] == [len(pixels), len(pixels[0])]


def test_a_bad_image_among_others_costs_only_itself(client, png):
    answer = send(client, b"broken", png)
    bad, good = answer.json()["results"]
    assert answer.status_code == 200
    assert bad["error"].startswith("expected a DICOM, PNG, JPEG, TIFF or BMP image")
    assert (bad["index"], bad["status"], good["index"], good["status"]) == (0, "error", 1, "ok")


def test_a_single_bad_image(client):
    answer = send(client, b"broken")
    assert answer.status_code == 422
    assert answer.json()["results"][0]["status"] == "error"
    bad_pixels = client.post("/v1/predict", json=as_json({"pixels": [[7, 7]], "max": 9}))
    assert bad_pixels.status_code == 422
    assert "at least two grey values" in bad_pixels.json()["results"][0]["error"]


@pytest.mark.parametrize("path", ["/v1/explain", "/v1/image"])
def test_one_image_is_shown_or_explained(client, png, path):
    for files, status, code in (([b"broken"], 422, "not_an_image"), ([png, png], 400, "bad_request")):
        answer = send(client, *files, path=path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def picture(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.slow
def test_an_explanation_lies_over_the_image(client, png, pixels):
    told = send(client, png, path="/v1/explain?label=normal").json()
    image, overlay = picture(told["image"]), picture(told["overlay"])
    assert (image.mode, overlay.mode) == ("L", "RGBA")
    assert image.size == overlay.size == (683, 1024)
    assert told["label"] == "normal"
    Explanation.model_validate(told)
    assert np.asarray(overlay)[..., 3].max() in (0, 178)
    shown = send(client, png, path="/v1/image").json()
    assert (shown["image"], shown["shape"]) == (told["image"], [60, 40])
    large = resize(pixels.astype(np.float32) / 255, (1024, 683))
    np.testing.assert_allclose(np.asarray(image), large * 255, atol=0.51)


@pytest.mark.slow
def test_the_answer_is_explained_unless_another_class_is_asked_for(client, png):
    label = send(client, png).json()["results"][0]["label"]
    assert send(client, png, path="/v1/explain").json()["label"] == label
    answer = send(client, png, path="/v1/explain?label=nothing")
    assert answer.status_code == 400
    assert "expected a label among normal, pneumonia" in answer.json()["error"]["message"]


def test_the_map_is_of_the_model_that_answers(bundle, make_settings, png, tmp_path):
    for name in ("old", "new"):
        shutil.copytree(bundle, tmp_path / name)
    link = tmp_path / "current"
    link.symlink_to("old")
    with TestClient(make_app(make_settings(bundle=link))) as client:
        link.unlink()
        link.symlink_to("nowhere")
        explained = send(client, png, path="/v1/explain").json()
        assert explained["model"] == send(client, png).json()["model"]
    link.unlink()
    link.symlink_to("new")
    with TestClient(make_app(make_settings(bundle=link))) as client:
        described = tmp_path / "new" / "bundle.json"
        described.write_text(described.read_text() + "\n")
        answer = send(client, png, path="/v1/explain")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "changed")


def test_a_model_without_a_net_has_no_map(client, png, monkeypatch):
    monkeypatch.setattr("cxr.inference.net_shares.find_nets", lambda *_: [])
    answer = send(client, png, path="/v1/explain")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_map")


def test_facts_of_the_model(client):
    told = client.get("/v1/model").json()
    assert told["preprocess"] == [Preprocess(size=(32, 48), normalizer="percentile").to_dict()]
    assert (told["class_names"], told["card"], told["multilabel"]) == (NAMES, "# A card\n", False)


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "text/plain", 415, "unsupported_type"),
        (b"{", "application/json", 400, "bad_request"),
        (b'{"images": []}', "application/json", 400, "no_image"),
        (b"--a--\r\n", "multipart/form-data; boundary=a", 400, "no_image"),
        (b"x", "multipart/form-data", 400, "bad_request"),
        (b'{"images": [1, 1, 1, 1, 1]}', "application/json", 400, "bad_request"),
        (b'{"image_url": "https://example.org/a.png"}', "application/json", 403, "no_addresses"),
        (bytes(3 * 2**20 + 1), "application/json", 413, "too_large"),
    ],
)
def test_requests_that_are_refused(client, content, kind, status, code):
    answer = client.post("/v1/predict", content=content, headers={"content-type": kind})
    told = answer.json()
    assert (answer.status_code, told["error"]["code"]) == (status, code)
    assert told["error"]["message"].startswith("expected")
    assert told["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/nothing", "not_found"), ("GET", "/v1/predict", "method_not_allowed")],
)
def test_routes_that_are_none(client, method, path, code):
    told = client.request(method, path)
    assert told.json()["error"]["code"] == code
    assert "GET /openapi.json has the list" in told.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/v1/predict", "/v1/explain", "/v1/image", "/todo/api/v1.0/covid19", "/v1/model", "/metrics"]
)
def test_every_route_but_health_needs_a_key(client, path):
    method = "GET" if path in ("/v1/model", "/metrics") else "POST"
    answer = client.request(method, path, headers={"X-API-Key": "wrong"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


@pytest.mark.parametrize(("path", "status"), [("/", 303), ("/sign-in", 200), ("/healthz", 200), ("/readyz", 200)])
def test_head_is_answered_like_get(app, client, path, status):
    stranger = TestClient(app, follow_redirects=False)
    got, head = stranger.get(path), stranger.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.status_code == status
    assert head.headers["content-length"] == got.headers["content-length"]


def test_nobody_is_led_to_another_host(client):
    answer = client.get("/v1/model/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert (answer.status_code, "location" in answer.headers) == (404, False)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_key(client, path):
    answer = client.get(path, headers={"X-API-Key": "wrong"})
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_measures(client, png):
    send(client, png, b"broken")
    client.get("/nothing")
    lines = client.get("/metrics").text
    for start in (
        'cxr_requests_total{route="/v1/predict",status="200"}', 'cxr_requests_total{route="none",status="404"}',
        'cxr_images_total{status="ok"}', 'cxr_images_total{status="error"}', "cxr_decode_seconds_count",
        "cxr_waiting_images 0.0",
    ):  # fmt: skip
        assert start in lines
    assert "/nothing" not in lines


def test_too_much_at_a_time_is_put_off(client, app, png, monkeypatch):
    monkeypatch.setattr(app.state.service, "_waiting", 3)
    answer = send(client, png, png)
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (429, "busy", "1")
    assert "at most 4 images to wait" in answer.json()["error"]["message"]
    assert send(client, png).status_code == 200


def test_an_answer_that_takes_too_long_is_put_off(client, app, png, monkeypatch):
    monkeypatch.setattr(app.state.service, "_take_in", lambda *_: asyncio.sleep(60))
    shorten(app, monkeypatch)
    answer = send(client, png)
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (503, "timeout", "1")
    monkeypatch.undo()
    assert "cxr_waiting_images 0.0" in client.get("/metrics").text


def test_an_image_that_nobody_can_decode_now_is_put_off(client, app, png, monkeypatch):
    async def refuse(*_):
        raise NoDecoderError("expected a process; send it again later")

    monkeypatch.setattr(app.state.service._decoders, "take_in", refuse)
    answer = send(client, png)
    told = (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"])
    assert told == (503, "no_decoder", "1")
    monkeypatch.undo()
    assert send(client, png).status_code == 200


def test_a_body_that_comes_too_slowly_is_refused(client, app, monkeypatch):
    async def slow(*_):
        await asyncio.sleep(60)

    monkeypatch.setattr("cxr.serving.bodies._feed", slow)
    shorten(app, monkeypatch)
    answer = send(client, b"")
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "slow")


def shorten(app, monkeypatch):
    """Let requests take 0.2 s, which settings from the command line cannot say."""
    settings = app.state.service.settings
    limits = type(settings.limits)()
    object.__setattr__(limits, "seconds", 0.2)
    monkeypatch.setattr(
        app.state.service, "settings", type(settings)(bundle=settings.bundle, key_file=None, limits=limits)
    )


def test_one_hundred_requests_load_the_model_once(make_settings, png, monkeypatch):
    loads = []
    monkeypatch.setattr(service_module, "open_predictor", lambda *given: loads.append(given) or open_predictor(*given))
    with TestClient(make_app(make_settings())) as client:
        assert {send(client, png).status_code for _ in range(100)} == {200}
    ((*_, threads),) = loads
    assert threads == usable_cores()


def test_uploads_never_touch_a_disk(client, monkeypatch):
    """They are larger than what Starlette's own parser keeps in memory."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (800, 900), dtype=np.uint16)).save(file, "PNG")
    large, most = file.getvalue(), MultiPartParser.spool_max_size
    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp", "_TemporaryFileWrapper"):
        monkeypatch.setattr(f"tempfile.{name}", lambda *_, **__: pytest.fail("a file on disk"))
    with pytest.raises(pytest.fail.Exception, match="a file on disk"), SpooledTemporaryFile(most) as spooled:
        spooled.write(large)
    assert send(client, large, large).status_code == 200
    assert client.post("/v1/predict", json=as_json({"base64": base64.b64encode(large).decode()})).status_code == 200
    assert send(client, large, path="/v1/image").status_code == 200


def test_the_older_route_answers_by_address(client, app, png, monkeypatch):
    fetched = []

    async def fetch(url, hosts, take, max_bytes, seconds):
        fetched.append((url, hosts[0].host))
        take(len(png))
        return png if url.endswith("good") else b"broken"

    def ask(body):
        return client.post("/todo/api/v1.0/covid19", json=body)

    assert ask({"imageUrl": "https://a.org/good"}).json()["error"]["code"] == "no_addresses"
    monkeypatch.setattr(service_module, "fetch_image", fetch)
    monkeypatch.setattr(app.state.service, "_hosts", service_module.parse_hosts(["a.org"]))
    told = ask({"imageUrl": "https://a.org/good"}).json()
    assert fetched == [("https://a.org/good", "a.org")]
    direct = send(client, png).json()
    assert told["probabilities"] == direct["results"][0]["probs"]
    assert told["probability"] == max(told["probabilities"].values())
    kept = ("status", "label", "decisions", "abstained", "warnings")
    assert {name: told[name] for name in kept} == {name: direct["results"][0][name] for name in kept}
    assert told["model_version"] == direct["model"]["version"]
    SystemB.model_validate(told)
    assert ask({"imageUrl": "https://a.org/bad"}).status_code == 422
    assert ask({"imageUrl": 1}).status_code == 400
    by_url = client.post("/v1/predict", json={"image_url": "https://a.org/good"})
    assert by_url.json()["results"][0]["probs"] == told["probabilities"]


@pytest.mark.parametrize(("mass", "label"), [(0.6, "effusion; mass"), (0.4, "effusion"), (0.1, "none")])
def test_the_older_route_names_one_of_several_targets_with_its_probability(mass, label):
    result = {"status": "ok", "label": label, "probs": {"mass": mass, "effusion": mass + 0.2},
              "decisions": {"mass": False}, "abstained": True, "warnings": ["any"]}  # fmt: skip
    told = to_told(result)
    assert (told["label"], told["probability"]) == ("effusion", mass + 0.2)
    assert (told["decisions"], told["abstained"], told["warnings"]) == ({"mass": False}, True, ["any"])


def test_an_image_by_address_waits_and_takes_memory_like_others(client, app, png, monkeypatch):
    service, fetched = app.state.service, []

    async def fetch(url, hosts, take, max_bytes, seconds):
        fetched.append(service._waiting)
        take(service.settings.limits.max_waiting_bytes)
        return png

    def ask():
        answer = client.post("/v1/predict", json={"image_url": "https://a.org/"})
        return answer.status_code, answer.json()["error"]["message"]

    monkeypatch.setattr(service_module, "fetch_image", fetch)
    monkeypatch.setattr(service, "_hosts", service_module.parse_hosts(["a.org"]))
    status, message = ask()
    assert (status, fetched, service._memory.held, service._waiting) == (429, [1], 0, 0)
    assert "uploads of together" in message
    monkeypatch.setattr(service, "_waiting", 4)
    status, message = ask()
    assert (status, fetched) == (429, [1])
    assert "at most 4 images to wait" in message


def test_the_description_has_every_route_and_status(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        "/v1/predict", "/v1/explain", "/v1/image", "/v1/model", "/healthz", "/readyz", "/metrics",
        "/todo/api/v1.0/covid19",
    }  # fmt: skip
    predict = paths["/v1/predict"]["post"]
    assert set(predict["responses"]) == {"200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503"}
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert predict["security"] == [{"key": []}, {"bearer": []}]
    example = predict["requestBody"]["content"]["application/json"]["example"]
    assert client.post("/v1/predict", json=example).status_code == 200
    assert paths["/v1/explain"]["post"]["parameters"][0]["schema"]["enum"] == NAMES
    assert set(paths["/v1/explain"]["post"]["responses"]) == {*predict["responses"], "409"}
    for route in paths.values():
        for described in (method["responses"] for method in route.values()):
            assert all("Retry-After" in described[status]["headers"] for status in {"429", "503"} & set(described))


def test_a_server_without_keys_describes_none(make_settings):
    described = make_app(make_settings()).openapi()
    assert "securitySchemes" not in described["components"]
    assert not any("security" in route for methods in described["paths"].values() for route in methods.values())


def test_answers_are_as_described(client, png):
    Prediction.model_validate(send(client, png, b"broken").json())
    Shown.model_validate(send(client, png, path="/v1/image").json())
    ModelFacts.model_validate(client.get("/v1/model").json())
    Failure.model_validate(client.get("/nothing").json())


def test_every_warning_is_described():
    assert get_args(Warned.model_fields["code"].annotation) == tuple(WARNINGS)


def test_a_bundle_that_cannot_be_loaded_is_told(bundle, tmp_path, make_settings, capsys):
    with pytest.raises(WeightsError, match="expected a bundle with"):
        make_app(make_settings(bundle=tmp_path))
    for name in ("bundle.json", "model_card.md"):
        (tmp_path / name).write_bytes((bundle / name).read_bytes())
    with pytest.raises(WeightsError, match=r"model\.safetensors"), TestClient(make_app(make_settings(bundle=tmp_path))):
        pass
    assert capsys.readouterr().err.startswith("error: expected the weights of the bundle in")


def test_a_client_that_goes_away_is_no_failure(app, client, png):
    """The body ends in the middle."""

    async def gone():
        sent = iter([{"type": "http.request", "body": b"--a\r\n", "more_body": True}, {"type": "http.disconnect"}])
        head = [
            (b"content-type", b"multipart/form-data; boundary=a"),
            (b"x-api-key", client.headers["x-api-key"].encode()),
        ]
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": head, "query_string": b"",
                 "scheme": "http", "http_version": "1.1", "client": ("1.2.3.4", 5), "server": ("a", 1)}  # fmt: skip
        answers = []

        async def receive():
            return next(sent)

        async def answer(message):
            answers.append(message)

        await app(scope, receive, answer)
        return answers

    assert client.portal.call(gone) == []
    assert send(client, png).status_code == 200
    assert isinstance(client, httpx2.Client)


def test_a_browser_signs_in_and_predicts_without_the_key(app, client, png):
    browser = TestClient(app, headers={}, follow_redirects=False)
    browser.headers.pop("x-api-key", None)
    assert browser.get("/").headers["location"] == "/sign-in"
    assert browser.post("/sign-in", data={"key": "wrong"}).status_code == 401
    assert browser.post("/sign-in", data={"key": KEY["X-API-Key"]}).headers["location"] == "/"
    page = browser.get("/")
    assert KEY["X-API-Key"] not in page.text
    files = [("files", ("a.png", png))]
    assert browser.post("/v1/predict", files=files).json()["error"]["code"] == "csrf"
    token = re.search(r'content="([0-9a-f]{64})"', page.text)[1]
    assert browser.post("/v1/predict", files=files, headers={"X-CSRF-Token": token}).status_code == 200
