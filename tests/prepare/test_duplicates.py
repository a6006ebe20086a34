"""Steps that compare rows, run as a stage."""

import json
import random

import pytest

from alignment.errors import AlignmentError
from benchmarks import planted
from tests.prepare.running import SHARED, prepare, write_rows

CHANCE = random.Random(0)
VOCABULARY = ["".join(CHANCE.choices("abcdefghijklmnopqrstuvwxyz", k=CHANCE.randint(2, 8))) for _ in range(500)]


def words(count):
    return " ".join(CHANCE.choices(VOCABULARY, k=count))


def pairs(*texts):
    return [{"prompt": prompt, "completion": answer} for prompt, answer in texts]


def test_exact_duplicates_are_recorded_with_the_row_that_stays(tmp_path):
    rows = pairs(("q", "a"), ("q", "b"), ("q", "a"), ("Q", "a"))
    run = prepare(tmp_path, rows, {"kind": "exact_duplicates"})
    assert [row["completion"] for row in run.rows()] == ["a", "b", "a"]
    (record,) = run.dropped
    assert record["reason"] == "exact duplicate"
    assert record["origin"].endswith("data.jsonl:3")
    assert record["detail"].endswith("data.jsonl:1")
    (step,) = run.steps()
    (cluster,) = step["findings"]["clusters"]
    assert cluster["size"] == 2
    assert cluster["texts"] == ["q\n\na"] * 2
    assert cluster["kept"].endswith("data.jsonl:1")


def test_texts_of_clusters_are_not_recorded_without_record_texts(tmp_path):
    run = prepare(tmp_path, pairs(("q", "a"), ("q", "a")), {"kind": "exact_duplicates"}, record_texts=False)
    assert run.steps()[0]["findings"]["clusters"][0]["texts"] == []


@pytest.mark.parametrize("kind", ["exact_duplicates", "near_duplicates"])
def test_preferences_with_another_rejected_answer_are_no_duplicates(tmp_path, kind):
    good, bad, worse = words(9), words(9), words(9)
    rows = [
        {"prompt": "q", "chosen": a, "rejected": b} for a, b in [(good, bad), (good, worse), (good, bad), (bad, good)]
    ]
    run = prepare(tmp_path, rows, {"kind": kind})
    assert [(row["chosen"], row["rejected"]) for row in run.rows()] == [(good, bad), (good, worse), (bad, good)]
    (step,) = run.steps()
    assert step["findings"]["rows_in_label_conflicts"] == 2
    ((first, second),) = step["findings"]["label_conflicts"]
    assert (first[-2:], second[-2:]) == (":1", ":4")


LABELLED = {
    "kto": [{"prompt": "q", "completion": "a", "label": label} for label in (True, False, 1, True)],
    "class": [{"text": "a text", "label": label} for label in (0, 1, 0, 0)],
    "choice": [{"input": "q", "output_1": "a", "output_2": "b", "label": label} for label in (1, 2, 1, 1)],
    "column": [{"text": "a text", "stars": stars} for stars in (5, 1, 5, 5)],
}


@pytest.mark.parametrize("kind", ["exact_duplicates", "near_duplicates"])
@pytest.mark.parametrize("case", LABELLED)
def test_rows_of_one_text_and_two_labels_are_reported(tmp_path, capsys, case, kind):
    step = {"kind": kind, **({"label_column": "stars"} if case == "column" else {})}
    run = prepare(tmp_path, LABELLED[case], step)
    assert [row["row_origin"][-2:] for row in run.rows()] == [":1", ":2"]
    assert run.steps()[0]["findings"]["rows_in_label_conflicts"] == 4
    assert f"step {kind}: 4 rows have the texts of other rows and another label" in capsys.readouterr().err
    other = {"prompt": "x", "completion": "y", "label": True}
    rows = [
        *LABELLED[case],
        other if case == "kto" else {**LABELLED[case][0], **dict.fromkeys(("text", "input"), "other")},
    ]
    if case in ("kto", "class"):
        run = prepare(tmp_path, rows, {**step, "conflicts": "drop"}, overwrite=True)
        assert len(run.rows()) == 1
        assert run.steps()[0]["dropped"] == {"label conflict": 4}


