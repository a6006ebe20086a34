"""Plans against tensors that are really there: the project's own loaders, a real step, every byte counted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from alignment.config.schema import (
    STAGES,
    DatasetEntry,
    DPORecipe,
    KTORecipe,
    LabelRecipe,
    ModelKeys,
    PolicyGradientRecipe,
    Recipe,
    RewardRecipe,
    SFTRecipe,
)
from alignment.planner import skeleton
from alignment.planner.machine import Machine
from alignment.planner.memory import StagePlan, plan_stage
from alignment.planner.settings import Lengths
from alignment.planner.skeleton import blueprint
from alignment.planner.steps import prepare, training_step
from alignment.planner.tracing import LiveBytes, fake_memory, trace
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.load_roles import load_roles
from alignment.policy.proxy import ProxyTuned
from alignment.rollout.engine import Sampling
from alignment.rollout.static_batch import static_decoder
from alignment.rollout.transformers_engine import TransformersEngine
from benchmarks.roles_memory import held_bytes

CPU = Machine(gpu=False)
LENGTH = 48


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose every size differs from the others, with fewer key-value heads than heads."""
    config = LlamaConfig(
        vocab_size=640,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=0,
    )
    folder = tmp_path_factory.mktemp("planned") / "base"
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def recipe_of(stage: str, base: Path, **keys: Any) -> Any:
    library = {"per_device_train_batch_size": 4, **keys.pop("library", {})}
    common: dict[str, Any] = {
        "stage": stage,
        "output_dir": "unused",
        "model_name_or_path": str(base),
        "datasets": [DatasetEntry(path="unused")],
        "library": library,
    }
    if issubclass(STAGES[stage], PolicyGradientRecipe):
        ours = {"total_episodes": 64, "rollout_batch_size": 16, "max_prompt_length": 16, "max_new_tokens": 32}
        return STAGES[stage](**common, **ours, **keys)
    cls = {"sft": SFTRecipe, "reward": RewardRecipe, "dpo": DPORecipe, "kto": KTORecipe}[stage]
    return cls(**common, max_length=LENGTH, **keys)


def real_model(recipe: Recipe) -> Any:
    torch.manual_seed(0)
    if isinstance(recipe, PolicyGradientRecipe):
        return load_roles(recipe)
    assert isinstance(recipe, SFTRecipe | DPORecipe | KTORecipe | RewardRecipe)
    load = load_sequence_classifier if isinstance(recipe, RewardRecipe) else load_causal_lm
    return load(recipe, trainable=True, peft=recipe)


