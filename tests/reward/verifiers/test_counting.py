"""Words and sentences, against counts by hand."""

import pytest

from reward.verifiers.counting import count_sentences, count_words


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), ("don't", 2), ("3.5 well-known", 4), ("naïve café", 2), ("你好 世界", 2), ("... !", 0), ("a_b", 1)],
)
def test_words_are_runs_of_word_characters(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("!!! ... —", 0),
        ("no mark", 1),
        ("One. two. THREE.", 3),
        ("What?! No... yes. Well… Fine.", 4),  # "No... yes." is one: a small letter follows the ellipsis
        ('He said "Go." Then he left.', 2),
        ("(It rained.) We stayed.", 2),
        ("Mr. Smith met Dr. Jones, Ph.D. They talked.", 2),
        ("Fruit, e.g. Apples, etc. are sold at 5 p.m. daily.", 1),
        ("We met at 5 p.m. Then we ate etc. We left.", 3),
        ("J. R. R. Tolkien lived in the U.K. for long.", 1),
        ("It was I. He left.", 2),
        ("1. Wash the cup.\n2. Dry it.\na. Put it away.", 3),
        ("It was 1999. Nobody came.", 2),
        ("Pi is 3.14. See example.com for more.", 2),
        ("A title\n\nA sentence.", 1),
        ("これは文です。「これも文です。」終わり", 3),
        ("यह एक वाक्य है। यह दूसरा है।", 2),
        ("هل هذا سؤال؟ نعم.", 2),
        ("Hi 😀. Bye!", 2),
    ],
)
def test_sentences_end_at_marks_and_not_at_abbreviations(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences
