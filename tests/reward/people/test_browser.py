"""The page in a real browser: what a person sees and presses is what is stored."""

import contextlib
import json
import socket
import sqlite3
import time

import pytest

from tests.reward.people.browser import annotating, open_browser

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>bold</b>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def write_items(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(number, bad="bad"):
    return {
        "prompt": [{"role": "user", "content": f"Question {number} {MARKUP}"}],
        "responses": [f"good {number}", f"{bad} {number}"],
        "pairs": [{"first": 0, "second": 1, "probability": 0.125, "status": "ok"}],
        "provenance": {"judge": "judge-that-must-not-show", "prompt_hash": "f00"},
    }


class Person:
    """Someone at the page."""

    def __init__(self, browser):
        self.browser = browser

    def find(self, css):
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def enter(self, link, name=None):
        self.browser.get(link)
        self.wait(lambda: self.browser.current_url.endswith("/") and self.find("#welcome").is_displayed())
        if name is not None:
            self.find("#name").send_keys(name)
        self.find("#welcome button").click()
        self.settle()

    def settle(self):
        self.wait(lambda: self.browser.execute_script("return !busy") and not self.find("#welcome").is_displayed())

    def wait(self, condition):
        WebDriverWait(self.browser, 20, 0.02).until(lambda _: condition())

    def press(self, *keys):
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)
            self.settle()

    def answers(self):
        return [block.text for block in self.browser.find_elements(By.CSS_SELECTOR, ".answer > .text")]

    def prompt(self):
        return self.find("#prompt .text").text

    def count(self):
        return self.find("#count").text

    def prefer(self, start):
        """Press the number of the answer that begins so."""
        self.press(str(next(n for n, text in enumerate(self.answers(), 1) if text.startswith(start))))


@pytest.fixture
def person(browser):
    yield Person(browser)
    answered = ("status of 4", "ERR_CONNECTION_REFUSED")  # by the server, or by its absence
    log = [entry for entry in browser.get_log("browser") if not any(word in entry["message"] for word in answered)]
    assert log == []  # neither an error of the script nor a breach of the content policy


