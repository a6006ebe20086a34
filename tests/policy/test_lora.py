"""The fused LoRA layers compute what PEFT's own layers compute, forward and backward, in every precision."""

import contextlib
import copy
import pickle
import types
from dataclasses import dataclass

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear, LoraLayer
from torch import nn
from torch.distributed.tensor import DTensor, init_device_mesh
from torch.utils.checkpoint import checkpoint

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.policy import lora
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.load_roles import AdapterStart, with_adapters
from alignment.policy.lora import FusedLinear, FusedLinear4bit, FusedLinear8bit, fuse_lora
from alignment.policy.methods import adapter_config
from alignment.policy.quantised import compute_as_configured
from alignment.policy.roles import Roles

SHAPES = [(3, 5, 64), (7, 64)]  # (batch, time, width) and (tokens, width)
BF16, FP32 = torch.bfloat16, torch.float32


class Two(nn.Module):
    """Two linear layers, so that a gradient passes through the second into the first."""

    def __init__(self, bias, kind=nn.Linear, **options):
        super().__init__()
        self.first, self.second = kind(64, 96, bias=bias, **options), kind(96, 32, bias=bias, **options)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


@dataclass(frozen=True)
class Case:
    """Types of a pass; `packed`: of the products of a 4-bit base."""

    x: torch.dtype
    base: torch.dtype
    adapter: torch.dtype = FP32
    autocast: bool = False
    packed: torch.dtype | None = None
    nested: bool = True
    eight: bool = False  # the base is in 8 bits

    def context(self):
        return torch.autocast("cpu", dtype=BF16) if self.autocast else contextlib.nullcontext()


CASES = {
    "float32": Case(FP32, FP32),
    "bf16 base": Case(BF16, BF16),
    "bf16 base and adapter": Case(BF16, BF16, BF16),
    "bf16 adapter": Case(FP32, FP32, BF16),
    "autocast": Case(FP32, FP32, autocast=True),
    "autocast of bf16 base": Case(BF16, BF16, autocast=True),
    "autocast of float32 on bf16 base": Case(FP32, BF16, autocast=True),
    "nf4": Case(FP32, FP32, packed=FP32),
    "nf4, plain constants": Case(FP32, FP32, packed=FP32, nested=False),
    "nf4 in bf16": Case(BF16, BF16, packed=BF16),
    "nf4, bf16 products of float32": Case(FP32, FP32, packed=BF16),
    "nf4, autocast": Case(FP32, FP32, autocast=True, packed=BF16),
    "nf4, autocast in bf16": Case(BF16, BF16, autocast=True, packed=BF16),
    "8 bits": Case(FP32, FP32, eight=True),
    "8 bits in bf16": Case(BF16, BF16, eight=True),
    "8 bits, autocast": Case(FP32, FP32, autocast=True, eight=True),
}


def base_model(case, bias):
    if case.eight:
        model = Two(bias, Linear8bitLt, has_fp16_weights=False).to(case.base).to("cpu")  # which rounds the weights
        model.is_loaded_in_8bit = True
        return compute_as_configured(model, "Two").requires_grad_(False)
    if case.packed is None:
        return Two(bias).to(case.base)
    options = {"compute_dtype": case.packed, "quant_type": "nf4", "compress_statistics": case.nested}
    model = Two(bias, Linear4bit, **options).to(case.base).to("cpu")  # which packs the weights
    model.is_loaded_in_4bit = True  # as transformers marks it for PEFT
    for layer in (model.first, model.second):
        layer.support_avx512bf16_for_cpu = False  # as models are loaded
        assert layer.weight.dtype == torch.uint8
    return model


def pair(case, has_bias=True, r=4, alpha=8, **options):
    """PEFT's model, and the same with the fused layers."""
    torch.manual_seed(0)
    config = LoraConfig(
        **{"lora_dropout": 0.0, "target_modules": ["first", "second"], **options}, r=r, lora_alpha=alpha
    )
    theirs = get_peft_model(base_model(case, has_bias), config)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(case.adapter)
            nn.init.normal_(parameter, std=0.15)
    return theirs, fuse_lora(copy.deepcopy(theirs))


def inputs(case, shape=SHAPES[0]):
    """The model's input, and the gradient of its output."""
    g = torch.Generator().manual_seed(1)
    x, upstream = torch.randn(*shape, generator=g), torch.randn(*shape[:-1], 32, generator=g)
    return x.to(case.x), upstream


def run(model, x, upstream, context=None, call=None):
    """Output, and the gradients of the input and of all trained parameters."""
    model.zero_grad()
    x = x.clone().requires_grad_(True)
    with context or contextlib.nullcontext():
        out = (model if call is None else call)(x)
    (out * upstream).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    return {"out": out.detach(), "input": x.grad, **grads}


