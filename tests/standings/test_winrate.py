"""Win rates from files equal those that AlpacaEval and JudgeBench publish for the same files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.errors import DataError, RecipeError
from alignment.evaluate.statistics import Bootstrap
from alignment.standings.calibration import read_calibration
from alignment.standings.command import Options, run
from alignment.standings.length_control import leaderboard_folds
from tests.standings.made import annotations, gamed

ROOT = Path(__file__).parents[2]
LLMBAR = ROOT.parent / "shared/data/llmbar-natural/evaluators"
QUICK = Bootstrap(samples=200)


def winrate(*files: Path, **options: object) -> tuple[dict, str]:
    said: list[str] = []
    given = {"length_control": "none", "how": QUICK} | options
    return run(files, Options(**given), say=said.append), "\n".join(said)  # type: ignore[arg-type]


# Columns of AlpacaEval's leaderboard weighted_alpaca_eval_gpt4_turbo_leaderboard.csv at cd543a1, in percent.
LEADERBOARD = {
    "gemma-7b-it": (6.937294379677018, 0.7869665731853178, 6.273291925465839, 50, 754, 1, 1115),
    "NullModel": (76.91979180386511, 0.9090102449662572, 83.97515527950311, 676, 129, 0, 872),
}


@pytest.mark.parametrize("model", LEADERBOARD)
def test_the_published_win_rates(tmp_path, model):
    results, said = winrate(annotations(tmp_path / "annotations.json", model))
    (found,) = results["matches"]
    soft, error, discrete, won, lost, draws, length = LEADERBOARD[model]
    assert 100 * found["win_rate"]["value"] == pytest.approx(soft, rel=1e-10)
    assert 100 * found["standard_error"] == pytest.approx(error, rel=1e-10)
    assert 100 * found["discrete_win_rate"]["value"] == pytest.approx(discrete, rel=1e-12)
    assert (found["wins"], found["losses"], found["draws"], found["n"]) == (won, lost, draws, 805)
    assert int(found["length"]["model"]) == length
    assert (found["model"], found["baseline"]) == (model, "gpt4_1106_preview")
    assert f"{soft:.2f}%" in said
    assert f"{discrete:.2f}%" in said
    low, high = found["win_rate"]["low"], found["win_rate"]["high"]
    # A normal interval of 1.96 standard errors on each side is near the bootstrap's for 805 prompts.
    assert low == pytest.approx((soft - 1.96 * error) / 100, abs=0.004)
    assert high == pytest.approx((soft + 1.96 * error) / 100, abs=0.004)


# What alpaca_eval 0.6.6 computes of these rows and of the calibration that `gamed` writes, with scikit-learn 1.5.2, and
# NumPy 2.2.6 without vector instructions (NPY_DISABLE_CPU_FEATURES), as when the leaderboard was computed.
LENGTH_CONTROLLED = {
    ("gemma-7b-it", "v1"): (12.249273000678267, 0.12022699351696613),
    ("gemma-7b-it", "noreg"): (13.014740042641407, 0.06569462015236335),
    ("gemma-7b-it", "minimal"): (13.002420970519577, 0.0),
    ("NullModel", "v1"): (85.40638251887508, 0.057711677763372035),
    ("NullModel", "minimal"): (84.68521744649084, 0.0),
}


@pytest.mark.parametrize(("model", "variant"), LENGTH_CONTROLLED)
def test_the_length_controlled_win_rate_is_that_of_alpaca_eval(tmp_path, model, variant):
    file = gamed(tmp_path / "df_gamed.csv")
    if variant == "noreg":
        difficulty = read_calibration(file).difficulty
        file = tmp_path / "instruction_difficulty.csv"
        file.write_text(",instruction_difficulty\n" + "".join(f"{i},{d}\n" for i, d in enumerate(difficulty)))
    rows = annotations(tmp_path / "annotations.json", model)
    wanted = "minimal" if variant == "minimal" else str(file)
    results, said = winrate(rows, length_control=wanted)
    found = results["matches"][0]["length_controlled"]
    value, error = LENGTH_CONTROLLED[model, variant]
    assert found["model"] == f"length_controlled_{variant}"
    assert 100 * found["value"] == pytest.approx(value, abs=1e-4)
    assert 100 * found["standard_error"] == pytest.approx(error, abs=1e-4)
    assert f"{value:.2f}%, standard error {error:.2f} (length_controlled_{variant})" in said


def test_the_baseline_against_itself_is_even_as_on_the_leaderboard(tmp_path):
    # Its row: win_rate 50.0, standard_error 0.0, 0 wins, 805 draws, length_controlled_winrate 50.0.
    rows = annotations(tmp_path / "annotations.json", "gemma-7b-it", generator_2="gpt4_1106_preview", preference=1.5)
    for wanted in ("auto", "minimal", str(gamed(tmp_path / "df_gamed.csv"))):
        results, said = winrate(rows, length_control=wanted)
        (found,) = results["matches"]
        assert (found["win_rate"]["value"], found["standard_error"], found["draws"]) == (0.5, 0.0, 805)
        assert (found["length_controlled"]["value"], found["length_controlled"]["standard_error"]) == (0.5, 0.0)
        assert "win rate, length-controlled 50.00%, standard error 0.00" in said


def test_rows_without_their_place_in_the_set_are_not_length_controlled(tmp_path):
    calibration, rows = str(gamed(tmp_path / "df_gamed.csv")), []
    file = annotations(tmp_path / "annotations.json", "gemma-7b-it")
    whole = json.loads(file.read_text())
    rows = [row | {"annotator": ("gpt", "claude")[place % 2]} for place, row in enumerate(whole)]
    file.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"gpt has not judged gemma-7b-it .* on every instruction") as error:
        winrate(file, length_control=calibration)
    assert "\n" not in str(error.value)
    assert winrate(file, length_control="minimal")[0]["matches"][1]["length_controlled"]
    rows = [whole[0] | {"preference": 7}, *whole[1:]]
    file.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="a row was left out"):
        winrate(file, length_control=calibration, on_bad_row="skip")
    both = [row | {"annotator": judge} for judge in ("gpt", "claude") for row in whole]  # one after the other: in order
    file.write_text(json.dumps(both))
    results, _ = winrate(file, length_control=calibration)
    value = LENGTH_CONTROLLED["gemma-7b-it", "v1"][0]
    assert [100 * each["length_controlled"]["value"] for each in results["matches"]] == pytest.approx([value] * 2)


def test_the_folds_are_those_of_the_leaderboard():
    # `GroupKFold(5)` of scikit-learn 1.5.2 on 805 groups, with NumPy 2.2.6 without vector instructions.
    firsts = [[1, 6, 11, 16, 21, 26], [5, 10, 15, 20, 22, 30], [4, 9, 14, 19, 24, 29],
              [3, 8, 13, 18, 28, 33], [0, 2, 7, 12, 17, 23]]  # fmt: skip
    of_v1 = [[5, 10, 15, 16, 23, 28], [4, 9, 14, 18, 22, 27], [3, 8, 13, 21, 26, 31],
             [2, 7, 12, 19, 20, 25], [0, 1, 6, 11, 17, 24]]  # fmt: skip
    for rows, expected in ((805, firsts), (3 * 805, of_v1)):
        folds = leaderboard_folds(rows)
        assert [[i for i in range(rows) if folds[i] == fold][:6] for fold in range(5)] == expected


def test_without_the_hubs_file_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    results, said = winrate(annotations(tmp_path / "annotations.json", "gemma-7b-it"), length_control="auto")
    assert results["matches"][0]["length_controlled"] is None
    assert "df_gamed.csv of the Hub data set" in said


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judgebench(first: object, second: object, label: str = "A>B", **more: object) -> dict[str, object]:
    judgments = [None if d is None else {"judgment": {"judge_model": "gpt"}, "decision": d} for d in (first, second)]
    row = {"pair_id": "x", "source": "mmlu-pro-law", "question": "Which?", "response_A": "one", "response_B": "three"}
    return row | {"label": label, "judge_name": "arena_hard", "judgments": judgments} | more


def test_judgebench_combines_the_two_orders(tmp_path):
    file = write(
        tmp_path / "outputs.jsonl",
        judgebench("A>B", "B>A"),  # A both times
        judgebench("A>B", "A>B", question="2"),  # the first position both times: a draw
        judgebench("A=B", "A>B", question="3"),  # a tie, then B: B
        judgebench(None, "A>B", question="4", label="B>A", source="livebench-math"),  # B alone
        judgebench(None, None, question="5"),
    )
    results, said = winrate(file)
    (found,) = results["matches"]
    assert found["judge"] == "arena_hard gpt"
    # 1, 0.5, (0.5 + 0) / 2 and 0
    assert found["win_rate"]["value"] == pytest.approx((1 + 0.5 + 0.25 + 0) / 4)
    assert found["discrete_win_rate"]["value"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert (found["wins"], found["draws"], found["losses"], found["failed"]) == (1, 1, 2, 1)
    assert found["orders"] == {"both": 3, "one": 1}
    # JudgeBench's own rule: right for the first and the fourth; a draw, and no verdict, are not.
    assert found["correct"]["value"] == pytest.approx(2 / 5)
    assert found["order_consistency"]["value"] == pytest.approx(1 / 3)
    assert found["subsets"].keys() == {"mmlu-pro", "livebench-math"}
    assert found["length"] == {"model": 3.0, "baseline": 5.0}
    assert "1 without a verdict count nowhere" in said


def test_recorded_verdicts_in_one_order_and_in_both(tmp_path):
    from reward.labels.recordings import rankings_of

    def row(number: int, orders: dict[bool, str | None]) -> dict[str, object]:
        results = [{f"swap = {swap}": {"completion": ["x"], "winner": won} for swap, won in orders.items()}]
        return {"input": f"{number}", "output_1": "a", "output_2": "b", "label": 1, "results": results}

    file = tmp_path / "result.json"
    # The winner is numbered as in the file: of the swapped order alone, 2 is `output_2`.
    given = [{False: "1"}, {True: "2"}, {False: "1", True: "1"}, {True: None}]
    file.write_text(json.dumps([row(i, orders) for i, orders in enumerate(given)]))
    said: list[str] = []
    results = run([file], Options(length_control="none", how=QUICK), recordings=rankings_of, say=said.append)
    (found,) = results["matches"]
    assert (found["wins"], found["losses"], found["failed"]) == (2, 1, 1)
    assert found["orders"] == {"both": 1, "one": 2}
    assert found["correct"]["value"] == pytest.approx(2 / 4)  # all labels are 1
    assert "does not name the models of its answers" in said[-1]
    for again, words in ((file, "named twice"), (tmp_path, "has the same content as")):
        with pytest.raises(DataError, match=words):
            run([file, again], Options(length_control="none"), recordings=rankings_of, say=said.append)


@pytest.mark.skipif(not LLMBAR.is_dir(), reason="needs ../shared")
def test_real_recordings():
    from reward.labels.recordings import rankings_of

    options = Options(length_control="none", how=QUICK)
    (found,) = run([LLMBAR / "GPT-4/Vanilla"], options, recordings=rankings_of, say=lambda _: None)["matches"]
    assert found["order_consistency"]["value"] == pytest.approx(0.95)  # `equal` of its statistics.json: 95 / 100
    assert found["n"] == 100
    assert found["correct"]["value"] == pytest.approx(0.93)  # `correct_both`


@pytest.mark.skipif(not LLMBAR.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize(("order", "right"), [("swap = False", 0.80), ("swap = True", 0.83)])
def test_one_order_of_real_recordings(tmp_path, order, right):
    from reward.labels.recordings import rankings_of

    rows = json.loads((LLMBAR / "ChatGPT/Vanilla/result.json").read_text())
    one = [row | {"results": [{order: row["results"][0][order]}]} for row in rows]
    (tmp_path / "result.json").write_text(json.dumps(one))
    options = Options(length_control="none", how=QUICK)
    (found,) = run([tmp_path], options, recordings=rankings_of, say=lambda _: None)["matches"]
    assert found["correct"]["value"] == pytest.approx(
        right
    )  # `correct_False` and `correct_True` of its statistics.json
    assert (found["n"], found["orders"]) == (100, {"one": 100})


def test_our_labels_take_the_models_from_the_answers_file(tmp_path):
    texts = {"sft": "a long answer", "dpo": "short"}
    outputs = [
        write(tmp_path / f"{name}.jsonl", *({"instruction": f"q{i}", "output": f"{text} {i}", "generator": name}
                                            for i in range(3)))
        for name, text in texts.items()
    ]  # fmt: skip
    labels = write(
        tmp_path / "labels.jsonl",
        *(
            {
                "prompt": [{"role": "user", "content": f"q{i}"}],
                "responses": [f"short {i}", f"a long answer {i}"],
                "pairs": [{"first": 0, "second": 1, "probability": p, "status": "tie" if p == 0.5 else "ok"}],
                "provenance": {"judge": "toy"},
            }
            for i, p in enumerate((0.9, 0.5, 0.2))
        ),
    )
    results, _ = winrate(labels, *outputs)
    (found,) = results["matches"]
    assert (found["model"], found["baseline"], found["judge"]) == ("dpo", "sft", "toy")
    assert found["win_rate"]["value"] == pytest.approx((0.9 + 0.5 + 0.2) / 3)
    (turned,) = winrate(labels, *outputs, baseline="dpo")[0]["matches"]
    assert (turned["model"], turned["wins"], turned["losses"]) == ("sft", 1, 1)
    assert turned["win_rate"]["value"] == pytest.approx((0.1 + 0.5 + 0.8) / 3)
    assert turned["length"] == {"model": 15.0, "baseline": 7.0}
    with pytest.raises(DataError, match=r"Answers alone have no win rate"):
        winrate(*outputs)
    with pytest.raises(RecipeError, match=r"--baseline ppo: the files judge dpo, sft"):
        winrate(labels, *outputs, baseline="ppo")
    with pytest.raises(RecipeError, match=r"--by Ann: the judgements are by toy"):
        winrate(labels, *outputs, by="Ann")


def test_an_evaluation_and_the_people_who_ranked_its_answers(tmp_path):
    write(
        tmp_path / "answers.jsonl",
        *(
            {"prompt": f"q{i}", "answers": {"sft": f"s{i}", "ppo": f"pp{i}", "dpo": f"ddd{i}"},
             "verdicts": {"toy": {"ppo": p, "dpo": None}}}
            for i, p in enumerate((0.9, 0.5))
        ),
    )  # fmt: skip
    people = [
        {"prompt": "q0", "responses": ["s0", "pp0", "ddd0"], "ranks": [3, 1, 2]},
        {"prompt": "q1", "responses": ["ddd1", "pp1", "s1"], "ranks": [1, 1, 1]},
    ]
    write(
        tmp_path / "people.jsonl",
        *(row | {"provenance": {"source": "person", "annotator": who}} for row in people for who in ("Ann", "Bob")),
    )
    results, _ = winrate(tmp_path)
    found = {(one["judge"], one["model"], one["baseline"]): one for one in results["matches"]}
    assert found.keys() == {
        ("toy", "ppo", "sft"), ("toy", "dpo", "sft"),
        ("people", "sft", "ppo"), ("people", "sft", "dpo"), ("people", "ppo", "dpo"),
    }  # fmt: skip
    assert found["toy", "dpo", "sft"]["win_rate"] is None
    assert found["toy", "dpo", "sft"]["failed"] == 2
    sft = found["people", "sft", "ppo"]
    assert (sft["n"], sft["prompts"], sft["losses"], sft["draws"]) == (4, 2, 2, 2)
    (ann,) = winrate(tmp_path, by="person:Ann", baseline="dpo")[0]["matches"][:1]
    assert ann["n"] == 2
    by_people = winrate(tmp_path, by="people", baseline="sft")[0]["matches"]
    assert [(one["model"], one["wins"]) for one in by_people] == [("ppo", 2), ("dpo", 2)]


def test_arena_battles_and_pairwise_judgments_of_fastchat(tmp_path):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    arena = write(
        tmp_path / "arena.jsonl",
        *({"question_id": f"{i}", "model_a": "x", "model_b": "y", "winner": won, "judge": "user_1",
           "conversation_a": talk, "conversation_b": talk}
          for i, won in enumerate(("model_a", "model_b", "tie", "tie (bothbad)"))),
    )  # fmt: skip
    (found,) = winrate(arena)[0]["matches"]
    assert (found["judge"], found["wins"], found["draws"], found["losses"]) == ("people", 1, 2, 1)
    fastchat = write(
        tmp_path / "pair.jsonl",
        {"question_id": 1, "model_1": "x", "model_2": "y", "g1_winner": "model_1", "g2_winner": "model_1", "turn": 1,
         "judge": ["gpt-4", "pair-v2"]},
        {"question_id": 1, "model_1": "x", "model_2": "y", "g1_winner": "model_1", "g2_winner": "model_2", "turn": 2,
         "judge": ["gpt-4", "pair-v2"]},
        {"question_id": 2, "model_1": "x", "model_2": "y", "g1_winner": "error", "g2_winner": "error", "turn": 1,
         "judge": ["gpt-4", "pair-v2"]},
    )  # fmt: skip
    (found,) = winrate(fastchat)[0]["matches"]
    assert (found["judge"], found["wins"], found["draws"], found["failed"]) == ("gpt-4 pair-v2", 1, 1, 1)


def test_battles_that_name_no_question_are_each_of_their_own(tmp_path):
    winners = ("model_a", "model_b", "tie", "model_a")
    rows = [{"model_a": "a", "model_b": "b", "winner": winner} for winner in winners]
    (tmp_path / "one_line.json").write_text(json.dumps(rows))
    for file in (write(tmp_path / "battles.jsonl", *rows), tmp_path / "one_line.json"):
        (found,) = winrate(file)[0]["matches"]
        assert (found["n"], found["prompts"]) == (4, 4)
    pairwise = [{"model_1": "a", "model_2": "b", "g1_winner": w, "g2_winner": w} for w in ("model_1", "tie")]
    assert winrate(write(tmp_path / "pairwise.jsonl", *pairwise))[0]["matches"][0]["prompts"] == 2


def test_a_folder_of_alpaca_evals_results(tmp_path):
    (tmp_path / "weighted").mkdir()
    annotations(tmp_path / "weighted/annotations.json", "gemma-7b-it", dataset="all")
    (found,) = winrate(tmp_path)[0]["matches"]
    assert (found["model"], found["wins"]) == ("gemma-7b-it", 50)


ALPACA = {"instruction": "q", "output_1": "a", "generator_1": "base", "output_2": "b", "generator_2": "mine"}


def test_draws_and_failures_of_alpaca_eval(tmp_path):
    rows = [ALPACA | {"instruction": f"{i}", "preference": p} for i, p in enumerate((0, 1.5, None, 2, 1))]
    (found,) = winrate(write(tmp_path / "a.jsonl", *rows))[0]["matches"]
    assert (found["wins"], found["draws"], found["losses"], found["failed"]) == (1, 2, 1, 1)
    assert found["win_rate"]["value"] == 0.5


FASTCHAT = {  # by show_result.py: wins, ties and losses of model_1, by the winners of the two orders
    ("model_1", "model_1"): (1, 0, 0), ("model_1", "model_2"): (0, 1, 0), ("model_1", "tie"): (0, 1, 0),
    ("model_2", "model_1"): (0, 1, 0), ("model_2", "model_2"): (0, 0, 1), ("model_2", "tie"): (0, 1, 0),
    ("tie", "model_1"): (0, 1, 0), ("tie", "model_2"): (0, 1, 0), ("tie", "tie"): (0, 1, 0),
    ("error", "model_1"): (0, 0, 0), ("tie", "error"): (0, 0, 0), ("error", "error"): (0, 0, 0),
}  # fmt: skip


def test_two_orders_of_fastchat_count_as_in_its_table(tmp_path):
    for number, (winners, counts) in enumerate(FASTCHAT.items()):
        row = {"model_1": "x", "model_2": "y", "g1_winner": winners[0], "g2_winner": winners[1], "question_id": number}
        results, _ = winrate(write(tmp_path / f"{number}.jsonl", row))
        match = results["matches"][0]
        assert (match["wins"], match["draws"], match["losses"]) == counts, winners
        assert match["failed"] == 1 - sum(counts)
    results, _ = winrate(*sorted(tmp_path.glob("*.jsonl")))
    match = results["matches"][0]
    adjusted = (1 + 0.5 * 7) / 9  # win_rate_adjusted
    assert match["win_rate"]["value"] == match["discrete_win_rate"]["value"] == pytest.approx(adjusted)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ALPACA | {"preference": 3}], r"a.jsonl:1: 'preference' is 3, not a number from 1"),
        ([ALPACA | {"preference": "2"}], r"'preference' is '2', not a number"),
        ([ALPACA | {"preference": True}], r"'preference' is True, not a number"),
        ([ALPACA | {"preference": 2}, {"instruction": "q"}], r"a.jsonl:2: the row has not the keys"),
        ([ALPACA | {"preference": 2, "generator_1": ""}], r"'generator_1' is '', not the name"),
        ([ALPACA | {"preference": 2, "instruction": None}], r"'instruction' is None, not text"),
        ([judgebench("A>>B", "A>B")], r"'judgments\[0\].decision' is 'A>>B'"),
        ([judgebench("A>B", "A>B", judgments=[])], r"'judgments' is not a list of one or two"),
        ([judgebench("A>B", "A>B", label="A")], r"'label' is 'A', not A>B or B>A"),
        ([{"model_a": "x", "model_b": "y", "winner": "x"}], r"'winner' is 'x', not model_a"),
        ([{"prompt": "q", "answers": {"a": "1"}, "verdicts": {"j": {"a": 2}}}], r"all but one answer"),
        ([{"prompt": "q", "answers": {"a": "1", "b": "2"}, "verdicts": {"j": {"a": 2}}}], r"not a probability"),
        ([{}], r"a.jsonl: has no layout of judgements: its first row has no field. Known"),
        ([{"": 1}], r"its first row has ''. Known"),
        ([{"foo": 1}], r"a.jsonl: has no layout of judgements: its first row has foo. Known: AlpacaEval's annotations"),
        ([{"model_a": "x", "model_b": "y", "winner": ["x"]}], r"'winner' is \["),
        ([{"model_1": "x", "model_2": "y", "g1_winner": {}}], r"'g1_winner' is \{\}"),
        ([judgebench(["A>B"], "A>B")], r"'judgments\[0\].decision' is \["),
        ([{"prompt": 5, "answers": {"a": "1", "b": "2"}, "verdicts": {"j": {"a": 1}}}], r"'prompt' is 5"),
        ([{"prompt": [{"role": 1}], "answers": {"a": "1", "b": "2"}, "verdicts": {"j": {"a": 1}}}], r"'prompt' is \["),
        ([{"prompt": "q", "answers": {"a": "1", "b": "2"}, "verdicts": {"j": 5}}], r"'verdicts' of 'j' are 5"),
        ([{"prompt": "q", "answers": {"a": 1, "b": "2"}, "verdicts": {"j": {"a": 1}}}], r"'answers' must be texts"),
        ([{"instruction": "x", "output": 3, "generator": "g"}], r"has not the texts instruction, output, generator"),
    ],
)
def test_rows_that_break_a_layout_are_named(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        winrate(write(tmp_path / "a.jsonl", *rows))


def test_a_bad_row_may_be_left_out(tmp_path):
    rows = [{"prompt": p, "answers": {"a": "1", "b": "2"}, "verdicts": {"j": {"a": 1}}} for p in ("q", 5)]
    assert winrate(write(tmp_path / "answers.jsonl", *rows), on_bad_row="skip")[0]["matches"][0]["n"] == 1
    file = write(tmp_path / "a.jsonl", ALPACA | {"preference": 2}, ALPACA | {"preference": 9})
    results, _ = winrate(file, on_bad_row="skip")
    assert results["matches"][0]["n"] == 1
    assert results["skipped"][0].startswith(f"{file}:2")


@pytest.mark.parametrize("kind", ["twice", "copy", "absent", "empty folder", "broken", "few", "table"])
def test_one_line_and_exit_code_2(tmp_path, kind):
    file = write(tmp_path / "a.jsonl", *(ALPACA | {"instruction": f"{i}", "preference": 2} for i in range(3)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "copy.jsonl").write_bytes(file.read_bytes())
    (tmp_path / "broken.json").write_text('[{"preference": 1')
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    words = {
        "twice": [file, file],
        "copy": [file, tmp_path / "copy.jsonl"],
        "absent": [tmp_path / "absent.json"],
        "empty folder": [tmp_path / "folder"],
        "broken": [tmp_path / "broken.json"],
        "few": [file, "--length_control", "minimal"],
        "table": [file, "--length_control", tmp_path / "table.csv"],
    }[kind]
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", "alignment.cli", "winrate", *map(str, words), "--json", str(out)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()
