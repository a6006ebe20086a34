"""Scoring answers from Python and from the command line, and the recipe that makes what is scored."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.config.schema import RewardRecipe
from alignment.data import ranking_to_json
from alignment.data.sampled import Recorder
from alignment.data.template import Template
from alignment.errors import DataError, ModelError
from alignment.manifest import read_manifest
from alignment.meter import say_once
from recipes import reward as stage
from reward.models.batches import encoded_split
from reward.models.score_file import score_file
from reward.models.scoring import RewardScorer
from tests.models import make_model, make_tokenizer
from tests.reward.toy import rankings

RECIPE = """\
stage: reward
model_name_or_path: {model}
output_dir: {output}
datasets:
  - path: {data}
test_split_size: 0.25
peft_method: {method}
max_steps: 4
per_device_train_batch_size: 4
learning_rate: 1e-3
eval_strategy: steps
eval_steps: 2
save_strategy: steps
save_steps: 2
logging_steps: 1
"""


def train(folder: Path, model: Path, method: str, *extra: str) -> Path:
    """Run the stage on the toy; the run directory."""
    data = folder / "labels.jsonl"
    data.write_text("".join(json.dumps(ranking_to_json(row)) + "\n" for row in rankings(16)))
    config = folder / "reward.yaml"
    rank = "lora_r: 4\n" if method == "lora" else ""
    config.write_text(RECIPE.format(model=model, output=folder / "run", data=data, method=method) + rank)
    stage.main(["--config", str(config), *extra])
    return folder / "run"


@pytest.fixture(scope="module", params=["full", "lora"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    return train(tmp_path_factory.mktemp(request.param), tiny_model_dir, request.param)


@pytest.fixture(scope="module")
def scorer(run: Path) -> RewardScorer:
    return RewardScorer.load(str(run), device="cpu", batch_size=4)


def toy_answers() -> tuple[list[Any], list[str]]:
    rows = rankings(4, start=50)
    return [row.prompt for row in rows for _ in row.responses], [answer for row in rows for answer in row.responses]


def test_the_manifest_and_the_metrics_of_a_run(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    results = manifest["results"]
    assert manifest["status"] == "finished"
    assert results["reward_accuracy_low"] <= results["reward_accuracy"] <= results["reward_accuracy_high"]
    assert results["steps"] == 4
    assert {row["from"] <= row["to"] for row in results["reward_agreement_by_score_gap"]} == {True}
    assert manifest["train"]["prompts"] + manifest["evaluation"]["prompts"] == 16
    assert manifest["evaluation"]["prompts_in_training"] == 0
    assert manifest["score_std"] > 0
    assert manifest["lineage"]["base_sha256"]
    logs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [log["step"] for log in logs if "eval_accuracy" in log] == [2, 4, 4]
    assert {"loss", "accuracy", "score_gap"} <= set(logs[0])


def test_the_scale_in_the_manifest_is_that_of_the_training_answers(run: Path, scorer: RewardScorer) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    from alignment.data import split_by_prompt

    rows, _ = split_by_prompt(rankings(16), 0.25, 42)
    scores = torch.tensor(
        scorer.score([row.prompt for row in rows for _ in row.responses], [a for r in rows for a in r.responses])
    )
    assert manifest["score_mean"] == pytest.approx(scores.mean().item(), abs=1e-5)
    assert manifest["score_std"] == pytest.approx(scores.std(correction=0).item(), abs=1e-5)


def test_a_score_does_not_depend_on_its_company(scorer: RewardScorer) -> None:
    prompts, answers = toy_answers()
    together = scorer.score(prompts, answers)
    alone = [scorer.score([prompt], [answer])[0] for prompt, answer in zip(prompts, answers, strict=True)]
    backwards = scorer.score(prompts[::-1], answers[::-1])[::-1]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together == pytest.approx(backwards, abs=1e-5)
    assert len({round(score, 5) for score in together}) > len(together) // 2


def test_an_answer_that_was_cut_off_is_read_without_a_stop_token(scorer: RewardScorer) -> None:
    prompts, answers = toy_answers()
    ids = scorer.encode(prompts[0], answers[0], where="")
    cut = scorer.score(prompts[:2], answers[:2], stopped=[False, True])
    assert cut == pytest.approx([scorer.score_tokens([ids[:-1]])[0], scorer.score(prompts, answers)[1]], abs=1e-5)
    assert abs(cut[0] - scorer.score(prompts, answers)[0]) > 1e-4


def spelled(scorer: RewardScorer, text: str, prompt: Any) -> dict[str, Any]:
    """The record of an answer that a policy spelled byte by byte."""
    tokenizer = scorer.template.tokenizer
    ids = [token for byte in text for token in tokenizer(byte, add_special_tokens=False)["input_ids"]]
    assert ids != tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt_ids = scorer.template.prompt_ids(prompt)
    return Recorder(scorer.template).record(prompt, prompt_ids, [[*ids, scorer.template.stop_token_ids[0]]])


def test_the_tokens_that_were_sampled_are_scored(
    scorer: RewardScorer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = toy_answers()[0][0]
    record = spelled(scorer, "the fox", prompt)
    expected = scorer.score_tokens([record["prompt_ids"] + record["response_ids"][0]])
    assert scorer.score([prompt], ["the fox"], tokens=[record]) == pytest.approx(expected, abs=1e-6)
    assert scorer.score([prompt], ["the fox"]) != pytest.approx(expected, abs=1e-6)
    with pytest.raises(DataError, match="answer 1 of 1: the answer 'the dog' is not the text of its sampled tokens"):
        scorer.score([prompt], ["the dog"], tokens=[record])
    row = {"prompt": prompt, "responses": ["the fox"], "pairs": [], "provenance": {"sampled_tokens": [record]}}
    (tmp_path / "labels.jsonl").write_text(json.dumps(row) + "\n")
    score_file(run, tmp_path / "labels.jsonl", tmp_path / "scored.jsonl")
    (scored,) = map(json.loads, (tmp_path / "scored.jsonl").read_text().splitlines())
    assert scored["scores"] == pytest.approx(expected, abs=1e-5)
    assert scored["provenance"] == row["provenance"]
    assert "rendered" not in capsys.readouterr().err


def test_tokens_of_another_tokenizer_are_not_scored(
    scorer: RewardScorer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = RewardScorer.load(str(run), device="cpu")  # which has told nothing yet
    prompt = toy_answers()[0][0]
    other = {**spelled(scorer, "the fox", prompt), "tokenizer_sha256": "0" * 64}
    for _ in range(2):
        assert fresh.score([prompt], ["the fox"], tokens=[other]) == fresh.score([prompt], ["the fox"])
    assert capsys.readouterr().err.count("rendered 1 of 1 sampled answers from their text") == 1


def test_a_row_of_labels_that_was_cut_off_is_scored_without_a_stop_token(
    scorer: RewardScorer, run: Path, tmp_path: Path
) -> None:
    prompt = toy_answers()[0][0]
    row = {"prompt": prompt, "responses": ["the fox", "a dog"], "provenance": {"stopped": [False, True]}}
    (tmp_path / "labels.jsonl").write_text(json.dumps(row) + "\n")
    score_file(run, tmp_path / "labels.jsonl", tmp_path / "scored.jsonl")
    (scored,) = map(json.loads, (tmp_path / "scored.jsonl").read_text().splitlines())
    expected = scorer.score([prompt] * 2, ["the fox", "a dog"], stopped=[False, True])
    assert scored["scores"] == pytest.approx(expected, abs=1e-5)


def test_scores_are_those_of_plain_transformers(run: Path, scorer: RewardScorer) -> None:
    snippet = (run / "README.md").read_text().partition("```python\n")[2].partition("```")[0]  # as the card says
    found: dict[str, Any] = {}
    exec(snippet, found)
    tokenizer, model = found["tokenizer"], found["model"]
    prompts, answers = toy_answers()
    expected = []
    for prompt, answer in zip(prompts, answers, strict=True):
        text = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], tokenize=False)
        ids = tokenizer(text.rstrip("\n"), return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            expected.append(model.eval()(input_ids=ids).logits.item())
    assert scorer.score(prompts, answers) == pytest.approx(expected, abs=1e-5)


def test_a_killed_run_goes_on_to_the_same_scores(run: Path, scorer: RewardScorer, tmp_path: Path, tiny_model_dir: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    method = json.loads((run / "manifest.json").read_text())["recipe"]["peft_method"]
    with monkeypatch.context() as patch:
        patch.setattr(stage, "save_trained", die)
        with pytest.raises(Killed):
            train(tmp_path, tiny_model_dir, method)
    import shutil

    shutil.rmtree(tmp_path / "run" / "checkpoint-4")
    again = train(tmp_path, tiny_model_dir, method)
    resumed = RewardScorer.load(str(again), device="cpu", batch_size=4)
    assert resumed.score(*toy_answers()) == scorer.score(*toy_answers())
    steps = [json.loads(line)["step"] for line in (again / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_reward_adapter_that_pads_with_its_own_token_can_be_continued(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    make_model(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "again").mkdir()
    first = train(tmp_path, tmp_path / "model", "lora", "--max_steps", "2")
    before = RewardScorer.load(str(first), device="cpu").score(*toy_answers())
    second = train(tmp_path / "again", first, "lora", "--max_steps", "2", "--learning_rate", "1e-12")
    assert RewardScorer.load(str(second), device="cpu").score(*toy_answers()) == pytest.approx(before, abs=1e-5)
    manifests = [json.loads((run / "manifest.json").read_text()) for run in (first, second)]
    assert manifests[0]["lineage"]["base_sha256"] == manifests[1]["lineage"]["base_sha256"]


def test_too_long_for_the_model(scorer: RewardScorer) -> None:
    with pytest.raises(DataError, match=r"answer 2 of 2: prompt and answer are \d+ tokens, more than the 256 that fit"):
        scorer.score(["the cat", "the dog"], ["jumps", "what? no! " * 80])


@pytest.mark.parametrize("key", ["answer", "completion", "response"])
def test_a_file_of_text_is_scored(scorer: RewardScorer, run: Path, tmp_path: Path, key: str) -> None:
    file, output = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    file.write_text(
        "".join(json.dumps({"id": n, "prompt": "the cat", key: text}) + "\n" for n, text in enumerate(["a", "b"]))
    )
    score_file(run, file, output)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["id"], row["prompt"], row[key]) for row in rows] == [(0, "the cat", "a"), (1, "the cat", "b")]
    assert [row["score"] for row in rows] == pytest.approx(scorer.score(["the cat"] * 2, ["a", "b"]), abs=1e-6)


def test_messages_are_scored_and_standard_output_is_the_default(
    scorer: RewardScorer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user, assistant = {"role": "user", "content": "the cat"}, {"role": "assistant", "content": "jumps"}
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wt") as stream:
        stream.write(json.dumps({"messages": [user, assistant]}) + "\n\n")
        stream.write(json.dumps({"prompt": [user], "answer": "jumps"}) + "\n")
    capsys.readouterr()
    score_file(run, file)
    scores = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
    assert scores == pytest.approx(scorer.score([[user]], ["jumps"]) * 2, abs=1e-6)


def test_reasoning_in_a_field_is_refused_where_training_refuses_it(
    scorer: RewardScorer, run: Path, tmp_path: Path
) -> None:
    user = {"role": "user", "content": "the cat"}
    thinking = {"role": "assistant", "content": "jumps", "reasoning_content": "it is quick"}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": [user, thinking]}) + "\n")
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* the chat template writes no reasoning"):
        score_file(run, file, tmp_path / "out.jsonl")
    written = {"role": "assistant", "content": "<think>\nit is quick\n</think>\n\njumps"}
    file.write_text(json.dumps({"messages": [user, written]}) + "\n")
    score_file(run, file, tmp_path / "out.jsonl")
    found = json.loads((tmp_path / "out.jsonl").read_text())["score"]
    assert found == pytest.approx(scorer.score([[user]], [written["content"]])[0], abs=1e-6)
    assert found != pytest.approx(scorer.score([[user]], ["jumps"])[0], abs=1e-6)


def test_the_code_of_the_model_card_prints_the_score(
    scorer: RewardScorer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (run / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code, {})
    prompt: Any = [{"role": "user", "content": "What is the capital of Peru?"}]
    printed = float(capsys.readouterr().out.splitlines()[-1])
    assert printed == pytest.approx(scorer.score([prompt], ["Lima."])[0], abs=1e-5)


def test_prompts_of_another_kind_than_in_training_are_reported(
    scorer: RewardScorer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    say_once.cache_clear()
    (kind,) = {"text" if isinstance(prompt, str) else "messages" for prompt in toy_answers()[0]}
    assert read_manifest(run)["prompt_kind"] == kind
    scorer.score(*toy_answers())
    assert "not meaningful" not in capsys.readouterr().err
    other: Any = [{"role": "user", "content": "the cat"}] if kind == "text" else "the cat"
    scorer.score([other], ["jumps"])
    assert f"trained on prompts that are {kind}, and scores prompts that are" in capsys.readouterr().err


def test_training_pairs_without_a_winner_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_once.cache_clear()
    for probability, reported in ((0.5, True), (0.6, False)):
        pair = {"first": 0, "second": 1, "probability": probability, "status": "ok"}
        rows = [{"prompt": f"the {i}", "responses": ["cat", "dog"], "pairs": [pair]} for i in range(4)]
        (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        recipe = RewardRecipe(stage="reward", output_dir="r", model_name_or_path="m",
                              datasets=[{"path": str(tmp_path / "d.jsonl")}])  # fmt: skip
        encoded_split(recipe, Template(make_tokenizer()), limit=None, seed=0)
        assert ("none of the 4 training pairs has a winner" in capsys.readouterr().err) == reported


GOOD = '{"prompt": "the cat", "answer": "jumps"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "{broken\n", r"rows.jsonl:2: invalid JSON: .* line 1 column 2 \(char 1\)"),
        (GOOD + "[" * 100_000, "rows.jsonl:2: invalid JSON: more than 128 lists and objects inside one another"),
        (
            GOOD + '{"prompt": "x", "answer": "a\\ud800"}\n',
            "rows.jsonl:2: 'answer' holds half of a surrogate pair at position 1",
        ),
        (GOOD + "[1]\n", "rows.jsonl:2: the row is a list, not an object with named fields"),
        (GOOD + '{"prompt": "x"}\n', "rows.jsonl:2: has the keys prompt; a row needs prompt and one of answer"),
        ('{"prompt": "x", "answer": "a", "response": "b"}\n', "rows.jsonl:1: has the keys prompt, answer, response"),
        ('{"prompt": "x", "answer": " "}\n', "rows.jsonl:1: answer is ' ', but an answer must be non-empty text"),
        ('{"prompt": 3, "answer": "a"}\n', "rows.jsonl:1: 'prompt' is a number, not a list of messages"),
        ('{"prompt": [{"role": "user"}], "answer": "a"}\n', r"rows.jsonl:1: 'prompt\[0\]' has no 'content'"),
        (
            '{"messages": [{"role": "user", "content": "x"}]}\n',
            "rows.jsonl:1: 'messages' ends with a message of the user",
        ),
        (
            '{"prompt": "x", "answer": "a", "context": "It rains."}\n',
            "rows.jsonl:1: 'context': not read; .* To score without, set --ignore_columns context",
        ),
        ('{"messages": [{"role": "user", "content": "x"}], "notes": "A b."}\n', "rows.jsonl:1: 'notes': not read"),
        ("", "rows.jsonl is empty: it holds no rows"),
        (" \n", "rows.jsonl: empty"),
    ],
)
def test_bad_rows(tmp_path: Path, content: str, message: str) -> None:
    file, output = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        score_file("no/such/run", file, output)  # the file is read before the model
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_text_before_the_prompt_is_scored_with_it(scorer: RewardScorer, run: Path, tmp_path: Path) -> None:
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "the cat"}
    assistant = {"role": "assistant", "content": "jumps"}
    labels = {"pairs": [{"first": 0, "second": 1, "probability": 1.0, "status": "ok"}], "provenance": {"judge": "a b"}}
    rows = [
        {"prompt": "the cat", "answer": "jumps", "system": "Be brief.", "id": "1"},
        {"messages": [user, assistant], "system": "Be brief.", "notes": "A text."},
        {"prompt": [system, user], "responses": ["jumps", "jumps"], **labels},
    ]
    file, output = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score_file(run, file, output, ignored=["notes"])
    first, second, third = map(json.loads, output.read_text().splitlines())
    (expected,) = scorer.score([[system, user]], ["jumps"])
    assert [first["score"], second["score"], *third["scores"]] == pytest.approx([expected] * 4, abs=1e-6)
    assert second["notes"] == "A text."


def test_ignored_keys_are_not_scored_and_stay_in_the_file(scorer: RewardScorer, run: Path, tmp_path: Path) -> None:
    noted = [{"role": "user", "content": "the cat", "note": "A b."}, {"role": "assistant", "content": "jumps"}]
    rows = [{"prompt": "the cat", "answer": "jumps", "system": "Be brief."}, {"messages": noted}]
    file, output = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score_file(run, file, output, ignored=["system", "note"])
    first, second = map(json.loads, output.read_text().splitlines())
    expected = scorer.score(["the cat", noted[:1]], ["jumps"] * 2)
    assert [first.pop("score"), second.pop("score")] == pytest.approx(expected, abs=1e-6)
    assert [first, second] == rows


def test_an_ignored_key_that_nothing_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(GOOD)
    with pytest.raises(DataError, match=r"rows\.jsonl: ignore_columns names 'zzz', which no row and no message has"):
        score_file("no/such/run", file, ignored=["zzz"])


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD.encode() + b'{"prompt": "\xff"}\n')
    with pytest.raises(DataError, match=r"rows.jsonl:2: invalid UTF-8: byte 0xff at position 12"):
        score_file("no/such/run", file)


def test_a_row_too_long_is_named_by_its_line(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(GOOD + "\n" + json.dumps({"prompt": "the dog", "answer": "what? no! " * 80}) + "\n")
    with pytest.raises(DataError, match=r"rows.jsonl:3: prompt and answer are \d+ tokens"):
        score_file(run, file, tmp_path / "scored.jsonl")
    assert not (tmp_path / "scored.jsonl").exists()


def test_no_such_file_and_no_reward_model(tmp_path: Path, tiny_model_dir: Path) -> None:
    with pytest.raises(DataError, match=r"missing.jsonl: no such file; name a JSONL file"):
        score_file(tiny_model_dir, tmp_path / "missing.jsonl")
    (tmp_path / "rows.jsonl").write_text(GOOD)
    with pytest.raises(ModelError, match="no/such/run: no such folder; name the run folder of a reward model"):
        score_file("no/such/run", tmp_path / "rows.jsonl")
    with pytest.raises(ModelError, match="is not a reward model: its weights have no score head"):
        score_file(tiny_model_dir, tmp_path / "rows.jsonl")
