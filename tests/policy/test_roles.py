"""Each role says what the plain library would say with that role's weights."""

import contextlib
import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.errors import ModelError
from alignment.policy.load_roles import load_roles
from alignment.policy.role_files import load_trained, save_policy, save_trained
from tests.models import make_model, make_tokenizer, on_base, save_tiny_model

PAD = 0


def randomise(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                centre = parameter if "magnitude" in name else 0.0
                parameter.copy_(centre + 0.1 * torch.randn(parameter.shape, generator=g))
    return model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("roles") / "base", initializer_range=0.3)


@pytest.fixture(scope="module")
def sft(base):
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
    randomise(get_peft_model(AutoModelForCausalLM.from_pretrained(base), config), 1).save_pretrained(
        base.parent / "sft"
    )
    return base.parent / "sft"


@pytest.fixture(scope="module", params=["lora", "dora"])
def reward(base, request):
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        target_modules="all-linear",
        modules_to_save=["score"],
        use_dora=request.param == "dora",
    )
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=PAD)
    path = base.parent / f"reward-{request.param}"
    randomise(get_peft_model(plain, config), 2).save_pretrained(path)
    return path


def recipe(model, **keys):
    return PPORecipe(
        stage="ppo", output_dir="unused", model_name_or_path=str(model), datasets=[DatasetEntry(path="unused")],
        reward_model_path="unused", total_episodes=8, **keys,
    )  # fmt: skip


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    input_ids = torch.randint(3, 250, (3, 10), generator=g)
    mask = torch.zeros(3, 10, dtype=torch.bool)
    mask[0, 4:7], mask[1, 3:10], mask[2, 5:6] = True, True, True
    input_ids[0, 7:], input_ids[2, 6:] = PAD, PAD
    return input_ids, mask


def plain_logp(model, input_ids, mask, temperature=1.0):
    """Log-probabilities read from whole-model logits, one row at a time without its padding."""
    found = []
    for ids, counts in zip(input_ids, mask, strict=True):
        end = int(counts.nonzero().max()) + 1
        with torch.no_grad():
            logps = (model(input_ids=ids[None, :end]).logits[0] / temperature).log_softmax(-1)
        found += [logps[t - 1, ids[t]] for t in range(end) if counts[t]]
    return torch.stack(found)


def test_policy_and_reference_start_as_the_sft_adapter(base, sft, reward, batch):
    roles = load_roles(recipe(sft), rewards=on_base(reward))
    expected = plain_logp(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), sft).eval(), *batch, 0.7
    )
    logp, _, _ = roles(*batch, temperature=0.7)
    torch.testing.assert_close(logp.detach(), expected)
    assert torch.equal(roles.reference_logp(*batch, temperature=0.7), logp)


def test_without_an_sft_adapter_the_reference_is_the_base(base, reward, batch):
    roles = load_roles(recipe(base), rewards=on_base(reward))
    expected = plain_logp(AutoModelForCausalLM.from_pretrained(base), *batch)
    randomise(roles, 5)
    torch.testing.assert_close(roles.reference_logp(*batch, temperature=1.0), expected)
    assert not torch.allclose(roles(*batch, temperature=1.0)[0], expected, atol=1e-3)


def test_the_reward_roles_score_is_the_plain_classifiers(base, sft, reward, batch):
    roles = load_roles(recipe(sft), rewards=on_base(reward))
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=PAD)
    plain = PeftModel.from_pretrained(plain, reward).eval()
    input_ids, mask = batch
    with torch.no_grad():
        expected = plain(input_ids=input_ids, attention_mask=(input_ids != PAD).long()).logits.squeeze(-1)
        torch.testing.assert_close(roles.scores(input_ids, mask), expected)


def test_further_reward_roles_are_plain_classifiers_too_and_the_value_starts_as_the_first(base, sft, reward, batch):
    shape = LoraConfig(task_type="SEQ_CLS", r=3, target_modules=["o_proj"], modules_to_save=["score"])
    paths = [str(reward)]
    for seed in (8, 9):
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=PAD)
        paths.append(str(base.parent / f"reward-{seed}"))
        randomise(get_peft_model(plain, shape), seed).save_pretrained(paths[-1])
    roles = load_roles(recipe(sft), rewards=on_base(*paths))
    input_ids, mask = batch
    for role, path in zip(("reward", "reward_1", "reward_2"), paths, strict=True):
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=PAD)
        plain = PeftModel.from_pretrained(plain, path).eval()
        with torch.no_grad():
            expected = plain(input_ids=input_ids, attention_mask=(input_ids != PAD).long()).logits.squeeze(-1)
            torch.testing.assert_close(roles.scores(input_ids, mask, role), expected)
    assert all(".policy." in name or ".value." in name for name, p in roles.named_parameters() if p.requires_grad)
    assert torch.equal(roles.heads["value"].weight, roles.heads["reward"].weight)


