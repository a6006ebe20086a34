"""The row that a stage keeps in its manifest, and that the report shows."""

import importlib
import json

import pytest

from alignment.config.loading import check_recipe
from alignment.preview.recorded import LONGEST, MOST, recorded
from alignment.preview.stages import Written, demonstrations
from alignment.report import build
from tests.report.fake import write_pipeline

ROWS = {
    "sft": [{"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hello."}]}
            for n in range(4)],
    "dpo": [{"prompt": f"Name cat {n}.", "chosen": "Tom", "rejected": "I will not"} for n in range(4)],
}  # fmt: skip
ROWS["reward"] = ROWS["dpo"]
HOSTILE = {"<b>": [{"text": "<script>alert(1)</script>", "trained": "yes"}]}
DAMAGED = [None, 1, "x", [], {}, {"sequences": 1}, {"sequences": {"a": 1, "b": [1, {}]}}, {"sequences": HOSTILE}]


def marked(pieces):
    return "".join(f"⟦{piece['text']}⟧" if piece.get("trained") else piece["text"] for piece in pieces)


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward"])
def test_a_stage_keeps_its_first_row_and_the_report_shows_it(stage, recipe, tmp_path):
    keys = {"max_steps": 1, "per_device_train_batch_size": 2, "lora_r": 2, "save_strategy": "no"}
    importlib.import_module(f"recipes.{stage}").main(["--config", recipe(stage, ROWS[stage], **keys)])
    kept = json.loads((tmp_path / "run" / "manifest.json").read_text())["preview"]
    assert kept["source"] == f"{tmp_path}/data.jsonl:1"
    if stage == "sft":
        assert marked(kept["sequences"]["segments"]).endswith("⟦Hello.⟧⟦<|im_end|>⟧")
    else:
        assert marked(kept["sequences"]["chosen"]) == "Name cat 0.⟦Tom⟧⟦<|im_end|>⟧"
        assert kept["probability"] == 1
    page = build([tmp_path / "run"]).read_text(encoding="utf-8")
    assert 'class="trained special stop"' in page
    assert f"{tmp_path}/data.jsonl:1" in page


def test_a_kept_row_is_small(recipe):
    text = "word <|im_start|>" * 40 + "x" * 3000
    file = recipe("sft", [{"prompt": text, "completion": "Hello."}], max_length=None)
    settled = check_recipe(file, ["--max_length", "100000"])
    written = Written.of(settled)
    written.model.config.max_position_embeddings = 10**6
    kept = recorded(demonstrations(settled, written), written.template)["sequences"]["segments"]
    assert len(kept) == MOST + 1
    assert max(len(piece["text"]) for piece in kept) < LONGEST + 60
    assert marked(kept).endswith("⟦Hello.⟧⟦<|im_end|>⟧")


@pytest.mark.parametrize("kept", DAMAGED)
def test_a_damaged_row_does_not_stop_the_report(kept, tmp_path):
    folder = write_pipeline(tmp_path)
    manifest = folder / "sft" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "preview": kept}))
    page = build([folder / "sft"]).read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
