"""The page of a preview: one file, nothing of the data is markup."""

import html.parser
import re
import shutil
import subprocess

import pytest

from alignment.cli.stages import preview_reader
from alignment.preview.command import preview
from alignment.preview.page import write_page

HOSTILE = "<script>alert(1)</script><b>x</b>\x1b[31m\u202e"


class Texts(html.parser.HTMLParser):
    """Collects the text of elements by class."""

    def __init__(self):
        super().__init__()
        self.open: list[set[str]] = []
        self.found: dict[str, list[str]] = {}
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(set((dict(attrs).get("class") or "").split()))

    def handle_endtag(self, tag):
        if tag not in ("meta", "br"):
            self.open.pop()

    def handle_data(self, data):
        for name in set().union(*self.open):
            self.found.setdefault(name, []).append(data)


@pytest.fixture
def page(recipe, tmp_path):
    def make(stage, rows, **keys):
        found = preview(recipe(stage, rows, **keys), [], None, preview_reader)
        out = tmp_path / "page.html"
        write_page(out, "r.yaml", found.stage, found.rows, found.tokenizer, found.stops)
        parser = Texts()
        parser.feed(out.read_text(encoding="utf-8"))
        return out, parser

    return make


def test_trained_tokens_are_marked_and_the_data_is_escaped(page):
    rows = [{"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": "No.\nNever"}]}]
    out, found = page("sft", rows)
    assert "".join(found.found["trained"]).endswith("No.\nNever<|im_end|>")
    assert found.found["stop"][-1] == "<|im_end|>"
    assert "<script>alert(1)</script><b>x</b>\\x1b[31m\\u202e" in "".join(found.found["tokens"])
    assert {"script", "b"} & found.tags <= {"b"}
    text = out.read_text(encoding="utf-8")
    assert "<b>x</b>" not in text
    assert re.findall(r"(?:src|href)=", text) == []


def test_a_pair_shows_its_prompt_once(page):
    _, found = page("dpo", [{"prompt": "Name a cat.", "chosen": "Tom", "rejected": "I will not"}])
    text = "".join(found.found["sequence"])
    assert text.count("Name a cat.") == 1
    assert "Tom" in text
    assert "I will not" in text


def test_cut_tokens_and_skipped_rows_are_on_the_page(page):
    rows = [
        {"prompt": "a", "completion": ""},
        {"prompt": "ab", "completion": "cdefgh"},
        {"prompt": "a", "completion": "b"},
    ]
    _, found = page("sft", rows, max_length=5, on_bad_row="skip")
    assert "<|im_end|>" in "".join(found.found["cut"])
    assert "data.jsonl:1: 'completion' is empty" in "".join(found.found["problem"])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_shows_no_text_wider_than_the_page(page, tmp_path):
    rows = [{"prompt": "w" * 120, "completion": "answer " * 20}, {"prompt": "a", "completion": "b"}]
    out, _ = page("sft", rows, max_length=256)
    probe = out.read_text(encoding="utf-8").replace("default-src 'none';", "script-src 'unsafe-inline';")
    script = "<script>document.title=document.documentElement.scrollWidth<=innerWidth?'fits':'wide'</script></body>"
    out.write_text(probe.replace("</body>", script), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=600,900", "--dump-dom", f"file://{out}"]
    done = subprocess.run(["chromium", *words], capture_output=True, text=True, timeout=120, check=False)
    assert "<title>fits</title>" in done.stdout
