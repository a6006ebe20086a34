"""Real files of several layouts through the steps: what is written loads in the layout that was read."""

import datasets
import pytest

from alignment.config.schema import DatasetEntry
from alignment.data.load import load_any
from tests.prepare.running import SHARED, prepare

FILES = {
    "hh": "hh-harmless/harmless-base_test.jsonl.gz",
    "oasst": "oasst-trees/en_100_tree.jsonl",
    "self_instruct": "self-instruct/seed_tasks.jsonl",
    "alpaca": "llamafactory-demo/alpaca_zh_demo.json",
    "sharegpt": "llamafactory-demo/glaive_toolcall_en_demo.json",
    "sharegpt_dpo": "llamafactory-demo/dpo_en_demo.json",
    "kto": "llamafactory-demo/kto_en_demo.json",
    "messages": "soda-chat/soda_chat_messages.jsonl",
    "text": "wikitext2/valid.txt",
    "prompt": "ifeval/input_data.jsonl",
}
STEPS = (
    {"kind": "clean", "html": True},
    {"kind": "length", "on": "all", "minimum": 1, "maximum": 5000},
    {"kind": "language"},
    {"kind": "quality"},
    {"kind": "refusals"},
    {"kind": "sample", "rows": 25},
    {"kind": "split", "shares": {"train": 0.8, "test": 0.2}},
)
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


@pytest.mark.parametrize("layout", FILES)
def test_prepared_files_load_in_their_layout(layout, tmp_path):
    entry = {"path": str(SHARED / FILES[layout]), "split": "train[:40]"}
    run = prepare(tmp_path, [], *STEPS, datasets=[entry], on_bad_row="skip", columns_added=["language"])
    kept = run.manifest["results"]["rows_written"]
    found = [
        load_any([DatasetEntry(path=str(run.folder), split=split)], on_bad_row="stop", seed=0)
        for split in ("train", "test")
    ]
    assert sum(one.read for one in found) == kept > 0
    assert {name for one in found for name in one.formats.values()} == {layout}
    loaded = datasets.load_dataset(str(run.folder), cache_dir=str(tmp_path / "cache"))
    assert sum(map(len, loaded.values())) == kept
    drops = sum(one["action"] == "dropped" and one["step"] != "read" for one in run.dropped)
    assert drops == run.manifest["results"]["rows_read"] - kept
    assert {row["row_origin"].rpartition(":")[0] for row in run.rows()} == {entry["path"]}
