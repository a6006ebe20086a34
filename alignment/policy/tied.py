"""Embeddings and an output layer that share their weights."""

from typing import Any

import torch


def untie(model: Any) -> bool:
    """Give a tied output layer a copy of the weights, and note it in the configuration.

    Returns: whether it was tied.
    """
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    if output is None or output.weight is not embeddings.weight:
        return False
    output.weight = torch.nn.Parameter(embeddings.weight.detach().clone(), requires_grad=output.weight.requires_grad)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    return True