def test_pairs_are_picked_by_key_and_stored_as_seen(tmp_path, person):
    source = write_items(tmp_path / "pairs.jsonl", [pair(number) for number in range(6)])
    with annotating(source) as running:
        person.enter(running.link(), "Anna")
        assert person.count() == "0 of 6"
        said = {}
        for how in ("good", "bad", "=", "x"):
            said[person.prompt()] = how
            person.press(how) if len(how) == 1 else person.prefer(how)
        assert person.count() == "4 of 6"
        put_off = person.prompt()
        person.press("s")
        assert person.prompt() != put_off
        said[person.prompt()] = "good"
        person.prefer("good")
        assert person.prompt() == put_off  # it comes again at the end
        said[put_off] = "good"
        person.prefer("good")
        assert person.find("#done").is_displayed()
        assert running.end() == 0
    assert "Traceback" not in "\n".join(running.seen)
    rows = [json.loads(line) for line in (tmp_path / "pairs.people.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    shown = set()
    expected = {"good": (1.0, "ok"), "bad": (0.0, "ok"), "=": (0.5, "tie"), "x": (None, "abstain")}
    for row in rows:
        (found,) = row["pairs"]
        assert (found["probability"], found["status"]) == expected[said[row["prompt"][0]["content"]]]
        assert (row["provenance"]["source"], row["provenance"]["annotator"]) == ("person", "Anna")
        assert 0 < row["provenance"]["seconds"] < 60
        assert "judge-that-must-not-show" not in json.dumps(row)
        shown.add(found["verdicts"][0]["shown"])
    assert shown == {"first", "swapped"}


def test_answers_are_text_and_never_markup(tmp_path, person):
    source = write_items(tmp_path / "pairs.jsonl", [pair(number, bad=MARKUP) for number in range(2)])
    guidelines = tmp_path / "guide.md"
    guidelines.write_text(f"Be fair. {MARKUP}")
    with annotating(source, "--guidelines", str(guidelines)) as running:
        person.browser.get(running.link())
        person.wait(lambda: person.find("#welcome-guidelines").is_displayed())
        assert person.find("#welcome-guidelines").text == f"Be fair. {MARKUP}"
        person.find("#name").send_keys(MARKUP[:40])
        person.find("#welcome button").click()
        person.settle()
        assert f"{MARKUP} 0" in person.answers() + [text.replace("1", "0") for text in person.answers()]
        assert MARKUP in person.prompt()
        assert person.browser.title == "Annotate"
        assert person.browser.execute_script("return document.querySelectorAll('img, b, body script').length") == 0
        assert "judge-that-must-not-show" not in person.browser.page_source
        person.find("#show-guidelines").click()
        assert person.find("#guidelines-text").text == f"Be fair. {MARKUP}"


def test_several_answers_are_ranked_by_keys_and_by_mouse(tmp_path, person):
    rows = [{"prompt": f"Q{n}", "responses": [f"{c} {n}" for c in "abcd"], "ranks": [1, 2, 3, 4]} for n in range(2)]
    with annotating(write_items(tmp_path / "ranks.jsonl", rows)) as running:
        person.enter(running.link(), "Anna")
        by_key = person.prompt()
        assert not person.find("#submit").is_enabled()
        place = {text[0]: str(number) for number, text in enumerate(person.answers(), 1)}
        # c is best, then a and d equal, then b; a slip is taken back on the way
        person.press(place["c"], place["b"], Keys.BACKSPACE, place["a"], "=", place["d"], place["b"])
        marks = person.browser.find_elements(By.CLASS_NAME, "place")
        marks = {text[0]: mark.text for text, mark in zip(person.answers(), marks, strict=True)}
        assert marks == {"c": "1st", "a": "2nd", "d": "2nd", "b": "4th"}
        person.press(Keys.ENTER)
        assert person.prompt() != by_key
        for number, text in enumerate(person.answers()):
            rank = "bdac".index(text[0]) + 1
            person.find(f"input[name=rank-{number}][value='{rank}']").click()
        person.find("#submit").click()
        person.wait(lambda: person.find("#done").is_displayed())
        assert running.end() == 0
    found = {row["prompt"]: row for row in map(json.loads, (tmp_path / "ranks.people.jsonl").read_text().splitlines())}
    by_mouse = next(prompt for prompt in found if prompt != by_key)
    # pairs in the order ab ac ad bc bd cd
    assert [p["probability"] for p in found[by_key]["pairs"]] == [1.0, 0.0, 0.5, 0.0, 0.0, 1.0]
    assert [p["probability"] for p in found[by_mouse]["pairs"]] == [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]


def test_undo_and_previous_change_the_label(tmp_path, person):
    source = write_items(tmp_path / "pairs.jsonl", [pair(number) for number in range(3)])
    with annotating(source) as running:
        person.enter(running.link(), "Anna")
        first = person.prompt()
        person.prefer("good")
        person.press("u")
        assert (person.prompt(), person.count()) == (first, "0 of 3")
        person.prefer("bad")
        second = person.prompt()
        person.prefer("bad")
        third = person.prompt()
        person.press("p", "p")
        assert person.prompt() == first
        assert "answer" in person.find("#changed").text
        marked = person.find(".answer.marked .text").text
        assert marked.startswith("bad")
        person.press("n")
        assert person.prompt() == third
        person.press("p")
        assert person.prompt() == second
        person.press("=")
        assert (person.prompt(), person.count()) == (third, "2 of 3")
        person.browser.refresh()
        person.settle()
        assert (person.prompt(), person.count()) == (third, "2 of 3")
        assert running.end() == 0
    rows = [json.loads(line) for line in (tmp_path / "pairs.people.jsonl").read_text().splitlines()]
    assert {row["prompt"][0]["content"]: row["pairs"][0]["probability"] for row in rows} == {first: 0.0, second: 0.5}


def test_a_double_click_and_a_held_key_are_one_label(tmp_path, person):
    from selenium.webdriver.common.action_chains import ActionChains

    source = write_items(tmp_path / "pairs.jsonl", [pair(number) for number in range(4)])
    with annotating(source) as running:
        person.enter(running.link(), "Anna")
        ActionChains(person.browser).double_click(person.find("#first")).perform()
        time.sleep(0.5)
        assert person.count() == "1 of 4"
        held = {"type": "keyDown", "key": "1", "text": "1", "code": "Digit1", "windowsVirtualKeyCode": 49}
        person.browser.execute_cdp_cmd("Input.dispatchKeyEvent", held)
        for _ in range(5):
            person.browser.execute_cdp_cmd("Input.dispatchKeyEvent", {**held, "autoRepeat": True})
        time.sleep(0.5)
        assert person.count() == "2 of 4"
        person.find("#show-keys").click()
        person.press("1")  # the dialog has the keys now
        person.find("#use-keys").click()
        person.find("#keys button").click()
        person.press("1")
        assert person.count() == "2 of 4"  # shortcuts are off


def test_sigkill_loses_nothing_that_was_confirmed_and_the_same_command_goes_on(tmp_path, person):
    source = write_items(tmp_path / "pairs.jsonl", [pair(number) for number in range(5)])
    with annotating(source) as running:
        person.enter(running.link(), "Anna")
        said = []
        for _ in range(3):
            said.append(person.prompt())
            person.prefer("good")
        waiting = person.prompt()
        running.end(9)
        person.browser.switch_to.active_element.send_keys("1")
        person.wait(lambda: person.find("#problem").is_displayed())
        assert "Nothing was saved" in person.find("#problem").text
    with annotating(source) as running:
        person.enter(running.link(), "anna")
        assert (person.count(), person.prompt()) == ("3 of 5", waiting)
        running.end(9)
    done = sqlite3.connect(tmp_path / "pairs.calls.sqlite").execute("SELECT count(*) FROM people").fetchone()
    assert done == (3,)


def test_links_by_name_share_the_items_between_people(tmp_path, person):
    source = write_items(tmp_path / "pairs.jsonl", [pair(number) for number in range(4)])
    options = ("--annotator", "Anna", "--annotator", "Ben", "--overlap", "0.5")
    with annotating(source, *options) as running:
        links = [running.link(), running.link()]
        for link, name in zip(links, ("Anna", "Ben"), strict=True):
            person.enter(link)
            assert person.find("#who").text == name
            while person.find("#work").is_displayed():
                person.prefer("good")
        assert running.end() == 0
    rows = [json.loads(line) for line in (tmp_path / "pairs.people.jsonl").read_text().splitlines()]
    by_person = {name: sum(row["provenance"]["annotator"] == name for row in rows) for name in ("Anna", "Ben")}
    assert by_person == {"Anna": 4, "Ben": 2}  # Anna took all there was; of the shared half Ben was asked too


def test_the_page_works_at_phone_width_and_its_controls_have_names(tmp_path, person):
    answers = [f"{letter} " * 300 + "x" * 500 for letter in "abc"]
    rows = [{"prompt": "Q " + "long " * 200, "responses": answers, "ranks": [1, 2, 3]}]
    with annotating(write_items(tmp_path / "r.jsonl", rows)) as running:
        person.enter(running.link(), "Anna")
        try:
            for dark in ("dark", "light"):
                metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
                person.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
                media = {"features": [{"name": "prefers-color-scheme", "value": dark}]}
                person.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
                time.sleep(0.3)  # colours change in a tenth of a second
                wide = person.browser.execute_script("return document.documentElement.scrollWidth")
                assert wide <= 360
                assert contrast_faults(person.browser) == []
            names = person.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
            roles = ("button", "radio", "checkbox", "textbox", "progressbar")
            controls = [node for node in names if not node["ignored"] and node["role"]["value"] in roles]
            assert len(controls) > 12
            assert [node for node in controls if not node.get("name", {}).get("value")] == []
            assert person.browser.switch_to.active_element.get_attribute("id") == "task"
        finally:
            person.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def contrast_faults(browser):
    """Texts whose contrast to what lies behind them is below WCAG's 4.5 to 1 (disabled controls are exempt)."""
    return browser.execute_script(
        """
        const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const parse = (c) => c.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
        const behind = (node) => {
          for (; node; node = node.parentElement) {
            const colour = parse(getComputedStyle(node).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
          }
          return parse(getComputedStyle(document.body).backgroundColor);
        };
        const faults = [];
        for (const node of document.querySelectorAll('body *')) {
          const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
          if (!own || !node.checkVisibility() || node.closest(':disabled')) continue;
          const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
          const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (ratio < 4.5) faults.push([node.outerHTML.slice(0, 80), ratio]);
        }
        return faults;
        """
    )


def test_the_page_loads_and_saves_while_hundreds_of_connections_ask_nothing(tmp_path, person):
    source = write_items(tmp_path / "pairs.jsonl", [pair(number) for number in range(3)])
    with annotating(source) as running, contextlib.ExitStack() as held:
        link = running.link()
        address = ("127.0.0.1", int(link.rpartition(":")[2].partition("/")[0]))
        wires = [held.enter_context(socket.create_connection(address)) for _ in range(600)]
        for number, wire in enumerate(wires):
            with contextlib.suppress(OSError):
                wire.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n"[: number % 20])
        began = time.monotonic()
        person.enter(link, "Anna")
        loaded = time.monotonic() - began
        person.prefer("good")
        assert person.count() == "1 of 3"
        saved = time.monotonic() - began - loaded
        assert max(loaded, saved) < 20  # a page that is starved never comes; this machine may be slow
        assert running.end() == 0
    assert not any("Traceback" in line or "ERROR" in line for line in running.seen)
    print(f"loaded in {loaded:.2f} s, saved in {saved:.2f} s")  # noqa: T201


def test_single_answers_are_found_good_or_bad(tmp_path, person):
    source = write_items(tmp_path / "pairs.jsonl", [pair(number) for number in range(2)])
    with annotating(source, "--ask", "thumbs") as running:
        person.enter(running.link(), "Anna")
        assert person.count() == "0 of 4"
        said = {}
        for key in ("1", "2", "x", "1"):
            (text,) = person.answers()
            assert person.find("#task").text == "Is this answer good?"
            said[text] = key
            person.press(key)
        person.find("#done-back").click()
        person.settle()
        assert person.find("#changed").text == "You said: good. A new choice replaces it."
        (text,) = person.answers()
        said[text] = "2"
        person.find("#bad").click()
        person.settle()
        assert running.end() == 0
    rows = [json.loads(line) for line in (tmp_path / "pairs.thumbs.jsonl").read_text().splitlines()]
    labels = {"1": True, "2": False}
    assert {row["completion"]: row["label"] for row in rows} == {
        text: labels[key] for text, key in said.items() if key in labels
    }
