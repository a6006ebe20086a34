"""Bytes held by one base with PPO's four roles, against four separate models: predicted from the shape, and measured.

    python -m benchmarks.roles_memory [--shape 7b] [--precision bf16 nf4] [--rank 16] [--work FOLDER]

Weights only, without gradients, optimizer states and activations. A random model of the shape is written to disk
(13.5 GB for 7b in bf16; removed at the end) and loaded by the code that PPO loads with. Measured is the sum over all
tensors held, quantisation constants among them, each piece of memory counted once. The last line is one JSON object.

- one base: policy, reference, value and reward as LoRA adapters of the given rank on all linear layers of one base, the
  reference an adapter too, as after a fine-tuning with LoRA; heads for value and reward.
- four models: policy and value with an adapter to train, reference and reward without, each on a base of its own. They
  are loaded one after another and added up, so that the machine need not hold them together.
"""

import argparse
import contextlib
import gc
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from alignment.config.schema import DatasetEntry, PPORecipe
from alignment.planner.skeleton import nf4_bytes
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.load_roles import load_roles
from alignment.policy.reward_models import RewardModel, name_roles
from benchmarks.shapes import PRECISIONS, SHAPES, make_model

BF16, FLOAT32 = 2, 4  # bytes


def main() -> None:
    """Predict, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--work", type=Path, help="folder with room for the model; default: a temporary one")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", UserWarning)  # that the folder is quantised already, as it should be
    found = {precision: compare(args.shape, precision, args.rank, args.work) for precision in args.precision}
    print(json.dumps({"shape": args.shape, "rank": args.rank, **found}))


def compare(shape: str, precision: str, rank: int, work: Path | None = None) -> dict[str, Any]:
    """One precision: a table of bytes, and the ratios that matter."""
    predicted = predict(shape, precision, rank)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        measured = measure(shape, precision, rank, Path(folder))
    print(f"{shape}, {precision}, LoRA rank {rank} (GiB)   predicted   measured")
    for name, bytes_held in measured.items():
        print(f"  {name:36} {predicted[name] / 2**30:9.3f}  {bytes_held / 2**30:9.3f}")
    base, one, four = (measured[name] for name in ("base", "one_base_four_roles", "four_models"))
    print(f"  one base holds {one / base:.3f} x the base alone; four models hold {four / one:.2f} x as much\n")
    ratios = {"to_base": one / base, "four_models_to_one_base": four / one}
    return {"predicted": predicted, "measured": measured, **ratios}


def predict(shape: str, precision: str, rank: int) -> dict[str, int]:
    """Bytes from the shape's numbers alone."""
    s = SHAPES[shape]
    hidden, inner, layers, vocabulary = (
        s[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    )
    keys = hidden // s["num_attention_heads"] * s["num_key_value_heads"]
    attention = [(hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden)]
    matrices = [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]
    held = nf4_bytes if precision == "nf4" else (lambda n: n * BF16)
    base = layers * (sum(held(a * b) for a, b in matrices) + 2 * hidden * BF16)
    base += (2 * vocabulary + 1) * hidden * BF16  # embeddings, LM head and last norm are never quantised
    base += hidden // s["num_attention_heads"] * FLOAT32  # the frequencies of rotary embeddings, twice
    weights = layers * rank * sum(a + b for a, b in matrices)  # of one adapter
    trunk = base - vocabulary * hidden * BF16  # a classifier has no LM head
    return {
        "base": base,
        "one_base_four_roles": base + weights * (3 * FLOAT32 + BF16) + 2 * hidden * FLOAT32,
        "four_models": 2 * base + 2 * trunk + 2 * weights * FLOAT32 + 2 * hidden * BF16,
    }


def measure(shape: str, precision: str, rank: int, folder: Path) -> dict[str, int]:
    """Bytes of what the project's own loaders hold."""
    model = make_model(shape, precision, folder / "base")
    recipe = PPORecipe(
        stage="ppo",
        output_dir=str(folder),
        datasets=[DatasetEntry(path="unused")],
        model_name_or_path=str(model),
        reward_model_path=str(folder / "reward"),
        dtype="bfloat16",
        load_in_4bit=precision == "nf4",
        total_episodes=64,  # required, and no matter here
        lora_r=rank,
        lora_alpha=2 * rank,
    )
    found: dict[str, int] = {}
    adapter = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear"}
    with _loaded(load_causal_lm(recipe, trainable=False)) as base:
        found["base"] = held_bytes(base)
        policy = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **adapter))
        policy.save_pretrained(folder / "sft")
        trained = held_bytes(policy)
    with _loaded(load_sequence_classifier(recipe, trainable=False)) as classifier:
        reward = held_bytes(classifier)
        value = get_peft_model(classifier, LoraConfig(task_type="SEQ_CLS", **adapter))
        value.save_pretrained(folder / "reward")
        valued = held_bytes(value) - sum(p.nbytes for name, p in value.named_parameters() if "original_module" in name)
    sft = recipe.model_copy(update={"model_name_or_path": str(folder / "sft")})
    with _loaded(load_roles(sft, rewards=name_roles([RewardModel.resolve(str(folder / "reward"))]))) as roles:
        found["one_base_four_roles"] = held_bytes(roles)
    found["four_models"] = trained + found["base"] + valued + reward
    return found


@contextlib.contextmanager
def _loaded(model: Any) -> Iterator[Any]:
    holder = [model]
    del model
    try:
        yield holder[0]
    finally:
        holder.clear()
        gc.collect()


def held_bytes(model: nn.Module) -> int:
    """Return the bytes of the storages of a model's tensors, each counted once."""
    pieces: dict[tuple[torch.device, int], int] = {}
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        pieces[tensor.device, storage.data_ptr()] = storage.nbytes()
    return sum(pieces.values())


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        yield from getattr(module, "shira_indices", {}).values()  # neither parameters nor buffers
    for parameter in (*model.parameters(), *model.buffers()):
        yield parameter.data
        if getattr(parameter, "SCB", None) is not None:  # constants of a weight in 8 bits
            yield parameter.SCB
        state = getattr(parameter, "quant_state", None)
        for constants in filter(None, (state, getattr(state, "state2", None))):
            yield from (t for t in (constants.absmax, constants.code, constants.offset) if isinstance(t, Tensor))


if __name__ == "__main__":
    main()
