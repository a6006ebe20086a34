"""The vLLM engine against a stand-in that holds a plain model of its own and knows only what it was handed."""

import copy
import inspect
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.data.template import Template
from alignment.errors import ModelError, RecipeError
from alignment.policy.base import load_causal_lm
from alignment.policy.load_roles import load_roles
from alignment.policy.merged import policy_weights
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.rollout.vllm_engine import VLLMEngine, vllm_generation
from alignment.train.policy_gradient.engines import build_engine, require_engine, require_samplable
from tests.models import save_tiny_model

ROOT = Path(__file__).parents[2]
PROMPTS = [[5, 9, 77, 30], [8, 8, 40], [200]]


PROMPT_TEXTS = ["hi", "tell me a story about a small cat"]


def template_of(base):
    return Template(AutoTokenizer.from_pretrained(base))


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def base(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("vllm") / "base"
    options = {"initializer_range": 0.3, "tie_word_embeddings": request.param, "attention_bias": True}
    return save_tiny_model(folder, hidden_size=64, **options)


def recipe(base, **keys):
    needed = {"stage": "ppo", "output_dir": "unused", "reward_model_path": "unused", "total_episodes": 64}
    return PPORecipe(
        **needed, model_name_or_path=str(base), datasets=[DatasetEntry(path="unused")], lora_r=4,
        rollout_engine="vllm", **keys,
    )  # fmt: skip


def roles_of(base, **keys):
    roles = load_roles(recipe(base, **keys))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in roles.named_parameters():
            if ".policy." in name or name.startswith("policy_model"):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return roles


class StandIn:
    """What vLLM would be: weights that come by name, and answers made with them alone."""

    def __init__(self, base, weights):
        self.model = AutoModelForCausalLM.from_pretrained(base)
        self.weights, self.synced, self.calls = weights, 0, []

    def sync_weights(self):
        own = dict(self.model.named_parameters())
        given = dict(self.weights())
        assert set(given) == set(own)
        with torch.no_grad():
            for name, tensor in given.items():
                own[name].copy_(tensor)
        self.synced += 1

    def generate(self, prompts, images, num_generations):
        assert (images, num_generations) == (None, 1)
        assert self.generation_kwargs == {"stop_token_ids": [1, 7], "ignore_eos": True}
        sampling = Sampling(self.max_completion_length, self.temperature, self.top_p, self.top_k, [1, 7], seed=4)
        found = TransformersEngine(self.model, 0).generate(prompts, sampling)
        ids = [c.ids for c in found]
        return prompts, ids, [[[-0.5]] * len(each) for each in ids], [[[i] for i in each] for each in ids]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_vllm_is_handed_the_policy_as_it_is_at_every_call(base, method):
    roles = roles_of(base, **({"peft_method": "full"} if method == "full" else {}))
    vllm = StandIn(base, lambda: policy_weights(roles))
    engine = VLLMEngine(vllm)
    for _ in range(2):
        sampling = Sampling(max_new_tokens=6, temperature=0.8, stop_token_ids=[1, 7], seed=4)
        before = copy.deepcopy(roles.state_dict())
        answers = engine.generate(PROMPTS, sampling)
        assert [a.ids for a in answers] == [
            a.ids for a in TransformersEngine(roles.policy_lm, 0).generate(PROMPTS, sampling)
        ]
        assert answers[0].logp == [-0.5] * len(answers[0].ids)
        assert all(torch.equal(tensor, before[name]) for name, tensor in roles.state_dict().items())
        with torch.no_grad():  # an update
            for name, parameter in roles.named_parameters():
                if ".policy." in name or name.startswith("policy_model"):
                    parameter.mul_(1.5)
    assert vllm.synced == 2


def test_weights_that_are_merged_for_sampling_are_not_merged_twice(base):
    roles = roles_of(base)
    plain = {name: tensor.clone() for name, tensor in policy_weights(roles)}
    with roles.sampling():
        for name, tensor in policy_weights(roles):
            torch.testing.assert_close(tensor, plain[name], rtol=0, atol=1e-6)


def test_a_four_bit_base_is_handed_over_in_the_precision_it_computes_in(base):
    roles = roles_of(base, load_in_4bit=True, dtype="bfloat16")
    given = dict(policy_weights(roles))
    assert {tensor.dtype for name, tensor in given.items() if "proj" in name} == {torch.bfloat16}
    assert set(given) == {name for name, _ in AutoModelForCausalLM.from_pretrained(base).named_parameters()}


@torch.no_grad()
def test_four_bit_layers_without_an_adapter_are_handed_over_as_they_compute(base):
    roles = roles_of(base, load_in_4bit=True, dtype="bfloat16", lora_target_modules=["q_proj"])
    given = dict(policy_weights(roles))
    for layer in ("model.layers.0.mlp.up_proj", "model.layers.1.self_attn.k_proj"):
        found, module = given[f"{layer}.weight"], roles.base.get_submodule(layer)
        zero, units = torch.zeros(1, 64, dtype=torch.bfloat16), torch.eye(64, dtype=torch.bfloat16)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, (module(units) - module(zero)).T, rtol=0, atol=1e-2)


