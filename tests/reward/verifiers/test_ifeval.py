"""IFEval's columns: what is accepted, and every fault of a row's instructions and arguments."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import ScorerError
from reward.verifiers.ifeval import KINDS, check, instructions

REAL = Path(__file__).parents[4] / "shared" / "data" / "ifeval" / "input_data.jsonl"
WORDS = "length_constraints:number_words"


def test_each_instruction_has_its_own_result() -> None:
    ids = ["punctuation:no_comma", WORDS, "startend:quotation"]
    kwargs: list[dict[str, Any] | None] = [None, {"num_words": 3.0, "relation": "less than", "keyword": None}, {}]
    assert check('"one, two"', ids, kwargs) == [False, True, True]


@pytest.mark.parametrize(
    ("ids", "kwargs", "message"),
    [
        (["punctuation:no_colon"], [{}], "instruction 'punctuation:no_colon' is unknown; the 25 known: keywords:exist"),
        ([None], [{}], "instruction None is unknown"),
        ([WORDS], [{"num_words": 3}], "number_words: argument relation is missing"),
        ([WORDS], [None], "number_words: argument num_words is missing"),
        ([WORDS], [{"num_words": None, "relation": "at least"}], "number_words: argument num_words is missing"),
        (["startend:quotation"], [{"mark": "'"}], "quotation: unknown argument 'mark'; it takes none"),
        ([WORDS], [{"words": 3}], "unknown argument 'words'; it takes num_words, relation"),
        ([WORDS], [{"num_words": "3", "relation": "at least"}], "num_words is '3'; it must be a whole number"),
        ([WORDS], [{"num_words": True, "relation": "at least"}], "num_words is True"),
        ([WORDS], [{"num_words": -1, "relation": "at least"}], "num_words is -1"),
        ([WORDS], [{"num_words": 2.5, "relation": "at least"}], "num_words is 2.5"),
        ([WORDS], [{"num_words": float("inf"), "relation": "at least"}], "num_words is inf"),
        ([WORDS], [{"num_words": 3, "relation": "at most"}], "relation is 'at most'; it must be \"less than\" or"),
        (["keywords:existence"], [{"keywords": "cat"}], "keywords is 'cat'; it must be a list of texts"),
        (["keywords:existence"], [{"keywords": []}], r"keywords is \[\]; it must be a list of texts"),
        (["keywords:existence"], [{"keywords": ["cat", ""]}], "it must be a list of texts that are not empty"),
        (["startend:end_checker"], [{"end_phrase": " "}], "end_phrase is ' '; it must be text that is not empty"),
        (["startend:end_checker"], [{"end_phrase": "x" * 500}] * 2, "1 instructions and 2 kwargs"),
        (["startend:end_checker"], [["Bye"]], r"kwargs is \['Bye'\]; it must be an object"),
        ("startend:quotation", [{}], "instruction_id_list is 'startend:quotation'; it must be a list"),
        (["startend:quotation"], {}, "kwargs is {}; it must be a list"),
        ([], [], "0 instructions and 0 kwargs"),
        (
            ["language:response_language"],
            [{"language": "zh"}],
            "language is 'zh'; it must be a code of langdetect, for example en or zh-cn",
        ),
        (["language:response_language"], [{"language": ["en"]}], "language is"),
        (
            ["keywords:letter_frequency"],
            [{"letter": "ab", "let_frequency": 1, "let_relation": "at least"}],
            "letter is 'ab'; it must be one character",
        ),
        (
            ["length_constraints:nth_paragraph_first_word"],
            [{"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "go"}],
            "nth_paragraph 3 is greater than num_paragraphs 2",
        ),
        (
            ["length_constraints:nth_paragraph_first_word"],
            [{"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "go"}],
            "nth_paragraph is 0; it must be a whole number, 1 or more",
        ),
    ],
)
def test_a_fault_of_a_row_is_one_line_that_names_it(ids: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(ScorerError, match=message) as fault:
        check("answer", ids, kwargs)
    assert "\n" not in str(fault.value)


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(ScorerError) as fault:
        check("answer", ["startend:" + "x" * 10_000], [{}])
    assert len(str(fault.value)) < 1_200  # the list of known types is most of it


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect.detector_factory", None)
    with pytest.raises(ScorerError, match=r"ifeval needs langdetect.*, which is in the extra rewards: pip install"):
        instructions(["language:response_language"], [{"language": "en"}])


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared")
def test_every_row_of_the_published_file_is_accepted() -> None:
    rows = [json.loads(line) for line in REAL.read_text().splitlines()]
    found = [instruction for row in rows for instruction in instructions(row["instruction_id_list"], row["kwargs"])]
    assert (len(rows), len(found)) == (541, 834)  # the paper's numbers of prompts and instructions
    assert {instruction.id for instruction in found} == set(KINDS)
    for row in rows:  # as a columnar file has them: every argument's name in every object
        names = {name for other in rows[:100] for kwargs in other["kwargs"] for name in kwargs}
        filled = [dict.fromkeys(names) | kwargs for kwargs in row["kwargs"]]
        assert instructions(row["instruction_id_list"], filled) == instructions(
            row["instruction_id_list"], row["kwargs"]
        )
