"""The page in a real browser: what somebody sees, presses and hears.

Before the application itself with a tiny model, or, in tests that have a `stub`, before one that says and does what
they want: a certain answer, a slow one, a refusal. Needs Debian's package `chromium`; where there is none these tests
are skipped.
"""

import csv
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO, StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing

from cxr.data.phantoms.findings import TYPICAL
from cxr.inference.bundle_folder import bundle_version
from cxr.inference.engines import open_predictor
from cxr.serving.app import make_app
from cxr.serving.keys import rotate_keys

from ..imaging.dicom_files import make_dataset, save
from . import films
from .conftest import NAMES
from .stub import KEY, Serving, Stub, make_stub_app, read

CHROMIUM = shutil.which("chromium")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
WARNING = {"code": "inverted", "text": "The image looks inverted: bones should be bright."}
BROKEN = b"\x89PNG and nothing else"

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'cxr-lab[dev]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]
expect = playwright.expect
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def film():
    """One chest as DICOM and as PNG."""
    drawn = films.draw(3, 400, TYPICAL)
    return SimpleNamespace(dicom=films.to_dicom(drawn), png=films.to_png(drawn))


@pytest.fixture
def stub():
    return Stub()


@dataclass(frozen=True)
class Site:
    """A server: its address, a key, and what makes the cookie of somebody who signed in."""

    url: str
    key: str
    sign_in: Callable[[], str]


@pytest.fixture(scope="module")
def real_site(make_settings, tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    app = make_app(make_settings(key_file=file))
    gate, key = app.state.gate, rotate_keys(file)

    def sign_in():
        session = gate.sessions.start(gate.rings().find(key).key_id)
        return gate.sessions.serializer.dumps(asdict(session))

    with Serving(app) as address:
        yield Site(address, key, sign_in)


@pytest.fixture
def site(request):
    if "stub" not in request.fixturenames:
        yield request.getfixturevalue("real_site")
        return
    stub = request.getfixturevalue("stub")
    with Serving(make_stub_app(stub)) as address:
        yield Site(address, KEY, stub.sign_in)


@pytest.fixture
def open_page(browser, site):
    """Function (signed_in=True, **settings of a browser context) -> the page; what it complains of fails the test."""
    opened, complaints = [], []

    def listen(page):
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
        page.on("request", lambda request: complaints.append(request.url) if is_foreign(request.url) else None)

    def is_complaint(message):
        return message.type in ("error", "warning") and "Failed to load resource" not in message.text

    def is_foreign(address):
        return not address.startswith((site.url, "data:", "blob:"))

    def open_one(signed_in=True, **settings):
        context = browser.new_context(**settings)
        context.set_default_timeout(20_000)
        opened.append(context)
        if signed_in:
            cookie = {"name": "cxr_session", "value": site.sign_in(), "url": site.url}
            context.add_cookies([{**cookie, "httpOnly": True, "sameSite": "Strict"}])
        page = context.new_page()
        listen(page)
        page.goto(site.url)
        if signed_in:
            expect(page.locator("#purpose")).not_to_be_empty()
        return page

    yield open_one
    for context in opened:
        context.close()
    assert complaints == []


def sign_in(page, key):
    page.get_by_label("Access key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def drop(page, *contents, names=None):
    """Give files to the page as somebody would by its picker."""
    names = [f"film_{place}.dcm" for place in range(len(contents))] if names is None else names
    files = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        for name, content in zip(names, contents, strict=True)
    ]
    page.set_input_files("#files", files)


def expect_done(page, number):
    expect(page.locator(".row.done, .row.failed")).to_have_count(number)


def pictures_asked_for(page):
    """The requests for a decoded image, from now on."""
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/v1/image") else None)
    return asked


def grey_of_canvas(page):
    """(H, W) uint8: what the canvas shows."""
    height, width, grey = page.locator("#film canvas").evaluate(
        "c => [c.height, c.width, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        ".filter((_, place) => place % 4 === 0)]"
    )
    return np.uint8(grey).reshape(height, width)