def require_merged_as_by_peft(roles, base):
    given = dict(policy_weights(roles))
    roles.activate("policy")
    with roles.switched.plain("policy") as model:
        merged = copy.deepcopy(model).merge_and_unload()
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(given[name], parameter.data, rtol=0, atol=1e-6)
    assert set(given) == {name for name, _ in AutoModelForCausalLM.from_pretrained(base).named_parameters()}


def test_a_dora_policy_is_handed_over_merged(base):
    require_merged_as_by_peft(roles_of(base, peft_method="dora"), base)


def test_the_biases_of_an_adapter_are_handed_over_merged(base):
    keys = {"lora_alpha": 12, "lora_target_modules": ["q_proj", "o_proj"], "peft_config": {"lora_bias": True}}
    require_merged_as_by_peft(roles_of(base, **keys), base)


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_adapted_embeddings_are_handed_over_merged(tmp_path, method):
    base = save_tiny_model(tmp_path / "base", initializer_range=0.3)
    roles = roles_of(base, peft_method=method, lora_target_modules=["q_proj", "embed_tokens"])
    require_merged_as_by_peft(roles, base)


@pytest.mark.parametrize("engine", ["merged", "vllm"])
@pytest.mark.parametrize(
    ("keys", "changed"),
    [
        ({"lora_target_modules": ["q_proj", "embed_tokens"]}, "model.embed_tokens"),
        ({"lora_target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"lora_modules_to_save": ["embed_tokens"]}, "model.embed_tokens"),
        ({"lora_target_modules": ["q_proj"], "peft_config": {"trainable_token_indices": [5]}}, "model.embed_tokens"),
        ({"lora_target_modules": "all-linear"}, None),
    ],
    ids=str,
)
def test_tied_weights_that_an_adapter_sets_apart_are_refused(tmp_path, engine, keys, changed):
    for tied in (False, True):
        base = save_tiny_model(tmp_path / str(tied), tie_word_embeddings=tied)
        given = recipe(base, **keys).model_copy(update={"rollout_engine": engine})
        if not tied or changed is None:
            require_samplable(given)
            continue
        with pytest.raises(ModelError, match=f"which changes {changed}, whose weights a plain model ties") as caught:
            require_engine(given)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "up_proj"]], ids=str)
def test_an_adapters_biases_are_refused_where_the_base_has_none(base, targets):
    keys = {"lora_target_modules": targets, "peft_config": {"lora_bias": True}}
    with pytest.raises(ModelError, match=r"modules that it changes have no bias of their own \(lora_bias\)"):
        require_samplable(recipe(base, **keys))


def test_an_answer_cut_short_for_no_known_reason_is_an_error(base):
    vllm = StandIn(base, lambda: iter(AutoModelForCausalLM.from_pretrained(base).named_parameters()))
    vllm.generate = lambda prompts, images, num_generations: (prompts, [[3, 4]] * 3, [[[-1.0]] * 2] * 3, None)
    with pytest.raises(ModelError, match=r"ended an answer after 2 of 6 tokens without a stop token \(1, 7\)"):
        VLLMEngine(vllm).generate(PROMPTS, Sampling(max_new_tokens=6, stop_token_ids=[1, 7]))