def test_the_value_starts_as_the_reward_model_read_one_token_earlier(sft, reward, batch):
    roles = load_roles(recipe(sft), rewards=on_base(reward))
    input_ids, _ = batch
    whole = torch.zeros_like(input_ids, dtype=torch.bool)
    whole[:, 1:] = True
    values = roles(input_ids, whole, temperature=1.0)[2].view(3, -1)
    for end in range(1, 9):
        until = torch.zeros_like(whole)
        until[:, end] = True
        torch.testing.assert_close(values[:, end], roles.scores(input_ids, until))


@pytest.mark.parametrize("value_model", ["adapter", "head"])
def test_the_value_after_the_end_is_that_before_a_token_more(sft, reward, batch, value_model):
    roles = load_roles(recipe(sft, value_model=value_model), rewards=on_base(reward))
    torch.nn.init.normal_(roles.heads["value"].weight)
    input_ids, mask = batch
    longer = torch.nn.functional.pad(mask, (1, 0))[:, :-1] | mask  # each answer with the padding after it
    longer = torch.nn.functional.pad(longer, (0, 1))
    longer[:, -1] = mask[:, -1]
    values = roles(torch.nn.functional.pad(input_ids, (0, 1)), longer, temperature=1.0)[2]
    ends = longer.sum(1).cumsum(0) - 1
    torch.testing.assert_close(roles(input_ids, mask, call="last_values"), values[ends])


def test_a_saved_adapters_dropout_is_off(sft, reward, batch):
    assert json.loads((sft / "adapter_config.json").read_text())["lora_dropout"] == 0.1
    roles = load_roles(recipe(sft), rewards=on_base(reward))
    with torch.no_grad():
        evaluated = roles.eval()(*batch, temperature=1.0)
        trained = roles.train()(*batch, temperature=1.0)
    assert torch.equal(evaluated[0], trained[0])
    assert torch.equal(evaluated[2], trained[2])


def test_only_policy_and_value_train_and_switching_roles_changes_nothing_about_it(sft, reward, batch):
    roles = load_roles(recipe(sft), rewards=on_base(reward))
    trained = {name for name, p in roles.named_parameters() if p.requires_grad}
    assert trained
    assert all(".policy." in name or ".value." in name for name in trained)
    assert {name for name in trained if ".value." in name} == roles.value_parameters()
    for role in ("reference", "reward", "value", "policy"):
        roles.activate(role)
        assert {name for name, p in roles.named_parameters() if p.requires_grad} == trained
    logp, _, values = roles(*batch, temperature=1.0)
    (logp.sum() + values.sum()).backward()
    with_gradient = {name for name, p in roles.named_parameters() if p.grad is not None}
    assert with_gradient == trained
    policy_only = {name for name in trained if ".policy." in name}
    for p in roles.parameters():
        p.grad = None
    roles(*batch, temperature=1.0)[0].sum().backward()
    assert {name for name, p in roles.named_parameters() if p.grad is not None} == policy_only