def exact(model):
    """The same model in float64 with whole weights."""
    found = Two(model.get_base_model().first.base_layer.bias is not None)
    wrapped = get_peft_model(found, copy.deepcopy(model.peft_config["default"])).double()
    beside = (".weight.", "SCB", "weight_format")  # what a quantised weight has
    state = {name: t for name, t in model.state_dict().items() if not any(part in name for part in beside)}
    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            state[f"{name}.weight"] = dequantize_4bit(module.weight.data, module.weight.quant_state)
        if isinstance(module, Linear8bitLt):
            state[f"{name}.weight"] = module.in_floats(torch.float64)
    wrapped.load_state_dict(state)
    return wrapped


@pytest.fixture
def fused(monkeypatch):
    """Counts the calls of the fused operation: a comparison of PEFT with itself would prove nothing."""
    calls = []
    output = lora._output
    monkeypatch.setattr(lora, "_output", lambda *given: (calls.append(given), output(*given))[1])
    return calls


# Numbers


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("r", "alpha", "options"), [(4, 8, {}), (1, 3, {}), (8, 16, {"use_rslora": True})], ids=str)
def test_forward_and_backward_equal_pefts_in_float64(fused, shape, bias, r, alpha, options):
    case = Case(torch.float64, torch.float64, torch.float64)
    theirs, ours = pair(case, bias, r, alpha, **options)
    expected = run(theirs, *inputs(case, shape))
    assert not fused
    found = run(ours, *inputs(case, shape))
    assert len(fused) == 2
    assert found.keys() == expected.keys()
    assert len(found) == 6  # the output, the input, and A and B of two layers
    for name, tensor in found.items():
        assert float(expected[name].abs().max()) > 1e-3, name
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_as_near_to_the_exact_result_as_pefts_in_every_precision(fused, case, bias):
    """They round at other places, so each is compared with float64: the fused one errs by at most twice as much."""
    theirs, ours = pair(case, bias)
    true = run(exact(theirs), *(tensor.double() for tensor in inputs(case, (64, 64))))
    expected = run(theirs, *inputs(case, (64, 64)), case.context())
    assert not fused
    found = run(ours, *inputs(case, (64, 64)), case.context())
    assert len(fused) == 2
    assert found.keys() == true.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        error, their_error = (
            float((t.double() - true[name]).norm() / true[name].norm()) for t in (tensor, expected[name])
        )
        assert error < 2 * their_error + 1e-7, (name, error, their_error)
        assert error < (1e-5 if case == CASES["float32"] else 0.02), (name, error)


def test_gradients_agree_with_finite_differences():
    case = Case(torch.float64, torch.float64, torch.float64)
    layer = pair(case)[1].get_base_model().second
    weights = layer.base_layer.weight, layer.base_layer.bias
    x = torch.randn(5, 96, dtype=torch.float64, requires_grad=True)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert torch.autograd.gradcheck(
        lambda x, down, up: lora._LoraLinear.apply(x, *weights, down, up, None, 2.0), (x, down, up)
    )


def test_gradients_do_not_depend_on_autocast_around_the_backward_pass():
    case = CASES["float32"]
    ours = pair(case)[1]
    expected = run(ours, *inputs(case))
    x, upstream = inputs(case)
    with torch.autocast("cpu", dtype=BF16):
        out = ours(x.requires_grad_(True))
    assert out.dtype == BF16
    with torch.autocast("cpu", enabled=False):
        loss = (ours(x) * upstream).sum()
    with torch.autocast("cpu", dtype=BF16):
        loss.backward()
    torch.testing.assert_close(x.grad, expected["input"], rtol=0, atol=0)


# What is saved


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_saves_its_input_and_r_numbers_a_token(fused, case):
    ours = pair(case, r=4)[1]
    x, _ = inputs(case, (50, 64))
    x.requires_grad_(True)
    weights = {p.untyped_storage().data_ptr() for p in ours.parameters()}
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), case.context():
        ours.get_base_model().first(x)
    assert fused
    beside = [tensor for place, tensor in saved.items() if place not in weights]
    assert sorted(tuple(tensor.shape) for tensor in beside) == [(50, 4), (50, 64)]
    (low,) = (tensor for tensor in beside if tensor.shape == (50, 4))
    assert low.dtype == (BF16 if case.autocast else case.adapter)  # the adapter computes in its own type
    assert any(tensor.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for tensor in beside)  # no copy


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["float32", "bf16 base", "autocast", "nf4", "nf4, autocast in bf16", "8 bits"])
def test_checkpointing_changes_no_bit(fused, name, reentrant):
    case = CASES[name]
    ours = pair(case)[1]
    plain = run(ours, *inputs(case), case.context())
    again = run(ours, *inputs(case), case.context(), lambda x: checkpoint(ours, x, use_reentrant=reentrant))
    assert len(fused) == 6  # two layers, thrice
    for key, tensor in plain.items():
        torch.testing.assert_close(again[key], tensor, rtol=0, atol=0)


