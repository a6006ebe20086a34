"""A preview refuses what training refuses only while the model is loaded and the trainer is built."""

import json

import pytest

from alignment.cli.stages import preview_reader
from alignment.preview.command import Refused, preview
from tests.models import save_tiny_model

PAIRS = [{"prompt": f"question {n}?", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(4)]
DOUBTFUL = [*PAIRS, {"prompt": "p", "chosen": "a", "rejected": "b", "probability": 0.7}]
THUMBS = [{"prompt": f"question {n}?", "completion": f"answer {n}", "label": n % 2 == 0} for n in range(4)]
LINES = [{"prompt": f"question {n}?", "completion": f"good {n}"} for n in range(4)]


@pytest.mark.parametrize(
    ("stage", "rows", "keys", "message"),
    [
        ("sft", LINES, {"lora_target_modules": ["nope"]}, "lora_target_modules: the model has no module nope"),
        ("sft", LINES, {"lora_target_modules": ["lm_head"]}, "Applying a PEFT adapter to `lm_head` is not supported"),
        ("dpo", PAIRS, {"router_aux_loss_coef": 0.1}, "is not a Mixture-of-Experts model"),
        ("dpo", DOUBTFUL, {"use_weighting": True}, "use_weighting changes the loss in a way that has no form for rows"),
        ("kto", THUMBS, {"lora_target_modules": ["lm_head"]}, "Applying a PEFT adapter to `lm_head` is not supported"),
        ("kto", THUMBS[::2], {}, "all 2 answers are labelled good, and KTO learns from good and bad ones"),
        ("kto", LINES, {}, "the format prompt_completion holds no labels of answers"),
        ("reward", PAIRS, {"ties": "davidson"}, "none of the 4 training pairs is one; use ties: half."),
    ],
)
def test_refusals_of_the_trainer_are_refused_in_the_preview(recipe, stage, rows, keys, message):
    with pytest.raises(Refused) as caught:
        preview(recipe(stage, rows, **keys), [], None, preview_reader)
    assert message in str(caught.value)


def test_a_reward_model_is_not_a_policy(recipe, tmp_path):
    path = tmp_path / "reward_model"
    save_tiny_model(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForSequenceClassification"]}))
    with pytest.raises(Refused, match=r"is a reward model .* and a policy is needed here"):
        preview(recipe("sft", LINES, model_name_or_path=str(path)), [], None, preview_reader)


@pytest.mark.parametrize("stage", ["sft", "dpo", "kto", "reward"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_trainer_that_can_be_built_is_tried_whole(recipe, stage, method, capsys):
    rows = {"sft": LINES, "kto": THUMBS}.get(stage, DOUBTFUL)
    keys = {"peft_method": method, "test_split_size": 0.5}
    assert preview(recipe(stage, rows, **keys), [], None, preview_reader).rows
    assert "the trainer was not tried" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "keys", "message"),
    [
        ("ppo", {"reward_model_path": "MODEL"}, "is not a reward model: its weights have no score head"),
        ("label", {"model_name_or_path": "CLASSIFIER"}, "is a reward model"),
    ],
)
def test_models_of_ppo_and_label_are_looked_at(recipe, tmp_path, tiny_model_dir, stage, keys, message):
    classifier = tmp_path / "classifier"
    save_tiny_model(classifier)
    config = json.loads((classifier / "config.json").read_text())
    written = json.dumps({**config, "architectures": ["LlamaForSequenceClassification"]})
    (classifier / "config.json").write_text(written)
    places = {"MODEL": str(tiny_model_dir), "CLASSIFIER": str(classifier)}
    given = {
        "ppo": {"total_episodes": 4, "rollout_batch_size": 2, "per_device_train_batch_size": 2, "max_new_tokens": 4},
        "label": {"judge": {"kind": "local", "model_name_or_path": str(tiny_model_dir)}},
    }[stage]
    given |= {key: places.get(value, value) if isinstance(value, str) else value for key, value in keys.items()}
    with pytest.raises(Refused) as caught:
        preview(recipe(stage, [{"prompt": "Why?"}], **given), [], None, preview_reader)
    assert message in str(caught.value)
