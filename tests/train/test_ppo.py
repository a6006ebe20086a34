"""What others got wrong, that PPO learns, and that a killed run ends where an unbroken one does."""

import dataclasses
import json
import math

import pytest
import torch
from transformers import TrainerCallback

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.errors import RecipeError
from alignment.ops.rewards import last_valid
from alignment.train.policy_gradient import trainer as trainer_module
from alignment.train.policy_gradient.objective import token_losses
from alignment.train.policy_gradient.statistics import UpdateStatistics, distinct_n
from alignment.train.policy_gradient.update_shape import UpdateShape
from tests.models import save_tiny_model
from tests.train.ppo_runs import PROMPTS, make_trainer, trained_weights

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("ppo") / "base", initializer_range=0.3)


class Watch(TrainerCallback):
    """Keeps what a trainer's pieces saw, step by step."""

    def __init__(self):
        self.ratios, self.sampled_with, self.trained_with = [], [], []

    def attach(self, trainer):
        """Wrap collecting and the loss of a trainer."""
        collect, loss = trainer.collect, trainer.compute_loss

        def watched_collect(update):
            self.sampled_with.append(trained_weights(trainer))
            return collect(update)

        def watched_loss(model, inputs, return_outputs=False, num_items_in_batch=None):
            value, outputs = loss(model, inputs, True, num_items_in_batch)
            ratio = (outputs["logp"].detach() - inputs["logp"][inputs["mask"]]).exp()
            self.ratios.append(ratio)
            self.trained_with.append(trained_weights(trainer))
            return value

        trainer.collect, trainer.compute_loss = watched_collect, watched_loss
        return trainer


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("keys", [{}, {"temperature": 0.7}, {"value_model": "head"}, {"peft_method": "full"}])
def test_the_first_ratio_is_exactly_one_and_the_policy_that_sampled_is_the_one_that_trains(base, tmp_path, keys):
    watch = Watch()
    trainer = watch.attach(make_trainer(base, tmp_path, per_device=4, **keys))
    trainer.train()
    per_update = 2 * 2 * 2  # epochs × minibatches × microbatches
    assert len(watch.ratios) == 3 * per_update
    for update in range(3):
        first_step = watch.ratios[update * per_update : update * per_update + 2]
        assert all(bool((ratio == 1).all()) for ratio in first_step)
        assert any(
            bool((ratio != 1).any()) for ratio in watch.ratios[update * per_update + 2 : (update + 1) * per_update]
        )
        assert equal(watch.sampled_with[update], watch.trained_with[update * per_update])
    assert not equal(watch.sampled_with[0], watch.sampled_with[1])


@pytest.mark.parametrize("how", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_the_split_into_microbatches_changes_nothing(base, tmp_path, how):
    weights = []
    for per_device in (16, 4, 1):
        trainer = make_trainer(
            base, tmp_path / str(per_device), per_device=per_device, loss_aggregation=how,
            num_mini_batches=1, num_ppo_epochs=1, updates=2, arguments={"optim": "sgd", "learning_rate": 0.1},
        )  # fmt: skip
        before = trained_weights(trainer)
        trainer.train()
        lengths = {len(ids) for ids in trainer.stream.experience.answer_ids}
        weights.append(trained_weights(trainer))
    assert len(lengths) > 1  # else a mean of means would be right too
    assert max(float((weights[0][name] - before[name]).abs().max()) for name in before) > 1e-3
    for other in weights[1:]:
        for name, weight in weights[0].items():
            torch.testing.assert_close(other[name], weight, rtol=0, atol=1e-6)


def test_the_score_lands_on_the_last_answer_token_where_padding_is_eos(base, tmp_path, monkeypatch):
    seen = []
    original = trainer_module.token_rewards

    def spy(scores, kl, mask, *, kl_coef):
        rewards = original(scores, kl, mask, kl_coef=kl_coef)
        seen.append((scores, rewards, mask))
        return rewards

    monkeypatch.setattr(trainer_module, "token_rewards", spy)
    trainer = make_trainer(
        base, tmp_path, eos_as_pad=True, many_stops=False, kl_coef=0.0, rollout_batch_size=64, total_episodes=64
    )
    experience = trainer.collect(0)
    (scores, rewards, mask), eos = seen[0], trainer.processing_class.eos_token_id
    assert trainer.pad_token_id == eos
    assert torch.equal(mask.sum(1), torch.tensor([len(ids) for ids in experience.answer_ids]))
    ended = [row for row, ids in enumerate(experience.answer_ids) if ids[-1] == eos]
    assert ended  # the EOS token is an answer's token and counts
    assert torch.equal(rewards[torch.arange(64), last_valid(mask)], scores)
    assert torch.equal(rewards.sum(1), scores)
    assert 0 < int((scores == 0).sum()) < 64
    assert torch.isfinite(experience.advantages).all()
    assert torch.isfinite(experience.logp).all()


def test_old_log_probabilities_are_those_of_the_sampling_temperature(base, tmp_path):
    from transformers import AutoModelForCausalLM

    trainer = make_trainer(base, tmp_path, temperature=0.6)
    experience = trainer.collect(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    for row in range(4):
        prompt, answer = experience.prompt_ids[row], experience.answer_ids[row]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0] / 0.6
        expected = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(answer)[:, None]).squeeze(-1)
        torch.testing.assert_close(experience.logp[row, : len(answer)], expected)