# Where it applies


def train_base(model):
    for part in (model.get_base_model().first, model.get_base_model().second):
        part.base_layer.weight.requires_grad_(True)


def train_bias(model):
    for part in (model.get_base_model().first, model.get_base_model().second):
        part.base_layer.bias.requires_grad_(True)


def merge(model):
    model.merge_adapter()


def activate_two(model):
    model.add_adapter("other", copy.deepcopy(model.peft_config["default"]))
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if ".other." in name:
            nn.init.normal_(parameter, std=0.15)
    model.base_model.set_adapter(["default", "other"])


def hook(model):
    for part in model.modules():
        if isinstance(part, LoraLayer):
            part.lora_A["default"].register_forward_hook(lambda _module, _inputs, output: output * 2)


def hook_base(model):
    for part in model.modules():
        if isinstance(part, LoraLayer):
            part.base_layer.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 2,))


def replace_forward(model):
    for part in model.modules():
        if isinstance(part, LoraLayer):
            base = part.base_layer
            base.forward = types.MethodType(lambda self, x: nn.functional.linear(x, self.weight), base)


def mark_as_sharded(model):
    for part in model.modules():
        if isinstance(part, LoraLayer):
            part.base_layer.weight.ds_id = 0  # as DeepSpeed's ZeRO-3 does; the data may be on its way


def mark_adapter_as_sharded(model):
    for part in model.modules():
        if isinstance(part, LoraLayer):
            part.lora_B["default"].weight.ds_id = 0


NOT_FUSED = {
    "DoRA": ({"use_dora": True}, None),
    "an adapter's bias": ({"lora_bias": True}, None),
    "trained biases": ({"bias": "all"}, None),
    "a trained base": ({}, train_base),
    "a bias that trains": ({}, train_bias),
    "merged": ({}, merge),
    "two adapters": ({}, activate_two),
    "hooks": ({}, hook),
    "hooks of the base": ({}, hook_base),
    "another forward": ({}, replace_forward),
    "ZeRO-3": ({}, mark_as_sharded),
    "ZeRO-3 of the adapter": ({}, mark_adapter_as_sharded),
    "MiCA": ({"init_lora_weights": "mica"}, None),
}


@pytest.mark.parametrize(("options", "change"), NOT_FUSED.values(), ids=NOT_FUSED)
def test_pefts_own_layer_runs(fused, options, change):
    case = CASES["float32"]
    for model in (pairs := pair(case, **options)):
        if change:
            change(model)
    expected, found = (run(model, *inputs(case)) for model in pairs)
    assert not fused
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["nf4", "nf4, autocast in bf16"])
@pytest.mark.parametrize("change", [None, merge, activate_two, hook, mark_as_sharded])
def test_pefts_own_layer_runs_in_4_bits(fused, name, change):
    case = CASES[name]
    for model in (pairs := pair(case, **({"use_dora": True} if change is None else {}))):
        with pytest.warns(UserWarning, match="4-bit linear") if change is merge else contextlib.nullcontext():
            if change:
                change(model)
    expected, found = (run(model, *inputs(case), case.context()) for model in pairs)
    assert not fused
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)


def test_weights_packed_for_the_cpus_own_instructions_are_left_to_bitsandbytes(fused):
    """Their constants are rounded, and only evaluation reads them."""
    ours = pair(CASES["nf4"])[1]
    for part in ours.modules():
        if isinstance(part, Linear4bit):
            part.support_avx512bf16_for_cpu = True
    ours(torch.randn(2, 64))
    assert not fused


def test_dropout_leaves_training_to_pefts_layer_and_evaluation_fused(fused):
    case = CASES["float32"]
    pairs = pair(case, lora_dropout=0.5)
    found = []
    for model in pairs:
        torch.manual_seed(3)
        found.append(run(model.train(), *inputs(case))["out"])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert not fused
    found = [model.eval()(inputs(case)[0]) for model in pairs]
    assert len(fused) == 2
    torch.testing.assert_close(*found)