def test_more_padding_changes_nothing(sft, reward, batch):
    roles = load_roles(recipe(sft), rewards=on_base(reward))
    input_ids, mask = batch
    wide = torch.nn.functional.pad(input_ids, (0, 6), value=7), torch.nn.functional.pad(mask, (0, 6))
    for ours, theirs in zip(roles(*wide, temperature=1.0), roles(*batch, temperature=1.0), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(roles.scores(*wide), roles.scores(*batch))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_checkpointed_activations_are_recomputed_in_their_own_role(sft, reward, batch):
    roles = randomise(load_roles(recipe(sft), rewards=on_base(reward)), 4)

    def gradients():
        for p in roles.parameters():
            p.grad = None
        logp, _, values = roles(*batch, temperature=1.0)
        (logp.sum() + values.square().sum()).backward()
        return {name: p.grad.clone() for name, p in roles.named_parameters() if p.grad is not None}

    expected = gradients()
    roles.train()
    roles.activation_checkpointing_enable()
    roles.activate("reward")  # whatever is active when the backward pass begins
    torch.testing.assert_close(gradients(), expected)


def test_a_head_on_the_policys_trunk(sft, reward, batch):
    roles = load_roles(recipe(sft, value_model="head"), rewards=on_base(reward))
    assert "value" not in roles.adapters
    assert roles.value_parameters() == {"heads.value.weight"}
    logp, _, values = roles(*batch, temperature=1.0)
    assert not values.any()
    assert len(values) == len(logp) == int(batch[1].sum())


def test_a_fully_trained_policy_leaves_the_reference_alone(base, reward, batch):
    roles = load_roles(recipe(base, peft_method="full"), rewards=on_base(reward))
    expected = plain_logp(AutoModelForCausalLM.from_pretrained(base), *batch)
    torch.testing.assert_close(roles(*batch, temperature=1.0)[0].detach(), expected)
    with torch.no_grad():
        for p in roles.policy_model.parameters():
            p.mul_(1.1)
    torch.testing.assert_close(roles.reference_logp(*batch, temperature=1.0), expected)
    assert not torch.allclose(roles(*batch, temperature=1.0)[0], expected, atol=1e-3)


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_saved_roles_load_in_plain_libraries_bit_for_bit(base, reward, batch, tmp_path, method):
    keys = {} if method == "full" else {"lora_r": 4}
    roles = load_roles(recipe(base, peft_method=method, **keys), rewards=on_base(reward))
    randomise(roles, 6)
    logp = roles(*batch, temperature=1.0)[0].detach()
    save_policy(roles, tmp_path)
    save_trained(roles, tmp_path)
    if method == "full":
        plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    else:
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path)
        assert plain.peft_config["default"].base_model_name_or_path == str(base)
    torch.testing.assert_close(plain_logp(plain.eval(), *batch), logp)
    again = load_roles(recipe(base, peft_method=method, **keys), rewards=on_base(reward))
    load_trained(again, tmp_path)
    others = dict(again.named_parameters())
    for name, parameter in roles.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter, others[name]), name


def test_a_checkpoint_that_lacks_trained_weights_is_refused_in_one_line(base, reward, tmp_path):
    roles = load_roles(recipe(base, lora_r=4), rewards=on_base(reward))
    checkpoint = tmp_path / "run" / "checkpoint-3"
    save_policy(roles, checkpoint)
    with pytest.raises(
        ModelError, match=r"has no trained\.safetensors, so an earlier version wrote this checkpoint\. It"
    ):
        load_trained(roles, checkpoint)
    save_trained(roles, checkpoint)
    weights = load_file(checkpoint / "trained.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, checkpoint / "trained.safetensors")
    with pytest.raises(ModelError, match=r"has no weights '.*' \(1 of \d+ are missing\)"):
        load_trained(roles, checkpoint)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_method": "dora"}, "peft_method is lora in the adapter, dora in the recipe"),
        ({"lora_r": 8}, "lora_r is 4 in the adapter, 8 in the recipe"),
        ({"peft_method": "full"}, "is an adapter, but peft_method is full; merge it first"),
    ],
)
def test_a_policy_whose_adapter_contradicts_the_recipe_is_refused(base, reward, tmp_path, keys, message):
    plain = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(plain, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_roles(recipe(tmp_path, **keys), rewards=on_base(reward))


def test_a_new_adapter_that_needs_training_examples_is_refused(base, reward):
    with pytest.raises(ModelError, match="peft_method fishmask chooses its weights by training examples, which PPO"):
        load_roles(recipe(base, peft_method="fishmask"), rewards=on_base(reward))


def test_an_adapter_of_another_base_is_refused(reward, tmp_path):
    other = save_tiny_model(tmp_path / "other", hidden_size=16)
    with pytest.raises(ModelError, match=r"the score head|score head has shape \(1, 32\)|reward adapter does not fit"):
        load_roles(recipe(other), rewards=on_base(reward))


def test_an_adapter_with_layers_that_the_base_lacks_is_refused(base, tmp_path):
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    deep = make_model(make_tokenizer(), layers=3)
    randomise(get_peft_model(copy.deepcopy(deep), config), 0).save_pretrained(tmp_path)
    import json

    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(base)}))
    with pytest.raises(ModelError, match=r"adapter does not fit the base: .*layers\.2.* has no counterpart"):
        load_roles(recipe(tmp_path))


def test_sampling_merges_the_policy_and_puts_the_base_back_bit_for_bit(sft, reward, batch):
    roles = randomise(load_roles(recipe(sft), rewards=on_base(reward)), 8)
    before = {name: parameter.clone() for name, parameter in roles.named_parameters()}
    with torch.no_grad():
        expected = roles.policy_lm(input_ids=batch[0]).logits
        with contextlib.suppress(KeyboardInterrupt), roles.sampling():
            assert any(not torch.equal(p, before[name]) for name, p in roles.named_parameters())
            torch.testing.assert_close(roles.policy_lm(input_ids=batch[0]).logits, expected)
            raise KeyboardInterrupt
        assert torch.equal(roles.policy_lm(input_ids=batch[0]).logits, expected)
    assert all(torch.equal(p, before[name]) for name, p in roles.named_parameters())


