"""Every real file in a known layout loads whole; the numbers of rows are those of the files' own notes."""

import json
from pathlib import Path

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_prompts, load_rankings, ranking_from_json, ranking_to_json
from alignment.errors import DataError

# path, format, demonstrations, rankings, prompts; None: the layout has none, and says so
FILES = [
    ("ifeval/input_data.jsonl", "prompt", None, None, 541),
    ("llamafactory-demo/alpaca_en_demo.json", "alpaca", 999, None, 999),
    ("llamafactory-demo/alpaca_zh_demo.json", "alpaca", 1000, None, 1000),
    ("llamafactory-demo/dpo_en_demo.json", "sharegpt_dpo", 300, 300, 300),
    ("llamafactory-demo/dpo_zh_demo.json", "sharegpt_dpo", 300, 300, 300),
    ("llamafactory-demo/glaive_toolcall_en_demo.json", "sharegpt", 300, None, 300),
    ("llamafactory-demo/identity.json", "alpaca", 91, None, 91),
    ("llamafactory-demo/kto_en_demo.json", "kto", 150, None, 300),  # half of the 300 answers have a thumb up
    ("llmbar-natural/evaluators/ChatGPT/Vanilla/result.json", "llmbar", 100, 100, 100),
    ("llmbar-natural/evaluators/ChatGPT/Vanilla_NoRules/result.json", "llmbar", 100, 100, 100),
    ("llmbar-natural/evaluators/GPT-4/Vanilla/result.json", "llmbar", 100, 100, 100),
    ("llmbar-natural/evaluators/GPT-4/Vanilla_NoRules/result.json", "llmbar", 100, 100, 100),
    ("oasst-trees/en_100_tree.jsonl", "oasst", 212, 212, 212),
    ("pii/synthetic_pii_750.json", "text", 750, None, None),
    ("reviews/sentence_polarity_10662.jsonl", "text", 10662, None, None),
    ("self-instruct/seed_tasks.jsonl", "self_instruct", 175, None, 175),
    ("self-instruct/t0_train_2k.jsonl", "prompt_completion", 2000, None, 2000),
    ("self-instruct/user_oriented_instructions.jsonl", "self_instruct", 252, None, 252),
    ("soda-chat/chat_val.txt", "text", 773, None, None),  # blocks between blank lines, as awk counts them too
    ("soda-chat/soda_chat_messages.jsonl", "messages", 704, None, 704),
    ("soda-chat/tinystories_instruct_records.jsonl", "prompt_completion", 68, None, 68),
    ("tinystories/stories_heldout200.jsonl", "text", 200, None, None),
    ("tinystories/stories_train.jsonl", "text", 2116, None, None),
    ("wikitext2/valid.txt", "text", 1160, None, None),
]
KNOWN_APART = {"hh-harmless/harmless-base_test.jsonl.gz"}  # four bad rows: a test of its own
NO_ROWS = {"statistics.json", "SOURCE.txt"}  # one object of figures, and notes


@pytest.mark.parametrize(("name", "layout", "demonstrations", "rankings", "prompts"), FILES, ids=[f[0] for f in FILES])
def test_file_loads_whole(shared, name, layout, demonstrations, rankings, prompts):
    entry = [DatasetEntry(path=str(shared / "data" / name))]
    for load, expected in (
        (load_demonstrations, demonstrations),
        (load_rankings, rankings),
        (load_prompts, prompts),
    ):
        if expected is None:
            with pytest.raises(DataError, match=r"which this stage needs|without an answer to learn"):
                load(entry, on_bad_row="stop", seed=0)
            continue
        loaded = load(entry, on_bad_row="stop", seed=0)
        assert len(loaded.rows) == expected
        assert loaded.skipped == []
        assert list(loaded.formats.values()) == [layout]


def test_every_file_is_named_above(shared):
    data = shared / "data"
    present = {str(file.relative_to(data)) for file in data.rglob("*") if file.is_file() and file.name not in NO_ROWS}
    assert present == {row[0] for row in FILES} | KNOWN_APART


