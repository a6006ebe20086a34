"""The model card: front matter, evaluation with intervals, lineage with hashes, licences that cards name."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from alignment.errors import AlignmentError, ModelError, RecipeError
from alignment.export.command import Wanted, export
from alignment.export.files import find_source
from alignment.export.licences import licence_of
from alignment.policy.weights import weights_hash
from tests.models import CHAT_TEMPLATE, save_tiny_bart, save_tiny_model, save_tiny_t5
from tests.policy.test_merge import trained_adapter

HASH = "ab" * 32


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    base = save_tiny_model(place / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    trained_adapter(base, place / "first")
    trained_adapter(base, place / "second", lora_target_modules=["q_proj"])
    return place


def manifest(folder, stage, base, **fields):
    folder.mkdir(exist_ok=True)
    found = {
        "identifier": folder.name.encode().hex(), "stage": stage, "status": "finished", "seed": 3,
        "recipe_sha256": HASH, "finished": "2026-11-21T09:14:52+00:00", "versions": {"torch": "2.13.0"}, **fields,
    }  # fmt: skip
    if "recipe" in fields and "lineage" not in fields:
        found["lineage"] = {"base": str(base), "base_sha256": weights_hash(str(base)), "adapter": None}
    (folder / "manifest.json").write_text(json.dumps(found))


@pytest.fixture
def runs(models, tmp_path):
    """A pipeline's folder: labels by a judge, sft, and dpo on both, with an evaluation of dpo."""
    import shutil

    base = models / "base"
    runs = tmp_path / "runs"
    for name, source in (("sft", "first"), ("dpo", "second")):
        shutil.copytree(models / source, runs / name)
    (runs / "data").mkdir()
    (runs / "data/README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    demonstrations = {"/elsewhere/data/rows.jsonl": HASH, "owner/chats[train]": HASH}
    manifest(runs / "sft", "sft", base, recipe={"stage": "sft", "model_name_or_path": str(base)}, data=demonstrations)
    label = {"stage": "label", "model_name_or_path": "runs/x/sft"}
    manifest(runs / "label", "label", base, recipe=label, data={"/tmp/prompts|<b>.jsonl": HASH})
    lineage = {
        "base": str(base), "base_sha256": weights_hash(str(base)),
        "adapter": "runs/x/sft", "adapter_sha256": weights_hash(str(runs / "sft")),
    }  # fmt: skip
    recipe = {
        "stage": "dpo", "model_name_or_path": "runs/x/sft", "beta": 0.3, "learning_rate": 1e-4, "lora_r": 16,
        "output_dir": "/home/someone/runs", "datasets": [{"path": "/home/someone/runs/label/labels.jsonl"}],
    }  # fmt: skip
    results = {"eval_loss": 0.5, "eval_runtime": 3.0, "train_loss": 0.1}
    manifest(
        runs / "dpo", "dpo", base, recipe=recipe, lineage=lineage, results=results,
        data={"/home/someone/runs/label/labels.jsonl": HASH},
    )  # fmt: skip
    candidates = [{"name": "tuned", "model_name_or_path": "/elsewhere/dpo"}]
    manifest(
        runs / "evaluate", "evaluate", base, recipe={"model_name_or_path": "/elsewhere/sft", "candidates": candidates}
    )
    rate = {"value": 0.75, "low": 0.7, "high": 0.8, "n": 374}
    found = {
        "baseline": "sft", "candidates": ["tuned"], "prompts": 187, "confidence_level": 0.9,
        "win_rate": {"tuned": {"a judge": rate}}, "details": {"kl": {"tuned": {**rate, "value": 2.5}}},
    }  # fmt: skip
    (runs / "evaluate/results.json").write_text(json.dumps(found))
    stages = {name: {"status": "finished"} for name in ("label", "sft", "dpo", "evaluate")}
    (runs / "pipeline.json").write_text(json.dumps({"name": "x", "stages": stages}))
    return runs


def exported(run, out, **wanted):
    said = []
    export(Wanted(run, out, **wanted), said.append)
    return (out / "README.md").read_text(), said


def test_a_pipelines_last_policy_is_exported_with_its_whole_story(runs, tmp_path, models):
    text, said = exported(runs, tmp_path / "out")
    assert said[0] == f"{runs} is a pipeline; its last policy, dpo, is exported"
    card = ModelCard(text)
    assert card.data.to_dict() == {
        "license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "text-generation",
        "datasets": ["owner/chats"], "tags": ["alignment-stack", "dpo"],
    }  # fmt: skip
    assert "| win rate by a judge | 0.75 | 0.7 to 0.8 | 374 |" in text
    assert "| KL to the baseline, nats | 2.5 | 0.7 to 0.8 | 374 |" in text
    assert "90% interval" in text
    assert "| eval_loss | 0.5 | – |" in text
    assert "runtime" not in text
    digest = weights_hash(str(runs / "dpo"))[:12]
    assert f"| dpo | dpo | this model | 3 | 2026-11-21 | {HASH[:12]} | {digest} |" in text
    assert f"| sft | sft | model | 3 | 2026-11-21 | {HASH[:12]} | {weights_hash(str(runs / 'sft'))[:12]} |" in text
    assert f"| label | label | data | 3 | 2026-11-21 | {HASH[:12]} | – |" in text
    assert f"| `base` | – | base | – | – | – | {weights_hash(str(models / 'base'))[:12]} |" in text
    assert "| base `base` | apache-2.0 | its card |" in text
    assert f"| data `rows.jsonl` (SHA-256 {HASH[:12]}) | cc-by-4.0 | its card |" in text
    assert f"| data `owner/chats` (SHA-256 {HASH[:12]}) | unknown | no card names one |" in text
    assert r"| data `prompts\|<b>.jsonl`" in text
    recipe = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert recipe["beta"] == 0.3
    assert recipe["datasets"] == [{"path": "labels.jsonl"}]
    assert "lora_r" not in recipe  # at its default
    assert "someone" not in text


def test_no_text_of_a_recipe_ends_its_block(runs, tmp_path):
    found = json.loads((runs / "dpo/manifest.json").read_text())
    found["recipe"]["chat_template"] = "x\n```\n<script>"
    (runs / "dpo/manifest.json").write_text(json.dumps({**found, "seed": "|<b>"}))
    text, _ = exported(runs / "dpo", tmp_path / "out")
    block = text.partition("````yaml\n")[2].partition("\n````\n")[0]
    assert yaml.safe_load(block)["beta"] == 0.3
    assert "<script>" in block
    assert text.count("<script>") == 1
    assert r"| \|&lt;b&gt; |" in text


def test_weights_that_changed_since_are_named(runs, tmp_path, models):
    (runs / "sft/adapter_model.safetensors").write_bytes((models / "second/adapter_model.safetensors").read_bytes())
    text, _ = exported(runs / "dpo", tmp_path / "out")
    assert "- sft holds other weights now than dpo started from" in text


def test_an_unknown_licence_is_said_and_a_given_one_is_named(runs, tmp_path, models):
    card = models / "base/README.md"
    before = card.read_text()
    try:
        card.write_text("---\nlicense: [a, b]\n---\nThis is under the MIT licence.")
        text, _ = exported(runs / "dpo", tmp_path / "out")
        assert ModelCard(text).data.license == "unknown"
        assert "The licence of this model is unknown" in text
        text, _ = exported(runs / "dpo", tmp_path / "again", licence="mit")
        assert ModelCard(text).data.license == "mit"
        assert "was given with the export" in text
        card.write_text("---\nlicense: other\nlicense_name: own-1\nlicense_link: LICENSE\n---\n")
        data = ModelCard(exported(runs / "dpo", tmp_path / "own")[0]).data
        assert (data.license, data.license_name, data.license_link) == ("other", "own-1", "LICENSE")
        card.write_text("---\nlicense: {x\n---\n")
        assert licence_of(str(models / "base")).name == "unknown"
    finally:
        card.write_text(before)


def test_a_folder_without_a_manifest_has_a_card_too(models, tmp_path):
    text, _ = exported(models / "first", tmp_path / "out", as_adapter=True)
    assert "no record of training" in text
    assert "Unknown: the folder has no manifest." in text
    assert ModelCard(text).data.tags == ["alignment-stack", "lora"]
    assert "--max-lora-rank 8 " in text  # of the adapter's 4, the next that vLLM takes
    assert """'{"eos_token_id": [1]}'""" in text


def test_an_evaluation_is_named_or_found_beside_the_run(runs, tmp_path):
    (runs / "evaluate").rename(tmp_path / "judged")
    assert "No run of stage evaluate" in exported(runs / "dpo", tmp_path / "out")[0]
    with pytest.raises(AlignmentError, match="is no finished evaluation in which"):
        exported(runs / "dpo", tmp_path / "again", evaluation=tmp_path / "judged")
    (tmp_path / "judged").rename(runs / "judged")
    assert "win rate by a judge" in exported(runs / "dpo", tmp_path / "again", evaluation=runs / "judged")[0]


@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        ({"licence": "no licence at all"}, RecipeError, "--license"),
        ({"public": True}, RecipeError, "--push OWNER/NAME"),
        ({"push": "a b/c"}, RecipeError, "write OWNER/NAME"),
        ({"push": "name"}, RecipeError, "write OWNER/NAME"),
        ({"push": "me/name"}, RecipeError, "HF_HUB_OFFLINE forbids"),
        ({"as_adapter": True, "tolerance": 1.0}, RecipeError, "--tolerance is for merging"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_written(wanted, error, words, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(error, match=words) as caught:
        exported(runs / "dpo", tmp_path / "out", **wanted)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_damaged_records_are_faults_of_input(runs, tmp_path):
    with pytest.raises(AlignmentError, match="is no finished evaluation") as caught:
        export(Wanted(runs / "dpo", tmp_path / "out", evaluation=runs / "sft"), print)
    assert caught.value.exit_code == 2
    (runs / "dpo/manifest.json").write_text("{")
    with pytest.raises(AlignmentError, match=r"manifest\.json: not JSON") as caught:
        export(Wanted(runs / "dpo", tmp_path / "out"), print)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_what_is_no_model_is_refused(runs, tmp_path):
    for name, words in (("label", "neither a model nor an adapter"), ("none", "no such folder")):
        with pytest.raises(ModelError, match=words) as caught:
            exported(runs / name, tmp_path / "out")
        assert caught.value.exit_code == 2
    manifest(runs / "ensemble", "reward", "x", members=["member-0", "member-1"])
    with pytest.raises(ModelError, match=r"is an ensemble; export one of its members, such as .*member-0"):
        exported(runs / "ensemble", tmp_path / "out")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    with pytest.raises(ModelError, match="exists already"):
        exported(runs / "dpo", tmp_path / "taken")
    (runs / "pipeline.json").write_text(json.dumps({"name": "x", "stages": {"label": {"status": "finished"}}}))
    with pytest.raises(ModelError, match="has trained no policy yet"):
        exported(runs, tmp_path / "out")


@pytest.mark.parametrize("as_adapter", [True, False])
def test_a_full_disk_is_one_line_and_leaves_nothing(runs, tmp_path, monkeypatch, as_adapter):
    import errno
    import os

    from alignment.policy import new_folder

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(new_folder.Path, "write_text", full)
    with pytest.raises(AlignmentError, match="no room left on the disk"):
        exported(runs / "dpo", tmp_path / "place" / "out", as_adapter=as_adapter)
    assert list((tmp_path / "place").iterdir()) == []


def test_the_base_of_whole_weights_is_the_model_that_no_run_made(models, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    shutil.copytree(models / "base", tmp_path / "base")
    save_tiny_model(tmp_path / "runs/sft", seed=7)
    manifest(tmp_path / "runs/sft", "sft", "base", recipe={"stage": "sft", "model_name_or_path": "base"})
    trained_adapter(tmp_path / "runs/sft", tmp_path / "runs/dpo")
    recipe = {"stage": "dpo", "model_name_or_path": "runs/sft"}
    manifest(tmp_path / "runs/dpo", "dpo", "runs/sft", recipe=recipe)
    for run, wanted in (("sft", {}), ("dpo", {}), ("dpo", {"as_adapter": True})):
        text, _ = exported(tmp_path / "runs" / run, tmp_path / f"{run}{len(wanted)}", **wanted)
        assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"
        assert "| base `base` | apache-2.0 | its card |" in text
        assert f"on `{'sft' if wanted else 'base'}`." in text
    shutil.move(tmp_path / "base", tmp_path.parent / f"{tmp_path.name}-moved")
    text, _ = exported(tmp_path / "runs/sft", tmp_path / "moved")
    assert "| base `base` | unknown | it is neither beside the run nor in the working folder |" in text


T5_CHAT = CHAT_TEMPLATE.replace("<|im_end|>", "</s>")


@pytest.mark.parametrize(
    ("save", "keys"),
    [
        (save_tiny_model, {}),
        (save_tiny_model, {"chat_template": None}),
        (save_tiny_t5, {"chat_template": T5_CHAT}),
        (save_tiny_t5, {}),
        (save_tiny_bart, {}),
    ],
)
def test_the_example_generates_from_what_the_run_reads(save, keys, tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", **keys)
    monkeypatch.chdir(tmp_path)
    text, _ = exported(run, tmp_path / "out")
    found = {}
    exec(text.partition("```python\n")[2].partition("```")[0], found)
    prompt = found.get("messages") or re.search(r'inputs = tokenizer\("(.*?)"', text)[1]
    ids = found["inputs"]["input_ids"][0].tolist()
    assert ids == find_source(run, as_adapter=False, trust_remote_code=False).template.prompt_ids(prompt)
    assert len(ids) > 8
    assert capsys.readouterr().out.endswith("\n")
    assert "An answer ends with one of the stop tokens" in text


@pytest.mark.parametrize("template", ["{% if %}", "{{ raise_exception('never') }}", "{{ messages[0].no.such }}"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_chat_template_that_fails_is_named_with_the_model(template, whole, models, tmp_path):
    import shutil

    run = shutil.copytree(models / ("base" if whole else "first"), tmp_path / "run")
    (run / "chat_template.jinja").write_text(template)
    with pytest.raises(AlignmentError, match=re.escape(str(run))) as refused:
        exported(run, tmp_path / "out")
    assert refused.value.exit_code == 2
    assert len(str(refused.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