def test_scores_are_normalised_then_clipped_then_lowered_where_cut_off(base, tmp_path):
    trainer = make_trainer(base, tmp_path, normalize_scores="running", reward_clip=1.0, missing_eos_penalty=0.5)
    scores, stopped = torch.tensor([0.0, 2.0, 10.0]), torch.tensor([True, False, False])
    # mean 4, standard deviation sqrt((16 + 4 + 36) / 2) = 5.2915: -0.7559, -0.3780, 1.1339 → 1; then -0.5 twice
    shaped = trainer.shaping.shape(scores, stopped)
    torch.testing.assert_close(shaped, torch.tensor([-0.7559, -0.8780, 0.5]), rtol=0, atol=1e-4)


def test_answers_cut_off_do_not_train_where_they_are_masked(base, tmp_path):
    """The gradient of a rollout is that of its whole answers alone."""
    weights = []
    for per_device in (16, 4):  # a microbatch may hold nothing but masked answers
        trainer = make_trainer(
            base, tmp_path / str(per_device), per_device=per_device, mask_truncated_completions=True, updates=1,
            num_mini_batches=1, num_ppo_epochs=1, arguments={"optim": "sgd", "learning_rate": 0.1},
        )  # fmt: skip
        trainer.train()
        weights.append(trained_weights(trainer))
    experience = trainer.stream.experience
    stopped = experience.loss_mask.any(1)
    assert 2 < int(stopped.sum()) < 14
    assert torch.equal(experience.loss_mask, experience.mask & stopped.unsqueeze(-1))
    assert float(experience.advantages[experience.loss_mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(experience.advantages[experience.loss_mask].var()) == pytest.approx(1, abs=1e-4)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-6)
    # without the masked answers' tokens, whatever stands there
    again = make_trainer(
        base, tmp_path / "again", per_device=16, mask_truncated_completions=True, updates=1, num_mini_batches=1,
        num_ppo_epochs=1, arguments={"optim": "sgd", "learning_rate": 0.1},
    )  # fmt: skip
    collect = again.collect

    def spoiled(update):
        made = collect(update)
        for tensor in (made.advantages, made.returns, made.logp):
            tensor[~made.loss_mask] = 3.0
        return made

    again.collect = spoiled
    again.train()
    assert equal(trained_weights(again), weights[0])


def test_a_minibatch_of_nothing_but_masked_answers_moves_nothing(base, tmp_path):
    trainer = make_trainer(base, tmp_path, updates=1, mask_truncated_completions=True, max_new_tokens=2,
                           many_stops=False)  # fmt: skip
    before = trained_weights(trainer)
    trainer.train()
    assert not trainer.stream.experience.loss_mask.any()
    assert equal(trained_weights(trainer), before)


def test_the_value_replaces_the_score_of_an_answer_that_was_cut_off(base, tmp_path):
    trainer = make_trainer(base, tmp_path, bootstrap_truncated=True, kl_coef=0.0, whiten_advantages=False)
    torch.nn.init.normal_(trainer.roles.heads["value"].weight)
    experience = trainer.collect(0)
    rows = [i for i, ids in enumerate(experience.answer_ids) if not 1 <= ids[-1] < 60]
    assert 2 < len(rows) < 14
    with torch.no_grad():
        for i in range(16):
            ids = torch.tensor([experience.prompt_ids[i] + experience.answer_ids[i]])
            mask = (torch.arange(ids.shape[1]) >= len(experience.prompt_ids[i])).unsqueeze(0)
            after = float(trainer.roles(ids, mask, call="last_values"))
            score = trainer.processing_class.decode(experience.answer_ids[i]).count("e") / 4
            # γ 1, λ 1, no KL: what is to come is the score, or the value of where it was cut off
            expected = after if i in rows else score
            assert float(experience.returns[i, 0]) == pytest.approx(expected, abs=1e-4)


class Told:
    """Gives each token a log-probability that differs from the model's by a known number."""

    def __init__(self, inner, trainer, off):
        self.inner, self.trainer, self.off = inner, trainer, off

    def generate(self, prompt_ids, sampling):
        found = self.inner.generate(prompt_ids, sampling)
        roles, told = self.trainer.roles, []
        for prompt, answer in zip(prompt_ids, found, strict=True):
            ids = torch.tensor([prompt + answer.ids])
            logp = roles(ids, torch.arange(ids.shape[1])[None] >= len(prompt), temperature=1.0)[0]
            told.append(
                dataclasses.replace(answer, logp=[n - d for n, d in zip(logp.tolist(), self.off, strict=False)])
            )
        return told


def test_tokens_are_weighed_by_how_the_engine_that_sampled_them_differs(base, tmp_path):
    off = [math.log(1.5), math.log(0.25), math.log(8.0), 0.0, 0.0, 0.0]  # the model's over the engine's, token by token
    trainer = make_trainer(base, tmp_path / "a")
    trainer.engine = Told(trainer.engine, trainer, off)
    trainer.train()
    experience = trainer.stream.experience
    expected = torch.tensor([1.5, 0.25, 2.0, 1.0, 1.0, 1.0])  # 8 is cut at the cap
    torch.testing.assert_close(
        experience.weights[experience.mask], expected.expand(16, 6)[experience.mask], rtol=0, atol=1e-5
    )
    logs = [entry for entry in trainer.state.log_history if "score" in entry]
    assert logs[-1]["importance_ratio_max"] == pytest.approx(8, abs=1e-4)
    plain = make_trainer(base, tmp_path / "b")
    plain.train()
    assert not equal(trained_weights(plain), trained_weights(trainer))
    assert "importance_ratio" not in plain.state.log_history[0]
    without = make_trainer(base, tmp_path / "c", importance_sampling_cap=None)
    without.engine = Told(without.engine, without, off)
    without.train()
    assert equal(trained_weights(plain), trained_weights(without))


def test_the_weights_multiply_the_policys_loss_alone():
    recipe = PPORecipe(stage="ppo", output_dir="x", model_name_or_path="x", datasets=[DatasetEntry(path="x")],
                       total_episodes=64, kl_placement="loss", kl_estimator="k2")  # fmt: skip
    g = torch.Generator().manual_seed(0)
    names = ("logp", "advantages", "values", "returns", "ref_logp", "weights")
    batch = {name: torch.rand(2, 3, generator=g) for name in names}
    logp, values = torch.rand(2, 3, generator=g), torch.rand(2, 3, generator=g)
    batch["loss_mask"] = torch.ones(2, 3, dtype=torch.bool)
    rule, clip = recipe.update_rule(), {"cliprange_value": recipe.cliprange_value}
    weighed = token_losses(logp, values, batch, rule, **clip)
    plain = token_losses(logp, values, {k: v for k, v in batch.items() if k != "weights"}, rule, **clip)
    torch.testing.assert_close(weighed.policy.loss, plain.policy.loss * batch["weights"])
    assert torch.equal(weighed.value.loss, plain.value.loss)
    assert torch.equal(weighed.kl, plain.kl)


def test_kl_in_the_loss_holds_the_policy_back(base, tmp_path):
    ends = {}
    for kl_coef in (0.0, 5.0):
        trainer = make_trainer(
            base, tmp_path / str(kl_coef), updates=5, rollout_batch_size=32, total_episodes=160, many_stops=False,
            kl_placement="loss", kl_estimator="k2", kl_coef=kl_coef, arguments={"lr_scheduler_type": "constant"},
        )  # fmt: skip
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "score" in entry]
        ends[kl_coef] = logs[-1]["kl"]
        assert logs[-1]["kl_loss"] > 0
    # the same prompts and seeds, once without a penalty and once with a large one
    assert ends[0.0] > 1.0
    assert ends[5.0] < 0.5 * ends[0.0]


