import datetime
import json
import shutil

import pytest
import yaml

from alignment.config.schema import PPORecipe, PretrainRecipe, SFTRecipe
from alignment.errors import AlignmentError, LineageError
from alignment.manifest import read_manifest
from alignment.policy.weights import weights_hash
from alignment.run.checkpoints import latest_whole, mark_whole
from alignment.run.closing import closing
from alignment.run.directory import RunDirectory
from alignment.run.lineage import require_same


def recipe(output_dir, **changes) -> SFTRecipe:
    keys = {"stage": "sft", "model_name_or_path": "m", "datasets": [{"path": "d.jsonl"}], **changes}
    return SFTRecipe(output_dir=str(output_dir), **keys)


def test_opening_writes_the_resolved_recipe_and_finishing_a_card(tmp_path):
    run = RunDirectory.open(recipe(tmp_path / "run", library={"learning_rate": 1e-4}))
    resolved = yaml.safe_load((run.path / "recipe.yaml").read_text())
    assert resolved["learning_rate"] == 1e-4
    assert resolved["lora_r"] == 16  # a default of ours
    run.finish(eval_loss=0.5)
    manifest = read_manifest(run.path)
    assert manifest["status"] == "finished"
    assert manifest["results"] == {"eval_loss": 0.5}
    assert manifest["versions"]["torch"]
    assert "| eval_loss | 0.5 |" in (run.path / "README.md").read_text()


def test_a_card_shows_agreement_by_margin(tmp_path):
    run = RunDirectory.open(recipe(tmp_path / "run"))
    bins = [{"from": 0.0, "to": 0.25, "pairs": 12, "accuracy": 0.58333}]
    run.finish(reward_accuracy=0.75, reward_agreement_by_score_gap=bins)
    card = (run.path / "README.md").read_text()
    table = "| from | to | pairs | accuracy |\n|---|---|---|---|\n| 0 | 0.25 | 12 | 0.5833 |\n"
    assert "| reward_accuracy | 0.75 |\n\n`reward_agreement_by_score_gap`:\n\n" + table in card


def test_a_finished_stage_prints_where_its_result_is_and_the_next_step(tmp_path, capsys):
    RunDirectory.open(recipe(tmp_path / "run")).finish()
    merge = f"make it one plain model with `alignment merge {tmp_path}/run MERGED`"
    assert f"saved {tmp_path}/run; next: use it as model_name_or_path of stage label, reward or dpo, or {merge}" in (
        capsys.readouterr().err
    )
    RunDirectory.open(recipe(tmp_path / "full", peft_method="full")).finish()
    assert "merge" not in capsys.readouterr().err  # there is no adapter


@pytest.mark.parametrize(
    ("objective", "step"),
    [("masked", "load it with AutoModelForMaskedLM of transformers"), ("causal", "use it as model_name_or_path of")],
)
def test_a_model_of_masked_tokens_is_not_named_to_stages_of_decoders(tmp_path, objective, step):
    keys = {"stage": "pretrain", "objective": objective, "peft_method": "full"}
    made = PretrainRecipe(output_dir=str(tmp_path), model_name_or_path="m", datasets=[{"path": "d.jsonl"}], **keys)
    assert f"; next: {step}" in next(closing(made, {}))


def test_answers_that_do_not_end_are_reported(tmp_path, capsys):
    keys = {"stage": "ppo", "reward_model_path": "r", "total_episodes": 8, "max_new_tokens": 64}
    ppo = PPORecipe(output_dir="runs/p", model_name_or_path="m", datasets=[{"path": "d.jsonl"}], **keys)
    lines = list(closing(ppo, {"fraction_stopped": 0.03}))
    assert lines[0].startswith("3% of the answers ended by themselves; the others were cut at max_new_tokens 64.")
    assert "eos_token" in lines[0]
    assert len(list(closing(ppo, {"fraction_stopped": 0.9}))) == 1


def test_a_finished_run_is_kept_unless_overwritten(tmp_path):
    run = RunDirectory.open(recipe(tmp_path / "run"))
    run.finish()
    with pytest.raises(AlignmentError, match="holds a finished run; pass --overwrite true"):
        RunDirectory.open(recipe(tmp_path / "run"))
    again = RunDirectory.open(recipe(tmp_path / "run", overwrite=True))
    assert read_manifest(again.path)["status"] == "running"
    assert not (again.path / "README.md").exists()


def test_a_run_whose_overwriting_was_cut_off_is_not_finished_or_resumed(tmp_path, monkeypatch):
    RunDirectory.open(recipe(tmp_path / "run")).finish(steps=3)
    for name in ("a", "b", "c"):
        (tmp_path / "run" / name).mkdir()

    def killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        RunDirectory.open(recipe(tmp_path / "run", overwrite=True))
    monkeypatch.undo()
    with pytest.raises(
        AlignmentError, match="the rest of a run whose overwriting was interrupted; pass --overwrite true"
    ):
        RunDirectory.open(recipe(tmp_path / "run"))
    run = RunDirectory.open(recipe(tmp_path / "run", overwrite=True))
    assert sorted(file.name for file in run.path.iterdir()) == ["manifest.json", "recipe.yaml"]


def test_peoples_labels_are_not_overwritten(tmp_path):
    RunDirectory.open(recipe(tmp_path / "run")).finish()
    (tmp_path / "run" / "people.jsonl").write_text("{}\n")
    with pytest.raises(AlignmentError, match=r"people's rankings of this run's answers.*Move it to another folder"):
        RunDirectory.open(recipe(tmp_path / "run", overwrite=True))
    assert (tmp_path / "run" / "people.jsonl").exists()