def train_once(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    prepare(model, recipe, checkpointing=False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    lengths = Lengths(16, 32) if isinstance(recipe, PolicyGradientRecipe) else Lengths(0, LENGTH)
    real_step(model, recipe, lengths, 2).backward()
    for parameter in trained:  # what the loss did not reach: without answers in the mask, the LM head's adapter
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()
    return optimizer


def real_step(model: Any, recipe: Recipe, lengths: Lengths, rows: int) -> Any:
    """The planner's step with a mask that has its answers in it."""
    if not isinstance(recipe, PolicyGradientRecipe):
        return training_step(recipe, lengths)(model, rows)
    ids = torch.zeros(rows, lengths.whole, dtype=torch.long)
    mask = torch.zeros(rows, lengths.whole, dtype=torch.bool)
    mask[:, lengths.prompt :] = True
    logp, _, values = model(ids, mask, temperature=recipe.temperature)
    loss = logp.exp().sum()
    return loss if values is None else loss + (values * values).sum()


def part(plan: StagePlan, *names: str) -> int:
    parts = plan.phases[-1].parts
    return sum(parts.get(name, 0) for name in names)


VARIANTS = [
    ("sft", {}),
    ("sft", {"peft_method": "full"}),
    ("sft", {"peft_method": "dora", "lora_r": 8}),
    ("sft", {"load_in_4bit": True}),
    ("sft", {"load_in_4bit": True, "use_bnb_nested_quant": False}),
    ("sft", {"load_in_8bit": True}),
    ("reward", {}),
    ("reward", {"peft_method": "full"}),
    ("dpo", {}),
    ("dpo", {"load_in_4bit": True}),
    ("kto", {}),
    ("ppo", {}),
    ("ppo", {"value_model": "head"}),
    ("ppo", {"peft_method": "full"}),
    ("ppo", {"load_in_4bit": True}),
    ("ppo", {"load_in_8bit": True}),
    ("grpo", {"peft_method": "full"}),
    ("grpo", {"peft_method": "full", "beta": 0.1}),
    ("rloo", {"beta": 0.0}),
]
LAYERS = {"peft_method": "freeze", "peft_config": {"trainable_layers": 2}}
METHODS = [
    ("sft", LAYERS),
    ("sft", {**LAYERS, "load_in_4bit": True}),
    ("reward", {**LAYERS, "load_in_4bit": True}),
    ("ppo", {**LAYERS, "load_in_4bit": True}),
    ("sft", {**LAYERS, "load_in_8bit": True}),
    ("sft", {"peft_method": "fishmask"}),
    ("reward", {"peft_method": "child_tuning_d"}),
    ("ppo", {"peft_method": "shira", "peft_config": {"r": 4}}),
    ("sft", {"peft_method": "child_tuning"}),
    ("sft", {"peft_method": "p_tuning", "peft_config": {"encoder_reparameterization_type": "LSTM"}}),
    ("sft", {"peft_method": "prompt_tuning"}),
    ("dpo", {"peft_method": "prefix_tuning"}),
]


@pytest.mark.parametrize(("stage", "keys"), [*VARIANTS, *METHODS])
def test_weights_gradients_and_states_are_right_to_a_hundredth(stage: str, keys: dict[str, Any], base: Path) -> None:
    recipe = recipe_of(stage, base, **keys)
    plan = plan_stage(recipe, CPU)
    model = real_model(recipe)
    weights = ("weights", "weights, trained", "adapters, trained", "adapters, frozen")
    assert part(plan, *weights) == pytest.approx(held_bytes(model), rel=0.01)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trains = part(plan, "weights, trained", "adapters, trained")
    assert trains == pytest.approx(sum(parameter.nbytes for parameter in trained), rel=0.01)
    optimizer = train_once(model, recipe)
    gradients = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
    assert part(plan, "gradients") == pytest.approx(gradients, rel=0.01)
    states = sum(
        value.nbytes for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    )
    assert part(plan, "optimizer states") == pytest.approx(states, rel=0.01)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_that_is_stored_quantised_is_planned_as_it_is_held(bits: int, base: Path, tmp_path: Path) -> None:
    quantised = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    AutoModelForCausalLM.from_pretrained(base, quantization_config=quantised).save_pretrained(tmp_path)
    recipe = recipe_of("sft", tmp_path)
    planned = part(plan_stage(recipe, CPU), "weights", "adapters, trained")
    assert planned == pytest.approx(held_bytes(real_model(recipe)), rel=0.01)


def test_dynamic_sampling_needs_no_more_memory_and_the_plan_states_its_bound(base: Path) -> None:
    plain = plan_stage(recipe_of("grpo", base), CPU)
    dynamic = plan_stage(recipe_of("grpo", base, dynamic_sampling=True, dynamic_sampling_max_rounds=5), CPU)
    assert dynamic.phases == plain.phases
    assert "dynamic_sampling samples up to 5, one after the other" in dynamic.assumption
    assert "dynamic_sampling" not in plain.assumption


def test_trunk_states_are_planned_with_the_minibatch_that_later_epochs_regroup(base: Path) -> None:
    common = {"lora_layers": 1, "num_mini_batches": 4}
    once = plan_stage(recipe_of("ppo", base, num_ppo_epochs=1, **common), CPU)
    epochs = plan_stage(recipe_of("ppo", base, num_ppo_epochs=2, **common), CPU)
    alone = plan_stage(recipe_of("ppo", base, share_trunk=False, **common), CPU)
    state = (16 + 32) * 4 * 128  # float32, of the base's width
    for plan, answers in ((once, 16), (epochs, 16 + 4)):
        phases = {phase.name: phase.parts for phase in plan.phases}
        assert "trunk states" not in phases["sampling"]
        assert all(parts["trunk states"] == answers * state for name, parts in phases.items() if name != "sampling")
    assert not any("trunk states" in phase.parts for phase in alone.phases)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("stage", "keys"), [entry for entry in [*VARIANTS, *METHODS] if "load_in_4bit" not in entry[1]]
)
def test_activations_are_those_of_a_real_step(
    stage: str, keys: dict[str, Any], checkpointing: bool, base: Path
) -> None:
    """Counted by the same means, but on real tensors through all of the layers, of which the plan saw four."""
    recipe = recipe_of(stage, base, **keys, library={"gradient_checkpointing": checkpointing})
    plan = plan_stage(recipe, CPU)
    model = real_model(recipe)
    prepare(model, recipe, checkpointing=checkpointing)
    rows = 4 if stage in ("sft", "kto", "ppo", "grpo", "rloo") else 8  # two answers to a prompt
    lengths = plan.lengths
    found = trace(model, lambda: real_step(model, recipe, lengths, rows), dtype=None, grad=True)
    step = next(phase for phase in plan.phases if phase.name == "forward and backward")
    planned = step.parts["activations"] + step.parts["gradients"]
    if isinstance(recipe, PolicyGradientRecipe):
        # several microbatches a step: gradients of the first are there while the second goes through
        assert planned == pytest.approx(found.peak + step.parts["gradients"], rel=0.1)
    else:
        assert planned == pytest.approx(found.peak_with_gradients, rel=0.1)


def test_a_proxys_pair_is_two_more_models_with_caches(base: Path, tmp_path: Path) -> None:
    small = LlamaConfig(
        vocab_size=640,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=3,
        num_attention_heads=4,
        pad_token_id=0,
    )
    LlamaForCausalLM(small).save_pretrained(tmp_path / "small")
    given = {"stage": "label", "output_dir": "unused", "model_name_or_path": str(base), "load_in_4bit": True}
    given |= {"datasets": [{"path": "unused"}], "judge": {"kind": "rules", "function": "operator:add"}}
    pair = {"tuned": str(tmp_path / "small"), "untuned": str(tmp_path / "small")}
    alone, recipe = (LabelRecipe.model_validate({**given, **more}) for more in ({}, {"proxy": pair}))
    plan, without = plan_stage(recipe, CPU), plan_stage(alone, CPU)
    models = [load_causal_lm(recipe, trainable=False)]
    keys = ModelKeys(model_name_or_path=pair["tuned"])
    models += [load_causal_lm(keys, trainable=False) for _ in range(2)]
    expected = held_bytes(ProxyTuned(*models, alpha=1.0))
    assert part(plan, "weights", "weights, proxy") == pytest.approx(expected, rel=0.01)
    # width 128 / 8 heads · 4 for keys and values in ten layers against 64 in three, and one layer that stands twice
    share = plan.phases[0].parts["KV cache"] / without.phases[0].parts["KV cache"]
    assert share == pytest.approx(1 + 2 * (64 * 4) / (64 * 11))


def test_bytes_count_as_long_as_a_tensor_lives() -> None:
    known = torch.ones(1000)
    live = LiveBytes([known])
    with live:
        first = known + 1  # 4000 bytes
        view = first[10:]
        second = first * 2  # 8000
        del first, view
        third = second[:250] + 1  # 5000
        known.add_(1)
        assert (live.now, live.peak) == (5000, 8000)
        del second, third
    assert (live.now, live.peak) == (0, 8000)


def test_two_shallow_models_stand_for_a_deep_one(base: Path) -> None:
    recipe = recipe_of("sft", base)
    plan = plan_stage(recipe, CPU)
    whole = skeleton.policy(blueprint(str(base), {}), recipe, gpu=False)
    prepare(whole, recipe, checkpointing=False)
    with fake_memory(whole):
        step = training_step(recipe, plan.lengths)
        found = trace(whole, lambda: step(whole, 4), dtype=None, grad=True)
    parts = plan.phases[0].parts
    assert parts["activations"] + parts["gradients"] == pytest.approx(found.peak_with_gradients, rel=0.005)


def test_a_cache_is_as_large_as_planned(base: Path) -> None:
    recipe = recipe_of("ppo", base)
    plan = plan_stage(recipe, CPU)
    model = load_causal_lm(recipe, trainable=False)
    cache = model(input_ids=torch.zeros(16, 48, dtype=torch.long), use_cache=True).past_key_values
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    sampling = next(phase for phase in plan.phases if phase.name == "sampling")
    assert sampling.parts["KV cache"] == real * 11 // 10  # ten layers, and one that stands twice as it grows


def test_fixed_shapes_and_a_merged_copy_are_as_large_as_planned(base: Path) -> None:
    recipe = recipe_of("ppo", base, rollout_engine="merged", cache_implementation="static")
    phases = {phase.name: phase.parts for phase in plan_stage(recipe, CPU).phases}
    model = load_causal_lm(recipe, trainable=False).bfloat16()
    engine = TransformersEngine(model, 0, 16, decoder=static_decoder(model), keeps_memory=True)
    engine.generate([[5] * 16] * 16, Sampling(32))
    real = sum(states.nbytes for layer in engine.decoder.memory.layers for states in layer)
    copied = sum(parameter.nbytes for parameter in model.parameters())
    assert all((parts["KV cache"], parts["weights, merged copy"]) == (real, copied) for parts in phases.values())
    in_place = plan_stage(recipe_of("ppo", base, cache_implementation="static"), CPU)
    assert [phase.parts.get("KV cache") for phase in in_place.phases] == [2 * real, None, None, None]  # float32
    layers = len(engine.decoder.memory.layers)
    of_prompts = 2 * layers * 16 * 16 * model.config.num_key_value_heads * model.config.head_dim * 2
    assert phases["sampling"]["KV cache of prompts, until it is copied"] == of_prompts
