"""Single steps on rows whose outcome is known."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from alignment.config.rules import steps as rules
from alignment.config.schema.steps import AnyStep, step_entry
from alignment.config.schema.steps.quality import FOR_ANSWERS, RULES
from alignment.data.prepare import quality
from alignment.data.prepare.step import Change, Drop, Row
from alignment.data.splits import prompt_key
from alignment.errors import AlignmentError
from alignment.prepare.applying import built
from tests.prepare.running import SHARED, prepare


def outcome(text, **keys):
    """Apply a step to a row with this answer."""
    step = built(step_entry(**keys), 1, 0, {}).step
    return step.apply(Row({"instruction": "What is asked here?", "output": text}, "f:1", "alpaca"))


def answer(found):
    (row,) = found.rows
    return row.value["output"]


@pytest.mark.parametrize(
    ("keys", "before", "after", "reason"),
    [
        ({}, "schÃ¶n â€œso\u201d", "schön “so”", "unicode"),
        ({}, "a\u0301", "á", "unicode"),
        ({}, "a\x00\ufeffb\u200b\r\nc\x1b", "ab\nc", "control"),
        ({}, "می‌خواهم", None, ""),  # a zero-width joiner is part of Persian words
        ({}, "a \n\n\n\n b\t\n", "a\n\n b", "whitespace"),
        ({}, "\n \n    indented\n    code", "    indented\n    code", "whitespace"),
        ({}, "page one\x0cpage two", "page one\npage two", "control"),
        ({}, "“curly” ﬁne", None, ""),
        ({"html": True}, "<p>a &amp; b<br>c</p><script>x()</script>", "a & b\nc", "html, whitespace"),
        (
            {"html": True},
            "<b>x</b> `<b>` &lt;\n```html\n<p>a</p>\n```\n<i>y</i>",
            "x `<b>` <\n```html\n<p>a</p>\n```\ny",
            "html",
        ),
        ({"html": True}, "if a < b and c > d: List<String>", None, ""),
        ({"html": True}, "a<b and b>c, also x <i and j> y", None, ""),
        ({"html": True}, "The <title> of <name>, between <b> and </b>: see <img>.", None, ""),
        ({"html": True}, "~~~\n<p>a &lt; b</p>\n~~~\n\n    <b>x</b>\n\n``a ` <b>c</b>``", None, ""),
        (
            {"html": True},
            "- item\n\n      <b>code</b>\n\n- <b>text</b>",
            "- item\n\n      <b>code</b>\n\n- text",
            "html",
        ),
        ({"html": True}, "<div>\n    <p>one</p>\n\n    <p>two</p>\n</div>", "one\n\ntwo", "html, whitespace"),
        ({"html": True}, "<p>one<p>two<ul><li>a<li>b</ul>", "one\ntwo\na\nb", "html, whitespace"),
        ({"html": True}, "<td>a</td><td>b</td> <a href='x'>c</a><b><i>d</b></i>", "a b cd", "html"),
        ({"html": True}, "?a=1&copy=2 AT&T &copy; &#65;<!-- c --><!-- open", "?a=1&copy=2 AT&T © A<!-- open", "html"),
        ({"boilerplate": ["Subscribe .*"]}, "a\nSubscribe now!\nb", "a\nb", "boilerplate"),
    ],
)
def test_clean(keys, before, after, reason):
    found = outcome(before, kind="clean", **keys)
    if after is None:
        assert isinstance(found, Row)
    else:
        assert answer(found) == after
        assert isinstance(found, Change)
        assert found.reason == reason


@pytest.mark.parametrize(
    ("prompt", "completion", "cleaned"),
    [
        ("My name is", " Tom ", ("My name is", " Tom ")),
        ("def f(x): \n", "    return x\n", ("def f(x): \n", "    return x\n")),
        ("a \nb ", "c \n\n\n\nd", ("a\nb ", "c\n\nd")),
    ],
)
def test_clean_keeps_the_white_space_where_a_prompt_meets_its_answer(prompt, completion, cleaned):
    step = built(step_entry(kind="clean"), 1, 0, {}).step
    found = step.apply(Row({"prompt": prompt, "completion": completion}, "f:1", "prompt_completion"))
    value = found.value if isinstance(found, Row) else found.rows[0].value
    assert (value["prompt"], value["completion"]) == cleaned


def test_clean_drops_a_row_whose_answer_becomes_empty():
    assert outcome("\u200b \ufeff", kind="clean") == Drop("nothing is left of a text", "control, whitespace")


@pytest.mark.parametrize(("unit", "least", "kept"), [("words", 3, True), ("words", 4, False), ("characters", 13, True)])
def test_length(unit, least, kept):
    assert isinstance(outcome("one two three", kind="length", unit=unit, minimum=least), Row) == kept


def test_length_in_tokens_is_that_of_the_tokenizer():
    model = SHARED.parent / "models/stories260K"
    if not model.exists():
        pytest.skip("the model is not here")
    found = outcome("Once upon a time", kind="length", unit="tokens", tokenizer=str(model), maximum=1)
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(model)("Once upon a time", add_special_tokens=False)["input_ids"]
    assert found == Drop("answer above 1 tokens", f"{len(ids)} tokens")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Once upon a time there was a little girl who lived in a house.", "en"),
        ("Es war einmal ein kleines Mädchen, das in einem Haus wohnte.", "de"),
        ("从前有一个小女孩，她和她的奶奶住在森林旁边的一座漂亮的小房子里。", "zh"),
        ("42", "und"),
    ],
)
def test_language(text, language):
    found = outcome(text, kind="language", on="answer")
    assert found.notes["language"] == language
    only = outcome(text, kind="language", on="answer", languages=["de"], keep_unknown=False)
    assert isinstance(only, Row) == (language == "de")


def test_a_language_that_the_model_does_not_know_is_refused():
    with pytest.raises(AlignmentError, match="xx is no language that py3langid knows"):
        built(step_entry(kind="language", languages=["xx"]), 1, 0, {})


TEN = "a1 b2 c3 d4 e5 f6 g7 h8 i9 j0"


@pytest.mark.parametrize(
    ("measure", "text", "value"),
    [
        ("words", "a b  c\nd", 4),
        ("mean_word_length", "ab abcd", 3),
        ("symbols_per_word", "# # a b", 0.5),
        ("symbols_per_word", "so... and… on now", 0.5),
        ("bullet_lines", "- a\n* b\nc\n\n• d", 0.75),
        ("ellipsis_lines", "a...\nb…\nc\nd", 0.5),
        ("alphabetic_words", "1 2 a1 !", 0.25),
        ("stop_words", "The cat and the dog", 2),
        ("duplicate_lines", "a\nb\na\na", 0.5),
        ("duplicate_paragraphs", "a\nb\n\nc\n\na\nb", 1 / 3),
        ("duplicate_line_characters", "abc d\ne\nabc d", 4 / 9),
        ("duplicate_paragraph_characters", "ab\n\nc\n\nab", 2 / 5),
        ("top_2_gram", "ab c ab c d e", 6 / 8),  # "ab c" twice: 2 times 3 of 8 characters
        ("top_2_gram", "one two three four", 0),
        ("top_3_gram", "a b c a b c x", 6 / 7),
        ("duplicate_5_gram", f"{TEN} {TEN}", 0.5),
        ("duplicate_10_gram", f"{TEN} {TEN}", 0.5),
        ("duplicate_10_gram", f"{TEN} x {TEN[:-3]}", 0),
        ("sentences", "One. Two! Is it 3.5? Yes", 3),
        ("terminal_lines", 'a.\nb\n"c"\nd?', 0.75),
        ("curly_brackets", "{a}", 2),
        ("lorem_ipsum", "Lorem ipsum dolor", 1),
        ("javascript_lines", "Enable JavaScript\nb", 1),
    ],
)
def test_measures_of_quality(measure, text, value):
    assert quality.MEASURES[measure](quality.Measured(text)) == pytest.approx(value)


def test_every_rule_has_a_measure_and_every_measure_a_rule():
    assert {name.partition("_")[2] for name in RULES} == quality.MEASURES.keys()


def test_quality_names_the_rule_and_the_value():
    found = outcome("go on " * 6, kind="quality")
    assert found == Drop("max_top_2_gram", "1 share of characters in the most frequent 2-gram, limit 0.2")
    assert isinstance(outcome("go on " * 6, kind="quality", rules=["max_words"]), Row)
    loose = {name: 1.0 for name in FOR_ANSWERS}
    assert isinstance(outcome("go on " * 6, kind="quality", thresholds=loose), Row)
    assert isinstance(outcome("Yes.", kind="quality"), Row)


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I do not have feelings.",
        "I'm sorry, but I can't assist with that request.",
        "I’m just a language model and cannot browse.",
        "I cannot provide medical advice.",
        "抱歉，我无法回答这个问题。",
        "作为一个人工智能语言模型，我没有感情。",
        "As an AI developed by a company, I have no opinion.",
        "Well, as an AI I have no body.",
        "It is not appropriate for me to answer.",
    ],
)
def test_refusals_are_dropped(text):
    assert isinstance(outcome(text, kind="refusals"), Drop)
    assert isinstance(outcome(text, kind="refusals", builtin=False, patterns=["nothing"]), Row)


@pytest.mark.parametrize(
    "text",
    [
        "An AI language model is a program that predicts text.",
        "He said: I can't help but smile.",
        "Sorry seems to be the hardest word. I can sing it.",
        "You cannot divide by zero.",
        "As an AI engineer, you build models.",
        "As a chatbot developer, use Rasa.",
        "The train was late, as the AI lab closed.",
        "It is not appropriate to wear shorts to a funeral.",
        "They can see that I was trained to use lists.",
        "他问我是一个AI工程师吗？",
        "我不能完成这幅画。",
        f"{'Words. ' * 60} As an AI language model, I stop.",
    ],
)
def test_answers_are_no_refusals(text):
    assert isinstance(outcome(text, kind="refusals"), Row)


GROUPS = [{"prompt": f"q{n}", "completion": "a", "source": "abc"[n % 10 // 5 + (n % 10 == 9)]} for n in range(100)]


def sources(rows):
    return Counter(row["source"] for row in rows)


def test_balance_takes_as_many_of_each_group(tmp_path):
    assert sources(GROUPS) == {"a": 50, "b": 40, "c": 10}
    run = prepare(tmp_path, GROUPS, {"kind": "balance", "by": "source"})
    assert sources(run.rows()) == {"a": 10, "b": 10, "c": 10}
    (tmp_path / "x").mkdir()
    run = prepare(tmp_path / "x", GROUPS, {"kind": "balance", "by": "source", "maximum": 45})
    assert sources(run.rows()) == {"a": 45, "b": 40, "c": 10}
    assert {one["reason"] for one in run.dropped} == {"above the most rows of one source"}


def test_mix_gives_shares(tmp_path):
    weights = {"a": 1.0, "b": 2.0, "c": 1.0}
    run = prepare(tmp_path, GROUPS, {"kind": "mix", "by": "source", "weights": weights})
    assert sources(run.rows()) == {"a": 10, "b": 20, "c": 10}
    (tmp_path / "x").mkdir()
    step = {"kind": "mix", "by": "source", "weights": weights, "rows": 100, "repeat": True}
    run = prepare(tmp_path / "x", GROUPS, step)
    assert sources(run.rows()) == {"a": 25, "b": 50, "c": 25}
    assert Counter(row["prompt"] for row in run.rows() if row["source"] == "c").most_common()[-1][1] == 2
    assert {one["reason"] for one in run.dropped if one["action"] == "changed"} == {"taken 2 times", "taken 3 times"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"weights": {"a": 1.0, "b": 1.0}}, "c has no weight"),
        ({"weights": {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}}, "d is not there"),
        ({"weights": {"a": 1.0, "b": 1.0, "c": 1.0}, "rows": 90}, "33% of 90 rows are 30 of c, which has 10"),
        ({"by": "nothing", "weights": {"a": 1.0}}, "no row has nothing; found completion, dataset, prompt, source"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(tmp_path, keys, words):
    with pytest.raises(AlignmentError, match=words) as caught:
        prepare(tmp_path, GROUPS, {"kind": "mix", "by": "source", **keys})
    assert caught.value.exit_code == 2


def test_data_sets_are_mixed_by_their_paths(tmp_path):
    files = []
    for name, count in (("a", 30), ("b", 60)):
        files.append(str(tmp_path / f"{name}.jsonl"))
        rows = ({"prompt": f"{name}{n}", "completion": name} for n in range(count))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    step = {"kind": "mix", "weights": {files[0]: 0.75, files[1]: 0.25}}
    run = prepare(tmp_path, files, step, columns_added=["dataset"])
    assert Counter(row["dataset"] for row in run.rows()) == {files[0]: 30, files[1]: 10}


def test_no_prompt_is_in_two_splits(tmp_path):
    rows = [
        {"prompt": f"  Question {n % 40}?" if n % 2 else f"question {n % 40}?", "completion": str(n)}
        for n in range(160)
    ]
    run = prepare(tmp_path, rows, {"kind": "split", "shares": {"train": 0.7, "validation": 0.15, "test": 0.15}})
    prompts = {name: {prompt_key(row["prompt"]) for row in run.rows(name)} for name in ("train", "validation", "test")}
    assert len(set.union(*prompts.values())) == sum(map(len, prompts.values())) == 40
    assert sum(len(run.rows(name)) for name in prompts) == 160
    assert run.manifest["files"] == {name: f"{name}.jsonl" for name in run.manifest["files"]}


def test_rows_that_share_a_prompt_over_a_third_row_have_one_split(tmp_path):
    def row(*inputs):
        return {"instruction": "Add", "instances": [{"input": one, "output": "x"} for one in inputs]}

    rows = [row(f"{n}", f"{n + 1}") for n in range(30)] + [row(f"other {n}") for n in range(30)]
    run = prepare(tmp_path, rows, {"kind": "split", "shares": {"train": 0.5, "test": 0.5}})
    chained = [sum("other" not in json.dumps(row) for row in run.rows(name)) for name in ("train", "test")]
    assert sorted(chained) == [0, 30]


def test_a_split_that_would_be_empty_is_refused(tmp_path):
    with pytest.raises(AlignmentError, match="would be empty"):
        prepare(tmp_path, [{"prompt": "q", "completion": "a"}] * 5, {"kind": "split"})


def test_the_seed_decides_what_is_drawn(tmp_path):
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        runs.append(
            [
                row["prompt"]
                for row in prepare(tmp_path / name, GROUPS, {"kind": "sample", "rows": 20}, seed=seed).rows()
            ]
        )
    assert runs[0] == runs[1] != runs[2]


def test_every_kind_has_a_module_or_a_builder():
    kinds = {each.kind_names()[0] for each in AnyStep.kinds()}
    assert kinds >= {"clean", "length", "language", "quality", "refusals", "sample", "mix", "split", "balance"}
    for kind in kinds - {"score"}:
        assert importlib.util.find_spec(f"alignment.data.prepare.{kind}"), kind
    assert rules.STEP_RULES.keys() <= kinds


@pytest.mark.parametrize("kind", ["quality", "refusals"])
def test_the_documented_rules_are_those_of_the_code(kind):
    page = (Path(__file__).parents[2] / "docs/prepare.md").read_text()
    module = importlib.import_module(f"alignment.data.prepare.{kind}")
    assert page.partition(f"<!-- {kind} -->\n")[2].partition(f"\n<!-- /{kind} -->")[0] == module.markdown()