def film_frame(page):
    return page.locator("#film canvas").bounding_box()


def test_a_dicom_file_is_shown_and_answered_in_words(open_page, film, bundle):
    page = open_page()
    asked, sent = pictures_asked_for(page), []
    page.on("request", lambda request: sent.append(request.post_data_buffer or b""))
    drop(page, film.dicom, names=["Doe^Jane.dcm"])
    probs = open_predictor(bundle).predict_pixels([read(film.dicom)])[0]
    expect(page.locator(".headline h3")).to_have_text("Called positive for pneumonia")
    for name, prob in zip(NAMES, probs, strict=True):
        expect(page.locator(".bars li", has_text=re.compile(name, re.IGNORECASE))).to_contain_text(f"{100 * prob:.1f}%")
    expect(page.locator("#live")).to_contain_text("Doe^Jane.dcm: Called positive for pneumonia.")
    expect(page.locator("#readout")).not_to_be_empty()
    assert grey_of_canvas(page).shape == (1024, 1024)
    assert len(asked) == 1
    assert not any(b"Doe" in body for body in sent)


def test_a_probability_stands_beside_its_operating_point(open_page, stub, film):
    stub.verdicts.append({"share": 0.951})
    page = open_page()
    drop(page, film.dicom)
    expect(page.locator(".bars li").first).to_contain_text("95.1%")
    expect(page.locator(".bars li").first).to_contain_text("Above the operating point of 70.3%: called positive.")
    assert page.locator(".bars .tick").evaluate("mark => mark.style.left") == "70.3%"
    np.testing.assert_allclose(grey_of_canvas(page), 255 * read(film.dicom), atol=1.01)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"Modality": "CT"}, "this is not a plain X-ray"),
        ({"BodyPartExamined": "LEG"}, "another part of the body"),
        ({"ViewPosition": "LL"}, "not a frontal view"),
    ],
)
def test_what_the_header_says_is_a_warning(open_page, tmp_path, elements, words):
    ramp = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    path = save(tmp_path / "a.dcm", make_dataset(ramp, bits=12, **elements), ramp)
    page = open_page()
    drop(page, path.read_bytes())
    expect(page.locator("#answer .notice")).to_contain_text(words)
    expect(page.locator(".row")).to_contain_text("with warnings")


def test_a_png_is_shown_at_once_without_asking_for_it(open_page, stub, film):
    stub.delay = 1.5
    page = open_page()
    asked = pictures_asked_for(page)
    drop(page, film.png)
    expect(page.locator("#readout")).not_to_be_empty()
    expect(page.locator("#answer")).to_contain_text("The model is looking")
    np.testing.assert_allclose(grey_of_canvas(page), 255 * read(film.png), atol=1.01)
    expect(page.locator(".headline")).to_be_visible()
    assert asked == []


def test_a_png_of_16_bits_is_shown_as_the_server_reads_it(open_page, film):
    page = open_page()
    asked = pictures_asked_for(page)
    out = BytesIO()
    Image.fromarray(np.uint16(4095 * read(film.png))).save(out, "png")
    drop(page, out.getvalue())
    expect_done(page, 1)
    expect(page.locator("#readout")).not_to_be_empty()
    assert grey_of_canvas(page).max() > 200
    assert len(asked) == 1


def test_the_heat_map_comes_when_it_is_wanted(open_page, film):
    page = open_page()
    explained = []
    page.on("request", lambda request: explained.append(request.url) if "/v1/explain" in request.url else None)
    drop(page, film.png)
    expect(page.locator(".headline")).to_be_visible()
    assert explained == []
    page.get_by_role("button", name="Show heat map").click()
    overlay = page.locator("#overlay")
    expect(overlay).to_be_visible()
    assert overlay.bounding_box() == film_frame(page)
    page.get_by_label("Heat map opacity").fill("20")
    assert overlay.evaluate("image => image.style.opacity") == "0.2"
    page.get_by_label("for").select_option("normal")
    expect(overlay).to_be_visible()
    page.get_by_role("button", name="Hide heat map").click()
    expect(overlay).to_be_hidden()
    page.get_by_role("button", name="Show heat map").click()
    expect(overlay).to_be_visible()
    assert [address.split("label=")[1] for address in explained] == ["pneumonia", "normal"]