def test_answers_without_log_probabilities_are_refused(base):
    vllm = StandIn(base, lambda: iter(AutoModelForCausalLM.from_pretrained(base).named_parameters()))
    vllm.generate = lambda prompts, images, num_generations: (prompts, [[3, 1]] * 3, None, None)
    with pytest.raises(ModelError, match="vLLM gave no log-probabilities"):
        VLLMEngine(vllm).generate(PROMPTS, Sampling(max_new_tokens=6, stop_token_ids=[1, 7]))


def test_trls_generation_gets_our_settings_and_our_weights(base, monkeypatch):
    from trl.generation import vllm_generation as theirs

    settings = {}

    def stand_in(self):  # in place of starting vLLM
        settings.update({name: getattr(self, name) for name in ("mode", "server_base_url", "logprobs", "max_num_seqs")})

    monkeypatch.setattr(theirs.VLLMGeneration, "_init_vllm", stand_in)
    monkeypatch.setattr("alignment.train.policy_gradient.engines.require_engine", lambda recipe: None)
    roles = roles_of(base)
    given = recipe(base, vllm_mode="server", vllm_server_base_url="http://localhost:8000", rollout_eval_batch_size=5)
    engine = build_engine(given, roles, template_of(base), PROMPT_TEXTS, Accelerator(cpu=True))
    assert settings == {
        "mode": "server", "server_base_url": "http://localhost:8000", "logprobs": 0, "max_num_seqs": 5
    }  # fmt: skip
    sent = []

    class Client:
        def update_named_params(self, metadata, parameters):
            sent.extend(metadata)
            assert [(name, list(tensor.shape)) for name, tensor in parameters] == [(n, s) for n, _, s in metadata]

        def reset_prefix_cache(self):
            sent.append("reset")

    engine.generation.vllm_client = Client()
    engine.generation.sync_weights()
    assert sent[-1] == "reset"
    assert {name for name, _, _ in sent[:-1]} == {name for name, _ in policy_weights(roles)}


def test_a_missing_package_is_reported_before_anything_loads(base, monkeypatch):
    monkeypatch.setattr("alignment.train.policy_gradient.engines.vllm_is_installed", lambda: False)
    with pytest.raises(ModelError, match="the package vllm is not installed"):
        require_engine(recipe(base))
    require_engine(recipe(base).model_copy(update={"rollout_engine": "transformers"}))