def test_with_the_kl_in_the_loss_the_reward_is_the_score_alone(base, tmp_path):
    trainer = make_trainer(base, tmp_path, kl_placement="loss", kl_estimator="k2", kl_coef=7.0)
    torch.nn.init.normal_(next(p for n, p in trainer.roles.named_parameters() if ".policy.lora_B" in n))
    experience = trainer.collect(0)
    assert trainer.metrics["kl_k3"] > 0.01
    # γ 1 and λ 1: an answer's return at every token is the sum of its rewards
    scores = torch.tensor([row["score"] for row in trainer.samples])
    first = len(scores)
    torch.testing.assert_close(experience.returns[:first, 0], scores)
    batch = experience.microbatch(0, [0, 1], 0)
    torch.testing.assert_close(batch["ref_logp"], experience.ref_logp[:2, : batch["mask"].shape[1]])


def test_the_coefficient_adapts_to_the_kl_of_the_rollout_before(base, tmp_path):
    trainer = make_trainer(base, tmp_path, updates=4, kl_coef=0.1, adaptive_kl_target=0.05, adaptive_kl_horizon=32)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "score" in entry]
    expected = 0.1
    for before, log in zip([None, *logs], logs, strict=False):
        if before is not None:
            # 16 answers of a horizon of 32: K_β is a half
            expected *= 1 + max(-0.2, min(0.2, before["kl"] / 0.05 - 1)) / 2
        assert log["kl_coef"] == pytest.approx(expected)
    assert logs[1]["kl_coef"] == pytest.approx(0.09)  # the first rollout's KL is zero: e is -0.2
    assert logs[-1]["kl_coef"] > logs[1]["kl_coef"]


