"""The PPO stage with scores from everywhere at once."""

import json
import shutil

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.errors import ModelError, ScorerError
from alignment.rollout.transformers_engine import TransformersEngine
from recipes.ppo import main
from reward.models.scoring import RewardScorer
from reward.scorers import build_scoring
from tests.calls.chat_server import failure
from tests.models import on_base, save_tiny_model
from tests.reward.scorers.score_server import ScoreServer, scores

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def brevity(prompts, answers):
    assert all(prompt[0]["content"].startswith("tell me") for prompt in prompts)
    return [-len(answer) / 100 for answer in answers]


def save_reward(base, path, *, adapter, seed):
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    if adapter:
        shape = LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", modules_to_save=["score"])
        model = get_peft_model(model, shape)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(base).save_pretrained(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scorers")
    save_tiny_model(path / "base", initializer_range=0.3)
    save_tiny_model(path / "other", seed=5, hidden_size=16)
    for seed in range(3):
        save_reward(path / "base", path / f"reward{seed}", adapter=True, seed=seed)
    save_reward(path / "other", path / "own", adapter=False, seed=0)
    rows = [{"prompt": [{"role": "user", "content": f"tell me {number}"}]} for number in range(12)]
    (path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_ppo(folder, out, scorers, **keys):
    recipe = {
        "stage": "ppo", "output_dir": str(out), "model_name_or_path": str(folder / "base"), "scorers": scorers,
        "datasets": [{"path": str(folder / "prompts.jsonl")}], "total_episodes": 16, "rollout_batch_size": 8,
        "max_new_tokens": 5, "num_ppo_epochs": 1, "per_device_train_batch_size": 4, "lora_r": 2, **keys,
    }  # fmt: skip
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    main(["--config", str(file)])
    read = {name: (out / f"{name}.jsonl").read_text().splitlines() for name in ("metrics", "samples")}
    logged = [row for row in map(json.loads, read["metrics"]) if "score" in row]
    return json.loads((out / "manifest.json").read_text()), logged, [json.loads(row) for row in read["samples"]]


def test_a_sum_of_roles_models_a_function_and_a_server(folder, tmp_path):
    models = [str(folder / name) for name in ("reward0", "reward1", "reward2", "own")]
    with ScoreServer(lambda body, n: scores(*(answer.count("e") for answer in body["answers"]))) as server:
        manifest, logged, samples = run_ppo(
            folder,
            tmp_path / "run",
            [
                {"kind": "ensemble", "reward_models": models[1:], "name": "crowd", "aggregate": "min"},
                {"kind": "reward_model", "model_name_or_path": models[0], "name": "taste", "weight": 2.0},
                {"kind": "function", "function": f"{__name__}:brevity", "weight": 0.5},
                {"kind": "http", "url": server.url, "name": "es", "weight": -1.0},
            ],
        )
    for row in (*logged, *samples):
        parts = [row[f"score_{name}"] for name in ("taste", "crowd", "function", "es")]
        expected = 2 * parts[0] + parts[1] + 0.5 * parts[2] - parts[3]
        assert row["score"] == pytest.approx(expected, abs=1e-5)
    assert all(row["score_crowd_std"] > 0 for row in logged)
    for row in samples:
        assert row["score_es"] == row["answer"].count("e")
        assert row["score_function"] == pytest.approx(-len(row["answer"]) / 100)
    kept = {scorer["name"]: scorer for scorer in manifest["scorers"]}
    assert kept["taste"]["models"][0]["role"] == "reward"  # the heaviest, from which the value starts
    assert [model["role"] for model in kept["crowd"]["models"]] == ["reward_1", "reward_2", None]
    assert len({model["weights_sha256"] for name in ("taste", "crowd") for model in kept[name]["models"]}) == 4
    assert kept["es"]["url"] == server.url
    assert len(kept["function"]["code_sha256"]) == 16


def test_a_reward_model_outside_reads_what_was_cut_off_without_a_stop_token(folder, tmp_path, monkeypatch):
    given = []
    score = RewardScorer.score

    def spy(self, prompts, answers, *, stopped=None, **keys):
        given.append(stopped)
        return score(self, prompts, answers, stopped=stopped, **keys)

    monkeypatch.setattr(RewardScorer, "score", spy)
    own = {"kind": "reward_model", "model_name_or_path": str(folder / "own")}
    _, logged, _ = run_ppo(folder, tmp_path / "run", [own])
    assert [sum(stopped) / 8 for stopped in given] == [row["fraction_stopped"] for row in logged]


@pytest.mark.parametrize("same", [True, False])
def test_a_reward_model_outside_reads_the_tokens_that_were_sampled(folder, tmp_path, monkeypatch, capsys, same):
    sampled, read = [], []
    generate, score_tokens = TransformersEngine.generate, RewardScorer.score_tokens

    def sampling(self, prompt_ids, how):
        completions = generate(self, prompt_ids, how)
        sampled.extend(ids + one.ids for ids, one in zip(prompt_ids, completions, strict=True))
        return completions

    def scoring(self, sequences):
        read.extend(sequences)
        return score_tokens(self, sequences)

    monkeypatch.setattr(TransformersEngine, "generate", sampling)
    monkeypatch.setattr(RewardScorer, "score_tokens", scoring)
    model = folder / "own"
    if not same:
        model = tmp_path / "other template"
        shutil.copytree(folder / "own", model)
        template = model / "chat_template.jinja"
        template.write_text(template.read_text().replace("assistant\n", "assistant: "))
    run_ppo(folder, tmp_path / "run", [{"kind": "reward_model", "model_name_or_path": str(model)}])
    assert len(sampled) == len(read) == 16
    assert (read == sampled) == same
    assert ("another chat template" in capsys.readouterr().err) != same


def test_a_server_that_fails_stops_the_run_with_a_message(folder, tmp_path):
    with (
        ScoreServer(lambda body, n: failure(500, "no memory")) as server,
        pytest.raises(ScorerError, match=r"scorer http: .* answered 500: .*no memory.*Tried 1 times"),
    ):
        run_ppo(folder, tmp_path / "run", [{"kind": "http", "url": server.url, "max_retries": 0}])


def test_reward_models_are_normalised_by_what_their_training_wrote_down(folder, tmp_path):
    recipe = PPORecipe(
        stage="ppo", output_dir="x", model_name_or_path="x", datasets=[DatasetEntry(path="x")], total_episodes=64,
        reward_model_path=str(tmp_path / "reward"), normalize_scores="reward_model",
    )  # fmt: skip
    shutil.copytree(folder / "reward0", tmp_path / "reward")

    def models():
        (model,) = on_base(tmp_path / "reward")
        return {model.path: model}

    with pytest.raises(ModelError, match=r"reward has no mean and standard deviation .* use normalize_scores: running"):
        build_scoring(recipe, models())
    (tmp_path / "reward" / "manifest.json").write_text('{"score_mean": -0.5, "score_std": 2.0}')
    scoring = build_scoring(recipe, models())
    assert scoring.parts[0].scales == ((-0.5, 2.0),)
    scored = scoring.combine({"reward": torch.tensor([1.5])}, torch.zeros(0, 1))
    # (1.5 + 0.5) / 2
    assert (scored.total.tolist(), scored.normalized.tolist()) == ([1.5], [1.0])
    plain = recipe.model_copy(update={"normalize_scores": "running"})
    assert build_scoring(plain, models()).parts[0].scales == ()


def test_the_rewards_of_an_update_are_the_normalised_scores(folder, tmp_path):
    """Without KL, and with λ 1, every token's return is its answer's reward."""
    shutil.copytree(folder / "reward0", tmp_path / "reward")
    (tmp_path / "reward" / "manifest.json").write_text('{"score_mean": 1000.0, "score_std": 1.0}')
    scorers = [{"kind": "reward_model", "model_name_or_path": str(tmp_path / "reward")}]
    logged = run_ppo(folder, tmp_path / "run", scorers, normalize_scores="reward_model", kl_coef=0.0)[1]
    assert logged[0]["return_mean"] == pytest.approx(-1000, abs=5)
    assert abs(logged[0]["score"]) < 5
