"""How LLaMA-Factory's losses and rewards become those of a recipe here."""

from typing import Any

from alignment.importing import training
from alignment.importing.conversion import Conversion
from alignment.importing.keys import OFF_HERE, Drop, Ours, Refuse

LOSSES = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo", "orpo": "orpo", "simpo": "simpo"}


def loss(_: Conversion, value: Any) -> Ours:
    """Convert `pref_loss`."""
    if value not in LOSSES:
        raise Refuse(f"has no counterpart; there are {', '.join(LOSSES)}")
    return {"loss_type": LOSSES[value]}


def ftx(conversion: Conversion, value: Any) -> Ours:
    """Convert `pref_ftx`."""
    if not value:
        raise Drop(OFF_HERE)
    loss = LOSSES.get(conversion.get("pref_loss"), "")
    if loss in ("orpo", "simpo"):
        raise Refuse(f"cannot be mixed with pref_loss {loss}, which has no reference")
    return {"loss_type": [loss, "sft"], "loss_weights": [1.0, float(value)]}


def dft(_: Conversion, value: Any) -> Ours:
    """Convert `use_dft_loss`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"loss_type": "dft"}


def reference(conversion: Conversion, value: Any) -> Ours:
    """Convert `ref_model`."""
    if value in (None, "", conversion.given.get("model_name_or_path")) and not conversion.given.get(
        "adapter_name_or_path"
    ):
        raise Drop("the reference is the model that training starts from")
    raise Refuse("the reference is the model that training starts from, and no other")


def gamma(conversion: Conversion, value: Any) -> Ours:
    """Convert `simpo_gamma`."""
    if conversion.get("pref_loss") != "simpo":
        raise Drop("has no effect without pref_loss: simpo")
    return {"simpo_gamma": value}


def smoothing(conversion: Conversion, value: Any) -> Ours:
    """Convert `dpo_label_smoothing`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"label_smoothing": value}


def reward_kind(_: Conversion, value: Any) -> Ours:
    """Convert `reward_model_type`."""
    if value == "api":
        raise Refuse("its server answers in another form; a scorer of kind http here has docs/ppo.md's")
    raise Drop("it follows from the model")


def reward(conversion: Conversion, value: Any) -> Ours:
    """Convert `reward_model`."""
    conversion.unsettled["reward_model_path"] = (
        "LLaMA-Factory keeps the head of a reward model in a file that is not read here; train one with stage reward"
    )
    return {"reward_model_path": value}


def normal(_: Conversion, value: Any) -> Ours:
    """Convert `ppo_score_norm`."""
    return {"normalize_scores": "running"} if value else {"normalize_scores": "none"}


def experts(conversion: Conversion, value: Any) -> Ours:
    """Convert `moe_aux_loss_coef`."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.stage == "pretrain":
        raise Refuse("the load-balancing loss of experts is part of stage sft alone")
    return {training.EXPERTS: value}