def test_an_interrupted_run_goes_on_only_with_the_same_recipe(tmp_path):
    run = RunDirectory.open(recipe(tmp_path / "run"))
    checkpoint = run.path / "checkpoint-7"
    checkpoint.mkdir()
    (checkpoint / "weights").write_bytes(b"1234")
    mark_whole(checkpoint)
    assert RunDirectory.open(recipe(tmp_path / "run")).checkpoint == str(checkpoint)
    with pytest.raises(AlignmentError, match="lora_r was 16, is 8"):
        RunDirectory.open(recipe(tmp_path / "run", lora_r=8))
    RunDirectory.open(recipe(tmp_path / "run", report_to="wandb"))  # not part of a run's identity


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(AlignmentError, match="is not a run of this project"):
        RunDirectory.open(recipe(tmp_path, overwrite=True))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(AlignmentError, match="is a file; name a folder"):
        RunDirectory.open(recipe(tmp_path / "thesis.tex"))


def test_a_checkpoint_cut_off_while_writing_is_not_taken_for_a_whole_one(tmp_path):
    for step in (5, 10, 20):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "weights").write_bytes(b"12345678")
        if step != 20:
            mark_whole(checkpoint)
    assert latest_whole(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").write_bytes(b"1234")
    assert latest_whole(tmp_path) == tmp_path / "checkpoint-5"
    (tmp_path / "checkpoint-5" / "whole.json").write_text("{")
    assert latest_whole(tmp_path) is None


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(AlignmentError, match=r"manifest\.json: not JSON"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps([1]))
    with pytest.raises(AlignmentError, match=r"holds \[1\], not an object"):
        read_manifest(tmp_path)


def test_lineage_refuses_a_mismatch_and_reports_what_differs():
    sft = {"base_sha256": "aaa", "pad_token_id": 0}
    require_same(sft, {"base_sha256": "aaa", "template_sha256": "t"}, "policy", "reward model")
    with pytest.raises(LineageError, match=r"base model weights \(aaa against bbb\), pad token \(0 against 2\)"):
        require_same(sft, {"base_sha256": "bbb", "pad_token_id": 2}, "policy", "reward model")


def test_weights_are_known_by_content_not_by_place(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    a, b, c = (weights_hash(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert weights_hash("org/model") == "hub:org/model"


def test_a_run_that_failed_before_it_did_anything_takes_a_corrected_recipe(tmp_path):
    RunDirectory.open(recipe(tmp_path / "run", lora_r=7))
    run = RunDirectory.open(recipe(tmp_path / "run", lora_r=8))
    assert read_manifest(run.path)["recipe"]["lora_r"] == 8
    (run.path / "calls.sqlite").write_bytes(b"paid for")
    with pytest.raises(AlignmentError, match="lora_r was 8, is 9"):
        RunDirectory.open(recipe(tmp_path / "run", lora_r=9))


def test_a_run_killed_before_its_first_file_was_named_begins_anew(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".manifest.json.x7f.partial").write_text("{")  # written, and not yet renamed
    run = RunDirectory.open(recipe(tmp_path / "run"))
    assert {path.name for path in run.path.iterdir()} == {"manifest.json", "recipe.yaml"}


def test_a_checkpoint_that_a_kill_cut_off_is_removed_at_the_next_start(tmp_path):
    run = RunDirectory.open(recipe(tmp_path / "run"))
    for step in (3, 6):
        (run.path / f"checkpoint-{step}").mkdir()
        (run.path / f"checkpoint-{step}" / "optimizer.pt").write_text("x")
    mark_whole(run.path / "checkpoint-3")
    again = RunDirectory.open(recipe(tmp_path / "run"))
    assert again.checkpoint == str(run.path / "checkpoint-3")
    assert not (run.path / "checkpoint-6").exists()


def test_a_run_at_wandb_goes_on_under_its_id(tmp_path):
    seen = []
    for name in ("run", "run", "other"):  # the second goes on with the first
        run = RunDirectory.open(recipe(tmp_path / name, report_to="wandb"))
        seen.append(read_manifest(run.path)["wandb_run_id"])
    assert seen[0] == seen[1] != seen[2]
    assert "wandb_run_id" not in read_manifest(RunDirectory.open(recipe(tmp_path / "untracked")).path)


def test_a_new_run_takes_over_the_id_that_the_user_set(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "chosen")
    run = RunDirectory.open(recipe(tmp_path / "run", report_to=["wandb"]))
    assert read_manifest(run.path)["wandb_run_id"] == "chosen"


@pytest.mark.parametrize(("given", "seconds"), [({}, 1800), ({"ddp_timeout": 7200}, 7200)], ids=str)
def test_the_recipe_sets_how_long_processes_wait_for_one_another(tmp_path, monkeypatch, given, seconds):
    joined = []

    class State:
        def __init__(self, **keys):
            joined.append(keys)

        def wait_for_everyone(self):
            pass

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", State)
    monkeypatch.setattr("accelerate.utils.gather_object", list)
    RunDirectory.open(recipe(tmp_path / "run", library=given))
    assert joined[0]["timeout"] == datetime.timedelta(seconds=seconds)


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """Its recipe lacks a key that has a default now."""
    run = RunDirectory.open(recipe(tmp_path / "run"))
    manifest = json.loads((run.path / "manifest.json").read_text())
    del manifest["recipe"]["lora_r"], manifest["recipe"]["max_samples"]
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    (run.path / "weights.safetensors").write_bytes(b"of the run")
    with pytest.raises(AlignmentError, match="max_samples was not given, is 3"):
        RunDirectory.open(recipe(tmp_path / "run", max_samples=3))
    RunDirectory.open(recipe(tmp_path / "run"))
