"""A small model with an adapter of any tuning method, for tests that try them all."""

import torch

from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.policy.base import load_causal_lm
from tests.models import make_model, make_tokenizer

IDS = torch.arange(3, 30)[None]
FITTING = {  # to a model of 64 numbers: PEFT's defaults are for large ones
    "bitfit": {"new_biases": True},  # Llama has none
    "c3a": {"block_size": 8},
    "fourierft": {"n_frequency": 16},
    "oft": {"oft_block_size": 8},
    "road": {"group_size": 8},
    "shira": {"r": 4},
    "vblora": {"vector_length": 8, "num_vectors": 16},
    "waveft": {"n_frequency": 16},
}


class Keys(ModelKeys, AdapterKeys):
    """What a recipe gives of model and adapter."""


def save_base(folder):
    """Save a random model of 64 numbers and its tokenizer; return the folder's path."""
    tokenizer = make_tokenizer()
    make_model(tokenizer, hidden_size=64, initializer_range=0.2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def keys(base, name, **more):
    return Keys(**{"model_name_or_path": base, "peft_method": name, "peft_config": FITTING.get(name, {}), **more})


def with_adapter(base, name, load=load_causal_lm, **more):
    torch.manual_seed(0)
    given = keys(base, name, **more)
    return load(given, trainable=True, peft=given)


def trained(model, steps=3):
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=IDS).logits.float().clone()


def apart(a, b):
    return (a - b).abs().max().item()
