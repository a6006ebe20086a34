"""The reward `ifeval`: which of a row's machine-checkable instructions an answer follows.

The columns are those of IFEval (https://arxiv.org/abs/2311.07911): `instruction_id_list`, and `kwargs` with one object
for each instruction. The results are the paper's strict accuracy per instruction; an empty answer follows none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.errors import ScorerError
from alignment.strict_json import shown
from reward.verifiers import ifeval_checks as checks
from reward.verifiers.language import languages


@dataclass(frozen=True, slots=True)
class Kind:
    """An instruction type: its check, and the keyword arguments that it takes, all of them required."""

    follows: Callable[..., bool]
    arguments: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "keywords:existence": Kind(checks.existence, ("keywords",)),
    "keywords:frequency": Kind(checks.frequency, ("keyword", "frequency", "relation")),
    "keywords:forbidden_words": Kind(checks.forbidden_words, ("forbidden_words",)),
    "keywords:letter_frequency": Kind(checks.letter_frequency, ("letter", "let_frequency", "let_relation")),
    "language:response_language": Kind(checks.response_language, ("language",)),
    "length_constraints:number_sentences": Kind(checks.number_sentences, ("num_sentences", "relation")),
    "length_constraints:number_paragraphs": Kind(checks.number_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": Kind(checks.number_words, ("num_words", "relation")),
    "length_constraints:nth_paragraph_first_word": Kind(
        checks.nth_paragraph_first_word, ("num_paragraphs", "nth_paragraph", "first_word")
    ),
    "detectable_content:number_placeholders": Kind(checks.number_placeholders, ("num_placeholders",)),
    "detectable_content:postscript": Kind(checks.postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": Kind(checks.number_bullet_lists, ("num_bullets",)),
    "detectable_format:constrained_response": Kind(checks.constrained_response),
    "detectable_format:number_highlighted_sections": Kind(checks.number_highlighted_sections, ("num_highlights",)),
    "detectable_format:multiple_sections": Kind(checks.multiple_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": Kind(checks.json_format),
    "detectable_format:title": Kind(checks.title),
    "combination:two_responses": Kind(checks.two_responses),
    "combination:repeat_prompt": Kind(checks.repeat_prompt, ("prompt_to_repeat",)),
    "startend:end_checker": Kind(checks.end_checker, ("end_phrase",)),
    "startend:quotation": Kind(checks.quotation),
    "change_case:capital_word_frequency": Kind(
        checks.capital_word_frequency, ("capital_frequency", "capital_relation")
    ),
    "change_case:english_capital": Kind(checks.english_capital),
    "change_case:english_lowercase": Kind(checks.english_lowercase),
    "punctuation:no_comma": Kind(checks.no_comma),
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One checked instruction of a row."""

    id: str
    arguments: dict[str, Any]

    def follows(self, answer: str) -> bool:
        """Return whether an answer follows the instruction."""
        return bool(answer.strip()) and KINDS[self.id].follows(answer, **self.arguments)


def instructions(instruction_id_list: Sequence[str], kwargs: Sequence[Mapping[str, Any] | None]) -> list[Instruction]:
    """Check the two columns of a row.

    Args:
        kwargs: for each instruction its arguments; null arguments, as columnar files have them, are absent.

    Raises: ScorerError which names an unknown instruction, or an argument that is missing, unknown or of a wrong type.
    """
    for name, column in (("instruction_id_list", instruction_id_list), ("kwargs", kwargs)):
        if isinstance(column, str | bytes) or not isinstance(column, Sequence):
            raise ScorerError(f"ifeval {name} is {shown(column)}; it must be a list.")
    if len(instruction_id_list) != len(kwargs) or not instruction_id_list:
        raise ScorerError(
            f"ifeval has {len(instruction_id_list)} instructions and {len(kwargs)} kwargs; "
            "it needs one of each for every instruction, and at least one."
        )
    return [_instruction(id, arguments) for id, arguments in zip(instruction_id_list, kwargs, strict=True)]


def check(answer: str, instruction_id_list: Sequence[str], kwargs: Sequence[Mapping[str, Any] | None]) -> list[bool]:
    """Return for each instruction of a row whether an answer follows it.

    Raises: ScorerError as in `instructions`.
    """
    return [instruction.follows(answer) for instruction in instructions(instruction_id_list, kwargs)]


def _instruction(id: object, kwargs: Mapping[str, Any] | None) -> Instruction:
    if not isinstance(id, str) or id not in KINDS:
        raise ScorerError(f"ifeval instruction {shown(id)} is unknown; the {len(KINDS)} known: {', '.join(KINDS)}.")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ScorerError(f"ifeval {id}: kwargs is {shown(kwargs)}; it must be an object.")
    given = {name: value for name, value in (kwargs or {}).items() if value is not None}
    wanted = KINDS[id].arguments
    for name in given:
        if name not in wanted:
            takes = f"it takes {', '.join(wanted)}" if wanted else "it takes none"
            raise ScorerError(f"ifeval {id}: unknown argument {shown(name)}; {takes}.")
    for name in wanted:
        if name not in given:
            raise ScorerError(f"ifeval {id}: argument {name} is missing.")
    arguments = {name: _argument(id, name, given[name]) for name in wanted}
    if arguments.get("nth_paragraph", 0) > arguments.get("num_paragraphs", 0):
        raise ScorerError(
            f"ifeval {id}: nth_paragraph {arguments['nth_paragraph']} is greater than num_paragraphs "
            f"{arguments['num_paragraphs']}."
        )
    return Instruction(id, arguments)


def _argument(id: str, name: str, value: Any) -> Any:
    read, rule = _READERS.get(name, (_text, "text that is not empty"))
    try:
        return read(value)
    except (TypeError, ValueError):
        raise ScorerError(f"ifeval {id}: argument {name} is {shown(value)}; it must be {rule}.") from None


def _natural(value: Any) -> int:
    """Return a whole number of 0 or more; a columnar file with nulls may hold it as 3.0."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 0:
        raise ValueError
    return int(value)


def _positive(value: Any) -> int:
    if _natural(value) == 0:
        raise ValueError
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError
    return [_text(part) for part in value]


def _letter(value: Any) -> str:
    if len(_text(value).strip()) != 1:
        raise ValueError
    return str(value).strip()


def _relation(value: Any) -> str:
    if value not in ("less than", "at least"):
        raise ValueError
    return str(value)


def _language(value: Any) -> str:
    if value not in languages():
        raise ValueError
    return str(value)


_NATURAL = (_natural, "a whole number, 0 or more")
_RELATION = (_relation, '"less than" or "at least"')
_TEXTS = (_texts, "a list of texts that are not empty")
_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {  # every other argument is text
    **dict.fromkeys(
        ("frequency", "let_frequency", "num_sentences", "num_words", "num_placeholders", "num_bullets"), _NATURAL
    ),
    **dict.fromkeys(("num_highlights", "num_sections", "num_paragraphs", "capital_frequency"), _NATURAL),
    **dict.fromkeys(("relation", "let_relation", "capital_relation"), _RELATION),
    **dict.fromkeys(("keywords", "forbidden_words"), _TEXTS),
    "nth_paragraph": (_positive, "a whole number, 1 or more"),
    "letter": (_letter, "one character"),
    "language": (_language, "a code of langdetect, for example en or zh-cn"),
}
