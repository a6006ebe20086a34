import itertools
import json
import math
import re

import pytest
import torch
import yaml

from alignment.errors import AlignmentError, BudgetError, DataError, JudgeError, RecipeError
from alignment.evaluate.heldout import HeldOut
from alignment.evaluate.policies import measure
from recipes.evaluate import main
from tests.calls.chat_server import ChatServer, completion, failure
from tests.models import make_model, make_tokenizer, save_tiny_model

QUESTIONS = [
    f"tell me a story about {animal}" for animal in ("cats", "dogs", "foxes", "balls", "friends", "the lazy dog")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    save_tiny_model(root / "sft", seed=0)
    save_tiny_model(root / "ppo", seed=1)
    (root / "foreign").mkdir()
    tokenizer = make_tokenizer(vocab_size=280)
    make_model(tokenizer, seed=2).save_pretrained(root / "foreign")
    tokenizer.save_pretrained(root / "foreign")
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "a story"}]}
        for q in [*QUESTIONS, QUESTIONS[0]]
    ]
    (root / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "outside.txt").write_text("The quick brown fox jumps over the lazy dog.\n\n" * 40)
    return root


def recipe_of(folder, tmp_path, **changes):
    recipe = {
        "stage": "evaluate",
        "output_dir": str(tmp_path / "out"),
        "model_name_or_path": str(folder / "sft"),
        "candidates": [
            {"name": "ppo", "model_name_or_path": str(folder / "ppo")},
            {"name": "twin", "model_name_or_path": str(folder / "sft")},
            {"name": "foreign", "model_name_or_path": str(folder / "foreign")},
        ],
        "datasets": [{"path": str(folder / "heldout.jsonl")}],
        "judges": [
            {"kind": "rules", "name": "shorter", "function": "tests.evaluate.rules:shorter"},
            {"kind": "rules", "name": "first", "function": "tests.evaluate.rules:always_the_first"},
        ],
        "perplexity_datasets": [{"path": str(folder / "outside.txt")}],
        "max_new_tokens": 10,
        "num_generations": 2,
        "num_examples": 3,
        "bootstrap_samples": 200,
        **changes,
    }
    file = tmp_path / "evaluate.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return ["--config", str(file)]


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The finished run's folder, and what was measured of each policy."""
    tmp_path = tmp_path_factory.mktemp("run")
    measured = {}

    def keeping(*arguments):
        baseline, candidates = measure(*arguments)
        measured.update({policy.name: policy for policy in [baseline, *candidates]})
        return baseline, candidates

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.evaluate.measure", keeping)
        main(recipe_of(folder, tmp_path))
    return tmp_path / "out", measured


@pytest.fixture(scope="module")
def evaluated(run):
    return run[0]


@pytest.fixture(scope="module")
def results(evaluated):
    return json.loads((evaluated / "results.json").read_text())


@pytest.fixture(scope="module")
def answers(evaluated):
    return [json.loads(line) for line in (evaluated / "answers.jsonl").read_text().splitlines()]


def test_the_win_rate_is_that_of_the_answers_written(results, answers):
    assert len(answers) == 12  # 6 distinct prompts, the seventh row repeats one; 2 answers each
    points = []
    for row in answers:
        mine, theirs = len(row["answers"]["ppo"]), len(row["answers"]["sft"])
        points.append(1.0 if mine < theirs else 0.0 if mine > theirs else 0.5)
    rate = results["win_rate"]["ppo"]["shorter"]
    assert rate["value"] == pytest.approx(sum(points) / 12, rel=1e-12)
    assert (rate["n"], rate["clusters"], rate["coverage"]) == (12, 6, 1.0)
    assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1


def test_rows_name_their_data_set_only_where_there_are_several(answers):
    assert not any("subset" in row for row in answers)
    sources = ["a/x.jsonl:1", "a/y.jsonl:1", "a/x.jsonl:2"]
    assert HeldOut([], {}, [], sources).subsets == ["x.jsonl", "y.jsonl", "x.jsonl"]
    assert HeldOut([], {}, [], ["a/x.jsonl:1", "b/x.jsonl:9"]).subsets == ["a/x.jsonl", "b/x.jsonl"]


def test_a_judge_that_looks_only_at_order_gives_no_winner(results):
    for candidate in ("ppo", "twin", "foreign"):
        assert results["win_rate"][candidate]["first"]["value"] == 0.5


def test_the_kl_is_that_of_the_sampled_tokens_under_both_models(results, run, folder):
    from transformers import AutoModelForCausalLM

    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / name).double() for name in ("ppo", "sft"))
    sampled = run[1]["ppo"]
    total = 0.0
    for prompt, answer in zip(sampled.prompt_ids, sampled.answer_ids, strict=True):
        for place in range(len(answer)):
            before = torch.tensor([prompt + answer[:place]])
            with torch.no_grad():
                p, q = (model(before).logits[0, -1].log_softmax(-1)[answer[place]] for model in (policy, reference))
            total += float(p - q)
    assert results["kl"]["ppo"] == pytest.approx(total / 12, rel=1e-4)
    assert results["details"]["kl"]["ppo"]["n"] == 12
    assert results["kl"]["twin"] == pytest.approx(0.0, abs=1e-4)  # the same weights


