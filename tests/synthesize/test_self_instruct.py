"""What Self-Instruct reads of replies, and what it leaves out."""

import pytest

from alignment.config.schema.synthesize import SelfInstructEntry
from alignment.synthesize.evol_instruct import read_equal, why_eliminated
from alignment.synthesize.magpie import first_line
from alignment.synthesize.replies import read_examples, read_labelled, read_list, read_yes_or_no, why_nothing
from alignment.synthesize.self_instruct import prompt_of, why_invalid, why_left_out
from alignment.synthesize.writing import Written

METHOD = SelfInstructEntry(kind="self_instruct")


def reply(text: str, status: str = "ok") -> Written:
    return Written(text, status, text, "key")


def test_a_prompt_lists_its_examples_and_requests_the_next_eight():
    prompt = prompt_of(["Do  this:", "and\nthat."])
    assert "\n1. Do this\n2. and that.\n" in prompt
    assert "8 new tasks, numbered 3 to 10" in prompt


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9. name a Star\n10. Count\nto ten.", ["Name a Star", "Count to ten."]),
        ("Here they are:\n\n**9.** Name one.\n\n  10) Name two.", ["Name one.", "Name two."]),
        ("I would rather not.", []),
        ("9. \n10. ", []),
    ],
)
def test_a_numbered_list_is_read(text, found):
    assert read_list(reply(text)) == found


def test_a_list_that_was_cut_off_gives_nothing():
    assert read_list(reply("9. Name a star.", "truncated")) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Name a star", "too short"),
        ("Name a bright star", None),
        (" ".join(["word"] * 150), None),
        (" ".join(["word"] * 151), "too long"),
        ("Describe the Picture below in detail", "keyword"),
        ("Describe the picturesque town in detail", None),
        ("Please go to the shop and buy bread", "keyword"),
        ("Write a program that adds two numbers", "program"),
        ("Please write a program that adds numbers", None),
        ("- name a bright star", "punctuation"),
        ("Übersetze den Satz ins Englische", "not English"),
    ],
)
def test_the_filters_are_those_of_the_paper(text, reason):
    assert why_left_out(text, METHOD) == reason


def test_other_scripts_pass_if_they_may():
    text = "Übersetze den Satz ins Englische"
    assert why_left_out(text, METHOD.model_copy(update={"english_only": False})) is None


@pytest.mark.parametrize(
    ("text", "status", "found"),
    [
        ("Yes", "ok", True),
        ("**no**, because", "truncated", False),
        ("Nothing of the kind", "ok", None),
        ("It is.", "ok", None),
        ("yes", "api_error", None),
    ],
)
def test_yes_and_no_are_read(text, status, found):
    assert read_yes_or_no(reply(text, status)) is found


def test_examples_are_read_input_first():
    text = "Example 1\nInput: a\nb\nOutput: c\nExample 2.\nOutput: d\nInput: another\n**Example 3:**\n**Output:** e"
    assert list(read_examples(text)) == [("a\nb", "c"), ("", "d"), ("", "e")]
    assert list(read_examples("Input: an Example of it\nOutput: x")) == [("an Example of it", "x")]
    assert list(read_examples("What a nice task.")) == []


def test_examples_are_read_output_first():
    text = "Class label: Good\nText: fine\nand dandy\nClass label: Bad"
    assert list(read_labelled(text)) == [("Text: fine\nand dandy", "Good"), ("", "Bad")]
    assert list(read_labelled("The class label: good")) == []


@pytest.mark.parametrize(
    ("given", "output", "reason"),
    [
        ("a", "b", None),
        ("", "b", None),
        ("a", "", "no output"),
        ("a", "a", "output repeats input"),
        ("a:", "b", "ends with a colon"),
        ("a", "b:", "ends with a colon"),
    ],
)
def test_invalid_instances_are_left_out(given, output, reason):
    assert why_invalid(given, output) == reason


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (reply("I'm sorry, but no."), "refusal"),
        (reply("Gibberish"), "parse_error"),
        (reply("half", "truncated"), "truncated"),
        (reply("", "empty"), "empty"),
    ],
)
def test_a_reply_that_gives_nothing_has_a_reason(found, why):
    assert why_nothing(found) == why


@pytest.mark.parametrize(
    ("text", "found"), [("Equal.", True), ("Not equal", False), ("different", False), ("Perhaps", None)]
)
def test_comparisons_are_read(text, found):
    assert read_equal(reply(text)) is found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Sorry, I cannot.", "short refusal"),
        ("sorry " + "word " * 80, None),  # 81 words
        ("It is... not!", "stop words alone"),
        ("?!", "stop words alone"),
        ("It is Paris.", None),
    ],
)
def test_answers_eliminate_their_instruction(text, reason):
    assert why_eliminated(reply(text), 80) == reason


def test_the_first_line_is_kept():
    assert first_line("\n  Why is it so?\nBecause") == "Why is it so?"


def test_what_a_chat_model_writes_around_its_list_is_no_instruction():
    assert read_list(reply("9. Name a\nstar.\n10. Name a sea.\n\nLet me know if you want more.")) == [
        "Name a star.",
        "Name a sea.",
    ]


def test_another_task_behind_the_examples_is_no_part_of_them():
    text = "Task: Plan it.\nExample 1\nInput: a\nOutput: b\n\nTask: Name a colour.\nExample 1\nOutput: c"
    assert list(read_examples(text)) == [("a", "b")]
    assert list(read_examples("Task: Plan it.\nOutput: b\n\nTask: Name it.")) == [("", "b")]
    labelled = "Class label: Good\nText: fine\n\nTask: Name a colour."
    assert list(read_labelled(labelled)) == [("Text: fine", "Good")]
