"""Previews of real data with models of many kinds: each row joins to its tokens, or the file is refused."""

import pytest
import yaml

from alignment.cli.stages import preview_reader
from alignment.preview.command import preview

FILES = [
    ("sft", "llamafactory-demo/glaive_toolcall_en_demo.json", "qwen25", "sharegpt"),
    ("sft", "llamafactory-demo/alpaca_zh_demo.json", "llama3", "alpaca"),
    ("sft", "llamafactory-demo/identity.json", "gemma2", "alpaca"),
    ("sft", "llamafactory-demo/kto_en_demo.json", "qwen25base", "kto"),
    ("dpo", "llamafactory-demo/dpo_en_demo.json", "qwen3", "sharegpt_dpo"),
    ("dpo", "hh-harmless/harmless-base_test.jsonl.gz", "gemma3", "hh"),
    ("reward", "oasst-trees/en_100_tree.jsonl", "llama3", "oasst"),
    ("sft", "soda-chat/soda_chat_messages.jsonl", "qwen3", "messages"),
    ("sft", "self-instruct/seed_tasks.jsonl", "glm", "self_instruct"),
    ("sft", "wikitext2/valid.txt", "gpt2", "text"),
]


@pytest.mark.parametrize(("stage", "file", "kind", "layout"), FILES)
def test_a_real_file_is_previewed(stage, file, kind, layout, shared, tmp_path):
    recipe = {
        "stage": stage,
        "output_dir": str(tmp_path / "run"),
        "model_name_or_path": str(shared / "models" / "kinds" / kind),
        "datasets": [{"path": str(shared / "data" / file), "split": "train[:60]"}],
        "max_length": 700,
        "on_bad_row": "skip",
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    found = preview(str(path), [], 5, preview_reader)
    assert {row.layout for row in found.rows} == {layout}
    for row, told in zip(found.rows, found.to_json()["rows"], strict=True):
        for name, tokens in row.sequences.items():
            assert "".join(part["text"] for part in told[name]) == found.tokenizer.decode(tokens.ids)
            assert any(part["trained"] and part["text"].strip() for part in told[name])
        assert any(part.column for part in row.parts)