def serve_another_model(stub, **changes):
    """What the server does once its bundle is another one."""
    point = {**stub.facts["operating_point"], "threshold": 0.41}
    stub.facts = {**stub.facts, "version": "0b1c2d3e4f5a", "operating_point": point, **changes}


def test_each_answer_is_drawn_with_the_facts_of_the_model_that_gave_it(open_page, stub, film):
    stub.verdicts.extend([{"share": 0.951}, {"share": 0.5, "abstained": False, "decisions": {"pneumonia": True}}])
    page = open_page()
    bar, tick = page.locator(".bars li", has_text="Pneumonia"), page.locator(".bars .tick")
    drop(page, film.png)
    expect(bar).to_contain_text("Above the operating point of 70.3%")
    serve_another_model(stub, name="resnet50-phantoms")
    drop(page, film.png)
    expect_done(page, 2)
    page.get_by_role("button", name="Next image").click()
    expect(bar).to_contain_text("Above the operating point of 41.0%")
    assert tick.evaluate("mark => mark.style.left") == "41%"
    expect(page.locator("#model-name")).to_have_text("resnet50-phantoms")
    page.get_by_role("button", name="Previous image").click()
    expect(bar).to_contain_text("Above the operating point of 70.3%")
    assert tick.evaluate("mark => mark.style.left") == "70.3%"


def test_facts_of_another_model_are_not_drawn_over_an_answer(open_page, stub, film):
    stub.verdicts.append({"share": 0.951, "model": {**stub.model, "version": "0b1c2d3e4f5a"}})
    page = open_page()
    drop(page, film.png)
    expect(page.locator(".bars")).to_contain_text("Above the operating point: called positive.")
    assert page.locator(".bars .tick").count() == 0


@pytest.mark.parametrize("names", [["normal", "pneumonia"], ["normal", "consolidation"]], ids=["same", "other classes"])
def test_no_map_of_another_model_is_laid_over_an_answer(open_page, stub, film, names):
    page = open_page()
    drop(page, film.png)
    expect_done(page, 1)
    serve_another_model(stub, class_names=names)
    if "pneumonia" not in names:
        stub.refuse("/v1/explain", 400, "expected a label among normal, consolidation, got another")
        probs = {"normal": 0.2, "consolidation": 0.8}
        stub.verdicts.append({"probs": probs, "decisions": {}, "label": "consolidation"})
    page.get_by_role("button", name="Show heat map").click()
    expect(page.locator(".heat .problem")).to_contain_text("The model on the server has changed.")
    expect(page.locator("#overlay")).to_be_hidden()
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".details")).to_contain_text("version 0b1c2d3e4f5a")
    expect(page.locator(".heat .problem")).to_have_count(0)
    page.get_by_role("button", name="Show heat map").click()
    expect(page.locator("#overlay")).to_be_visible()


def test_a_file_that_the_browser_reads_in_another_way_is_always_shown_as_the_server_reads_it(open_page, stub, film):
    stub.sees = np.rot90
    out = BytesIO()
    Image.open(BytesIO(film.png)).crop((0, 0, 400, 300)).save(out, "png")
    page = open_page()
    asked = pictures_asked_for(page)
    drop(page, out.getvalue(), *6 * [film.png])
    expect_done(page, 7)
    canvas = page.locator("#film canvas")
    expect(canvas).to_have_attribute("width", "300")
    for place in range(2, 8):
        page.get_by_role("button", name="Next image").click()
        expect(page.locator("#count")).to_have_text(f"{place} of 7")
        expect(page.locator("#reading")).to_be_hidden()
    page.locator(".row").first.locator(".choose-row").click()
    expect(canvas).to_have_attribute("width", "300")
    assert grey_of_canvas(page).shape == (400, 300)
    assert len(asked) == 2


