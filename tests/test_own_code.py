"""Code that a model's folder brings runs where the user gives trust_remote_code, and nowhere else."""

import json
import sys

import pytest
from peft import LoraConfig, get_peft_model
from transformers import dynamic_module_utils
from typer.testing import CliRunner

from alignment.calls.caller import Caller
from alignment.calls.rate_limiter import RateLimiter
from alignment.cli import app
from alignment.config.schema import ModelKeys, PPORecipe, judge_entry, scorer_entry
from alignment.errors import AlignmentError, ModelError
from alignment.policy.base import load_causal_lm
from alignment.policy.merge import merge
from reward.bench.command import run_bench
from reward.judges.backends.reward_model import RewardModelJudge
from reward.models.ensemble import Ensemble
from reward.models.score_file import score_file
from reward.scorers import score_entries
from reward.serving.serve import Settings, serve
from tests.own_code import save_own_code_model, trusts_itself


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


@pytest.fixture
def reward(tmp_path, canary):
    return trusts_itself(save_own_code_model(tmp_path / "reward", canary, reward=True))


@pytest.fixture
def rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "the fox", "chosen": "thank you", "rejected": "no"}\n')
    return file


@pytest.fixture
def answers(tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"prompt": "the fox", "answer": "thank you"}\n')
    return file


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """Keep the copies that transformers makes of such code out of the user's cache."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture(autouse=True)
def process(monkeypatch):
    """Leave the tests' process as it is where the command would end it, or take its signals."""
    monkeypatch.setattr("alignment.run.script.os._exit", sys.exit)
    monkeypatch.setattr("alignment.run.script.end_on_signals", lambda: None)


def alignment(*arguments):
    """Run the command in this process."""
    ended = CliRunner().invoke(app, [*map(str, arguments)])
    assert ended.exit_code == 0, ended.output


def own_code_adapter(tmp_path, canary):
    base = save_own_code_model(tmp_path / "base", canary)
    keys = ModelKeys(model_name_or_path=str(base), trust_remote_code=True)
    adapter = get_peft_model(
        load_causal_lm(keys, trainable=False), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    )
    adapter.save_pretrained(tmp_path / "adapter")
    assert canary.exists()  # the code does run where it is trusted
    canary.unlink()
    return trusts_itself(tmp_path / "adapter")


def test_a_scored_reward_model_cannot_switch_its_own_code_on(reward, canary, answers):
    with pytest.raises(ModelError, match="give trust_remote_code: true in the recipe"):
        score_file(reward, answers)
    assert not canary.exists()
    alignment("score", reward, answers, "--trust_remote_code")
    assert canary.exists()


def test_a_measured_reward_model_cannot(reward, canary, rows):
    with pytest.raises(ModelError, match="give trust_remote_code: true in the recipe"):
        run_bench(str(reward), [str(rows)], json_out=None, column=None, chat=False, max_samples=None,
                  on_bad_row="stop", batch_size=2, aggregate="mean")  # fmt: skip
    assert not canary.exists()
    alignment("bench", reward, rows, "--trust_remote_code")
    assert canary.exists()


def test_a_served_reward_model_cannot(reward, canary):
    with pytest.raises(ModelError, match="give trust_remote_code: true in the recipe"):
        serve(Settings(str(reward), port=0), print)
    assert not canary.exists()


def test_a_member_of_an_ensemble_cannot(tmp_path, reward, canary):
    run = tmp_path / "run"
    run.mkdir()
    reward.rename(run / "member-0")
    (run / "manifest.json").write_text(json.dumps({"members": ["member-0"], "recipe": {"trust_remote_code": True}}))
    with pytest.raises(ModelError, match="give trust_remote_code: true in the recipe"):
        Ensemble.load(str(run))
    assert not canary.exists()


@pytest.mark.parametrize("name", ["/elsewhere", "../reward", "member-0/../..", "", 3, None])
def test_a_run_has_no_members_outside_its_folder(tmp_path, name):
    (tmp_path / "manifest.json").write_text(json.dumps({"members": [name]}))
    with pytest.raises(AlignmentError, match="members is "):
        Ensemble.load(str(tmp_path))


def test_a_judge_runs_a_models_code_where_the_recipe_asks_for_it(reward, canary):
    entry = judge_entry(kind="reward_model", model_name_or_path=str(reward))
    caller = Caller(cache=None, rate_limiter=RateLimiter(1), max_retries=0)
    with pytest.raises(ModelError, match="give trust_remote_code: true in the recipe"):
        RewardModelJudge.from_entry(entry, caller)
    assert not canary.exists()
    RewardModelJudge.from_entry(entry.model_copy(update={"trust_remote_code": True}), caller)
    assert canary.exists()


def test_ppo_trusts_its_own_reward_model_as_the_recipe_does():
    keys = {"stage": "ppo", "output_dir": "o", "model_name_or_path": "m", "datasets": [{"path": "p"}]}
    keys |= {"total_episodes": 1, "reward_model_path": "r"}
    assert not score_entries(PPORecipe(**keys))[0].trust_remote_code
    assert score_entries(PPORecipe(**keys, trust_remote_code=True))[0].trust_remote_code
    assert not scorer_entry(kind="reward_model", model_name_or_path="r").trust_remote_code


def test_merging_runs_the_bases_code_only_where_the_user_asks(tmp_path, canary):
    adapter = own_code_adapter(tmp_path, canary)
    with pytest.raises(ModelError, match="give trust_remote_code: true in the recipe"):
        merge(adapter, tmp_path / "out")
    assert not canary.exists()
    assert not (tmp_path / "out").exists()
    alignment("merge", adapter, tmp_path / "out", "--trust_remote_code")
    assert canary.exists()


def test_a_chat_template_that_a_run_names_is_not_read(tmp_path, answers):
    secret = tmp_path / "secret"
    secret.write_text("{{ 'the secret' }}{% for m in messages %}{{ m.content }}{% endfor %}")
    model = save_own_code_model(tmp_path / "model", tmp_path / "canary", reward=True, model_type="llama")
    (model / "chat_template.jinja").unlink()
    (model / "manifest.json").write_text(json.dumps({"recipe": {"chat_template": str(secret)}}))
    answers.write_text('{"prompt": [{"role": "user", "content": "the fox"}], "answer": "thank you"}\n')
    with pytest.raises(ModelError, match="no chat template"):
        score_file(model, answers)
    assert not (tmp_path / "canary").exists()