def test_near_duplicates_of_prompt_answer_or_both(tmp_path):
    question, answer = words(30), words(30)
    rows = pairs((question, answer), (question + " x", words(30)), (words(30), answer + " y"))
    for on, left in (("prompt", 2), ("answer", 2), ("both", 3)):
        run = prepare(tmp_path, rows, {"kind": "near_duplicates", "on": on}, overwrite=True)
        assert len(run.rows()) == left
    assert run.dropped == []


def test_clusters_may_only_be_noted(tmp_path):
    text = words(30)
    rows = pairs((text, "a"), ("other", "b"), (text + " x", "a"))
    step = {"kind": "near_duplicates", "keep": "all"}
    run = prepare(tmp_path, rows, step, columns_added=["cluster"])
    assert [row["cluster"] for row in run.rows()] == [1, 2, 1]


def test_planted_duplicates_are_found_and_processes_make_no_difference(tmp_path):
    corpus = planted.texts_of([SHARED / "reviews" / "sentence_polarity_10662.jsonl"])
    facts = planted.write(tmp_path / "planted.jsonl", corpus, rows=3000, similarity=0.8, seed=0)
    steps = [{"kind": "exact_duplicates"}, {"kind": "near_duplicates", "threshold": 0.8}]
    run = prepare(tmp_path, tmp_path / "planted.jsonl", *steps)
    dropped = {int(record["origin"].rpartition(":")[2]) - 1 for record in run.dropped}
    of_pairs = {place for pair in facts.near + facts.exact for place in pair}
    assert sum(not dropped.isdisjoint(pair) for pair in facts.near) >= 0.95 * len(facts.near)
    assert all(not dropped.isdisjoint(pair) for pair in facts.exact)
    assert not dropped - of_pairs
    names = ("train.jsonl", "dropped.jsonl")
    alone = [(run.folder / name).read_bytes() for name in names]
    again = prepare(tmp_path, tmp_path / "planted.jsonl", *steps, overwrite=True, num_proc=2)
    assert [(again.folder / name).read_bytes() for name in names] == alone


def test_overlap_removes_shared_ngrams_and_near_duplicates(tmp_path):
    question, answer, short = words(20), words(20), "What is the capital of France?"
    benchmark = write_rows(tmp_path / "benchmark.jsonl", pairs((question, answer), (short, "yes")))
    rows = pairs(
        (words(9), words(5) + " " + ", ".join(answer.upper().split()[2:15]) + " " + words(5)),  # 13 words of the answer
        (words(9), " ".join(answer.split()[2:14])),  # 12 words
        ("what is the capital of  france", "Paris"),
        ("What is the capital of Spain?", "yes"),
        (words(20), "yes"),
    )
    run = prepare(tmp_path, rows, {"kind": "overlap", "against": [{"path": benchmark}]})
    found = {int(one["origin"].rpartition(":")[2]): (one["reason"], one["detail"]) for one in run.dropped}
    assert found.keys() == {1, 3}
    assert found[1][0] == "shares 13 words in a row with evaluation data"
    assert found[1][1].endswith("benchmark.jsonl:1")
    assert found[3][0] == "near-duplicate of evaluation data"
    assert "benchmark.jsonl:2, Jaccard similarity" in found[3][1]
    assert run.steps()[0]["findings"]["evaluation_texts_shorter_than_an_ngram"] == 2


def test_common_ngrams_are_ignored_if_the_recipe_limits_them(tmp_path):
    common = words(13)
    benchmark = write_rows(tmp_path / "benchmark.jsonl", pairs((f"{common} {words(15)}", "yes")))
    rows = pairs(*((f"{common} {words(40)}", "a") for _ in range(3)), (words(9), "b"))
    step = {"kind": "overlap", "against": [{"path": benchmark}]}
    assert len(prepare(tmp_path, rows, step).rows()) == 1
    run = prepare(tmp_path, rows, {**step, "max_rows": 2}, overwrite=True)
    assert len(run.rows()) == 4
    assert run.steps()[0]["findings"]["ngrams_ignored_as_common"] == 1