def test_a_model_without_maps_says_so(open_page, stub, film):
    stub.refuse("/v1/explain", 422, "expected a model with a net in it, got one without, which has no maps")
    page = open_page()
    drop(page, film.png)
    page.get_by_role("button", name="Show heat map").click()
    expect(page.locator(".heat .problem")).to_have_text(re.compile("^Expected a model with a net in it"))
    expect(page.get_by_role("button", name="Show heat map")).to_be_visible()


def test_no_answer_and_warnings_are_said_plainly(open_page, stub, film):
    stub.verdicts.append({"share": 0.55, "warnings": [WARNING]})
    page = open_page()
    drop(page, film.png)
    expect(page.locator(".headline h3")).to_have_text("No answer")
    expect(page.locator(".headline")).to_contain_text("55.0%, is below the 60.0% that it needs")
    expect(page.locator("#answer .notice")).to_have_text(WARNING["text"])
    expect(page.locator(".row")).to_contain_text("with warnings")
    expect(page.locator("#answer")).not_to_contain_text("called positive")


def test_a_wrong_key_is_not_taken(open_page, site):
    page = open_page(signed_in=False)
    assert page.url.endswith("/sign-in")
    sign_in(page, "cxr_wrong")
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    sign_in(page, site.key)
    expect(page.get_by_role("heading", name="Drop chest radiographs here")).to_be_visible()


def test_a_broken_file_says_what_to_do_and_holds_up_nobody(open_page, film):
    page = open_page()
    drop(page, BROKEN, film.png, names=["broken.png", "good.png"])
    expect_done(page, 2)
    notice = page.locator("#answer .notice")
    expect(notice).to_contain_text("No image could be read from this file.")
    expect(notice).to_contain_text("Expected a DICOM, PNG, JPEG, TIFF or BMP image, but got")
    expect(page.locator("#sum-text")).to_have_text("2 images, all done, 1 failed")
    notice.get_by_role("button", name="Remove").click()
    expect(page.locator(".row")).to_have_count(1)
    expect(page.locator(".headline")).to_be_visible()


def test_a_slow_network_shows_how_far_it_is(open_page, film):
    page = open_page()
    session = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 50, "downloadThroughput": -1, "uploadThroughput": 60_000}
    session.send("Network.emulateNetworkConditions", slow)
    asked = pictures_asked_for(page)
    drop(page, film.dicom)
    expect(page.locator(".row .state")).to_have_text(re.compile(r"Sending, [1-9]\d?%"))
    assert asked == []
    expect(page.get_by_role("progressbar", name="Sending")).to_be_visible()
    expect(page.locator(".headline")).to_be_visible()
    expect(page.locator("#readout")).not_to_be_empty()
    assert len(asked) == 1


def test_ten_files_go_two_at_a_time(open_page, stub, film):
    stub.delay = 0.2
    page = open_page()
    drop(page, *(film.png + bytes(place) for place in range(10)))
    expect_done(page, 10)
    assert stub.most_at_once == 2


def test_ten_files_come_out_as_a_table(open_page, film, bundle):
    page = open_page()
    names = ['=1+1,"a".dcm', *(f"film_{place}.png" for place in range(8)), "broken.png"]
    contents = [film.dicom, *(film.png + bytes(place) for place in range(8)), BROKEN]
    drop(page, *contents, names=names)
    expect_done(page, 10)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    rows = list(csv.DictReader(StringIO(download.value.path().read_text(), newline="")))
    assert [row["file"] for row in rows] == ["'" + names[0], *names[1:]]
    assert [row["status"] for row in rows] == 9 * ["done"] + ["failed"]
    assert all(abs(float(row["prob_normal"]) + float(row["prob_pneumonia"]) - 1) < 1e-9 for row in rows[:9])
    assert [row["positive_pneumonia"] for row in rows] == [*9 * ["true"], ""]
    assert (rows[9]["prob_pneumonia"], rows[9]["error"].startswith("No image could be read")) == ("", True)
    assert rows[0]["version"] == bundle_version(bundle)


