"""The page as files: who gets it, and that it needs nothing that the policy of its server forbids."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cxr.serving.page_routes import FOLDER, add_page, make_sign_in_page

HTML = sorted(FOLDER.glob("*.html"))
SCRIPTS = sorted((FOLDER / "static").glob("*.js"))


@pytest.fixture(scope="module")
def client():
    """A browser whose header `who` is its session's token."""
    app = FastAPI()
    add_page(app, lambda request: request.headers.get("who"))
    return TestClient(app, follow_redirects=False)


def test_a_stranger_is_led_to_the_form(client):
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert 'name="key"' in client.get("/sign-in").text


def test_the_page_holds_the_token_of_its_session_and_is_kept_nowhere(client):
    answer = client.get("/", headers={"who": '"><script>'})
    assert '<meta name="csrf-token" content="&#34;&gt;&lt;script&gt;">' in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_where_there_are_no_sessions_nobody_can_sign_out(client):
    assert 'id="sign-out"' in client.get("/", headers={"who": "token"}).text
    assert 'id="sign-out"' not in client.get("/", headers={"who": ""}).text


def test_the_form_says_why_a_key_was_not_taken():
    answer = make_sign_in_page("Not <valid>.", 401)
    assert answer.status_code == 401
    assert b"Not &lt;valid&gt;." in answer.body
    assert b'role="alert"' not in make_sign_in_page().body


def test_nobody_writes_into_the_form_by_its_address(client):
    assert "send your key" not in client.get("/sign-in?problem=send+your+key&status=401").text


@pytest.mark.parametrize(
    ("name", "kind"), [("app.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")]
)
def test_files_are_asked_for_anew_after_an_update(client, name, kind):
    answer = client.get(f"/static/{name}")
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["cache-control"] == "no-cache"
    assert client.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("path", ["index.html", "../index.html", "%2e%2e/index.html", "../page_routes.py"])
def test_only_static_files_are_static(client, path):
    assert client.get(f"/static/{path}").status_code == 404


@pytest.mark.parametrize("path", HTML, ids=lambda path: path.name)
def test_no_script_or_style_is_inline(path):
    text = path.read_text()
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", text) == []


@pytest.mark.parametrize("path", [*HTML, *SCRIPTS, FOLDER / "static" / "style.css"], ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere_or_stays_behind(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?:|//\w+\.|localStorage|sessionStorage|indexedDB", text) == []
    assert re.findall(r"document\.cookie|innerHTML|outerHTML|insertAdjacentHTML|eval\(|new Function", text) == []


def test_every_element_that_a_script_looks_for_is_there():
    wanted = {name for path in SCRIPTS for name in re.findall(r'\b(?:find|on)\("([\w-]+)"', path.read_text())}
    there = set(re.findall(r'\sid="([\w-]+)"', (FOLDER / "index.html").read_text()))
    events = {"pointerdown", "pointermove", "wheel", "dblclick"}
    assert len(wanted) > 30
    assert wanted - events <= there


def test_no_two_elements_share_a_name():
    names = re.findall(r'\sid="([\w-]+)"', (FOLDER / "index.html").read_text())
    assert sorted(set(names)) == sorted(names)
