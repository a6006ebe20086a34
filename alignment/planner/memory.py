"""The memory of a stage on each device, by phase."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignment.config.schema import PolicyGradientRecipe, Recipe, TrainingRecipe
from alignment.errors import RecipeError
from alignment.planner import skeleton
from alignment.planner.gpu_kernels import gpu_kernels
from alignment.planner.machine import CUDA_CONTEXT, SLACK, Machine
from alignment.planner.settings import Lengths, Settings, answers_of, lengths_of, rollouts_of
from alignment.planner.skeleton import Blueprint, blueprint
from alignment.planner.steps import Step, encode, prefill, prepare, scoring_pass, training_step
from alignment.planner.tracing import Traced, fake_memory, trace
from alignment.planner.weights import Held, disk_buffers, held, states, total_bytes
from alignment.policy.four_bits import require_exact
from alignment.policy.methods import is_of_adapter
from alignment.policy.tasks import auto_class, policy_task, task_for
from alignment.rollout.context import is_encoder_decoder
from alignment.rollout.static_memory import room_for

DEEP = 6  # layers above which a model of equal layers is extrapolated from two shallow ones
SHALLOW = (2, 3)
TRACED_TOKENS = 2**18  # of a microbatch; above this, activations grow linearly with its rows


@dataclass(frozen=True, slots=True)
class Phase:
    """The memory of one phase of a stage."""

    name: str
    parts: dict[str, int]  # bytes by kind

    @property
    def total(self) -> int:
        """Bytes on one device."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage's phases, its memory on the host, and the assumptions of the plan."""

    recipe: Recipe
    machine: Machine
    phases: list[Phase]
    host: dict[str, int]  # bytes of all processes together
    disk: dict[str, int]  # the same, on a disk, if weights and states are offloaded to one
    lengths: Lengths
    microbatch: int  # rows
    sequences: int  # of one row
    parameters: int  # without adapters
    trainable: int
    weight_bytes: int  # read by a sampling step
    sampled_together: int  # sequences
    checkpointing: bool
    config: Any  # the base's, of its text
    assumption: str

    @property
    def stage(self) -> str:
        """Its name."""
        return self.recipe.stage

    @property
    def peak(self) -> Phase:
        """The phase with the most memory."""
        return max(self.phases, key=lambda phase: phase.total)

    @property
    def spare(self) -> int:
        """Free bytes on each device at the peak; negative: missing bytes."""
        return self.machine.memory - self.peak.total


def plan_stage(recipe: Recipe, machine: Machine, planned: Mapping[str, Recipe] | None = None) -> StagePlan:
    """Compute the memory of a stage from configurations alone.

    Args:
        machine: a stage that labels or evaluates uses one of its devices.
        planned: recipes of earlier stages whose output this one loads, by output_dir.

    Raises: ModelError if a model's configuration cannot be loaded, RecipeError if the stage loads no model.
    """
    known = dict(planned or {})
    if isinstance(recipe, TrainingRecipe):
        return _Training(recipe, machine, known).plan()
    if not getattr(recipe, "model_name_or_path", "") or not recipe.STAGE.samples:
        raise RecipeError([f"stage {recipe.stage} loads no model that could be planned for"])
    return _plan_sampling(recipe, machine.alone, known)


