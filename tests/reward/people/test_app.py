"""The page over HTTP: who gets in, what is refused, and that nothing refused becomes a label."""

import json
import urllib.parse

import pytest
from starlette.testclient import TestClient

from reward.people.annotation_queue import Rules
from reward.people.app import build_app
from reward.people.sessions import SessionManager
from tests.reward.people.questions import by_text, item, open_queue

HOST = "127.0.0.1:8765"
OWN = {"origin": f"http://{HOST}"}


class Page:
    """The application with its printed links."""

    def __init__(self, path, count=3, annotators=(None,)):
        self.queue, self.store = open_queue(path, [item(number) for number in range(count)], Rules())
        self.links = []
        sessions = SessionManager(lambda token, annotator: self.links.append((token, annotator)))
        for annotator in annotators:
            sessions.new_token(annotator)
        self.app = build_app(self.queue, sessions, hosts=[HOST, "localhost:8765"], cookie="annotate-8765")

    def browser(self):
        return TestClient(self.app, base_url=f"http://{HOST}")

    def entered(self, link=-1):
        browser = self.browser()
        assert browser.get("/enter", params={"token": self.links[link][0]}).status_code == 200
        return browser


@pytest.fixture
def page(tmp_path):
    page = Page(tmp_path / "calls.sqlite")
    yield page
    page.store.close()


def label_of(browser, person="anna"):
    view = browser.get("/api/next", params={"annotator": person}).json()["next"]
    return {
        "annotator": person,
        "item": view["item"],
        "view": view["view"],
        "verdict": by_text(view, "abc"),
        "seconds": 2.0,
    }


def test_the_link_opens_once_and_its_use_again_prints_a_new_one(page):
    token = page.links[0][0]
    browser = page.browser()
    entered = browser.get("/enter", params={"token": token})
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert browser.get("/api/state").status_code == 200
    thief = page.browser()
    assert thief.get("/enter", params={"token": token}).status_code == 403
    assert thief.get("/api/state").status_code == 403
    assert len(page.links) == 2
    assert thief.get("/enter", params={"token": token}).status_code == 403
    assert len(page.links) == 2  # once: nobody fills the terminal with links
    assert page.entered().get("/api/state").status_code == 200
    assert browser.get("/api/state").status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/api/state", "/api/next?annotator=a", "/api/items/x"])
def test_nothing_is_served_without_the_cookie(page, path):
    for cookie in ({}, {"annotate-8765": "guess"}, {"annotate-8765": ""}, {"annotate-8765": "ü"}):
        header = {"cookie": "; ".join(f"{name}={value}" for name, value in cookie.items()).encode()}
        assert page.browser().get(path, headers=header).status_code == 403
    assert page.browser().get("/enter", params={"token": "guess"}).status_code == 403
    assert page.browser().get("/enter").status_code == 403


@pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil.example:8765", ""])
def test_foreign_hosts_are_refused(page, host):
    browser = page.entered()
    for path in ("/", "/api/state", f"/enter?token={page.links[0][0]}"):
        assert browser.get(path, headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "https://127.0.0.1:8765",
        "http://127.0.0.1:9999",
        "http://localhost:8765",
        None,
    ],
)
def test_other_origins_are_refused_and_store_nothing(page, origin):
    browser = page.entered()
    body = label_of(browser)
    headers = {} if origin is None else {"origin": origin}
    assert browser.post("/api/label", json=body, headers=headers).status_code == 403
    assert browser.post("/api/undo", json={"annotator": "anna"}, headers=headers).status_code == 403
    if origin is not None:
        assert browser.get("/api/state", headers=headers).status_code == 403
    assert page.store.labels() == []


def test_a_label_is_taken_and_the_next_item_comes(page):
    browser = page.entered()
    body = label_of(browser)
    reply = browser.post("/api/label", json=body, headers=OWN)
    assert reply.status_code == 200
    told = reply.json()
    assert (told["done"], told["left"], told["annotator"]) == (1, 2, "anna")
    assert told["next"]["item"] != body["item"]
    (label,) = page.store.labels()
    assert (label.annotator, label.item, label.status, label.seconds) == ("anna", body["item"], "ok", 2.0)
    again = browser.post("/api/undo", json={"annotator": "anna"}, headers=OWN).json()
    assert (again["done"], again["next"]["item"]) == (0, body["item"])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"annotator": ""}, 422),
        ({"annotator": None}, 400),
        ({"annotator": "ben"}, 409),  # the view was anna's
        ({"item": "nothing"}, 404),
        ({"item": ["a"]}, 404),
        ({"view": "other"}, 409),
        ({"view": None}, 409),
        ({"verdict": {"ranks": [1, 2]}}, 422),
        ({"verdict": {"ranks": [9, 9, 9]}}, 422),
        ({"verdict": "best"}, 422),
        ({"seconds": "1"}, 422),
        ({"seconds": 10**400}, 200),  # cut to a day
    ],
)
def test_bad_labels_are_reported_and_not_stored(page, change, status):
    browser = page.entered()
    reply = browser.post("/api/label", json={**label_of(browser), **change}, headers=OWN)
    assert reply.status_code == status
    if status != 200:
        assert reply.json()["error"]
        assert page.store.labels() == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 40_000, "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b'{"annotator": "anna"}', "text/plain", 415),  # what a form of another page could send
        (b'{"annotator": "anna"}', "application/x-www-form-urlencoded", 415),
        (b'{"annotator": "' + b"x" * 70_000 + b'"}', "application/json", 413),
    ],
)
def test_bad_bodies_are_answered_with_4xx(page, content, kind, status):
    browser = page.entered()
    for path in ("/api/label", "/api/undo"):
        reply = browser.post(path, content=content, headers={**OWN, "content-type": kind})
        assert reply.status_code == status
        assert json.loads(reply.content)["error"]
    assert page.store.labels() == []


def test_unknown_paths_and_methods_are_4xx(page):
    browser = page.entered()
    assert browser.get("/api/none").status_code == 404
    assert browser.get("/page.html").status_code == 404
    assert browser.get("/..%2f..%2fannotation_queue.py").status_code == 404
    assert browser.get("/api/label").status_code == 405
    assert browser.delete("/api/state", headers=OWN).status_code == 405


def test_every_answer_carries_the_headers_that_keep_markup_dead(page):
    inside = page.entered()
    for reply in (inside.get("/"), page.browser().get("/"), inside.get("/api/none")):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in reply.headers


def test_a_link_for_one_person_labels_only_as_that_person(tmp_path):
    page = Page(tmp_path / "s", annotators=("Anna", "Ben"))
    assert [annotator for _, annotator in page.links] == ["Anna", "Ben"]
    anna = page.entered(0)
    assert anna.get("/api/state").json()["annotator"] == "Anna"
    assert anna.get("/api/next", params={"annotator": "Ben"}).status_code == 403
    assert anna.post("/api/label", json=label_of(anna, "Anna") | {"annotator": "Ben"}, headers=OWN).status_code == 403
    assert page.store.labels() == []
    assert anna.post("/api/label", json=label_of(anna, "Anna"), headers=OWN).status_code == 200
    page.store.close()


def test_odd_names_and_texts_come_back_as_they_are(tmp_path):
    page = Page(tmp_path / "s")
    browser = page.entered()
    name = 'Zoë <b>"&amp;'
    reply = browser.get("/api/next?annotator=" + urllib.parse.quote(name))
    assert reply.json()["annotator"] == name
    assert reply.headers["content-type"] == "application/json"
    page.store.close()