def test_a_folder_is_dropped(open_page, film, tmp_path):
    (tmp_path / "study" / "series").mkdir(parents=True)
    for name, content in {"film_10.dcm": film.dicom, "film_9.dcm": film.dicom, "series/film_1.png": film.png}.items():
        (tmp_path / "study" / name).write_bytes(content)
    for name in (".DS_Store", "DICOMDIR"):
        (tmp_path / "study" / name).write_bytes(b"not an image")
    page = open_page()
    session = page.context.new_cdp_session(page)
    held = {"items": [], "files": [str(tmp_path / "study")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 400, "data": held})
    expect(page.locator("#dropping")).to_be_visible()
    session.send("Input.dispatchDragEvent", {"type": "drop", "x": 600, "y": 400, "data": held})
    expect(page.locator("#dropping")).to_be_hidden()
    expect_done(page, 3)
    expect(page.locator(".row .file")).to_have_text(["film_9.dcm", "film_10.dcm", "film_1.png"])


def test_who_is_signed_out_in_the_middle_signs_in_and_goes_on(open_page, site, film):
    page = open_page()
    drop(page, film.png)
    expect_done(page, 1)
    page.context.clear_cookies()
    drop(page, film.png, film.dicom, film.dicom)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    sign_in(page, "cxr_wrong")
    expect(dialog).to_contain_text("This key is not valid")
    sign_in(page, site.key)
    expect(dialog).to_be_hidden()
    expect_done(page, 4)
    assert page.locator(".row.failed").count() == 0


def test_two_tabs_work_whichever_signed_in_last_and_signing_out_ends_both(open_page, site, film):
    first = open_page()
    second = first.context.new_page()
    second.goto(f"{site.url}/sign-in")
    sign_in(second, site.key)
    expect(second.locator("#purpose")).not_to_be_empty()
    for page, number in ((first, 2), (second, 2), (first, 4)):
        drop(page, film.png, film.png)
        expect_done(page, number)
        assert page.locator(".row.failed").count() == 0
    second.goto(f"{site.url}/sign-in")
    sign_in(second, site.key)
    first.get_by_role("button", name="Sign out").click()
    expect(first.get_by_label("Access key")).to_be_visible()
    expect(second.locator("#purpose")).not_to_be_empty()
    drop(second, film.png)
    expect(second.get_by_role("dialog")).to_be_visible()


def test_who_does_not_want_to_sign_in_keeps_the_list(open_page, site, film):
    page = open_page()
    page.context.clear_cookies()
    drop(page, film.png, film.png)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#banner")).to_contain_text("You are signed out.")
    expect(page.locator(".row.waiting")).to_have_count(2)
    page.locator("#banner").get_by_role("button", name="Sign in").click()
    sign_in(page, site.key)
    expect_done(page, 2)
    expect(page.locator("#banner")).to_be_hidden()


