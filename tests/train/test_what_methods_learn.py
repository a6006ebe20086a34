"""What tuning methods learn on a real model: stories of TinyStories in another spelling, which it has never read."""

import json

import pytest
import torch
from peft import PeftModel, ShiraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.policy.methods.fishmask import choose_by_fisher
from alignment.policy.methods.nested_ranks import NestedRanks
from alignment.policy.methods.sparse import choose, hold_repeated_places, sparse_layers
from recipes import sft
from tests.policy.test_fishmask import chosen_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SPELLING = {"the ": "ze ", " was ": " waz ", ".": " !", "she": "zhe"}
WORDS, TOKENS = 35, 128  # of a story's begin; tokens of a row at most


def stories(file, count):
    with file.open(encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"].lower() for _ in range(count)]
    for old, new in SPELLING.items():
        texts = [text.replace(old, new) for text in texts]
    return [" ".join(text.split()[:WORDS]) for text in texts]


@pytest.fixture(scope="module")
def data(shared, tmp_path_factory):
    file = tmp_path_factory.mktemp("spelling") / "train.jsonl"
    rows = [{"text": text} for text in stories(shared / "data" / "tinystories" / "stories_train.jsonl", 1200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def held_out(shared):
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "stories260K")
    texts = stories(shared / "data" / "tinystories" / "stories_heldout200.jsonl", 64)
    rows = [tokenizer(text).input_ids for text in texts]
    return torch.tensor([row[:64] for row in rows if len(row) >= 64])


def trained(method, shared, data, folder, *, seed, **keys):
    recipe = {
        "stage": "sft", "model_name_or_path": str(shared / "models" / "stories260K"), "output_dir": str(folder),
        "datasets": [{"path": str(data)}], "max_length": TOKENS, "max_steps": 40, "learning_rate": 0.01,
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "save_strategy": "no", "logging_steps": 40,
        "use_cpu": True, "peft_method": method, "seed": seed, **keys,
    }  # fmt: skip
    file = folder.with_suffix(".yaml")
    file.write_text(json.dumps(recipe))
    sft.main(["--config", str(file)])
    base = AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260K")
    return PeftModel.from_pretrained(base, folder).eval()


@torch.no_grad()
def loss(model, held_out):
    return model(input_ids=held_out, labels=held_out).loss.item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dylora_at_each_rank_beats_lora_cut_alike_and_is_close_to_it_at_the_full_rank(
    seed, shared, data, held_out, tmp_path
):
    found = {}
    for method in ("lora", "dylora"):
        folder = tmp_path / method
        model = trained(method, shared, data, folder, seed=seed, lora_r=16, lora_alpha=32)
        ranks = NestedRanks([layer for layer in model.modules() if isinstance(layer, LoraLayer)])
        found[method] = []
        for rank in (1, 2, 4, 8, 16):
            with ranks.at(rank):
                found[method].append(loss(model, held_out))
    assert all(ours < plain for ours, plain in zip(found["dylora"][:4], found["lora"][:4], strict=True))
    assert found["dylora"][4] < 1.05 * found["lora"][4]  # 1.1 times and more where Adam moves unused directions


def sparse_adapter(shared, chosen):
    """Return a model with a new SHiRA adapter on the weights that `chosen` chooses."""
    model = AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260K").requires_grad_(False)
    torch.manual_seed(0)
    model = get_peft_model(model, ShiraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    hold_repeated_places(model)
    chosen(model)
    return model


def random_places(model, seed):
    layers = sparse_layers(model, "default")
    sizes = {name: layer.in_features * layer.out_features for name, layer in layers.items()}
    drawn = torch.randperm(sum(sizes.values()), generator=torch.Generator().manual_seed(seed))[:5200]
    places, first = {}, 0
    for name, size in sizes.items():
        places[name] = drawn[(drawn >= first) & (drawn < first + size)].sort().values - first
        first += size
    choose(layers, places, "default")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_chosen_by_fisher_information_learn_more_than_as_many_random_ones(seed, shared, data, held_out):
    """2 % of 260,032 weights are 5,200; both train with one learning rate."""
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "stories260K")
    rows = [tokenizer(json.loads(line)["text"]).input_ids for line in data.read_text().splitlines()]
    rows = torch.tensor([row[:64] for row in rows if len(row) >= 64])

    def by_information(model):
        losses = [lambda ids=ids[None]: model(input_ids=ids, labels=ids).loss for ids in rows[:128]]
        assert choose_by_fisher(model, losses, fraction=0.02) == 5200

    found = []
    for chosen in (by_information, lambda model: random_places(model, seed)):
        model = sparse_adapter(shared, chosen)
        assert chosen_weights(model) == 5200
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.0)
        order = torch.Generator().manual_seed(seed)
        for _ in range(40):
            ids = rows[torch.randint(len(rows), (8,), generator=order)]
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        assert chosen_weights(model) == 5200
        found.append(loss(model.eval(), held_out))
    assert found[0] < found[1] - 0.1
