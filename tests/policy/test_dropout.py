"""A pass that samples and a pass that trains see the same function."""

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconConfig, GPT2Config, LlamaConfig, OPTConfig

from alignment.policy.dropout import without_dropout

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
CONFIGS = {
    "a number on a module, read by attention": LlamaConfig(
        **SMALL, intermediate_size=32, attention_dropout=0.5, attn_implementation="eager"
    ),
    "numbers for functional dropout": OPTConfig(
        **SMALL, ffn_dim=32, word_embed_proj_dim=16, dropout=0.5, max_position_embeddings=32
    ),
    "modules": GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, resid_pdrop=0.5, embd_pdrop=0.5),
    "the configuration, in every pass": FalconConfig(**SMALL, hidden_dropout=0.5, attention_dropout=0.5, alibi=False),
}


@pytest.mark.parametrize("where", CONFIGS)
def test_a_training_pass_is_an_evaluation_pass(where):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[where])
    ids = torch.arange(1, 13).view(2, 6)
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        assert not torch.equal(model.train()(input_ids=ids).logits, expected)
        without_dropout(model)
        assert torch.equal(model.train()(input_ids=ids).logits, expected)
        assert torch.equal(model.eval()(input_ids=ids).logits, expected)
