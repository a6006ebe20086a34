"""Language detection: the same in every call, and no change of langdetect's own settings."""

import langdetect
import pytest

from reward.verifiers import language
from reward.verifiers.language import language_of, languages

SHORT = ["i ist der y", "es di casa", "ist non un", "in di und", "on y est es", "und o en der"]  # ambiguous


def test_one_text_has_one_language() -> None:
    found = [[language_of(text) for text in SHORT] for _ in range(8)]
    assert all(each == found[0] for each in found)


def test_the_seed_is_what_fixes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language._factory(), "seed", None)
    found = [[language_of(text) for text in SHORT] for _ in range(8)]
    assert any(each != found[0] for each in found)


def test_the_packages_own_factory_keeps_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langdetect.DetectorFactory, "seed", 7)  # lm-eval sets one as it is imported
    language._loaded.cache_clear()
    language_of("hello world")
    assert langdetect.DetectorFactory.seed == 7


def test_text_without_letters_has_no_language() -> None:
    assert [language_of(text) for text in ("", "123 !!!", "😀")] == [None, None, None]


def test_the_codes_are_those_that_detection_returns() -> None:
    assert {"en", "zh-cn", "zh-tw", "pa"} <= languages()
    assert language_of("你好世界，这是一个测试") in languages()
    assert "__init__.py" not in languages()
