"""The verb: what it refuses, what it writes, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.errors import AlignmentError, RecipeError
from alignment.importing.command import convert, import_file
from alignment.importing.conversion import Options
from alignment.importing.detecting import PEERS

TRL = "model_name_or_path: some/model\ndataset_name: a/b\npacking: true\n"


def refused(text, wanted=None, name="x.yaml"):
    Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        import_file(name, wanted, Options(), Path("out"), lambda line: None)
    assert not Path("out").exists()
    (fault,) = caught.value.faults
    return fault


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("hello", "holds text"),
        ("services: {web: {image: x}}\n", "is no recipe of trl, llamafactory, axolotl"),
        ("compute_environment: LOCAL_MACHINE\n", "a configuration of Accelerate"),
        ("distributed_type: FSDP\n", "a configuration of Accelerate; start a recipe with `alignment launch RECIPE "
         "--strategy fsdp2`"),
        ('{"zero_optimization": {"stage": 3}}', "a configuration of DeepSpeed; start a recipe with `alignment launch "
         "RECIPE --strategy zero3`"),
        ('{"train_micro_batch_size_per_gpu": "auto"}', "a configuration of DeepSpeed"),
        (TRL + "output_dir: ${oc.env:OUT}/x\n", "output_dir: ${oc.env:OUT} is not resolved; write the value"),
        ("model: m\npeft_config: {name: lora, export_dir: out}\n", "is of a version of LLaMA-Factory (v1)"),
        ('{"few": {"file_name": "few.json"}, "web": {"hf_hub_url": "a/b"}}', "a list of data sets of LLaMA-Factory"),
        ("<|svg|>: the beginning of a picture\n", "describes new tokens for LLaMA-Factory"),
        ("top.model_name: Qwen3\ntrain.learning_rate: 5e-5\n", "is saved by LLaMA Board"),
        ("actor_rollout_ref: {model: {path: m}}\n", "a configuration of verl"),
        ("stage: sft\noutput_dir: o\nmodel_name_or_path: m\ndatasets: [{path: d.jsonl}]\n", "of this project already"),
        ("model_name_or_path: m\noutput_dir: o\nlearning_rate: 1.0e-4\n", "is no recipe of"),
        ("model_name_or_path: !!python/object/apply:os.system [ls]\ndataset_name: a/b\n", "is not allowed"),
        ("a: &a [*a]\n", "alias of its own parent"),
        ("model_name_or_path: m\ndataset_name: d\nhub_token: hf_" + "a1B2" * 9 + "\n", "holds a key"),
        ("model_name_or_path: m\nmodel_name_or_path: n\ndataset_name: d\n", "given twice"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_one_line(tmp_path, monkeypatch, text, told):
    monkeypatch.chdir(tmp_path)
    fault = refused(text)
    assert fault.startswith("x.yaml:")
    assert told in fault
    assert "\n" not in fault


def test_a_file_of_two_peers_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "base_model: m\nsequence_len: 9\nmodel_name_or_path: m\ndataset_name: d\nuse_peft: true\n"
    assert "may be of trl or axolotl; name one with --from" in refused(text)
    assert refused(TRL, "axolotl") == "--from axolotl: x.yaml is of trl or llamafactory, by its key model_name_or_path"
    assert "--from trll: must be one of trl, llamafactory, axolotl; did you mean trl?" in refused(TRL, "trll")


def test_a_batch_below_one_is_refused_where_steps_are_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "base_model: m\nmicro_batch_size: -1\ndatasets: [{path: a/b, type: chat_template}]\n"
    Path("x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"micro_batch_size: must be a number above 0, found -1"):
        import_file("x.yaml", None, Options(rows=100), tmp_path, lambda line: None)


def test_keys_of_the_trainer_do_not_make_a_file_one_of_axolotl(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(TRL + "fp16: true\nbf16: false\ngroup_by_length: true\nstrict: false\n")
    assert convert("x.yaml", None, Options()).peer.name == "trl"


def test_truth_values_of_yaml_1_1_are_read_everywhere_and_names_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(TRL.replace("true", "no") + "dataset_config: 'no'\nsave_strategy: no\n")
    assert convert("x.yaml", None, Options()).recipe["packing"] is False
    assert convert("x.yaml", None, Options()).recipe["datasets"] == [{"path": "a/b", "name": "no"}]
    assert convert("x.yaml", None, Options()).recipe["save_strategy"] == "no"
    text = (
        "base_model: m\nlearning_rate: 0.1\nrl: grpo\nmax_steps: 1\ndatasets:\n  - {path: a/b, type: r.f, name: 'no'}\n"
    )
    (tmp_path / "y.yaml").write_text(
        text + "trl: {use_vllm: no, reward_funcs: [r.f], mask_truncated_completions: yes}\n"
    )
    recipe = convert("y.yaml", None, Options()).recipe
    assert "rollout_engine" not in recipe
    assert recipe["mask_truncated_completions"] is True
    assert recipe["datasets"][0]["name"] == "no"


def test_what_check_would_refuse_is_refused_with_its_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fault = refused(TRL + "learning_rate: -1\n")
    assert fault == "x.yaml: the recipe that it becomes: learning_rate: must be greater than 0, found -1"


def test_a_recipe_is_written_beside_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(TRL, encoding="utf-8")
    out = import_file("x.yaml", None, Options(), Path("out"), lambda line: None)
    text = out.read_text(encoding="utf-8")
    assert text.startswith(
        "# Imported from x.yaml (TRL) by `alignment import`.\n"
        "# assistant_only_loss: loss is always on answers alone; TRL trains all turns of messages if it is false\n"
        "stage: sft\n"
    )
    assert "learning_rate: 2.0e-05  # default of TRL" in text
    import_file("x.yaml", None, Options(), Path("out"), lambda line: None)  # the same again
    out.write_text(text + "seed: 7\n", encoding="utf-8")
    with pytest.raises(AlignmentError, match="exists with other content"):
        import_file("x.yaml", None, Options(), Path("out"), lambda line: None)
    assert out.read_text(encoding="utf-8").endswith("seed: 7\n")


BASES = {
    "trl": {"model_name_or_path": "m", "dataset_name": "a/b", "packing": True},
    "llamafactory": {"model_name_or_path": "m", "dataset": "x", "stage": "ppo", "reward_model": "r"},
    "axolotl": {"base_model": "m", "datasets": [{"path": "a", "type": "alpaca"}], "learning_rate": 1e-4},
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("value", [{"a": 1}, "x"])
def test_no_value_of_any_key_is_an_unexpected_error(tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    for key in PEERS[name].keys():
        Path("x.json").write_text(json.dumps({**BASES[name], key: value}), encoding="utf-8")
        try:
            outcomes = convert("x.json", name, Options(rows=10)).outcomes
        except RecipeError:
            continue
        assert key in {outcome.key for outcome in outcomes}


def test_the_verb_ends_with_2_and_one_line_for_each_refused_key(tmp_path):
    (tmp_path / "x.yaml").write_text(TRL + "load_in_4bit: true\nload_in_8bit: true\nrope: 3\n", encoding="utf-8")
    command = [sys.executable, "-m", "alignment.cli", "import", "x.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert [line.split(": ")[1] for line in lines] == ["load_in_8bit", "rope"]
    assert "translated  packing: true -> packing: true" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.yaml"]
