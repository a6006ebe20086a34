"""Synthesis end to end: real seeds, a server on loopback that writes by rules, real files."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations
from alignment.data.template import Template
from alignment.errors import BudgetError, DataError, JudgeError, RecipeError
from recipes import synthesize
from tests.calls.chat_server import completion, failure
from tests.models import EOS, START, make_tokenizer
from tests.synthesize.writer_server import WriterServer, by_rules

SELF = {"kind": "self_instruct", "num_instructions": 30}


@pytest.fixture
def seeds(shared: Path) -> Path:
    return shared / "data/self-instruct/seed_tasks.jsonl"


def recipe(folder: Path, server: WriterServer, seeds: Path | None, method: dict[str, Any], **keys: Any) -> list[str]:
    values = {
        "stage": "synthesize",
        "output_dir": str(folder / "run"),
        "writer": {"kind": "openai", "model": "toy", "base_url": server.url, "max_retries": 0},
        "method": method,
        **({"datasets": [{"path": str(seeds)}]} if seeds else {}),
        **keys,
    }
    (folder / "synthesize.yaml").write_text(json.dumps(values))
    return ["--config", str(folder / "synthesize.yaml")]


def rows_of(folder: Path, name: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"run/{name}.jsonl").read_text().splitlines()]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run/manifest.json").read_text())


def test_self_instruct_writes_instructions_that_are_new_and_keeps_their_lineage(tmp_path, seeds):
    with WriterServer() as server:
        synthesize.main(recipe(tmp_path, server, seeds, SELF))
        sent = server.requests
    rows, found = rows_of(tmp_path), manifest(tmp_path)["results"]
    assert found["instructions"] == 30
    assert found["replies"] == found["usage"]["calls"] == len(sent)
    assert {request["temperature"] for request in sent} == {0.7, 0.0}
    first = rows[0]["provenance"]
    assert all(re.fullmatch(rf"{seeds}:\d+", source) for source in first["seeds"])
    assert {len(row["provenance"]["seeds"]) + len(row["provenance"]["written"]) for row in rows} == {8}
    assert max(row["provenance"]["rouge_l"] for row in rows) < 0.7
    dropped = rows_of(tmp_path, "dropped")
    assert {"keyword", "too short", "similar"} <= {row["reason"] for row in dropped}
    assert not any("picture" in row["instruction"] for row in rows)
    # all that was written is a row or was left out
    outcomes = {row["provenance"]["instruction"] for row in rows}
    outcomes |= {row["provenance"]["instruction"] for row in dropped if "instruction" in row["provenance"]}
    assert outcomes == set(range(30))
    page = (tmp_path / "run/synthesize.html").read_text()
    assert rows[0]["instruction"] in page
    assert "instructions: keyword" in page
    nearest = found["diversity"]["nearest_seed"]["histogram"]
    assert sum(nearest) == 30
    assert nearest[7:] == [0, 0, 0]


def test_the_rows_load_in_datasets_and_in_later_stages(tmp_path, seeds):
    with WriterServer() as server:
        synthesize.main(recipe(tmp_path, server, seeds, SELF))
    rows = rows_of(tmp_path)
    loaded = load_dataset(str(tmp_path / "run"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == len(rows)
    ours = load_demonstrations([DatasetEntry(path=str(tmp_path / "run"))], on_bad_row="stop", seed=0)
    assert [row.completion for row in ours.rows] == [row["output"] for row in rows]


@pytest.mark.parametrize("killed_at", [2, 7, 40])
def test_a_run_that_stopped_resumes_without_a_repeated_call_and_gives_the_same_rows(tmp_path, seeds, killed_at):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), stopped.mkdir()
    with WriterServer() as server:
        synthesize.main(recipe(whole, server, seeds, SELF))
        needed = len(server.requests)
    with WriterServer() as server:
        with pytest.raises(BudgetError, match=r"max_calls\) is used up\. No rows were written\. What was written"):
            synthesize.main(recipe(stopped, server, seeds, SELF, max_calls=killed_at))
        assert not (stopped / "run/train.jsonl").exists()
        synthesize.main(recipe(stopped, server, seeds, SELF))
        assert len(server.requests) == needed
        assert len({json.dumps(request) for request in server.requests}) == needed
    assert rows_of(stopped) == rows_of(whole)
    assert rows_of(stopped, "dropped") == rows_of(whole, "dropped")


@pytest.mark.slow
def test_a_killed_process_resumes_without_a_repeated_call(tmp_path, seeds):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    with WriterServer() as server:
        synthesize.main(recipe(whole, server, seeds, SELF))
        needed = len(server.requests)

    def slowly(prompt: str, seed: int) -> str:
        time.sleep(0.3)
        return by_rules(prompt, seed)

    with WriterServer(slowly) as server:
        args = recipe(killed, server, seeds, SELF, max_concurrency=1)
        process = subprocess.Popen([sys.executable, "-m", "recipes.synthesize", *args])
        while len(server.requests) < 12 and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (killed / "run/train.jsonl").exists()
        server.rules = by_rules
        synthesize.main(args)
        # the call that was in flight is made again, and no other
        assert len(server.requests) - len({json.dumps(request) for request in server.requests}) <= 1
        assert len(server.requests) <= needed + 1
    assert rows_of(killed) == rows_of(whole)


def test_an_endpoint_that_goes_down_stops_the_run_which_goes_on_later(tmp_path, seeds):
    calls = [0]

    def breaks(prompt: str, seed: int) -> Any:
        calls[0] += 1
        return failure(503) if calls[0] == 8 else by_rules(prompt, seed)

    with WriterServer(breaks) as server:
        with pytest.raises(JudgeError, match=r"writer toy: a call failed 1 times .*503.*same command resumes"):
            synthesize.main(recipe(tmp_path, server, seeds, SELF))
        synthesize.main(recipe(tmp_path, server, seeds, SELF))
        answered = [json.dumps(request) for request in server.requests]
        assert len(answered) - len(set(answered)) == 1  # the one that failed
    assert manifest(tmp_path)["status"] == "finished"


def test_without_a_server_nothing_is_written(tmp_path, seeds):
    with WriterServer() as server:
        args = recipe(tmp_path, server, seeds, SELF)
    with pytest.raises(JudgeError, match=r"no connection to the writer at .* Check writer\.base_url"):
        synthesize.main(args)
    assert not (tmp_path / "run").exists()


def test_replies_that_cannot_be_read_are_counted_and_never_trained(tmp_path, seeds):
    def odd(prompt: str, seed: int) -> Any:
        text = by_rules(prompt, seed)
        if "an input that the task can be applied to" in prompt and "Name" in prompt.rsplit("Task:", 1)[-1]:
            return "I'm sorry, I can't."
        if "an input that the task can be applied to" in prompt and "Plan" in prompt.rsplit("Task:", 1)[-1]:
            return completion("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: half", finish="length")
        return "maybe" if "answer yes or no" in prompt and "Invent" in prompt.rsplit("Task:", 1)[-1] else text

    with WriterServer(odd) as server:
        args = recipe(tmp_path, server, seeds, {**SELF, "num_instructions": 60})
        synthesize.main(args)
        count = len(server.requests)
        synthesize.main([*args, "--reparse", "true"])
        assert len(server.requests) == count
    found = manifest(tmp_path)["results"]
    assert found["left_out"]["classification"]["parse_error"] >= 1
    assert found["left_out"]["instances"]["refusal"] >= 1
    assert found["left_out"]["instances"]["cut off"] >= 1
    texts = json.dumps(rows_of(tmp_path))
    assert "sorry" not in texts
    assert "half" not in texts
    classes, instances = (found["left_out"][step] for step in ("classification", "instances"))
    assert found["failed"] == classes["parse_error"] + instances["refusal"]


def test_a_writer_that_gives_nothing_stops_the_run(tmp_path, seeds):
    with WriterServer(lambda prompt, seed: "no list") as server:
        with pytest.raises(JudgeError, match=r"20 of 20 replies gave nothing; .* is 0\.5.*parse_error: no l"):
            synthesize.main(recipe(tmp_path, server, seeds, SELF))
        assert len(server.requests) == 20
    assert not (tmp_path / "run/train.jsonl").exists()


def test_a_writer_that_repeats_itself_stops_after_some_rounds(tmp_path, seeds):
    def same(prompt: str, seed: int) -> str:
        return "9. Explain how tides work in a bay." if "numbered" in prompt else by_rules(prompt)

    with WriterServer(same) as server:
        synthesize.main(recipe(tmp_path, server, seeds, {**SELF, "patience": 3}))
    found = manifest(tmp_path)["results"]
    assert (found["instructions_written"], found["instructions_wanted"], found["rounds"]) == (1, 30, 4)
    assert found["left_out"]["instructions"] == {"similar": 19}  # 4 rounds of 5 prompts, without the first reply


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (0, "is empty|holds no|gives no usable row"),
        (
            3,
            "datasets hold 3 different seeds, and a prompt of method self_instruct shows 8",
        ),
    ],
)
def test_too_few_seeds_are_refused(tmp_path, seeds, lines, error):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(seeds.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]))
    with WriterServer() as server:
        with pytest.raises(DataError, match=error) as caught:
            synthesize.main(recipe(tmp_path, server, few, SELF))
        assert not server.requests
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"max_calls": 0}, "max_calls"),
        ({"datasets": []}, "datasets: the required key is missing: method self_instruct begins from seeds"),
        ({"method": {"kind": "magpie"}, "datasets": []}, "writer.kind: must be local for method magpie"),
        ({"method": {"kind": "answers", "num_answers": 2}}, "method.num_answers: needs temperature above 0"),
        ({"max_cost": 1.0}, "max_cost: needs writer.prices"),
        ({"test_split_size": 0.1}, "test_split_size: has no effect"),
        ({"method": {**SELF, "max_rouge_l": 1.5}}, "max_rouge_l"),
        ({"method": {"kind": "evol_instruct", "in_depth": [], "in_breadth": False}}, "method.in_depth: is empty"),
    ],
)
def test_bad_recipes_are_refused_before_anything_is_written(tmp_path, seeds, keys, fault):
    with WriterServer() as server:
        args = recipe(tmp_path, server, seeds, SELF)
        values = json.loads((tmp_path / "synthesize.yaml").read_text()) | keys
        (tmp_path / "synthesize.yaml").write_text(json.dumps(values))
        with pytest.raises(RecipeError) as caught:
            synthesize.main(args)
    assert any(fault in line for line in caught.value.faults), caught.value.faults
    assert not (tmp_path / "run").exists()


def test_evol_instruct_evolves_every_seed_and_leaves_eliminated_ones_in_the_pool(tmp_path, seeds):
    def rules(prompt: str, seed: int) -> str:
        if box := re.search(r"\[box\]\n(.*?)\n\[/box\]", prompt, re.DOTALL):
            if "eggs" in box[1]:
                return f"{box[1]} In the box."
            return f"{box[1]} Step {seed} of it."
        if "equal or different" in prompt:
            return "equal" if "pairs" in prompt else "different"
        return "Sorry, no." if "haiku" in prompt else f"Answer to {prompt[-20:]}"

    method = {"kind": "evol_instruct", "num_rounds": 2}
    few = tmp_path / "few.jsonl"
    few.write_text("".join(seeds.read_text(encoding="utf-8").splitlines(keepends=True)[:10]))
    with WriterServer(rules) as server:
        synthesize.main(recipe(tmp_path, server, few, method))
        assert all(len(request["messages"]) == 1 for request in server.requests)
    rows, found = rows_of(tmp_path), manifest(tmp_path)["results"]
    left_out = found["left_out"]
    assert left_out["evolve"] == {"copies the prompt": 2}
    assert left_out["compare"] == {"no information gain": 2}
    by_seed: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        (source,) = row["provenance"]["seeds"]
        by_seed.setdefault(source, []).append(row)
    assert f"{few}:1" not in by_seed
    assert f"{few}:2" not in by_seed
    for evolved in by_seed.values():
        one, two = sorted(evolved, key=lambda row: row["provenance"]["round"])
        assert two["instruction"].startswith(one["instruction"])
        assert two["provenance"]["operations"][0] == one["provenance"]["operations"][0]
        assert len(two["provenance"]["operations"]) == 2


def test_answers_keep_the_layout_of_their_prompts(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Why {word}?"}) + "\n" for word in ("a", "b", "a")))
    method = {"kind": "answers", "num_answers": 3, "temperature": 1.0, "system": "Be brief."}

    def rules(prompt: str, seed: int) -> str:
        return f"{prompt} {seed % 2}"

    with WriterServer(rules) as server:
        synthesize.main(recipe(tmp_path, server, prompts, method))
        assert len(server.requests) == 6
        assert server.requests[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    rows = rows_of(tmp_path)
    assert {(row["prompt"], row["completion"]) for row in rows} == {
        (f"Why {word}?", f"Why {word}? {place}") for word in "ab" for place in (0, 1)
    }
    assert manifest(tmp_path)["results"]["left_out"] == {"answer": {"duplicate": 2}}


def test_magpie_samples_the_users_message_from_a_local_model(tmp_path, shared):
    values = {
        "stage": "synthesize",
        "output_dir": str(tmp_path / "run"),
        "writer": {
            "kind": "local",
            "model_name_or_path": str(shared / "models/stories260K"),
            "chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
        },
        "method": {"kind": "magpie", "num_instructions": 6, "max_tokens": 150, "answer_temperature": 1.0},
        "max_failure_share": 1.0,
    }
    for name in ("run", "again"):
        values["output_dir"] = str(tmp_path / name)
        (tmp_path / "synthesize.yaml").write_text(json.dumps(values))
        synthesize.main(["--config", str(tmp_path / "synthesize.yaml")])
    rows, found = rows_of(tmp_path), manifest(tmp_path)["results"]
    assert rows == [json.loads(line) for line in (tmp_path / "again/train.jsonl").read_text().splitlines()]
    assert len({row["instruction"] for row in rows}) == len(rows) > 1
    assert all("\n" not in row["instruction"] and len(row["instruction"].split()) > 3 for row in rows)
    assert found["replies"] == found["usage"]["calls"]
    assert "nearest_seed" not in found["diversity"]


def test_a_user_message_is_generated_from_the_template_up_to_its_text(tmp_path):
    template = Template(make_tokenizer())
    ids, after = template.user_turn([{"role": "system", "content": "Be brief."}])
    assert template.tokenizer.decode(ids) == f"{START}system\nBe brief.{EOS}\n{START}user\n"
    assert after == f"{EOS}\n{START}assistant\n"


@pytest.mark.parametrize("words", [{"min_words": 20}, {"max_words": 12}], ids=str)
def test_a_dry_run_imagines_instructions_that_pass_the_filters(tmp_path, seeds, capsys, words):
    with WriterServer() as server:
        synthesize.main([*recipe(tmp_path, server, seeds, {**SELF, **words}), "--dry_run", "true"])
    assert "65 calls" in capsys.readouterr().out


def test_a_dry_run_counts_calls_and_makes_none(tmp_path, seeds, capsys):
    prices = {"prompt": 1.0, "completion": 2.0}
    with WriterServer() as server:
        args = recipe(tmp_path, server, seeds, SELF)
        values = json.loads((tmp_path / "synthesize.yaml").read_text())
        values["writer"]["prices"] = prices
        (tmp_path / "synthesize.yaml").write_text(json.dumps(values))
        synthesize.main([*args, "--dry_run", "true"])
        assert not server.requests
    # 30 instructions, 8 from each of the 5 prompts of one round; then 30 classifications and 30 instances
    assert "65 calls" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
