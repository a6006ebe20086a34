"""The share of weights that each method trains, on meta tensors, against the papers' tables."""

import pytest
import torch
from peft import get_peft_model
from transformers import BertConfig, BertModel, LlamaConfig

from alignment.config.schema import DatasetEntry, SFTRecipe
from alignment.planner import skeleton
from alignment.policy.methods import is_of_adapter
from alignment.policy.methods.bitfit import bitfit_config

LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
STORIES = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5,
           "num_attention_heads": 8, "num_key_value_heads": 4}  # fmt: skip
FIVE = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]  # DoRA's targets


def counts(tmp_path, shape, **keys):
    """Return the numbers of trained weights and of the base's, as `alignment plan` counts them."""
    LlamaConfig(**shape, dtype="bfloat16").save_pretrained(tmp_path)
    data = [DatasetEntry(path="unused")]
    recipe = SFTRecipe(stage="sft", output_dir="unused", model_name_or_path=str(tmp_path), datasets=data, **keys)
    model = skeleton.policy(skeleton.blueprint(str(tmp_path), {}), recipe, gpu=False)
    named = dict(model.named_parameters())
    trained = sum(weight.numel() for weight in named.values() if weight.requires_grad)
    return trained, sum(weight.numel() for name, weight in named.items() if not is_of_adapter(name))


@pytest.mark.parametrize(
    ("keys", "percent"),
    [
        ({"lora_r": 32, "lora_target_modules": FIVE}, 0.83),
        ({"peft_method": "dora", "lora_r": 32, "lora_target_modules": FIVE}, 0.84),
        ({"peft_method": "dora", "lora_r": 16, "lora_target_modules": FIVE}, 0.43),
    ],
)
def test_llama_7b_trains_the_share_of_doras_table_1(tmp_path, keys, percent):
    """DoRA, https://arxiv.org/abs/2402.09353, table 1, column "# Params (%)"."""
    trained, base = counts(tmp_path, LLAMA_7B, **keys)
    assert round(100 * trained / base, 2) == pytest.approx(percent, abs=0.011)


@pytest.mark.parametrize(
    ("keys", "expected", "percent"),
    [
        # keys and values of 30 tokens in each layer: 30 · 2 · 4,096 · 32; the paper's table has 0.11
        ({"peft_method": "p_tuning_v2", "peft_config": {"num_virtual_tokens": 30}}, 30 * 2 * 4096 * 32, 0.12),
        # "Series", width 256 after each feed-forward network: 2md + d + m of section 2.1 of 1902.00751, 32 layers
        (
            {"peft_method": "bottleneck", "peft_config": {"bottleneck_size": 256, "placement": "pfeiffer"}},
            (2 * 256 * 4096 + 4096 + 256) * 32,
            0.99,
        ),
    ],
)
def test_llama_7b_trains_the_share_of_a_prefix_and_of_a_series_adapter(tmp_path, keys, expected, percent):
    """DoRA, https://arxiv.org/abs/2402.09353, table 1: "Prefix" and "Series", shares of base and adapter together."""
    trained, base = counts(tmp_path, LLAMA_7B, **keys)
    assert trained == expected
    assert round(100 * trained / (base + trained), 2) == percent


@pytest.mark.parametrize(
    ("shape", "expected", "percent"),
    [
        # a layer: q, k, v, o and down d each, up 4d, two norms d each: 11 d; norm of the embeddings and pooler: 2 d
        ({}, (11 * 12 + 2) * 768, 0.094),
        ({"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
         (11 * 24 + 2) * 1024, 0.081),
    ],
    ids=["base", "large"],
)  # fmt: skip
def test_bert_trains_the_share_of_bitfit(shape, expected, percent):
    """BitFit, https://arxiv.org/abs/2106.10199: 0.09 % of BERT-base and 0.08 % of BERT-large."""
    with torch.device("meta"):
        model = BertModel(BertConfig(**shape))
    base = sum(weight.numel() for weight in model.parameters())
    tuned = get_peft_model(model, bitfit_config(model))
    trained = sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    assert trained == expected
    assert round(100 * trained / base, 3) == percent


def test_gpt_3_trains_18_million_weights_with_rank_4(tmp_path):
    """LoRA, https://arxiv.org/abs/2106.09685, section 4.2: rank 4 on queries and values of 96 layers of 12,288."""
    # 96 layers · 2 matrices · 4 (12,288 + 12,288) = 18,874,368, in float16 36 MiB
    shape = {"hidden_size": 12288, "intermediate_size": 49152, "num_hidden_layers": 96, "num_attention_heads": 96}
    trained, _ = counts(tmp_path, shape, lora_r=4, lora_target_modules=["q_proj", "v_proj"])
    assert trained == 18_874_368
    assert 2 * trained == 36 * 2**20


# of stories260K, a layer: q and o 64 × 64, k and v 32 × 64, gate and up 172 × 64, down 64 × 172; 5 layers
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # 16 (2 · 128 + 2 · 96 + 3 · 236) · 5 = 16 · 1,156 · 5 = 92,480
        ({"lora_r": 16}, 92_480),
        # and a magnitude for each output: (2 · 64 + 2 · 32 + 2 · 172 + 64) · 5 = 600 · 5
        ({"peft_method": "dora", "lora_r": 16}, 92_480 + 3_000),
        # k 32, v 32, down's input 172: 236 · 5
        ({"peft_method": "ia3"}, 1_180),
        # two norms of 64 in each of 5 layers, and the last
        ({"peft_method": "ln_tuning"}, 11 * 64),
        # 12 (1,156 + 7) · 5: A and B, and one value for each of 12 triplets of 7 modules
        ({"peft_method": "adalora"}, 69_780),
        # two vectors: of rank 256, and of each output
        ({"peft_method": "vera"}, (7 * 256 + 600) * 5),
        # as many weights of each module as LoRA of rank 4: 4 · 1,156 · 5
        ({"peft_method": "shira", "peft_config": {"r": 4}}, 23_120),
        # rank 8 on two of five layers
        ({"lora_r": 8, "peft_config": {"layers_to_transform": [1, 3]}}, 8 * 1_156 * 2),
        # rank 8, but 2 on q: 8 (1,156 - 128) + 2 · 128 = 8,480 a layer
        ({"lora_r": 8, "peft_config": {"rank_pattern": {"q_proj": 2}}}, 8_480 * 5),
    ],
)  # fmt: skip
def test_a_plan_counts_exactly_what_trains(tmp_path, keys, expected):
    assert counts(tmp_path, STORIES, **keys)[0] == expected