def test_an_update_past_the_target_kl_takes_no_more_steps(base, tmp_path):
    """The first step's ratios are one; the second's are not, and its step is the last that is taken."""
    settings = {
        "updates": 2,
        "num_mini_batches": 1,
        "arguments": {"lr_scheduler_type": "constant", "weight_decay": 0.1},
    }
    stopped = make_trainer(base, tmp_path / "a", num_ppo_epochs=5, target_kl=1e-9, **settings)
    short = make_trainer(base, tmp_path / "b", num_ppo_epochs=2, **settings)
    untouched = make_trainer(base, tmp_path / "c", num_ppo_epochs=5, target_kl=1e6, **settings)
    for trainer in (stopped, short, untouched):
        trainer.train()
    assert equal(trained_weights(stopped), trained_weights(short))
    assert not equal(trained_weights(stopped), trained_weights(untouched))
    assert stopped.state.global_step == 10
    logs = [[e for e in trainer.state.log_history if "score" in e] for trainer in (stopped, short, untouched)]
    assert [entry["steps_skipped"] for entry in logs[0]] == [3, 3]
    assert [entry["steps_skipped"] for entry in logs[2]] == [0, 0]
    assert [e["old_kl_k3"] for e in logs[0]] == [e["old_kl_k3"] for e in logs[1]]
    assert logs[0][0]["old_kl_k3"] > 0
    # the loss and norm are of the steps that were taken
    assert [e["loss"] for e in logs[0]] == pytest.approx([e["loss"] for e in logs[1]])
    assert not any("grad_norm" in entry for entry in logs[0])


def test_ratios_where_nothing_trains_are_one():
    found = UpdateStatistics().means(lambda own: own, torch.device("cpu"))
    assert (found["ratio_min"], found["ratio_max"]) == (1.0, 1.0)