def test_a_launcher_that_compiles_is_refused(base, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    with pytest.raises(RecipeError, match="leave out --dynamo_backend and dynamo_config"):
        require_engine(recipe(base).model_copy(update={"rollout_engine": "transformers"}))
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    require_engine(recipe(base).model_copy(update={"rollout_engine": "transformers"}))


def test_generation_is_trls_own_class_with_one_method_of_ours(monkeypatch):
    from trl.generation import vllm_generation as theirs

    monkeypatch.setattr(theirs.VLLMGeneration, "__init__", lambda self, **settings: None)
    made = vllm_generation(lambda: iter([("a", torch.zeros(1))]))
    assert isinstance(made, theirs.VLLMGeneration)
    assert [name for name, _ in made._iter_named_params()] == ["a"]


class Started(Exception):
    """What vLLM was started with."""


@pytest.fixture
def started(monkeypatch):
    """TRL's generation up to the call that would start vLLM in this process."""
    from trl.generation import vllm_generation as theirs

    def start(**settings):
        raise Started(settings)

    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")  # put back afterwards: TRL sets them
        monkeypatch.delenv(name)
    monkeypatch.setattr(theirs, "is_vllm_available", lambda: True)
    monkeypatch.setattr(theirs, "LLM", start, raising=False)
    monkeypatch.setattr("alignment.train.policy_gradient.engines.vllm_is_installed", lambda: True)


@pytest.mark.parametrize("four_bits", [False, True])
@pytest.mark.parametrize(("given", "room"), [({}, None), ({"vllm_max_model_length": 99}, 99)], ids=str)
def test_vllm_starts_with_whole_weights_and_room_for_the_longest_answer(base, started, four_bits, given, room):
    roles = roles_of(base, load_in_4bit=four_bits)
    template = template_of(base)
    with pytest.raises(Started) as start:
        build_engine(
            recipe(base, max_new_tokens=7, **given), roles, template, PROMPT_TEXTS, Accelerator(cpu=True)
        )  # fmt: skip
    settings = start.value.args[0]
    assert settings["quantization"] is None
    assert settings["model"] == str(base)
    assert settings["max_model_len"] == (room or len(template.prompt_ids(PROMPT_TEXTS[1])) + 7)


def test_a_base_that_is_quantised_on_disk_is_refused(base, tmp_path, started):
    four_bits = BitsAndBytesConfig(load_in_4bit=True)
    AutoModelForCausalLM.from_pretrained(base, quantization_config=four_bits).save_pretrained(tmp_path / "nf4")
    with pytest.raises(ModelError, match=r"is quantised already \(bitsandbytes\).*load_in_4bit: true"):
        require_engine(recipe(tmp_path / "nf4"))
    require_engine(recipe(tmp_path / "nf4", vllm_mode="server", vllm_server_base_url="http://localhost:8000"))
    require_engine(recipe(base, load_in_4bit=True))


BIASES = {"peft_method": "bitfit", "peft_config": {"new_biases": True}}
REFUSED = {
    "prompt_tuning": ({"peft_method": "prompt_tuning"}, "prompt tuning, which only this project's engine puts before"),
    "bottleneck": ({"peft_method": "bottleneck"}, "bottleneck adapters, which cannot be added to a base's weights;"),
    "new biases": (BIASES, "modules that it changes have no bias of their own;"),
    "BEFT without biases": (
        {"peft_method": "beft", "peft_config": {"target_modules": ["up_proj"]}},
        "no bias of their",
    ),
}


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_an_adapter_that_vllm_cannot_sample_with_is_refused_before_anything_loads(
    base, tmp_path, monkeypatch, name, saved
):
    method, message = REFUSED[name]
    monkeypatch.setattr("alignment.train.policy_gradient.engines.vllm_is_installed", lambda: True)
    given = recipe(base, **method)
    if saved:
        load_causal_lm(given, trainable=True, peft=given).save_pretrained(tmp_path)
        given = recipe(tmp_path)  # the adapter's own type is continued
    monkeypatch.setattr("alignment.policy.base.load_base", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(ModelError, match=message):
        require_engine(given)
    require_engine(given.model_copy(update={"rollout_engine": "transformers"}))


def test_adapters_that_can_be_merged_are_not_refused(base, monkeypatch):
    monkeypatch.setattr("alignment.train.policy_gradient.engines.vllm_is_installed", lambda: True)
    biased = {"peft_method": "beft", "peft_config": {"target_modules": ["q_proj"]}}
    for method in (
        biased,
        {"peft_method": "bitfit"},
        {"peft_method": "ia3"},
        {"load_in_4bit": True},
        {"load_in_8bit": True},
    ):
        require_engine(recipe(base, **method))
    for bits in (4, 8):
        with pytest.raises(ModelError, match=rf"\(IA\)³, which PEFT would merge into {bits} bits, rounded"):
            require_engine(recipe(base, peft_method="ia3", **{f"load_in_{bits}bit": True}))


def test_the_extra_has_the_versions_that_trl_supports():
    """TRL names them in `is_vllm_available`, and only warns beyond."""
    from trl.import_utils import is_vllm_available

    source = inspect.getsource(is_vllm_available)
    lowest, highest = re.findall(r'Version\("(\d+\.\d+)\.0"\)', source)
    extra = re.findall(r'^vllm = \["vllm(.*)"\]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert extra == [f">={lowest},<={highest}"]