def test_hh_stops_at_its_first_empty_side(shared):
    path = str(shared / "data/hh-harmless/harmless-base_test.jsonl.gz")
    with pytest.raises(DataError) as caught:
        load_rankings([DatasetEntry(path=path)], on_bad_row="stop", seed=0)
    assert str(caught.value) == f"{path}:87: 'chosen' is an empty answer. Correct the row, or set on_bad_row: skip."


def test_hh_skips_and_names_its_four_empty_sides(shared):
    path = str(shared / "data/hh-harmless/harmless-base_test.jsonl.gz")
    loaded = load_rankings([DatasetEntry(path=path)], on_bad_row="skip", seed=0)
    assert len(loaded.rows) == 2308
    assert loaded.skipped == [f"{path}:{line}: 'chosen' is an empty answer" for line in (87, 517, 926, 1104)]
    assert loaded.formats == {path: "hh"}
    for row in loaded.rows:
        assert row.prompt[-1]["role"] == "user"
        assert row.prompt[0]["role"] == "user"
        assert all(one["role"] != other["role"] for one, other in zip(row.prompt, row.prompt[1:], strict=False))
    first = loaded.rows[0]
    assert [message["role"] for message in first.prompt] == ["user", "assistant", "user", "assistant", "user"]
    assert first.prompt[2]["content"] == "yep"
    assert first.responses[0].startswith("No, sorry!  All of these involve a pen")
    assert (first.pairs[0].first, first.pairs[0].second, first.pairs[0].probability) == (0, 1, 1.0)


def test_oasst_ranks_agree_with_the_tree(shared):
    path = shared / "data/oasst-trees/en_100_tree.jsonl"
    rankings = load_rankings([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0).rows
    expected: dict[str, list[str]] = {}  # message → its replies' texts from best to worst

    def walk(node: dict) -> None:
        ranked = [reply for reply in node["replies"] if reply.get("rank") is not None]
        if node["role"] == "prompter" and len(ranked) > 1:
            expected[node["message_id"]] = [r["text"] for r in sorted(ranked, key=lambda r: r["rank"])]
        for reply in node["replies"]:
            walk(reply)

    for line in path.read_text().splitlines():
        walk(json.loads(line)["prompt"])
    assert len(expected) == 212
    for ranking in rankings:
        order = expected[ranking.provenance["message_id"]]
        assert sorted(ranking.responses) == sorted(order)
        assert len(ranking.pairs) == len(order) * (len(order) - 1) // 2
        for pair in ranking.pairs:
            first, second = (order.index(ranking.responses[end]) for end in (pair.first, pair.second))
            assert pair.probability == (1.0 if first < second else 0.0)
        assert ranking.prompt[-1]["role"] == "user"


def test_labels_survive_a_round_trip(shared, tmp_path):
    entry = DatasetEntry(path=str(shared / "data/oasst-trees/en_100_tree.jsonl"))
    rankings = load_rankings([entry], on_bad_row="stop", seed=0).rows
    path: Path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(ranking_to_json(ranking)) + "\n" for ranking in rankings))
    loaded = load_rankings([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0)
    assert loaded.formats == {str(path): "ranking"}
    assert [ranking_to_json(row) for row in loaded.rows] == [ranking_to_json(row) for row in rankings]
    assert loaded.rows[2].source == f"{path}:3"
    assert ranking_from_json(ranking_to_json(rankings[0]), rankings[0].source) == rankings[0]


def test_tool_calls_reach_the_messages(shared):
    entry = DatasetEntry(path=str(shared / "data/llamafactory-demo/glaive_toolcall_en_demo.json"))
    row = load_demonstrations([entry], on_bad_row="stop", seed=0).rows[0]
    assert [message["role"] for message in row.prompt] == [
        "user", "assistant", "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    call = json.loads(row.prompt[3]["tool_calls"])[0]["function"]
    assert call == {"name": "search_recipes", "arguments": {"ingredients": ["chicken", "bell peppers", "rice"]}}
    assert row.prompt[3]["content"] == f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
    assert json.loads(row.tools)[0]["name"] == "search_recipes"
    prompt = load_prompts([entry], on_bad_row="stop", seed=0).rows[0]  # a prompt travels alone, so it carries its tools
    assert prompt == [{**row.prompt[0], "tools": row.tools}, *row.prompt[1:]]
    assert row.source.endswith(":2")  # the array's first element stands on the file's second line