def test_only_weights_in_float32_of_their_own_are_merged(sft, reward):
    roles = load_roles(recipe(sft), rewards=on_base(reward))
    assert len(roles._mergeable()) == 4  # q_proj and v_proj of two layers
    assert load_roles(recipe(sft, dtype="bfloat16"), rewards=on_base(reward))._mergeable() == []
    layer = roles.causal_lm("policy").model.layers[0].self_attn
    layer.k_proj.base_layer.weight = layer.v_proj.base_layer.weight
    assert roles._mergeable() == []


def test_weights_that_autocast_would_round_are_not_merged(sft, reward):
    roles = randomise(load_roles(recipe(sft), rewards=on_base(reward)), 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert roles._mergeable() == []
    assert len(roles._mergeable()) == 4


def adapter_like(base, path, **keys):
    config = LoraConfig(task_type="CAUSAL_LM", r=4, **{"target_modules": ["q_proj", "v_proj"], **keys})
    randomise(get_peft_model(AutoModelForCausalLM.from_pretrained(base), config), 1).save_pretrained(path)
    return path


def test_a_new_value_beside_a_policy_that_trains_whole_modules(base, batch, tmp_path):
    saved = adapter_like(base, tmp_path / "sft", modules_to_save=["lm_head", "embed_tokens"])
    roles = load_roles(recipe(saved))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), saved).eval()
    input_ids, mask = batch
    with torch.no_grad():
        logp, _, values = roles(input_ids, mask, temperature=1.0)
        logits = plain(input_ids=input_ids).logits.log_softmax(-1)[:, :-1]
    expected = logits.gather(-1, input_ids[:, 1:].unsqueeze(-1)).squeeze(-1)[mask[:, 1:]]
    torch.testing.assert_close(logp, expected)
    assert torch.equal(values, torch.zeros_like(values))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"init_lora_weights": "olora"}, "olora, which changes the base's own weights"),
        ({"init_lora_weights": "pissa"}, "save_pretrained\\(path_initial_model_for_weight_conversion"),
        ({"bias": "all"}, "has bias all, which peft keeps in the base once"),
        ({"trainable_token_indices": [3, 4]}, "has trainable_token_indices .*Merge it"),
    ],
)
def test_an_adapter_that_changes_the_shared_base_is_refused(base, tmp_path, keys, said):
    saved = adapter_like(base, tmp_path / "sft", **keys)
    with pytest.raises(ModelError, match=said):
        load_roles(recipe(saved))


def test_a_policy_that_trains_whole_modules_begins_as_its_reference_in_half_precision(base, batch, tmp_path):
    saved = adapter_like(base, tmp_path / "sft", modules_to_save=["lm_head", "embed_tokens"])
    roles = load_roles(recipe(saved, dtype="bfloat16"))
    copies = {n: p for n, p in roles.base.named_parameters() if ".policy.modules_to_save." in n}
    assert {p.dtype for p in copies.values()} == {torch.float32}
    input_ids, mask = batch
    with torch.no_grad():
        logp = roles(input_ids, mask, temperature=1.0)[0]
        ref_logp = roles(input_ids, mask, temperature=1.0, call="reference_logp")
    assert torch.equal(logp, ref_logp)


def test_only_reward_adapters_are_held_in_the_bases_precision(sft, reward):
    roles = load_roles(recipe(sft, dtype="bfloat16"), rewards=on_base(reward))
    held = {role: {p.dtype for n, p in roles.base.named_parameters() if f".{role}." in n} for role in roles.adapters}
    assert held["reward"] == {torch.bfloat16}
    assert held["policy"] == held["reference"] == held["value"] == {torch.float32}


@pytest.mark.parametrize("role", ["policy", "reference", "value", "reward"])
def test_the_lean_lora_pass_is_pefts_in_value_and_gradient(sft, reward, role):
    roles = randomise(load_roles(recipe(sft), rewards=on_base(reward)).double(), 4)
    roles.activate(role)
    x = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    for layer in roles.adapters[role].lora_layers:
        if x.shape[-1] == layer.in_features:
            found, expected = layer(x), type(layer).forward(layer, x)
            torch.testing.assert_close(found, expected)
            wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
            pair = (torch.autograd.grad((y**2).sum(), wanted, allow_unused=True) for y in (found, expected))
            for ours, theirs in zip(*pair, strict=True):
                torch.testing.assert_close(ours, theirs)
