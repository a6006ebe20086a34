"""Every mix of roles makes an update: what should move moves, and all else keeps its bits."""

import math
import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments

from alignment.config.schema import DatasetEntry, PPORecipe, judge_entry, scorer_entry
from alignment.data.template import Template
from alignment.errors import LineageError, ModelError
from alignment.policy.load_roles import load_roles
from alignment.policy.reward_models import resolve_on
from alignment.policy.role_files import load_trained, save_trained
from alignment.policy.tokenizer import load_tokenizer
from alignment.train.policy_gradient.scoring import require_same_tokenizer
from alignment.train.policy_gradient.trainer import PPOTrainer
from alignment.train.policy_gradient.update_shape import UpdateShape
from alignment.train.saving import lineage_of
from reward.scorers import build_scoring, reward_models
from tests.calls.chat_server import ChatServer, completion
from tests.models import make_model, make_tokenizer, save_tiny_model
from tests.reward.scorers.score_server import ScoreServer, scores

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPTS = [f"tell me {number}" for number in range(6)]
POLICIES = {
    "full": {"peft_method": "full"},
    "lora": {"peft_method": "lora", "lora_r": 2},
    "dora": {"peft_method": "dora", "lora_r": 2},
    "sft": {"model_name_or_path": "sft"},  # an adapter, which policy and reference both start from
    "4bit": {"peft_method": "lora", "lora_r": 2, "load_in_4bit": True},
}
REWARDS = {
    "role": {"kind": "reward_model", "model_name_or_path": "reward"},
    "own": {"kind": "reward_model", "model_name_or_path": "own"},
    "tokenizer": {"kind": "reward_model", "model_name_or_path": "foreign"},
    "function": {"kind": "function", "function": f"{__name__}:vowels"},
    "http": {"kind": "http"},
    "judge": {"kind": "judge"},
}
VALUES = {
    "adapter": {"value_model": "adapter"},
    "head": {"value_model": "head"},
    "whole": {"value_model": "model", "value_model_path": "own", "value_peft_method": "full"},
    "low-rank": {"value_model": "model", "value_model_path": "reward", "value_peft_method": "lora"},
    "language": {"value_model": "model", "value_model_path": "small", "value_peft_method": "dora"},
}


def mixes():
    """Every mix; by default 25 of them, in which every policy meets every value and five of six rewards."""
    for i, policy in enumerate(POLICIES):
        for j, value in enumerate(VALUES):
            for k, reward in enumerate(REWARDS):
                quick = (i + j) % len(REWARDS) == k
                yield pytest.param(policy, reward, value, marks=() if quick else pytest.mark.slow)


def vowels(prompts, answers):
    return [sum(answer.count(vowel) for vowel in "aeiou") / 4 for answer in answers]


def rated(prompt, n):
    answer = re.search(r"<answer-(\w+)>\n(.*)\n</answer-\1>", prompt, re.DOTALL)[2]
    return completion(str(len(answer) % 11))


def save_reward(base, path, *, adapter):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    if adapter:
        shape = LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", modules_to_save=["score"])
        model = get_peft_model(model, shape)
    model.save_pretrained(path)
    AutoTokenizer.from_pretrained(base).save_pretrained(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mixes")
    save_tiny_model(path / "base", initializer_range=0.3, hidden_size=64, layers=1)
    save_tiny_model(path / "small", seed=5, hidden_size=8, intermediate_size=64, layers=1)
    tokenizer = make_tokenizer(vocab_size=280, chat_template=None)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    tokenizer.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer.save_pretrained(path / "foreign-base")
    make_model(tokenizer, seed=6, hidden_size=8, layers=1).save_pretrained(path / "foreign-base")
    save_reward(path / "base", path / "reward", adapter=True)
    save_reward(path / "small", path / "own", adapter=False)
    save_reward(path / "foreign-base", path / "foreign", adapter=False)
    shape = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    get_peft_model(AutoModelForCausalLM.from_pretrained(path / "base"), shape).save_pretrained(path / "sft")
    AutoTokenizer.from_pretrained(path / "base").save_pretrained(path / "sft")
    return path


@pytest.fixture(scope="module")
def servers():
    score = ScoreServer(lambda body, n: scores(*vowels(body["prompts"], body["answers"])))
    with score, ChatServer(rated) as chat:
        yield {
            "http": {"url": score.url},
            "judge": {"judge": judge_entry(kind="openai", model="toy", base_url=chat.url, logprobs=False)},
        }


def make_recipe(folder, out, servers, reward, *more):
    keys = {"model_name_or_path": "base"}
    for given in more:
        keys |= given
    keys |= {key: str(folder / keys[key]) for key in ("model_name_or_path", "value_model_path") if key in keys}
    entry = {**REWARDS[reward], **servers.get(reward, {})}
    if "model_name_or_path" in entry:
        entry["model_name_or_path"] = str(folder / entry["model_name_or_path"])
    return PPORecipe(
        stage="ppo", output_dir=str(out), datasets=[DatasetEntry(path="unused")], total_episodes=4,
        rollout_batch_size=4, max_new_tokens=4, num_ppo_epochs=2, scorers=[scorer_entry(**entry)],
        value_learning_rate=2e-2, **keys,
    )  # fmt: skip


def make_trainer(recipe):
    torch.manual_seed(0)
    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer)
    lineage = lineage_of(recipe, tokenizer, template)
    require_same_tokenizer(recipe, lineage)
    rewards = resolve_on(recipe, reward_models(recipe), lineage)
    scoring = build_scoring(recipe, rewards)
    roles = load_roles(recipe, rewards=list(rewards.values()))
    arguments = {"output_dir": recipe.output_dir, "use_cpu": True, "learning_rate": 1e-2, "report_to": []}
    arguments |= {"save_strategy": "no", "disable_tqdm": True, "lr_scheduler_type": "constant"}
    shape = UpdateShape.of(recipe, per_device_train_batch_size=2, world_size=1)
    args = TrainingArguments(per_device_train_batch_size=2, **arguments, **shape.forced_arguments())
    return PPOTrainer(roles, args, recipe=recipe, template=template, prompts=PROMPTS, scorer=scoring)