@pytest.mark.parametrize("value_model", ["adapter", "head"])
def test_the_policy_does_not_change_while_the_value_warms_up(base, tmp_path, value_model):
    watch = Watch()
    trainer = make_trainer(
        base, tmp_path, updates=3, value_model=value_model, value_warmup_updates=2, arguments={"weight_decay": 0.5}
    )
    watch.attach(trainer).train()
    value = trainer.roles.value_parameters()
    starts = [*watch.sampled_with, trained_weights(trainer)]  # before each update, and at the end
    for update, moves in enumerate([False, False, True]):
        before, after = starts[update], starts[update + 1]
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved & value
        assert bool(moved - value) == moves
    policy = [p for name, p in trainer.roles.named_parameters() if p.requires_grad and name not in value]
    # Adam's second moments know nothing of the warm-up
    assert {int(trainer.optimizer.state[p]["step"]) for p in policy} == {4}


def test_ppo_learns(base, tmp_path):
    trainer = make_trainer(
        base, tmp_path, value_model="head", rollout_batch_size=64, total_episodes=64 * 14, per_device=32, lora_r=8,
        max_new_tokens=12, kl_coef=0.01, many_stops=False,
        arguments={"learning_rate": 5e-3, "lr_scheduler_type": "constant"},
    )  # fmt: skip
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "score" in entry]
    assert len(logs) == 14
    before, after = logs[0]["score"], logs[-1]["score"]
    # of 64 answers: the standard error of the mean score is about 0.2 / 8 = 0.03 before and 0.4 / 8 = 0.05 after
    assert after > before + 0.4
    assert logs[0]["kl"] == 0.0
    assert logs[-1]["kl"] > 0.5
    results = trainer.results()
    assert results["first_score"] == before
    assert results["score"] == after


def test_every_update_is_logged_with_all_its_numbers(base, tmp_path):
    trainer = make_trainer(base, tmp_path)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "score" in entry]
    assert [entry["episode"] for entry in logs] == [16, 32, 48]
    assert [entry["step"] for entry in logs] == [4, 8, 12]
    assert logs[-1]["epoch"] == pytest.approx(48 / len(PROMPTS))
    expected = {
        "score", "score_std", "kl", "kl_k3", "entropy", "clip_fraction", "ratio_min", "ratio_max",
        "clip_ratio/low_mean", "clip_ratio/high_mean", "completions/min_length", "completions/max_length",
        "old_kl", "old_kl_k3", "value_loss", "distinct_1", "distinct_2", "peak_memory_gib", "kl_coef",
        "explained_variance", "answer_tokens", "fraction_stopped", "distinct_answers", "grad_norm", "learning_rate",
        "seconds_sample", "seconds_score", "seconds_train", "tokens_per_second", "policy_loss", "loss",
    }  # fmt: skip
    for entry in logs:
        assert expected <= entry.keys()
        assert all(entry[name] >= 0 for name in entry if name.startswith("seconds"))
        assert entry["ratio_min"] < 1 < entry["ratio_max"]
        clipped = entry["clip_ratio/low_mean"] + entry["clip_ratio/high_mean"]
        assert clipped == pytest.approx(entry["clip_fraction"], abs=1e-6)
        assert 1 <= entry["completions/min_length"] < entry["answer_tokens"] < entry["completions/max_length"] <= 6
        assert 0.05 < entry["peak_memory_gib"] < 64
        assert 0 < entry["distinct_1"] < entry["distinct_2"] <= 1


def test_distinct_n():
    answers = [[1, 2, 1, 2], [2, 1], [3]]
    assert distinct_n(answers, 1) == 3 / 7
    assert distinct_n(answers, 2) == 2 / 4  # 1-2, 2-1, 1-2 and 2-1; the answer of one token has none
    assert distinct_n([[3]], 2) == 1.0


def test_the_value_has_a_learning_rate_of_its_own(base, tmp_path):
    trainer = make_trainer(base, tmp_path, value_learning_rate=0.25)
    groups = trainer.create_optimizer().param_groups
    names = {id(p): name for name, p in trainer.roles.named_parameters()}
    for group in groups:
        is_value = {names[id(p)] in trainer.roles.value_parameters() for p in group["params"]}
        assert is_value == {group["lr"] == 0.25}
    assert sum(len(group["params"]) for group in groups) == len(trained_weights(trainer))