def test_a_busy_server_is_waited_for(open_page, stub, film):
    stub.refuse("/v1/predict", 429, "expected at most 8 waiting images", **{"Retry-After": "2"})
    page = open_page()
    drop(page, film.png)
    expect(page.locator(".row .state")).to_have_text(re.compile(r"Server busy, goes on in \d s"))
    expect(page.locator(".headline")).to_be_visible()


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (408, "The file took too long to arrive."),
        (409, "The model on the server was changed."),
        (413, "This file is larger than the server takes."),
        (415, "The server does not read this kind of file."),
        (422, "No image could be read from this file."),
        (502, "The server failed on this request."),
    ],
)
def test_a_refusal_is_a_sentence_and_can_be_tried_again(open_page, stub, film, status, words):
    for _ in range(8):  # after 408 Chromium itself asks up to six times more
        stub.refuse("/v1/predict", status, "expected something else; do that")
    page = open_page()
    drop(page, film.png)
    expect(page.locator("#answer .notice h3")).to_have_text(words)
    expect(page.locator("#answer .notice")).to_contain_text("Expected something else; do that.")
    stub.refusals.clear()
    page.locator("#answer").get_by_role("button", name="Try again").click()
    expect(page.locator(".headline")).to_be_visible()


def test_a_network_that_is_gone_loses_nothing(open_page, film):
    page = open_page()
    page.context.set_offline(True)
    drop(page, film.png, film.dicom, film.png)
    expect(page.locator("#banner")).to_contain_text("The server cannot be reached.")
    expect(page.locator(".row.waiting")).to_have_count(3)
    page.context.set_offline(False)
    page.locator("#banner").get_by_role("button", name="Try again").click()
    expect_done(page, 3)
    expect(page.locator("#banner")).to_be_hidden()


def test_a_removed_image_is_not_waited_for(open_page, stub, film):
    stub.delay = 1.0
    page = open_page()
    drop(page, film.png, film.dicom, film.png)
    expect(page.locator(".row.looking")).to_have_count(2)
    page.get_by_role("button", name="Remove film_0.dcm").click()
    expect(page.locator("#name")).to_have_text("film_1.dcm")
    expect_done(page, 2)