def test_a_benchmark_may_have_no_layout(tmp_path):
    line = (SHARED / "ifeval" / "input_data.jsonl").read_text().split("\n")[0]
    rows = pairs((json.loads(line)["prompt"], "a"), (words(20), "b"))
    step = {"kind": "overlap", "against": [{"path": str(SHARED / "ifeval" / "input_data.jsonl")}]}
    assert [row["completion"] for row in prepare(tmp_path, rows, step).rows()] == ["b"]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"kind": "near_duplicates", "threshold": 1.5}, "threshold"),
        ({"kind": "near_duplicates", "threshold": 0}, "threshold"),
        ({"kind": "near_duplicates", "ngram_size": 0}, "ngram_size"),
        ({"kind": "overlap", "against": []}, "against"),
        ({"kind": "overlap", "against": [{"path": "none.jsonl"}]}, "none.jsonl"),
        ({"kind": "overlap", "against": [{"path": "e.jsonl"}], "ngram_size": None, "threshold": None}, "to compare"),
        ({"kind": "overlap", "against": [{"path": "e.jsonl"}], "ngram_size": None, "max_rows": 3}, "max_rows"),
    ],
)
def test_wrong_keys_end_before_anything_is_written(tmp_path, step, told):
    with pytest.raises(AlignmentError, match=told) as error:
        prepare(tmp_path, pairs(("q", "a")), step)
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", '{"score": 1}\n', '{"prompt": " ", "completion": ""}\n', "[1]\n"])
def test_evaluation_data_without_text(tmp_path, content):
    (tmp_path / "e.jsonl").write_text(content)
    with pytest.raises(AlignmentError, match=r"e\.jsonl") as error:
        prepare(tmp_path, pairs(("q", "a")), {"kind": "overlap", "against": [{"path": str(tmp_path / "e.jsonl")}]})
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_rows_that_differ_in_their_calls_alone_are_no_duplicates(tmp_path):
    def row(city):
        call = {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        return {"messages": [{"role": "user", "content": "What is the weather?"}, answer]}

    rows = [row("Paris"), row("London"), row("Paris")]
    assert len(prepare(tmp_path, rows, {"kind": "exact_duplicates"}).rows()) == 2


def test_an_absent_text_equals_an_empty_one(tmp_path):
    rows = [{"instruction": "add 2 and 3", "input": given, "output": "5"} for given in (None, "")]
    assert len(prepare(tmp_path, rows, {"kind": "exact_duplicates"}).rows()) == 1


def test_rows_without_a_duplicate_are_clusters_of_their_own(tmp_path):
    rows = [{"prompt": f"question {n}?", "completion": f"answer {n}"} for n in (1, 2, 3, 1)]
    steps = [{"kind": "exact_duplicates", "keep": "all"}, {"kind": "balance", "by": "cluster", "maximum": 1}]
    assert len(prepare(tmp_path, rows, *steps).rows()) == 3


def test_rows_resemble_evaluation_data_by_their_prompt_or_the_answer_of_a_row_without_one(tmp_path):
    step = {"kind": "overlap", "ngram_size": None, "on": "all", "against": [{"path": str(tmp_path / "e.jsonl")}]}

    def chat(question):
        turns = {"system": "You are a careful assistant of a library.", "user": question, "assistant": "Yes."}
        return {"messages": [{"role": role, "content": text} for role, text in turns.items()]}

    write_rows(tmp_path / "e.jsonl", [chat("When does the library open on Sundays?")])
    rows = [chat("When does the library open on Sundays?"), chat("Who wrote the oldest book of yours?")]
    assert len(prepare(tmp_path, rows, step).rows()) == 1


def test_texts_without_a_prompt_resemble_evaluation_texts(tmp_path):
    step = {"kind": "overlap", "ngram_size": None, "against": [{"path": str(tmp_path / "e.jsonl")}]}
    write_rows(tmp_path / "e.jsonl", [{"text": "Once there was a small cat that liked the rain."}])
    rows = [{"text": "Once there was a small cat that liked the rain."}, {"text": "Nobody swims in the lake at night."}]
    assert len(prepare(tmp_path, rows, step).rows()) == 1