class Killed(Exception):
    pass


class KillAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Killed


@pytest.mark.parametrize(
    ("save_steps", "killed_at", "keys"),
    [
        (8, 9, {}),  # a checkpoint between updates
        (3, 8, {"normalize_scores": "running"}),  # in the middle of one: the rollout in hand is part of it
        (6, 13, {"value_model": "head", "peft_method": "full"}),
        (6, 11, {"kl_placement": "loss", "kl_estimator": "k3", "adaptive_kl_target": 0.1, "adaptive_kl_horizon": 16}),
        (3, 5, {"mask_truncated_completions": True}),
        (3, 8, {"target_kl": 1e-9, "value_warmup_updates": 1}),  # a checkpoint amid the steps that are skipped
    ],
)
def test_a_killed_run_ends_with_the_same_bits(base, tmp_path, save_steps, killed_at, keys):
    saving = {"save_strategy": "steps", "save_steps": save_steps}
    straight = make_trainer(base, tmp_path / "straight", updates=4, per_device=4, arguments=saving, **keys)
    straight.train()
    killed = make_trainer(
        base, tmp_path / "killed", updates=4, per_device=4, arguments=saving, callbacks=[KillAfter(killed_at)], **keys
    )
    with pytest.raises(Killed):
        killed.train()
    last = killed_at - 1 - (killed_at - 1) % save_steps
    torch.manual_seed(999)  # a new process has another global random state
    resumed = make_trainer(base, tmp_path / "killed", updates=4, per_device=4, arguments=saving, **keys)
    updates = []
    collect = resumed.collect
    resumed.collect = lambda update: (updates.append(update), collect(update))[1]
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / f"checkpoint-{last}"))
    assert updates == list(range(-(-last // 4), 4))  # no rollout is made twice
    assert resumed.state.global_step == straight.state.global_step == 16
    assert equal(trained_weights(resumed), trained_weights(straight))
    ours, theirs = (trainer.state.log_history[-2] for trainer in (resumed, straight))
    timed = ("seconds", "tokens_per_second", "peak_memory")
    assert {k: v for k, v in ours.items() if not k.startswith(timed)} == {
        k: v for k, v in theirs.items() if not k.startswith(timed)
    }


def test_the_saved_policy_is_a_plain_adapter_beside_its_tokenizer(base, tmp_path):
    trainer = make_trainer(base, tmp_path / "run", updates=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert "trained.safetensors" not in names
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)


def test_numbers_that_do_not_divide_are_named_with_those_that_do():
    def recipe(**keys):
        return PPORecipe(
            stage="ppo", output_dir="x", model_name_or_path="x", reward_model_path="x",
            datasets=[DatasetEntry(path="x")], total_episodes=64, **keys,
        )  # fmt: skip

    shape = UpdateShape.of(recipe(num_mini_batches=4), per_device_train_batch_size=8, world_size=1)
    assert (shape.updates, shape.steps_per_update, shape.gradient_accumulation_steps) == (1, 16, 2)
    with pytest.raises(RecipeError, match="num_mini_batches 3 on 1 processes does not divide rollout_batch_size 64"):
        UpdateShape.of(recipe(num_mini_batches=3), per_device_train_batch_size=8, world_size=1)
    with pytest.raises(RecipeError, match=r"per_device_train_batch_size 5 does not divide the 64 answers .* use"):
        UpdateShape.of(recipe(), per_device_train_batch_size=5, world_size=1)
    with pytest.raises(RecipeError, match="total_episodes 64 is less than rollout_batch_size 128"):
        UpdateShape.of(recipe(rollout_batch_size=128), per_device_train_batch_size=8, world_size=1)


@pytest.mark.parametrize("gathers", [True, False])
def test_a_key_of_sharded_weights_without_effect_is_reported(base, tmp_path, capsys, gathers):
    make_trainer(base, tmp_path, ds3_gather_for_generation=gathers)
    reported = "ds3_gather_for_generation: false has no effect: every process holds all weights"
    assert (reported in capsys.readouterr().err) is not gathers