def test_everything_works_by_keyboard(open_page, film):
    page = open_page()
    choose = page.get_by_role("button", name="Choose images")
    choose.focus()
    with page.expect_file_chooser() as chooser:
        page.evaluate("'a round trip, after which the browser leaves the choice to the test'")
        page.keyboard.press("Enter")
    chooser.value.set_files([
        {"name": name, "mimeType": "image/png", "buffer": film.png} for name in ("one.png", "two.png", "three.png")
    ])  # fmt: skip
    expect_done(page, 3)
    expect(page.locator(".row.chosen .choose-row")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#name")).to_have_text("two.png")
    expect(page.locator(".row.chosen .choose-row")).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.locator("#name")).to_have_text("three.png")
    expect(page.locator(".row.chosen .choose-row")).to_be_focused()
    tab_to(page, "Image three.png")
    before = film_frame(page)
    for key in ("+", "ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "i", "h"):
        page.keyboard.press(key)
    expect(page.locator("#overlay")).to_be_visible()
    expect(page.locator("#readout")).to_contain_text("W 264   L 124   inverted")
    after = film_frame(page)
    assert after["width"] == pytest.approx(1.25 * before["width"], rel=1e-3)
    assert after["x"] + after["width"] / 2 == pytest.approx(before["x"] + before["width"] / 2 - 40, abs=1)
    page.keyboard.press("r")
    expect(page.locator("#readout")).to_contain_text("W 256   L 128")
    page.keyboard.press("PageUp")
    expect(page.locator("#name")).to_have_text("one.png")
    tab_to(page, "Help")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Help")).to_be_focused()


def tab_to(page, name):
    """Press the tab key until what has the focus is called so; each stop on the way shows that it has it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        here, outline, width = page.evaluate(
            "() => { const here = document.activeElement, style = getComputedStyle(here);"
            " const name = here === document.body ? null : here.ariaLabel ?? here.textContent;"
            " return [name, style.outlineStyle, parseFloat(style.outlineWidth)]; }"
        )
        if here is None:  # past the last one, before the first
            continue
        assert (outline, width) == ("solid", 2)
        if name in here:
            return
    raise AssertionError(f"{name} is not reached by the tab key")


def test_the_wheel_zooms_at_the_pointer_and_dragging_does_what_was_chosen(open_page, film):
    page = open_page()
    drop(page, film.png)
    expect_done(page, 1)
    expect(page.locator("#readout")).not_to_be_empty()
    box = page.locator("#viewport").bounding_box()
    x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.7 * box["height"]
    before = film_frame(page)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    expect(page.locator("#readout")).not_to_have_text(re.compile("^100%"))
    page.wait_for_timeout(100)
    after = film_frame(page)
    assert after["width"] > 1.5 * before["width"]
    for frame, side in ((x, "x"), (y, "y")):
        size = "width" if side == "x" else "height"
        assert (frame - after[side]) / after[size] == pytest.approx((frame - before[side]) / before[size], abs=1e-3)
    drag(page, x, y, 30, 20)
    moved = film_frame(page)
    assert (moved["x"] - after["x"], moved["y"] - after["y"]) == pytest.approx((30, 20), abs=0.5)
    page.get_by_role("button", name="Drag changes window and level").click()
    drag(page, x, y, 30, 20)
    expect(page.locator("#readout")).to_contain_text("W 286   L 138")
    assert film_frame(page) == moved
    page.get_by_role("slider", name="Window").fill("100")
    expect(page.locator("#readout")).to_contain_text("W 100")


def drag(page, x, y, right, down):
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + right, y + down, steps=5)
    page.mouse.up()
    page.wait_for_timeout(100)


def test_each_image_keeps_its_own_look(open_page, film):
    page = open_page()
    drop(page, film.png, film.png)
    expect_done(page, 2)
    page.get_by_role("button", name="Invert").click()
    page.get_by_role("button", name="Next image").click()
    expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Previous image").click()
    expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")


def test_a_phone_shows_everything_within_its_width_and_pinches(open_page, film):
    page = open_page(**PHONE)
    drop(page, film.png, film.dicom)
    expect_done(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    small = page.locator("button:visible, select:visible").evaluate_all(
        "all => all.map((one) => [one.textContent || one.ariaLabel, one.offsetWidth, one.offsetHeight])"
        ".filter(([, width, height]) => width < 40 || height < 40)"
    )
    assert small == []
    expect(page.locator(".research")).to_be_in_viewport()
    before = film_frame(page)
    box = page.locator("#viewport").bounding_box()
    pinch(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert film_frame(page)["width"] == pytest.approx(2 * before["width"], rel=0.02)


def pinch(page, x, y):
    """Two fingers, 80 pixels apart, go to 160 pixels."""
    session = page.context.new_cdp_session(page)

    def touch(kind, *points):
        points = [{"x": x + offset, "y": y, "id": number} for number, offset in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -40, 40)
    for apart in (50, 60, 70, 80):
        touch("touchMove", -apart, apart)
    touch("touchEnd")
    page.wait_for_timeout(100)


def test_light_and_dark_follow_the_system_until_somebody_chooses(open_page, film):
    page = open_page(color_scheme="dark")
    drop(page, film.png)
    expect_done(page, 1)
    ground = "getComputedStyle(document.body).backgroundColor"
    viewport = "getComputedStyle(document.getElementById('viewer')).backgroundColor"
    dark, film_dark = page.evaluate(ground), page.evaluate(viewport)
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(ground) != dark
    assert page.evaluate(viewport) == film_dark
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_the_drawer_tells_what_is_known_of_the_model(open_page, stub):
    page = open_page()
    page.get_by_role("button", name="resnet18-phantoms").click()
    drawer = page.get_by_role("dialog", name="About this model")
    expect(drawer).to_contain_text("Pneumonia is called positive from 70.3% on. Chosen on 521 validation images")
    expect(drawer).to_contain_text("sensitivity was 93.8% and specificity 99.3%")
    expect(drawer).to_contain_text("AUROC0.999")
    expect(drawer).to_contain_text("AUROC 0.999 (0.996 to 1.000) on test")
    expect(drawer).to_contain_text("Not a medical device.")


def test_signing_out_ends_the_session(open_page):
    page = open_page()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Access key")).to_be_visible()
    assert page.context.cookies() == []
    page.go_back()
    expect(page.get_by_label("Access key")).to_be_visible()


def test_a_model_with_several_findings_and_no_operating_point(open_page, stub, film):
    stub.facts.update(multilabel=True, class_names=["effusion", "pleural_mass"], operating_point=None, abstention=None)
    stub.verdicts.append({
        "label": "effusion; pleural_mass", "probs": {"effusion": 0.7, "pleural_mass": 0.6}, "decisions": {},
        "abstained": None,
    })  # fmt: skip
    page = open_page()
    drop(page, film.png)
    expect(page.locator(".headline h3")).to_have_text("At least 50%: effusion, pleural mass")
    expect(page.locator(".headline p")).to_contain_text("No operating point was chosen")
    assert page.locator(".bars .tick").count() == 0


@pytest.mark.parametrize("invert", [False, True])
def test_window_and_level_are_those_of_the_standard(open_page, invert):
    page = open_page()
    for window, level in ((256, 128), (1, 90), (2, 17), (400, 30), (77, 201)):
        shown = page.evaluate(
            "async ([w, l, i]) => Array.from((await import('/static/viewer.js')).windowTable(w, l, i))",
            [window, level, invert],
        )
        elements = Dataset()
        elements.PhotometricInterpretation, elements.BitsStored, elements.PixelRepresentation = "MONOCHROME2", 8, 0
        elements.WindowWidth, elements.WindowCenter = window, level
        reference = apply_windowing(np.arange(256, dtype=np.uint8), elements)
        np.testing.assert_allclose(shown, 255 - reference if invert else reference, atol=0.51)


def show_result(page, stub, film):
    stub.verdicts.append({"share": 0.951})
    drop(page, film.dicom)
    page.get_by_role("button", name="Show heat map").click()
    expect(page.locator("#overlay")).to_be_visible()


def show_list(page, stub, film):
    stub.verdicts.extend([{"share": 0.55, "warnings": [WARNING]}, {"share": 0.9}, {"share": 0.1}])
    drop(page, film.png, film.png, film.png, BROKEN)
    expect_done(page, 4)
    stub.delay = 5.0
    drop(page, film.png, film.png, film.png)
    expect(page.locator(".row.looking")).to_have_count(2)


def show_problem(page, stub, film):
    drop(page, BROKEN)
    expect(page.locator("#answer .notice")).to_be_visible()
    page.context.set_offline(True)
    drop(page, film.png)
    expect(page.locator("#banner")).to_be_visible()


def show_sign_in(page, stub, film):
    stub.sessions.clear()
    drop(page, film.png)
    sign_in(page, "cxr_wrong")
    expect(page.locator("#sign-in-problem")).not_to_be_empty()


STATES = {
    "empty": lambda page, stub, film: None,
    "result": show_result,
    "list": show_list,
    "problem": show_problem,
    "sign-in-again": show_sign_in,
    "model": lambda page, stub, film: page.locator("#open-facts").click(),
    "help": lambda page, stub, film: page.get_by_role("button", name="Help").click(),
}


@pytest.mark.parametrize("settings", [{}, {**PHONE, "color_scheme": "dark"}], ids=["desk-light", "phone-dark"])
@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_serious(open_page, stub, film, state, settings):
    page = open_page(reduced_motion="reduce", **settings)
    STATES[state](page, stub, film)
    assert serious(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_form(open_page, scheme):
    page = open_page(signed_in=False, color_scheme=scheme)
    sign_in(page, "cxr_wrong")
    expect(page.get_by_role("alert")).to_be_visible()
    assert serious(page) == []


def serious(page):
    """What axe-core calls serious or critical, and where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install 'cxr-lab[dev]'")
    violations = axe.Axe().run(page).response["violations"]
    return [
        (violation["id"], node["target"])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
