"""The Chinese pages have the commands, numbers, code and links of the English ones, section by section."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAIRS = [("README.md", "README.zh-CN.md"), ("docs/index.md", "docs/index.zh-CN.md")]
OTHER = ("README.md", "README.zh-CN.md", "index.md", "index.zh-CN.md", "docs/index.zh-CN.md")  # the other language
CODE = re.compile(r"^ *```.*?^ *```$|(?:^    [^\n]+\n)+", re.MULTILINE | re.DOTALL)  # fenced, or indented
COMMENT = re.compile(r"(?:^|\s)#.*$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"`[^`\n]+`")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def parts(text):
    """What must be equal in one section: code without its comments, inline code, link targets, and other numbers."""
    blocks = []
    for found in CODE.finditer(text):
        lines = (line.strip() for line in COMMENT.sub("", found[0]).splitlines())
        blocks.append([line for line in lines if line])
    prose = CODE.sub("", text)
    links = sorted(link for link in LINK.findall(prose) if link not in OTHER)
    prose = LINK.sub("]", prose)
    inline = sorted(INLINE.findall(prose))
    return {
        "code": blocks,
        "inline code": inline,
        "links": links,
        "numbers": sorted(NUMBER.findall(INLINE.sub("", prose))),
    }


def sections(page):
    """The sections of a page, code blocks kept whole: a `#` in code begins none."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.split(r"^## .*$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_chinese_page_has_what_the_english_page_has(english, chinese):
    ours, theirs = sections(english), sections(chinese)
    assert len(ours) == len(theirs)
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        mine, found = parts(one), parts(other)
        for kind in mine:
            assert found[kind] == mine[kind], f"section {number} of {chinese}: {kind}"


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_each_page_leads_to_the_other_language(english, chinese):
    for page, other in ((english, chinese), (chinese, english)):
        assert f"]({Path(other).name})" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("numbers", "71.8", "71.9"),
        ("inline code", "`alignment audit`", "`alignment audits`"),
        ("links", "(docs/tuning.md)", "(docs/dpo.md)"),
        ("code", "alignment report runs/my", "alignment report runs/mine"),
        ("code", "learning_rate: 2e-4", "learning_rate: 2e-5"),
    ],
)
def test_a_change_of_one_page_is_seen(kind, before, after):
    text = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert before in text
    assert parts(text.replace(before, after, 1))[kind] != parts(text)[kind]