def test_a_sharded_weight_is_left_to_pefts_layer(fused, tmp_path):
    theirs, ours = pair(CASES["float32"])
    x, _ = inputs(CASES["float32"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        layer = ours.get_base_model().first
        for part in (layer.base_layer, layer.lora_A["default"], layer.lora_B["default"]):
            for name, parameter in list(part.named_parameters()):
                setattr(part, name, nn.Parameter(DTensor.from_local(parameter.data, mesh), requires_grad=False))
        found = layer(DTensor.from_local(x, mesh)).to_local()
        assert not fused
        torch.testing.assert_close(found, theirs.get_base_model().first(x))
    finally:
        torch.distributed.destroy_process_group()


def test_the_active_adapter_is_followed(fused):
    """As DPO switches between the policy and TRL's `ref`, and PEFT to the base."""
    case = CASES["float32"]
    pairs = pair(case)
    found = []
    for model in pairs:
        model.add_adapter("ref", LoraConfig(r=2, lora_alpha=6, target_modules=["first", "second"]))
        torch.manual_seed(2)
        for name, parameter in model.named_parameters():
            if ".ref." in name:
                nn.init.normal_(parameter, std=0.15)
        outs = [run(model, *inputs(case))]
        model.set_adapter("ref")
        outs.append(run(model, *inputs(case)))
        with model.disable_adapter():
            outs.append({"out": model(inputs(case)[0])})
        model.set_adapter("default")
        outs.append(run(model, *inputs(case)))
        model.delete_adapter("ref")
        outs.append(run(model, *inputs(case)))
        found.append(outs)
    assert len(fused) == 8
    for theirs, ours in zip(*found, strict=True):
        assert theirs.keys() == ours.keys()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name])
    outs = [each["out"] for each in found[1]]
    assert not torch.allclose(outs[0], outs[1])
    assert torch.equal(outs[0], outs[3])


# The model stays PEFT's


@pytest.mark.parametrize("name", ["float32", "nf4"])
def test_copies_files_and_merging_are_pefts(name, tmp_path):
    case = CASES[name]
    theirs, ours = pair(case)
    own, plain = get_peft_model_state_dict(ours), get_peft_model_state_dict(theirs)
    assert own.keys() == plain.keys()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for model in (theirs, ours):
        model.save_pretrained(tmp_path / type(model.get_base_model().first).__name__)
    folders = [
        tmp_path / ("Linear" if name == "float32" else "Linear4bit"),
        tmp_path / type(ours.get_base_model().first).__name__,
    ]
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    x, _ = inputs(case)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(copied(x), ours(x), rtol=0, atol=0)
        copied.get_base_model().first.lora_B["default"].weight.data.zero_()
        assert not torch.equal(copied(x), ours(x))
    if name == "float32":
        torch.testing.assert_close(ours.merge_and_unload()(x), theirs.merge_and_unload()(x), rtol=0, atol=0)


def test_torch_compile_sees_pefts_layer(fused):
    case = CASES["float32"]
    theirs, ours = pair(case)
    expected = run(theirs, *inputs(case))
    found = run(ours, *inputs(case), call=torch.compile(ours, backend="eager", fullgraph=True))
    assert not fused
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])


# Every stage has it


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({}, FusedLinear), ({"load_in_4bit": True}, FusedLinear4bit), ({"load_in_8bit": True}, FusedLinear8bit)],
    ids=["float32", "nf4", "8 bits"],
)
def test_every_model_that_trains_an_adapter_has_it(fused, wide_model_dir, options, wanted):
    keys = ModelKeys(model_name_or_path=str(wide_model_dir), **options)
    ids = torch.arange(5, 10)[None]
    policy = load_causal_lm(keys, trainable=True, peft=AdapterKeys())
    reward = load_sequence_classifier(keys, trainable=True, peft=AdapterKeys(), pad_token_id=0)
    base = load_causal_lm(keys, trainable=False)
    start = AdapterStart(adapter_config(AdapterKeys(), task="CAUSAL_LM"))
    Roles(with_adapters(base, {"policy": start, "reward": copy.deepcopy(start)}, has_reference=False), heads={})
    for model in (policy, reward, base):
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        assert layers
        assert {type(layer) for layer in layers} == {wanted}
        fused.clear()
        model(input_ids=ids)
        assert len(fused) == len(layers) // (2 if model is base else 1)  # of two roles one computes


@pytest.mark.parametrize("shape", [(3, 8), (2, 3, 8), (8,), (0, 8), (2, 0, 8)])
@pytest.mark.parametrize("grad", [True, False])
def test_an_output_of_any_shape_may_be_changed_in_place(shape, grad):
    torch.manual_seed(0)
    x = torch.randn(shape)
    found = []
    for fused in (True, False):
        torch.manual_seed(1)
        layer = Linear(nn.Linear(8, 6), "default", LoraConfig(), r=2, lora_alpha=4)
        torch.nn.init.normal_(layer.lora_B["default"].weight)
        layer.base_layer.requires_grad_(False)
        layer = fuse_lora(layer) if fused else layer
        with torch.set_grad_enabled(grad):
            out = layer(x)
            out.clamp_(-0.5, 0.5)
        if grad:
            out.sum().backward()
            found.append([out.detach(), layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad])
        else:
            found.append([out])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
