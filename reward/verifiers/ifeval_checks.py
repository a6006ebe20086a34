r"""The 25 instruction types of IFEval (https://arxiv.org/abs/2311.07911, table 1), one function each.

Each function returns whether a text that is not empty follows one instruction. The rules are those of
google-research/instruction_following_eval, so that strict accuracy is comparable, with these differences:

- Keywords, section marks and postscript marks are plain text. There they are regular expressions without escapes.
- `response_language`: a text without letters violates it. There a text whose language cannot be detected follows it.
- `english_capital`: the language is that of the text in lower case, because langdetect ignores words in capitals.
- `json_format`: strict JSON; a key twice in one object, NaN and Infinity violate it.
- `end_checker`: a phrase that ends with a quotation mark can match; there it cannot.
- `number_sentences`, `capital_word_frequency`: `reward.verifiers.counting` and a regular expression, not NLTK. A word
  in capitals with an apostrophe ("DON'T") counts once, there twice.
"""

import re

from alignment.errors import JsonError
from alignment.strict_json import parse
from reward.verifiers.counting import count_sentences, count_words
from reward.verifiers.language import language_of

_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*\*\*")
_PLACEHOLDER = re.compile(r"\[[^\]\n]*\]")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_TOKEN = re.compile(r"\w+(?:[-./&'’]\w+)*")
_FIRST_WORD_ENDS = re.compile(r"""[.,?!'"]""")
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


def compare(count: int, relation: str, threshold: int) -> bool:
    """Return whether a count satisfies a relation: "less than" or "at least" the threshold."""
    return count < threshold if relation == "less than" else count >= threshold


def existence(answer: str, *, keywords: list[str]) -> bool:
    """Every keyword occurs, in upper or lower case, also inside longer words."""
    return all(_occurrences(keyword, answer) for keyword in keywords)


def frequency(answer: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs often or seldom enough, also inside longer words."""
    return compare(_occurrences(keyword.strip(), answer), relation, frequency)


def forbidden_words(answer: str, *, forbidden_words: list[str]) -> bool:
    """None of the words occurs as a whole word."""
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(answer: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter, in upper and lower case, occurs often or seldom enough."""
    return compare(answer.lower().count(letter.lower()), let_relation, let_frequency)


def response_language(answer: str, *, language: str) -> bool:
    """The text is in a language, by its code in langdetect."""
    return language_of(answer) == language


def number_sentences(answer: str, *, num_sentences: int, relation: str) -> bool:
    """The text has enough or few enough sentences."""
    return compare(count_sentences(answer), relation, num_sentences)


def number_paragraphs(answer: str, *, num_paragraphs: int) -> bool:
    """The text has exactly so many paragraphs, divided by `***`; none between two dividers is empty."""
    paragraphs = [part.strip() for part in _DIVIDER.split(answer)]
    return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == num_paragraphs


def number_words(answer: str, *, num_words: int, relation: str) -> bool:
    """The text has enough or few enough words."""
    return compare(count_words(answer), relation, num_words)


def nth_paragraph_first_word(answer: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """The text has exactly so many paragraphs, divided by blank lines, and the n-th begins with a word."""
    paragraphs = [part.strip() for part in answer.split("\n\n")]
    filled = sum(map(bool, paragraphs))
    if nth_paragraph > filled or not paragraphs[nth_paragraph - 1]:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return filled == num_paragraphs and _FIRST_WORD_ENDS.split(word)[0].lower() == first_word.lower()


def number_placeholders(answer: str, *, num_placeholders: int) -> bool:
    """The text has at least so many placeholders in square brackets."""
    return len(_PLACEHOLDER.findall(answer)) >= num_placeholders


def postscript(answer: str, *, postscript_marker: str) -> bool:
    """The text has a postscript: "P.S." and "P.P.S" also with spaces between the letters."""
    pattern = _POSTSCRIPTS.get(postscript_marker.strip(), re.escape(postscript_marker.strip()))
    return re.search(pattern, answer, re.IGNORECASE) is not None


def number_bullet_lists(answer: str, *, num_bullets: int) -> bool:
    """Exactly so many lines begin with `* ` or `-`; a line of hyphens counts too."""
    lines = [line.strip() for line in answer.split("\n")]
    return sum(line.startswith(("*", "-")) and not line.startswith("**") for line in lines) == num_bullets


def constrained_response(answer: str) -> bool:
    """The text contains one of the three allowed answers."""
    return any(option in answer for option in _ANSWERS)


def number_highlighted_sections(answer: str, *, num_highlights: int) -> bool:
    """At least so many parts of one line stand between `*` or between `**`."""
    single = sum(bool(part.strip("*").strip()) for part in _HIGHLIGHT.findall(answer))
    double = sum(bool(part[2:-2].strip()) for part in _DOUBLE_HIGHLIGHT.findall(answer))
    return single + double >= num_highlights


def multiple_sections(answer: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections begin with the mark and a number. IFEval spells the argument so."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", answer)) >= num_sections


def json_format(answer: str) -> bool:
    """The whole text is JSON, perhaps inside one Markdown fence."""
    text = answer.strip()
    for opening in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(opening)
    try:
        parse(text.removesuffix("```").strip())
    except JsonError:
        return False
    return True


def title(answer: str) -> bool:
    """A line contains a title between `<<` and `>>`."""
    for line in answer.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start and start + 2 < end and line[start:end].strip("<> \t"):
            return True
    return False


def two_responses(answer: str) -> bool:
    """The text is two different responses with `******` between them."""
    responses = [part.strip() for part in answer.split("******")]
    filled = [part for part in responses if part]
    return all(responses[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    """The text begins with the request, in upper or lower case."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(answer: str, *, end_phrase: str) -> bool:
    """The text ends with a phrase, in upper or lower case; quotation marks around the text do not count."""
    text, phrase = answer.strip().lower(), end_phrase.strip().lower()
    return text.endswith(phrase) or text.strip('"').endswith(phrase)


def quotation(answer: str) -> bool:
    """The whole text stands between double quotation marks."""
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def capital_word_frequency(answer: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Enough or few enough words are in capitals; a word with hyphens counts once."""
    return compare(sum(map(str.isupper, _TOKEN.findall(answer))), capital_relation, capital_frequency)


def english_capital(answer: str) -> bool:
    """The text is English without lower-case letters."""
    return answer.isupper() and language_of(answer.lower()) == "en"


def english_lowercase(answer: str) -> bool:
    """The text is English without capital letters."""
    return answer.islower() and language_of(answer) == "en"


def no_comma(answer: str) -> bool:
    """The text has no comma."""
    return "," not in answer


def _occurrences(keyword: str, text: str) -> int:
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))