class _Training:
    """One training stage on one machine."""

    def __init__(self, recipe: TrainingRecipe, machine: Machine, known: Mapping[str, Recipe]) -> None:
        self.recipe, self.machine, self.known = recipe, machine, known
        self.blueprint = blueprint(recipe.model_name_or_path, known, revision=recipe.model_revision)
        self.settings = Settings.of(recipe, machine, answers=answers_of(known))
        self.lengths, self.assumption = lengths_of(recipe, self.blueprint)
        self.build = _builder(recipe, self.blueprint, known, gpu=machine.gpu)

    def plan(self) -> StagePlan:
        """Count the static memory, trace the dynamic memory, and combine both by phase."""
        model = self.build(None)
        _require_exact(model, self.recipe, self.machine)
        found = held(model, self.machine)
        self._add_reference(found)
        self._add_reward_models(found)
        standing = {**found.standing(), **_context(self.machine), **self._kept_by_engine()}
        device, host = states(found, self.machine, self.settings.optim)
        collected = {**standing, **self._trunk(model)}
        phases = [
            self._step(collected, device),
            Phase("optimizer step", {**collected, **device, **self._copies(found)}),
        ]
        together = 1
        if isinstance(self.recipe, PolicyGradientRecipe):
            together = _together(self.recipe, self.machine)
            without = {name: size for name, size in device.items() if name != "gradients"}
            phases = [
                self._sampling(self.recipe, found, {**standing, **without}),
                self._scoring(self.recipe, {**collected, **without}),
                *phases,
            ]
        weights = [parameter for name, parameter in model.named_parameters() if not is_of_adapter(name)]
        away = {**found.host, **host}
        return StagePlan(
            recipe=self.recipe,
            machine=self.machine,
            phases=phases,
            host=disk_buffers(found, self.machine) if self.machine.nvme else away,
            disk=away if self.machine.nvme else {},
            lengths=self.lengths,
            microbatch=self.settings.microbatch,
            sequences=self.settings.sequences,
            parameters=sum(weight.numel() for weight in weights),
            trainable=sum(weight.numel() for weight in found.trainable),
            weight_bytes=total_bytes(weights),
            sampled_together=together,
            checkpointing=self.settings.checkpointing,
            config=self.blueprint.config.get_text_config(),
            assumption=self.assumption + rollouts_of(self.recipe),
        )

    def _add_reference(self, found: Held) -> None:
        """Count the reference, if it is a separate model."""
        recipe = self.recipe
        if not recipe.has_reference or not recipe.method.copies_reference:
            return
        if not recipe.library.get("precompute_ref_log_probs"):
            own = skeleton.bare(AutoModelForCausalLM, self.blueprint, recipe, full=False, gpu=self.machine.gpu)
            found.parts["weights, reference"] = sum(held(own, self.machine).parts.values())

    def _add_reward_models(self, found: Held) -> None:
        """Count the reward models that are not adapters on the base; each process holds all their weights."""
        recipe = self.recipe
        keys = recipe.in_floats(dtype="auto")
        for plan in _reward_models(recipe, self.known):
            if plan.lies_on(self.blueprint):
                continue
            model = skeleton.bare(AutoModelForSequenceClassification, plan, keys, full=False, gpu=self.machine.gpu)
            name = "weights, reward models"
            found.parts[name] = found.parts.get(name, 0) + total_bytes(model.parameters())

    def _step(self, standing: dict[str, int], device: dict[str, int]) -> Phase:
        """Return the phase of the forward and backward pass of one microbatch.

        With accumulation, gradients exist from the start. Without, they are created while activations are freed.
        """
        step = training_step(self.recipe, self.lengths)
        rows = self.settings.microbatch * self.settings.sequences
        traced = self._trace_rows(step, rows, grad=True)
        moving = traced.peak
        whole = self.machine.shards.gradients == 1 and not self.machine.deepspeed
        if whole and self.settings.accumulation == 1:
            moving = max(0, min(moving, traced.peak_with_gradients - device["gradients"]))
        slack = {"allocator's slack": int(SLACK * moving)} if self.machine.gpu else {}
        return Phase("forward and backward", {**standing, **device, "activations": moving, **slack})

    def _copies(self, found: Held) -> dict[str, int]:
        """Return the temporary copies of an optimizer step: none for a fused optimizer, else copies of the weights."""
        if "fused" in self.settings.optim or "bit" in self.settings.optim or self.machine.deepspeed:
            return {}
        return {"temporaries": total_bytes(found.trainable) // self.machine.shards.optimizer}

    def _sampling(self, recipe: PolicyGradientRecipe, found: Held, standing: dict[str, int]) -> Phase:
        whole = {}
        if self.machine.shards.weights > 1 and recipe.ds3_gather_for_generation:
            shards = self.machine.shards.weights
            cut = sum(found.parts.values()) if not found.host else found.host["weights"] // shards
            whole["weights gathered"] = cut * (shards - 1 if not found.host else shards)
        return Phase("sampling", {**standing, **whole, **self._decoding(recipe)})

    def _decoding(self, recipe: PolicyGradientRecipe) -> dict[str, int]:
        """Return the cache and the logits while answers are sampled; a cache of fixed shapes has whole buckets."""
        rows = _together(recipe, self.machine)
        keys = recipe.model_copy(update={"dtype": "bfloat16"}) if recipe.rollout_engine == "merged" else recipe
        moving = sampling_bytes(self.blueprint, keys, rows, self.lengths, gpu=self.machine.gpu)
        if recipe.cache_implementation == "static":
            room = room_for(rows, self.lengths.whole - self.lengths.answer, self.lengths.answer)
            layers = self.blueprint.layers
            grown = rows * self.lengths.whole * (layers + 1)
            of_prompts = rows * (self.lengths.whole - self.lengths.answer)
            moving["KV cache of prompts, until it is copied"] = moving["KV cache"] * of_prompts * layers // grown
            moving["KV cache"] = moving["KV cache"] * room.rows * room.columns * layers // grown
        return moving

    def _kept_by_engine(self) -> dict[str, int]:
        """Return what the engine holds from one rollout to the next: a merged copy, and its cache of fixed shapes."""
        recipe = self.recipe
        if not isinstance(recipe, PolicyGradientRecipe) or recipe.rollout_engine != "merged":
            return {}
        keys = recipe.in_floats(dtype="bfloat16")
        copy = skeleton.bare(AutoModelForCausalLM, self.blueprint, keys, full=False, gpu=self.machine.gpu)
        kept = {"weights, merged copy": total_bytes(copy.parameters())}
        if recipe.cache_implementation == "static":
            kept["KV cache"] = self._decoding(recipe)["KV cache"]
        return kept

    def _trunk(self, model: Any) -> dict[str, int]:
        """Return the bytes of the shared trunk's hidden states of one process's answers; {} without a trunk.

        One process regroups them in later epochs, a whole minibatch at a time.
        """
        recipe = self.recipe
        if not isinstance(recipe, PolicyGradientRecipe) or not recipe.share_trunk:
            return {}
        if model.trunk_below_adapters() is None:
            return {}
        again = self.machine.gpus == 1 and recipe.update_rule().num_epochs > 1
        answers = -(-recipe.rollout_batch_size // self.machine.gpus)
        answers += -(-recipe.rollout_batch_size // recipe.num_mini_batches) if again else 0
        tokens = answers * self.lengths.whole
        table = model.base.get_input_embeddings().weight  # of the hidden states' width and data type
        return {"trunk states": tokens * table.shape[1] * table.dtype.itemsize}

    def _scoring(self, recipe: PolicyGradientRecipe, standing: dict[str, int]) -> Phase:
        """Return the phase of scoring: policy and value without gradients; reference and reward need no more memory."""
        score = scoring_pass(recipe, self.lengths)
        traced = self._trace_rows(score, self.settings.microbatch, grad=False)
        return Phase("scoring", {**standing, "activations": traced.peak})

    def _trace_rows(self, step: Step, rows: int, *, grad: bool) -> Traced:
        """Trace a microbatch; extrapolate a large one from two smaller ones.

        The output layer works in chunks of tokens, so the time of a trace grows with the microbatch.
        """
        more = max(2, TRACED_TOKENS // self.lengths.whole)
        if rows <= more:
            return self._trace(lambda model: step(model, rows), grad=grad)
        few = more // 2
        begin = self._trace(lambda model: step(model, few), grad=grad)
        return begin.reached(self._trace(lambda model: step(model, more), grad=grad), (rows - few) / (more - few))

    def _trace(self, step: Callable[[Any], Any], *, grad: bool) -> Traced:
        """Trace a step; extrapolate a deep model of equal layers from two shallow ones.

        If all weights train, this is not possible: gradients grow while activations are freed, and the time of the peak
        depends on the depth.
        """
        depth = self.blueprint.layers
        # A shallow model may lack the chosen layers.
        chosen = "layers_to_transform" in self.recipe.peft_config or self.recipe.lora_layers is not None
        if depth <= DEEP or chosen or not self.blueprint.is_even or self.recipe.method.trains_base:
            return self._trace_at(None, step, grad)
        low, high = SHALLOW
        few, more = self._trace_at(low, step, grad), self._trace_at(high, step, grad)
        return few.reached(more, (depth - low) / (high - low))

    def _trace_at(self, depth: int | None, step: Callable[[Any], Any], grad: bool) -> Traced:
        model = self.build(depth)
        prepare(model, self.recipe, checkpointing=self.settings.checkpointing and grad)
        share = self.lengths.answer / self.lengths.whole  # of positions that are answers
        with fake_memory(model), gpu_kernels(gpu=self.machine.gpu):
            return trace(model, lambda: step(model), dtype=self.settings.autocast, grad=grad, share=share)


def _require_exact(model: nn.Module, recipe: Any, machine: Machine) -> None:
    """Refuse a model in 4 bits on a CPU, as loading does."""
    if recipe.load_in_4bit and not machine.gpu:
        widths = {weight.shape[1] for weight in model.parameters() if hasattr(weight, "stored")}
        require_exact(widths, recipe.model_name_or_path, recipe.bnb_4bit_quant_type)


def _builder(
    recipe: TrainingRecipe, plan: Blueprint, known: Mapping[str, Recipe], *, gpu: bool
) -> Callable[[int | None], nn.Module]:
    """Return a function that builds the stage's model with a number of layers, or all for None."""
    if not isinstance(recipe, PolicyGradientRecipe):
        return lambda depth: skeleton.policy(plan.of_depth(depth), recipe, gpu=gpu, task=task_for(recipe, plan.config))
    rewards = [found.adapter for found in _reward_models(recipe, known) if found.adapter and found.lies_on(plan)]
    value: Blueprint | None = None
    keys = recipe.value
    if keys is not None and keys.value_model == "model" and keys.value_model_path:
        value = blueprint(keys.value_model_path, known)
    return lambda depth: skeleton.roles(
        plan.of_depth(depth), recipe, rewards, value.of_depth(depth) if value else None, gpu=gpu
    )


def _reward_models(recipe: Recipe, known: Mapping[str, Recipe]) -> list[Blueprint]:
    """Return the reward models that score answers in this process."""
    if not isinstance(recipe, PolicyGradientRecipe):
        return []
    paths = [recipe.reward_model_path, *(path for entry in recipe.scorers for path in entry.models)]
    return [blueprint(path, known) for path in paths if path]


def _context(machine: Machine) -> dict[str, int]:
    return {"CUDA context": CUDA_CONTEXT} if machine.gpu else {}


def _together(recipe: PolicyGradientRecipe, machine: Machine) -> int:
    """Return the number of answers that one process samples at a time."""
    return min(recipe.rollout_eval_batch_size, -(-recipe.rollout_batch_size // machine.gpus))


def sampling_bytes(plan: Blueprint, keys: Any, rows: int, lengths: Lengths, *, gpu: bool) -> dict[str, int]:
    """Return the bytes of the cache of `rows` sequences at full length, and of three float32 copies of a step's logits.

    A cache grows by concatenation, so one layer's cache temporarily exists twice. An encoder-decoder model has a second
    cache, of the encoder's states.
    """
    encoded = is_encoder_decoder(plan.config)
    shape, layers = (plan, 0) if encoded else (plan.of_depth(1), plan.layers - 1)
    model = skeleton.bare(auto_class(policy_task(plan.config)), shape, keys, full=False, gpu=gpu)
    with torch.no_grad(), fake_memory(model):
        if encoded:
            output = encode(model.eval(), 1, lengths)
            own, states = (output.past_key_values.self_attention_cache, output.past_key_values.cross_attention_cache)
            held = _cache_bytes(states.layers) + output.encoder_last_hidden_state.nbytes
        else:
            own, held = prefill(model.eval(), 1, lengths.whole).past_key_values, 0
        layer = _cache_bytes(own.layers[-1:])
        held += _cache_bytes(own.layers) + layer * (layers + 1)
    vocabulary = int(plan.config.get_text_config().vocab_size)
    return {"KV cache": rows * held, "logits": 3 * 4 * rows * vocabulary}


def _cache_bytes(layers: Any) -> int:
    return sum(part.keys.nbytes + part.values.nbytes for part in layers)


def _plan_sampling(recipe: Any, machine: Machine, known: Mapping[str, Recipe]) -> StagePlan:
    """Plan a stage that only samples."""
    plan = blueprint(recipe.model_name_or_path, known, revision=recipe.model_revision)
    cls = auto_class(policy_task(plan.config))
    model = skeleton.bare(cls, plan, recipe, full=False, gpu=machine.gpu)
    _require_exact(model, recipe, machine)
    lengths, assumption = lengths_of(recipe, plan)
    rows = recipe.per_device_eval_batch_size
    standing = {**held(model, machine).standing(), **_context(machine)}
    moving = sampling_bytes(plan, recipe, rows, lengths, gpu=machine.gpu)
    proxy = getattr(recipe, "proxy", None)
    pair = [blueprint(path, known) for path in ((proxy.tuned, proxy.untuned) if proxy else ())]
    keys = recipe.in_floats()  # as the pair is held
    for each in pair:
        own = skeleton.bare(AutoModelForCausalLM, each, keys, full=False, gpu=machine.gpu)
        standing["weights, proxy"] = standing.get("weights, proxy", 0) + sum(held(own, machine).parts.values())
        more = sampling_bytes(each, keys, rows, lengths, gpu=machine.gpu)
        moving = {name: size + more[name] for name, size in moving.items()}
    return StagePlan(
        recipe=recipe,
        machine=machine,
        phases=[Phase("sampling", {**standing, **moving})],
        host={},
        disk={},
        lengths=lengths,
        microbatch=rows,
        sequences=1,
        parameters=sum(weight.numel() for weight in model.parameters()),
        trainable=0,
        weight_bytes=total_bytes(model.parameters()),
        sampled_together=rows,
        checkpointing=False,
        config=plan.config.get_text_config(),
        assumption=assumption,
    )