def test_the_sampled_tokens_are_written_with_what_they_belong_to(evaluated, run, answers):
    manifest = json.loads((evaluated / "manifest.json").read_text())
    hashes = {who: manifest["sampled_with"][who]["tokenizer_sha256"] for who in ("sft", "ppo", "foreign")}
    assert hashes["sft"] == hashes["ppo"] != hashes["foreign"]
    for who, policy in run[1].items():
        assert [row["prompt_ids"][who] for row in answers] == policy.prompt_ids
        assert [row["response_ids"][who] for row in answers] == policy.answer_ids
        assert [row["stopped"][who] for row in answers] == policy.stopped
        assert [row["tokens"][who] for row in answers] == [len(row["response_ids"][who]) for row in answers]


def test_a_candidate_with_another_tokenizer_has_no_kl(results):
    assert "foreign" not in results["kl"]
    assert "foreign" in results["answer_tokens"]


def test_lengths_variety_and_perplexity_stand_under_plain_names(results, answers):
    for who in ("sft", "ppo", "twin", "foreign"):
        assert results["answer_tokens"][who] == pytest.approx(sum(r["tokens"][who] for r in answers) / 12, rel=1e-12)
        assert results["distinct_answers"][who] == len({r["answers"][who].strip() for r in answers}) / 12
        assert math.isfinite(results["perplexity"][who])
    assert results["perplexity"]["twin"] == results["perplexity"]["sft"]
    assert results["prompts"] == 6


def test_each_policy_samples_with_a_seed_of_its_own(answers):
    assert any(row["answers"]["twin"] != row["answers"]["sft"] for row in answers)


def test_examples_are_different_prompts(evaluated):
    rows = [json.loads(line) for line in (evaluated / "examples.jsonl").read_text().splitlines()]
    assert len({row["prompt"][0]["content"] for row in rows}) == 3
    assert set(rows[0]["verdicts"]) == {"shorter", "first"}


