"""Reported cases of data: exactly what was meant is trained, or the run ends with a line that helps."""

import json

import pytest

from tests.faults.trained import answers, case, demonstrations, pairs, refusal, scored

__all__ = ["case"]
QWEN = "<|im_start|>system\nBe useful.<|im_end|>\n"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"town": "Ulm"}}\n</tool_call><|im_end|>'
LLAMA = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"


def turn(role, text):
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def asked(text):
    return f"{turn('user', text)}<|im_start|>assistant\n"


# --- keys of rows


@pytest.mark.parametrize(
    ("config", "action", "key"),
    [
        ("orca", pairs, "question"),
        ("orca_rm", scored, "question"),
        ("orca_sft", demonstrations, "question"),
        ("disjoint", pairs, "question"),
    ],
)
def test_01_a_prompt_under_another_name_is_refused_and_read_with_columns(case, config, action, key):
    folder = case("01-instruction-chosen-rejected")
    assert f"Set columns: {{prompt: {key}}} for the layout preference" in refusal(action, f"{config}.yaml")
    recipe = (folder / f"{config}.yaml").read_text()
    (folder / f"{config}.yaml").write_text(recipe.replace(".jsonl}", f".jsonl, columns: {{prompt: {key}}}}}"))
    first = action(f"{config}.yaml")[0]
    if config == "orca":
        prompt = f"{turn('system', 'You are terse.')}{asked('What colour is item 0?')}"
        answers = ("The colour of the item is blue, number 0.", "The colour of the item is angry noise 0.")
        assert first == (prompt, *(f"{answer}<|im_end|>" for answer in answers))
    if config == "disjoint":
        assert first == ("Q0?", "Apple 0.<|im_end|>", "No 0.<|im_end|>")


def test_01_answers_to_an_instruction_are_read_as_chat(case):
    case("01-instruction-chosen-rejected")
    first = pairs("alpaca.yaml")[0]
    prompt = f"{turn('system', 'Be useful.')}{asked('Name a fruit beginning with letter 0.')}"
    assert first == (prompt, "I would say apple 0.<|im_end|>", "I would rather not 0.<|im_end|>")


def test_02_a_system_prompt_comes_before_the_prompt(case):
    case("02-preference-system-column")
    prompts = [f"{turn('system', 'Answer only in French.')}{asked(f'Say hello {number}')}" for number in range(4)]
    assert pairs("r.yaml") == [(prompt, "Bonjour<|im_end|>", "Hello<|im_end|>") for prompt in prompts]
    assert demonstrations("pc.yaml") == [f"{prompt}⟦Bonjour<|im_end|>⟧" for prompt in prompts]


@pytest.mark.parametrize("key", ["weight", "train", "loss"])
def test_10_a_message_that_is_not_to_be_learned_is_not(case, key):
    case("10-message-weight")
    assert answers(f"{key}.yaml") == ["Good day.<|im_end|>"]


def test_12_images_are_refused(case):
    case("12-images")
    assert "does not read 'images' (['a.jpg'])" in (message := refusal(demonstrations, "r.yaml"))
    assert "Only text is supported" in message
    assert "'content' has a part that is not text but 'image'; only text is supported" in refusal(
        demonstrations, "parts.yaml"
    )


@pytest.mark.parametrize(("config", "action"), [("r", pairs), ("rm", scored)])
def test_13_conversations_that_part_early_are_refused(case, config, action):
    case("13-diverging-pairs")
    message = refusal(action, f"{config}.yaml")
    assert message.startswith("d.jsonl:1: 'chosen' goes on after the answer with which it parts")
    assert "give pairs that part at their last message" in message


# --- messages


@pytest.mark.parametrize("kind", ["qwen25_dict", "qwen25_string", "qwen3_dict", "qwen3_string"])
def test_05_a_call_is_written_once_whatever_its_arguments_are(case, kind):
    case("05-tool-arguments-string")
    assert answers(f"{kind}.yaml") == [CALL, "It is sunny in Ulm.<|im_end|>"]


def test_05_a_call_in_a_template_of_its_own(case):
    case("05-tool-arguments-string")
    call = '{"name": "weather", "parameters": {"town": "Ulm"}}<|eot_id|>'
    assert answers("llama3_string.yaml") == [call, "It is sunny in Ulm.<|eot_id|>"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            "r",
            ["<think>\nsmall sum\n</think>\n\nFour.<|im_end|>", "<think>\nanother\n</think>\n\nSix.<|im_end|>"],
        ),
        ("short", ["art<|im_end|>", "a<|im_end|>", "Yes.<|im_end|>"]),
        (
            "tool",
            [f"<think>\nask the tool\n</think>\n\n{CALL}", "<think>\ngood\n</think>\n\nSunny.<|im_end|>"],
        ),
    ],
)
def test_07_each_answer_is_learned_though_the_template_rewrites_history(case, config, expected):
    case("07-history-reasoning")
    assert answers(f"{config}.yaml") == expected


def test_08_reasoning_goes_on_in_the_tag_that_the_template_opened(case):
    folder = case("08-think-prefill")
    first, second = (folder / "d.jsonl").read_text().splitlines()
    (folder / "d.jsonl").write_text(first)
    start = "<|bos|><|User|>Two plus two?<|Assistant|><think>\n"
    assert demonstrations("r.yaml") == [f"{start}⟦small sum\n</think>\n\nFour.<|eos|>⟧"]
    (folder / "d.jsonl").write_text(second)
    message = refusal(demonstrations, "r.yaml")
    assert "generation prompt opens <think>, and the answer 'Six.' has no reasoning that ends with </think>" in message


def test_21_an_empty_turn_of_the_assistant_is_refused(case):
    case("21-empty-turns")
    assert "empty" in refusal(demonstrations, "r.yaml")