def answers():
    input_ids = torch.randint(3, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, 4:7], mask[1, 3:9] = True, True
    return input_ids, mask


@pytest.mark.parametrize(("policy", "reward", "value"), list(mixes()))
def test_an_update_moves_policy_and_value_and_nothing_else(folder, servers, tmp_path, policy, reward, value):
    trainer = make_trainer(make_recipe(folder, tmp_path, servers, reward, POLICIES[policy], VALUES[value]))
    roles, values = trainer.roles, trainer.roles.value_parameters()
    before = {name: parameter.detach().clone() for name, parameter in roles.named_parameters()}
    reference = roles.reference_logp(*answers(), temperature=1.0)
    result = trainer.train()
    assert math.isfinite(result.training_loss)
    log = next(row for row in trainer.state.log_history if "score" in row)
    assert all(math.isfinite(log[name]) for name in ("score", "kl", "value_loss", "policy_loss") if name in log)
    moved = {name for name, p in roles.named_parameters() if not torch.equal(p, before[name])}
    trained = {name for name, p in roles.named_parameters() if p.requires_grad}
    assert moved <= trained
    assert "heads.value.weight" in moved
    assert moved & (trained - values)
    assert (moved & values != {"heads.value.weight"}) == (value != "head")
    assert torch.equal(roles.reference_logp(*answers(), temperature=1.0), reference)
    assert ("reward" in roles.adapters) == (reward == "role")


def test_a_value_model_starts_as_the_reward_model_and_is_restored_from_a_checkpoint(folder, servers, tmp_path):
    recipe = make_recipe(folder, tmp_path, servers, "function", POLICIES["lora"], VALUES["whole"])
    roles = make_trainer(recipe).roles
    plain = AutoModelForSequenceClassification.from_pretrained(folder / "own").eval()
    input_ids, mask = answers()
    with torch.no_grad():
        hidden = plain.model(input_ids=input_ids).last_hidden_state
        expected = plain.score(hidden).squeeze(-1)
        values = roles(input_ids, mask, temperature=1.0)[2]
    before = torch.nn.functional.pad(mask[:, 1:], (0, 1))  # the state before each token of the answer
    torch.testing.assert_close(values, expected[before])
    with torch.no_grad():
        for name in roles.value_parameters():
            dict(roles.named_parameters())[name].add_(0.5)
    save_trained(roles, tmp_path)
    again = make_trainer(recipe).roles
    load_trained(again, tmp_path)
    others = dict(again.named_parameters())
    assert all(torch.equal(parameter, others[name]) for name, parameter in roles.named_parameters())


def test_a_language_model_as_value_starts_at_zero(folder, servers, tmp_path):
    recipe = make_recipe(folder, tmp_path, servers, "function", POLICIES["lora"], VALUES["language"])
    assert not make_trainer(recipe).roles(*answers(), temperature=1.0)[2].any()


def test_gradients_are_the_same_with_checkpointed_activations(folder, servers, tmp_path):
    recipe = make_recipe(folder, tmp_path, servers, "function", POLICIES["lora"], VALUES["low-rank"])
    roles = make_trainer(recipe).roles

    def gradients():
        roles.zero_grad()
        logp, _, values = roles(*answers(), temperature=1.0)
        (logp.sum() + values.square().sum()).backward()
        return {name: p.grad.clone() for name, p in roles.named_parameters() if p.grad is not None}

    expected = gradients()
    roles.train()
    roles.activation_checkpointing_enable()
    torch.testing.assert_close(gradients(), expected)


def test_a_value_model_of_another_tokenizer_is_refused(folder, servers, tmp_path):
    other = {"value_model": "model", "value_model_path": "foreign"}
    with pytest.raises(LineageError, match=r"value model .*foreign does not belong with policy .*: .* tokenizer"):
        make_trainer(make_recipe(folder, tmp_path, servers, "function", other))


def test_an_adapter_cannot_train_whole_as_value(folder, servers, tmp_path):
    whole = {"value_model": "model", "value_model_path": "reward", "value_peft_method": "full"}
    with pytest.raises(ModelError, match="is an adapter, but"):
        make_trainer(make_recipe(folder, tmp_path, servers, "function", whole))