def test_the_manifest_keeps_what_it_was_given(evaluated, folder):
    manifest = json.loads((evaluated / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert list(manifest["data"]["files"]) == [str(folder / "heldout.jsonl")]
    assert set(manifest["judges"]) == {"shorter", "first"}


def test_the_same_seed_gives_the_same_results(folder, tmp_path, results, answers, capsys):
    main(recipe_of(folder, tmp_path))
    assert json.loads((tmp_path / "out/results.json").read_text()) == results
    told = capsys.readouterr().err
    assert re.search(rf"evaluate: twin sampled {len(answers)}/{len(answers)} answers \(100%\), took .* tokens/s", told)


def test_a_judge_that_fails_stops_the_stage_and_leaves_no_results(folder, tmp_path):
    broken = [{"kind": "rules", "name": "broken", "function": "tests.evaluate.rules:broken"}]
    with pytest.raises(JudgeError):
        main(recipe_of(folder, tmp_path, judges=broken))
    assert not (tmp_path / "out/results.json").exists()


def test_a_missing_perplexity_file_is_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        main(recipe_of(folder, tmp_path, perplexity_datasets=[{"path": str(folder / "nowhere.txt")}]))


def judged_by(server, **keys):
    judge = {"kind": "openai", "model": "toy", "base_url": server.url, "api_key_env": "MY_KEY", "max_retries": 0}
    return {"judges": [judge | keys], "num_generations": 1, "perplexity_datasets": []}


def test_a_budget_ends_an_evaluation_and_a_higher_one_continues(folder, tmp_path):
    with ChatServer(lambda prompt, n: completion("A", p_first=0.7)) as server:
        priced = judged_by(server, prices={"prompt": 1.0, "completion": 2.0})
        only = {"candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}]}
        argv = recipe_of(folder, tmp_path, **priced, **only, max_calls=5)
        with pytest.raises(BudgetError, match=r"6 pairs are not all judged: the budget of 5 calls .* is used up"):
            main(argv)
        assert len(server.prompts) == 5
        main([*argv, "--max_calls", "100"])
        assert len(server.prompts) == len(set(server.prompts)) == 12  # 6 pairs in both orders, none asked twice
    results = json.loads((tmp_path / "out" / "manifest.json").read_text())["results"]
    usage = results["usage"]
    assert (usage["calls"], usage["failed_calls"], usage["currency"]) == (12, 0, "USD")
    assert usage["cost"] > 0  # the server counts no tokens, so each call costs what was set aside for it
    assert results["win_rate"]["ppo"]["toy"]["coverage"] == 1.0


def test_a_reply_without_a_verdict_is_asked_about_again_by_the_next_start(folder, tmp_path):
    sick = [True]
    reply = "I like both of them."
    with ChatServer(lambda prompt, n: completion(reply) if sick[0] else completion("A", p_first=0.7)) as server:
        only = {"candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}]}
        argv = recipe_of(folder, tmp_path, **judged_by(server, repair=False, logprobs=False), **only)
        with pytest.raises(JudgeError, match="6 of 6 pairs failed"):
            main(argv)
        sick[0] = False
        main(argv)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["win_rate"]["ppo"]["toy"]["coverage"] == 1.0


def test_a_run_whose_calls_all_failed_takes_a_corrected_recipe(folder, tmp_path):
    only = {"candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}]}
    with ChatServer(lambda prompt, n: failure(500)) as wrong, pytest.raises(JudgeError, match="6 of 6 pairs failed"):
        main(recipe_of(folder, tmp_path, **judged_by(wrong), **only))
    assert (tmp_path / "out" / "verdicts.jsonl").exists()
    with ChatServer(lambda prompt, n: completion("A", p_first=0.7)) as server:
        main(recipe_of(folder, tmp_path, **judged_by(server), **only))
    assert json.loads((tmp_path / "out" / "results.json").read_text())["win_rate"]["ppo"]["toy"]["coverage"] == 1.0


def test_a_run_with_a_verdict_refuses_another_recipe(folder, tmp_path):
    only = {"candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}]}
    half = itertools.cycle([completion("A", p_first=0.7), *[failure(500)] * 11])
    with ChatServer(lambda prompt, n: next(half)) as server:
        with pytest.raises(JudgeError, match="pairs failed"):
            main(recipe_of(folder, tmp_path, **judged_by(server), **only))
        with pytest.raises(AlignmentError, match=r"model was .toy., is .other.*paid for"):
            main(recipe_of(folder, tmp_path, **judged_by(server, model="other"), **only))


def test_a_budget_of_money_needs_prices(folder, tmp_path):
    with pytest.raises(RecipeError, match=r"max_cost: needs judge.prices"):
        main(recipe_of(folder, tmp_path, max_cost=1.0))


def test_reparse_reads_the_verdicts_anew_and_makes_no_call(folder, tmp_path):
    with ChatServer(lambda prompt, n: completion("A", p_first=0.7 if n % 2 else 0.9)) as server:
        only = {"candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}]}
        keys = judged_by(server)
        main(recipe_of(folder, tmp_path, **keys, **only))
        out, made = tmp_path / "out", len(server.prompts)
        before = {name: (out / name).read_text() for name in ("results.json", "answers.jsonl", "examples.jsonl")}
        main([*recipe_of(folder, tmp_path, **keys, **only), "--reparse", "true"])
        assert {name: (out / name).read_text() for name in before} == before
        clamped = {"judges": [keys["judges"][0] | {"clamp": [0.5, 0.8]}]}
        main([*recipe_of(folder, tmp_path, **keys | clamped, **only), "--reparse", "true"])
        rate = json.loads((out / "results.json").read_text())["win_rate"]["ppo"]["toy"]
        old = json.loads(before["results.json"])["win_rate"]["ppo"]["toy"]
        assert rate["coverage"] == old["coverage"] == 1.0
        verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
        assert {row["probability"] for row in verdicts} == {0.7, 0.8}  # 0.9 is clamped
        with pytest.raises(AlignmentError, match=r"confidence_level was 0\.\d+, is 0\.5"):
            main([*recipe_of(folder, tmp_path, **keys, **only, confidence_level=0.5), "--reparse", "true"])
        other = {"judges": [keys["judges"][0] | {"model": "another"}]}
        with pytest.raises(AlignmentError, match=r"needs \d+ calls that were never made"):
            main([*recipe_of(folder, tmp_path, **keys | other, **only), "--reparse", "true"])
        assert len(server.prompts) == made
    assert json.loads((out / "results.json").read_text())["win_rate"]["ppo"]["toy"] == rate


def test_replies_without_a_verdict_hide_no_call_that_was_never_made(folder, tmp_path):
    replies = itertools.cycle(["I like both.", "A"])
    with ChatServer(lambda prompt, n: completion(next(replies))) as server:
        only = {"candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}], "max_failure_share": 1.0}
        keys = judged_by(server, repair=False, logprobs=False)
        main(recipe_of(folder, tmp_path, **keys, **only))
        out = tmp_path / "out"
        main([*recipe_of(folder, tmp_path, **keys, **only), "--reparse", "true"])
        before = (out / "results.json").read_text()
        other = {"judges": [keys["judges"][0] | {"model": "another"}]}
        with pytest.raises(AlignmentError, match=r"needs \d+ calls that were never made"):
            main([*recipe_of(folder, tmp_path, **keys | other, **only), "--reparse", "true"])
    assert (out / "results.json").read_text() == before


def test_a_damaged_row_of_answers_is_refused(folder, tmp_path):
    with ChatServer(lambda prompt, n: completion("A", p_first=0.7)) as server:
        only = {"candidates": [{"name": "ppo", "model_name_or_path": str(folder / "ppo")}]}
        argv = recipe_of(folder, tmp_path, **judged_by(server), **only)
        main(argv)
        answers = tmp_path / "out" / "answers.jsonl"
        answers.write_text(answers.read_text().replace('"answers"', '"replies"', 1))
        with pytest.raises(DataError, match=r"answers\.jsonl:1: lacks an answer or scores"):
            main([*argv, "--reparse", "true"])
