"""A reward model is resolved once, and is a role where it is an adapter that reads the policy's token ids."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from alignment.config.schema import ModelKeys
from alignment.policy import reward_models
from alignment.policy.reward_models import RewardModel, name_roles, resolve_on
from alignment.policy.weights import weights_hash

LINEAGE = {"tokenizer_sha256": "t", "template_sha256": "c", "stop_token_ids": [1]}


def make_reward(base, path, manifest=None):
    torch.manual_seed(0)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", modules_to_save=["score"])
    get_peft_model(plain, config).save_pretrained(path)
    if manifest is not None:
        (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_the_record_has_the_facts_of_the_manifest_and_the_hash_of_the_adapter(tiny_model_dir, tmp_path):
    manifest = {"score_mean": -0.5, "score_std": 2.0, "lineage": LINEAGE}
    path = make_reward(tiny_model_dir, tmp_path / "reward", manifest)
    found = RewardModel.resolve(str(path))
    expected = RewardModel(
        str(path), str(tiny_model_dir), str(path), weights_hash(str(path)), scale=(-0.5, 2.0), lineage=LINEAGE
    )
    assert found == expected
    whole = RewardModel.resolve(str(tiny_model_dir))
    assert (whole.adapter, whole.scale, whole.lineage) == (None, None, {})
    assert whole.weights_sha256 == weights_hash(str(tiny_model_dir))


@pytest.mark.parametrize(
    ("lineage", "fits"),
    [
        ({}, True),  # nothing is recorded
        (LINEAGE, True),
        ({**LINEAGE, "tokenizer_sha256": "other"}, False),
        ({**LINEAGE, "template_sha256": "other"}, False),
        ({**LINEAGE, "stop_token_ids": [2]}, False),
    ],
)
def test_only_a_model_that_reads_the_policys_ids_is_a_role(tiny_model_dir, tmp_path, lineage, fits):
    path = str(make_reward(tiny_model_dir, tmp_path / "reward", {"lineage": lineage}))
    found = resolve_on(ModelKeys(model_name_or_path=str(tiny_model_dir)), [path, str(tiny_model_dir)], LINEAGE)
    assert {path: model.role for path, model in found.items()} == {
        path: "reward" if fits else None,
        str(tiny_model_dir): None,  # a whole model is none
    }


def test_roles_are_numbered_in_the_given_order(tiny_model_dir, tmp_path):
    paths = [str(make_reward(tiny_model_dir, tmp_path / name)) for name in "abc"]
    named = name_roles([RewardModel.resolve(path) for path in paths])
    assert [(model.path, model.role) for model in named] == [
        (paths[0], "reward"), (paths[1], "reward_1"), (paths[2], "reward_2"),
    ]  # fmt: skip


def test_a_run_resolves_each_reward_model_once(tiny_model_dir, tmp_path, monkeypatch):
    path = str(make_reward(tiny_model_dir, tmp_path / "reward"))
    resolved = []
    original = reward_models.resolve_model
    monkeypatch.setattr(
        reward_models, "resolve_model", lambda name, **keys: (resolved.append(name), original(name, **keys))[1]
    )
    resolve_on(ModelKeys(model_name_or_path=str(tiny_model_dir)), [path], {})
    assert resolved == [str(tiny_model_dir), path]


@pytest.mark.parametrize(
    ("trained", "here", "told"),
    [
        ({"load_in_8bit": True}, {}, "in 8 bits, and scores on it in floating point"),
        ({"load_in_8bit": True}, {"load_in_4bit": True}, "in 8 bits, and scores on it in 4 bits"),
        ({"load_in_4bit": False}, {"load_in_8bit": True}, "in floating point, and scores on it in 8 bits"),
        ({"load_in_8bit": True}, {"load_in_8bit": True}, None),
        (None, {"load_in_8bit": True}, None),  # nothing is recorded
    ],
)
def test_a_reward_model_that_trained_on_the_base_in_other_bits_is_reported(
    tiny_model_dir, tmp_path, capsys, trained, here, told
):
    path = str(make_reward(tiny_model_dir, tmp_path / "reward", trained and {"recipe": trained}))
    resolve_on(ModelKeys(model_name_or_path=str(tiny_model_dir), **here), [path], {})
    line = capsys.readouterr().err
    assert f"was trained on the base {told}" in line if told else "was trained" not in line
