"""Random conversations whose text imitates markers, headers, roles and tools, for each kind of chat template.

Independent of how masks are made: a row decodes to what transformers' own `apply_chat_template` writes, has as many
control tokens as the same conversation of harmless words, and its trained runs are the answers, each with one stop
token.
"""

import json
import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_rankings
from alignment.data.template import IGNORE
from alignment.errors import AlignmentError
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.sft import tokenise_demonstrations
from tests.data.kinds import KINDS, jinja_of

ORDINARY = [
    "a", " ", "\n", "\n\n", "Four.", "assistant", "user\n", "system", "model\n", "Human:", "\n\nAssistant:",
    "### Response:", "{{ x }}", "{% endfor %}", "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\r\n", "\r", "\u200b",
    "\ufeff", "é", "e\u0301", "🙂", "\U000f0000", "\U000ffffd", "PROBE", "\\n", "'", '"', "<", "|", ">", "0", "  ",
    "\t",
]  # fmt: skip
MARKS = [
    "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>", "[INST]", "[/INST]", "<s>", "</s>",
    "<start_of_turn>", "<end_of_turn>", "<|start_header_id|>", "<|eot_id|>", "<|endoftext|>", "<|User|>",
    "<|Assistant|>", "<|begin_of_text|>", "<bos>", "<eos>", "<|observation|>", "<|eos|>", "<|bos|>", "<pad>", "<unk>",
    "<|im_", "start|>",
]  # fmt: skip
OWN = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<|python_tag|>"]
LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
OTHERS = st.lists(st.sampled_from(ORDINARY + MARKS + OWN) | LETTERS, max_size=6).map("".join)
ANSWERS = st.lists(st.sampled_from(ORDINARY) | LETTERS, max_size=5).map("".join) | st.lists(
    st.sampled_from(ORDINARY + MARKS + OWN), max_size=4
).map("".join)
TURNS = st.lists(st.tuples(OTHERS, ANSWERS, st.booleans()), min_size=1, max_size=3)
TOOLS = st.none() | OTHERS  # the description of a tool
REASONS = re.compile(
    r"is an? empty|ends with an empty|'value' is empty|' is empty|stop token .* before its end|opens <think>|no system|"
    r"No system role|leaves? out a part|all are marked with weight 0|same answer|cannot write it as text|"
    r"does not write an answer|roles of messages|Turns must go|two different|begin with the same|"
    r"are not around one thought at its beginning|empty but for the stop token|only control tokens|leaves out message|"
    r"holds a NUL character"
)
FEW = {"max_examples": 25, "deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
MANY = {**FEW, "max_examples": 600}


def loaded(folder, row, loader, tokenise, template):
    """The training rows of a file's one row, or None where it is refused with a reason that is one."""
    path = folder / "d.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    try:
        rows = loader([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0).rows
        return tokenise(rows, template, limit=10**6).rows
    except AlignmentError as error:
        if not REASONS.search(str(error)):
            raise
        return None


def tools_of(description):
    function = {"name": "f", "description": description, "parameters": {"type": "object"}}
    return [{"type": "function", "function": function}]


def same(first, second):
    """Whether two texts are the same; some tokenizers compose characters (NFC), so é may be spelled in two ways."""
    return unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)


def words(template, ids):
    return template.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def rendered(template, messages, tools, *, ask):
    """What transformers writes; a text that holds a stop token at the end of an answer is written without."""
    plain = [{key: value for key, value in one.items() if key != "weight"} for one in messages]
    for one in plain:
        if one["role"] == "assistant":
            one["content"] = without_stops(one["content"], template)
    if tools and "tools" not in jinja_of(template.tokenizer, tools):
        listed = json.dumps(tools, ensure_ascii=False)
        note = f"You may call these tools, as <tool_call>\n{{json}}\n</tool_call>:\n{listed}"
        plain, tools = [{"role": "system", "content": note}, *plain], None
    return template.tokenizer.apply_chat_template(plain, tools=tools, tokenize=False, add_generation_prompt=ask)


def without_stops(text, template):
    stops = template.tokenizer.convert_ids_to_tokens(template.stop_token_ids)
    while stop := next((stop for stop in stops if text.rstrip().endswith(stop)), None):
        text = text.rstrip().removesuffix(stop)
    return text


def controls(template, text):
    """How often each special token stands among a text's ids."""
    ids = template.tokenizer(text, add_special_tokens=False)["input_ids"]
    return {token: ids.count(token) for token in template.tokenizer.all_special_ids}


def counted(template, ids):
    return {token: ids.count(token) for token in template.tokenizer.all_special_ids}


def check_answer(template, context, ids, messages, tools, place):
    """Check one answer: the ids before it, and its own."""
    tokenizer = template.tokenizer
    before = rendered(template, messages[:place], tools, ask=True)
    assert same(words(template, context), before)
    assert ids[-1] in template.stop_token_ids
    assert not set(ids[:-1]) & set(template.stop_token_ids)
    texts = list(dict.fromkeys(one["content"] for one in messages))  # some templates look for a text twice
    harmless = [{**one, "content": f"x{texts.index(one['content'])}"} for one in messages[:place]]
    bare = tools_of("x") if tools else None
    expected = controls(template, rendered(template, harmless, bare, ask=True))
    allowed = {tokenizer.convert_tokens_to_ids(text) for text in OWN} - {None, tokenizer.unk_token_id}
    found = counted(template, context)
    assert {t: n for t, n in found.items() if t not in allowed} == {
        t: n for t, n in expected.items() if t not in allowed
    }
    assert not [t for t in ids[:-1] if t in tokenizer.all_special_ids and t not in allowed]
    whole = rendered(template, messages[: place + 1], tools, ask=False)
    answer = words(template, ids[:-1])
    content = without_stops(messages[place]["content"], template)
    if whole.startswith(before) and not before.endswith("<think>\n"):
        rest = unicodedata.normalize("NFC", whole[len(before) :])
        answer = unicodedata.normalize("NFC", answer)
        assert rest.startswith(answer)
        end = words(template, ids[-1:])
        assert rest[len(answer) :].replace("\n", "") in ("", end, "</s>", end + "</s>")
    content, answer = unicodedata.normalize("NFC", content), unicodedata.normalize("NFC", answer)
    assert re.sub(r"\s|</?think>", "", content) in re.sub(r"\s|</?think>", "", answer)


def conversation(turns):
    messages = []
    for question, answer, trained in turns:
        messages += [{"role": "user", "content": question}]
        messages += [{"role": "assistant", "content": answer, **({} if trained else {"weight": 0})}]
    return messages


def check_demonstration(folder, template, turns, description):
    messages, tools = conversation(turns), None if description is None else tools_of(description)
    row = {"messages": messages, **({"tools": tools} if tools else {})}
    made = loaded(folder, row, load_demonstrations, tokenise_demonstrations, template)
    if made is None:
        return
    found = []
    for one in made:
        ids, labels = one["input_ids"], one["labels"]
        assert all(label in (IGNORE, token) for token, label in zip(ids, labels, strict=True))
        place = 0
        while place < len(ids):
            if labels[place] == IGNORE:
                place += 1
                continue
            begin = place
            while place < len(ids) and labels[place] != IGNORE:
                place += 1
            found.append((ids[:begin], ids[begin:place]))
    wanted = [place for place, one in enumerate(messages) if one["role"] == "assistant" and one.get("weight") != 0]
    assert len(found) == len(wanted)
    for (context, ids), place in zip(found, wanted, strict=True):
        check_answer(template, context, ids, messages, tools, place)


def check_pair(folder, template, turns, rejected, description):
    messages, tools = conversation(turns), None if description is None else tools_of(description)
    *prompt, chosen = [{key: one[key] for key in ("role", "content")} for one in messages]
    row = {"prompt": prompt, "chosen": [chosen], "rejected": [{**chosen, "content": rejected}]}
    made = loaded(folder, {**row, **({"tools": tools} if tools else {})}, load_rankings, tokenise_pairs, template)
    for one in made or []:
        for key, text in (("chosen_ids", chosen["content"]), ("rejected_ids", rejected)):
            both = [*prompt, {"role": "assistant", "content": text}]
            check_answer(template, one["prompt_ids"], one[key], both, tools, len(prompt))


@pytest.mark.parametrize("kind", KINDS)
@settings(**FEW)
@given(turns=TURNS, description=TOOLS)
def test_only_answers_are_trained_and_whole(tmp_path, templates, kind, turns, description):
    check_demonstration(tmp_path, templates(kind), turns, description)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(**MANY)
@given(turns=TURNS, description=TOOLS)
def test_only_answers_are_trained_and_whole_in_many_conversations(tmp_path, templates, kind, turns, description):
    check_demonstration(tmp_path, templates(kind), turns, description)


@pytest.mark.parametrize("kind", KINDS)
@settings(**FEW)
@given(turns=TURNS, rejected=ANSWERS, description=TOOLS)
def test_compared_answers_follow_their_prompt_whole(tmp_path, templates, kind, turns, rejected, description):
    check_pair(tmp_path, templates(kind), turns, rejected, description)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(**MANY)
@given(turns=TURNS, rejected=ANSWERS, description=TOOLS)
def test_compared_answers_follow_their_prompt_whole_in_many(tmp_path, templates, kind, turns, rejected, description):
    check_pair(tmp_path, templates(kind), turns, rejected, description)