def test_21_a_user_may_write_nothing(case):
    folder = case("21-empty-turns")
    (folder / "d.jsonl").write_text((folder / "d.jsonl").read_text().splitlines()[1])
    assert answers("r.yaml") == ["Yes.<|im_end|>"]


def test_21_a_message_without_text_or_role_is_refused(case):
    case("21-empty-turns")
    assert "'messages[1]' 'content' is null, not text" in refusal(demonstrations, "null.yaml")
    assert "'messages[1]' has the unknown role None; known are system," in refusal(demonstrations, "norole.yaml")


@pytest.mark.parametrize("config", ["r", "sg"])
def test_44_tools_as_texts_are_read(case, config):
    case("44-tools-as-strings")
    (row,) = demonstrations(f"{config}.yaml")
    assert f"<tools>{json.dumps(WEATHER)}</tools>" in row
    expected = ["I cannot know.<|im_end|>"] if config == "r" else [CALL, "Sunny.<|im_end|>"]
    assert answers(f"{config}.yaml") == expected


def test_47_marks_of_generation_decide_what_is_trained(case):
    case("47-generation-tags")
    start = f"{asked('Hi')}⟦Hello.<|im_end|>⟧\n{asked('More')}⟦Good day.<|im_end|>⟧"
    (row,) = demonstrations("r.yaml")
    assert row.removesuffix("\n").endswith(start)
    assert row.count("⟦") == 2


def test_49_two_turns_of_the_assistant_in_a_row(case):
    case("49-trailing-assistant-prefix")
    start = f"{QWEN}{asked('Write code')}"
    row = f"{start}⟦```python\n<|im_end|>⟧\n<|im_start|>assistant\n⟦print(1)\n```<|im_end|>⟧"
    assert demonstrations("r.yaml") == [row]


def test_50_ipython_is_the_tool(case):
    case("50-unknown-roles")
    header = "<|eot_id|><|start_header_id|>{}<|end_header_id|>\n\n".format
    assert demonstrations("r.yaml") == [
        f"{LLAMA}{header('user')}Weather?{header('assistant')}⟦call<|eot_id|>⟧{header('ipython')[10:]}"
        f'"sunny"{header("assistant")}⟦Sunny.<|eot_id|>⟧'
    ]


def test_51_tools_of_a_comparison_stand_in_its_prompt(case):
    case("51-tools-in-preference")
    ((prompt, chosen, rejected),) = pairs("r.yaml")
    assert f"<tools>{json.dumps(WEATHER)}</tools>" in prompt
    assert (chosen, rejected) == (CALL, "No idea.<|im_end|>")
    assert "with a message of the tool; only single answers are compared" in refusal(pairs, "traj.yaml")


# --- templates and texts that are rendered already


def test_17_a_template_without_a_system_role_is_refused_with_the_remedy(case):
    case("17-no-system-role")
    message = refusal(demonstrations, "r.yaml")
    assert "the chat template refuses messages of system, user" in message
    assert "chat_template" in message


def test_18_48_one_bos(case):
    case("18-double-bos")
    header = "<|start_header_id|>{}<|end_header_id|>\n\n".format
    chat = f"{LLAMA}Be terse.<|eot_id|>{header('user')}Hi<|eot_id|>{header('assistant')}⟦Hello.<|eot_id|>⟧"
    assert demonstrations("r.yaml") == demonstrations("r2.yaml") == [chat]
    assert demonstrations("txt.yaml") == ["<|begin_of_text|>Once⟦ upon a time<|eot_id|>⟧"]


def test_48_a_prompt_that_is_rendered_already(case):
    case("48-prerendered")
    header = "<|start_header_id|>{}<|end_header_id|>\n\n".format
    start = f"<|begin_of_text|>{header('user')}Hi<|eot_id|>{header('assistant')}"
    assert demonstrations("pc.yaml") == [f"{start}⟦Hello.<|eot_id|>⟧"]
    assert demonstrations("r.yaml") == [f"<|begin_of_text|>⟦{start.removeprefix('<|begin_of_text|>')}Hello.<|eot_id|>⟧"]


def test_42_the_recipes_template_is_used(case):
    case("42-chat-template-ignored")
    start = "<|bos|><|User|>Two plus two?<|Assistant|>"
    assert demonstrations("r.yaml") == [f"{start}⟦<think>\nsmall sum\n</think>\n\nFour.<|eos|>⟧"]
    assert "chat_template /no/such/file.jinja is neither Jinja text nor a file" in refusal(demonstrations, "bad.yaml")


# --- rows that do not fit, and half characters


def test_26_what_does_not_fit_is_refused_cut_or_left_out_with_a_line(case, capsys):
    case("26-too-long")
    for config, action in (("dpo", pairs), ("rm", scored), ("sft", demonstrations)):
        assert "raise max_length" in refusal(action, f"{config}.yaml")
    capsys.readouterr()
    assert pairs("skip.yaml") == [("hi", "a b<|im_end|>", "c d<|im_end|>")]
    assert "left out 1 of 2 rows (on_bad_row: skip); the first is pref.jsonl:1 answer 1 of 2" in capsys.readouterr().err
    rows = demonstrations("cut.yaml")
    assert (len(rows), sum(row.endswith("<|im_end|>⟧") for row in rows)) == (10, 1)
    assert "cut 9 of 10 rows to their first 32 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(("config", "action"), [("surr", demonstrations), ("surrp", pairs)])
def test_36_half_a_surrogate_pair_in_a_prompt_is_refused(case, config, action):
    case("36-yaml")
    message = refusal(action, f"{config}.yaml")
    assert message.startswith(f"{config}.jsonl:1: 'prompt' holds half of a surrogate pair at position 2")
