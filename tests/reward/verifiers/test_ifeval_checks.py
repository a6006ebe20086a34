"""Every instruction type of IFEval with answers that follow it and answers that violate it."""

from typing import Any

import pytest

from reward.verifiers.ifeval import KINDS, check

LEAST, LESS = "at least", "less than"
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [  # id, kwargs, following, violating
    (
        "keywords:existence",
        {"keywords": ["cat", "C++"]},
        ["A CAT wrote C++.", "concatenate in c++", "```\ncat main.c++\n```"],
        ["A cat wrote C.", "C++ only", "c a t, C + +"],
    ),
    (
        "keywords:frequency",
        {"keyword": "ja", "frequency": 2, "relation": LEAST},
        ["ja ja", "Jaja!", "ja\nJA"],
        ["ja", "nein", "j a j a"],
    ),
    (
        "keywords:frequency",
        {"keyword": " été ", "frequency": 2, "relation": LESS},
        ["un été", "rien", "Été"],
        ["été été", "l'été, un ÉTÉ et un été"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["ride", "C++", "naïve"]},
        ["a bride rides", "C+ is fine", "naïveté"],
        ["Ride on", "I like C++.", "so NAÏVE"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "Q", "let_frequency": 2, "let_relation": LEAST},
        ["q Q", "quick quack"],
        ["q", "no such letter"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": LESS},
        ["# Title", "none"],
        ["## Title", "# a # b"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Der Hund schläft heute unter dem alten Tisch.", "Ich weiß es leider nicht, aber wir fragen morgen."],
        ["The dog sleeps under the old table today.", "12345 !!!", "Le chien dort sous la vieille table."],
    ),
    (
        "language:response_language",
        {"language": "hi"},
        ["यह एक छोटा सा वाक्य है जो हिंदी में लिखा गया है।", "मुझे आज बहुत काम है।"],
        ["This is not Hindi at all.", "…"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": LEAST},
        ["One. Two! Three?", "Dr. Who came. He sat. He left.", "First one.\n\nSecond one.\nThird one"],
        ["One. Two.", "1. Wash the cup.\n2. Dry it.", "Mr. A. B. Clark met Dr. Who. ... !!!"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": LESS},
        ["Only one.", "Pi is 3.14 e.g. in school", "no mark at all"],
        ["One. Two.", "これは文です。これも文です。"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "***\none\n***\ntwo\n***", "one *** two"],
        ["one\n\ntwo", "one\n***\n\n***\ntwo", "one\n***\ntwo\n***\nthree"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": LEAST},
        ["one two three four", "don't don't", "a-b-c-d"],
        ["one two three", "... --- !!!"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": LESS},
        ["one two", "straße"],
        ["один два три", "one two three"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weekend"},
        ["First.\n\nWeekend! At last.", 'One\n\n"weekend" it is', "One\n\nweekend's end\n\n"],
        ["Weekend.\n\nSecond.", "One\n\nWeekend\n\nThree", "One\n\nweekends", "One\n\n\n\nWeekend"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] at [address]", "[a][b][c]"],
        ["[name]", "[name] at [the\nbank]", "no brackets"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S. One more", "p. p. s one", "P.P.S"],
        ["P.S. One", "PPS one", "Bye."],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. One more", "p. s. one"],
        ["Bye. P.S one", "ps. one"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* one\n* two", "- one\n text\n  * two", "Intro\n\n- a\n- b\n**bold**"],
        ["* one", "* one\n* two\n- three", "1. one\n2. two", "** one\n** two"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe. "],
        ["my answer is yes.", "My answer is yes", "Yes."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*one* and *two*", "**one** and **two**", "*one* **two**"],
        ["*one*", "**one**", "** ** * *", "*one\ntwo*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\na\nSECTION 2\nb", "SECTION1 a SECTION2 b SECTION 3"],
        ["SECTION 1\na", "Section 1\na\nSection 2\nb", "SECTION one SECTION two"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', "```json\n[1, 2]\n```", "```\n3\n```"],
        ["{'a': 1}", 'Here: {"a": 1}', "[" * 5000, '{"a": NaN}', "```json\n```"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<poem of joy>>\nRoses", "A <<b>> c", "<<Ода>>"],
        ["<poem>", "<<>>", "<< >>", "<<poem\nof joy>>", "<<" * 20_000],
    ),
    (
        "combination:two_responses",
        {},
        ["one******two", "******\none\n******\ntwo\n******"],
        ["one", "one******one ", "a******b******c", "one****** ******two"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Write a poem. "},
        ["Write a poem. Roses", "\nwrite a POEM. Roses"],
        ["Sure! Write a poem.", "Write a  poem.", "```\nWrite a poem.\n```"],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Any questions?"},
        ["Bye. any questions?", '"Bye. Any questions?"', "Any questions? \n"],
        ["Any questions? No.", "Any questions", "*Any questions?*"],
    ),
    ("startend:end_checker", {"end_phrase": 'He said "no"'}, ['He said "no"', 'he said "no" '], ['"no"', "He said no"]),
    (
        "startend:quotation",
        {},
        ['"Hi."', ' "a" and "b" \n', '""'],
        ["Hi.", '"Hi.', '"', "“Hi.”"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": LEAST},
        ["GO NOW", "WELL-KNOWN ÉTÉ", "I am OK"],
        ["GO now", "WELL-KNOWN", "Go Now", "1 2"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 1, "capital_relation": LESS},
        ["none here", "Mixed Case"],
        ["ONE", "DON'T"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THE CAT SAT ON THE MAT AND SLEPT.", "HELLO WORLD, HOW ARE YOU TODAY?"],
        ["The cat sat on the mat and slept.", "DER HUND SCHLÄFT UNTER DEM ALTEN TISCH.", "123"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["the cat sat on the mat and slept.", "hello world, how are you today?"],
        ["The cat sat on the mat.", "der hund schläft unter dem alten tisch.", "123"],
    ),
    ("punctuation:no_comma", {}, ["No such mark; none.", "a、b"], ["Well, no.", "1,000"]),
]


@pytest.mark.parametrize(("id", "kwargs", "following", "violating"), CASES)
def test_a_check_separates_answers_that_follow_from_answers_that_violate(
    id: str, kwargs: dict[str, Any], following: list[str], violating: list[str]
) -> None:
    assert len(following) >= 2
    assert len(violating) >= 2
    assert [answer for answer in following if check(answer, [id], [kwargs]) != [True]] == []
    assert [answer for answer in ["", " \n", *violating] if check(answer, [id], [kwargs]) != [False]] == []


def test_every_instruction_type_has_cases() -> None:
    assert {case[0] for case in CASES} == set(KINDS)
    assert len(KINDS) == 25
