"""Layouts × kinds of chat templates × stages: rows of files have the reference's tokens and masks, or are refused."""

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_prompts, load_rankings
from alignment.errors import AlignmentError
from alignment.train.preference_pairs import tokenise_pairs
from alignment.train.sft import tokenise_demonstrations
from reward.models.batches import encode_rankings
from tests.data.kinds import KINDS as WITH_TEMPLATE
from tests.data.kinds import TEMPLATELESS, jinja_of
from tests.data.layout_rows import CASES, Compared, Shown, SingleVerdict
from tests.reference import masks as reference

KINDS = [*WITH_TEMPLATE, *TEMPLATELESS]
LIMIT = 10**6
NOT_COLUMNAR = ("messages, parts",)  # Arrow holds one type a column
NO_SYSTEM = ("mistral", "gemma2", "gemma3")


# --- what the product makes of a file


def sft(entries, template):
    rows = load_demonstrations(entries, on_bad_row="stop", seed=0).rows
    made = tokenise_demonstrations(rows, template, limit=LIMIT).rows
    return [(row["input_ids"], row["labels"]) for row in made]


def dpo(entries, template):
    rows = load_rankings(entries, on_bad_row="stop", seed=0).rows
    keys = ("prompt_ids", "chosen_ids", "rejected_ids", "probability")
    return [tuple(row[key] for key in keys) for row in tokenise_pairs(rows, template, limit=LIMIT).rows]


def reward(entries, template):
    rows = load_rankings(entries, on_bad_row="stop", seed=0).rows
    made = encode_rankings(rows, template, max_length=LIMIT).rows
    pairs = [(row, i, j, p) if p >= 0.5 else (row, j, i, 1 - p) for row in made for i, j, p, _ in row.pairs]
    return [(row.input_ids[i], row.input_ids[j], p) for row, i, j, p in pairs]


def prompts(entries, template):
    return [template.prompt_ids(prompt) for prompt in load_prompts(entries, on_bad_row="stop", seed=0).rows]


# --- what the reference makes of its meaning


class Meant:
    """The reference with one tokenizer."""

    def __init__(self, kind, template):
        self.tokenizer, self.stops, self.eos = template.tokenizer, template.stop_token_ids, template.eos_token_id
        self.turn_end = self.eos if template.turn_end_id is None else template.turn_end_id
        self.kind = kind

    def end(self, following=None):
        observed = self.kind == "glm" and following == "tool"
        return self.tokenizer.convert_tokens_to_ids("<|observation|>") if observed else self.turn_end

    def as_read(self, messages, tools):
        """Calls and tools as docs/data.md describes them for templates without a place for them."""
        jinja = jinja_of(self.tokenizer, tools)
        if "tool_calls" not in jinja:
            messages = [called(message) for message in messages]
        if tools and "tools" not in jinja:
            note = f"You may call these tools, as <tool_call>\n{{json}}\n</tool_call>:\n{json.dumps(tools)}"
            if messages[0]["role"] == "system":
                return [{**messages[0], "content": f"{messages[0]['content']}\n\n{note}"}, *messages[1:]], None
            return [{"role": "system", "content": note}, *messages], None
        return messages, tools

    def row(self, prompt, answer, tools):
        """Ids of a prompt and of an answer."""
        if isinstance(prompt, str):
            ids, labels = reference.continued(self.tokenizer, prompt, answer, self.eos)
            return ids[: labels.count(-100)], ids[labels.count(-100) :]
        messages, tools = self.as_read([*prompt, answer], tools)
        ids = reference.answer(self.tokenizer, messages, tools, self.stops, self.end(reference.after(messages[-1])))
        return reference.context(self.tokenizer, messages[:-1], tools), ids

    def sft(self, meaning):
        if isinstance(meaning, Compared):
            best = meaning.answers[meaning.best]
            if isinstance(meaning.prompt, str):
                return [reference.continued(self.tokenizer, meaning.prompt, best, self.eos)]
            meaning = Shown([*meaning.prompt, best], tools=meaning.tools)
        if meaning.text is not None:
            return [reference.continued(self.tokenizer, *meaning.text, self.eos)]
        return reference.rows(self.tokenizer, *self.as_read(meaning.messages, meaning.tools), self.stops, self.end)

    def dpo(self, meaning):
        made = []
        for first, second, probability in meaning.pairs:
            sides = [self.row(meaning.prompt, meaning.answers[end], meaning.tools) for end in (first, second)]
            made.append((sides[0][0], sides[0][1], sides[1][1], probability))
        return made

    def reward(self, meaning):
        return [(prompt + good, prompt + bad, p) for prompt, good, bad, p in self.dpo(meaning)]

    def prompts(self, meaning):
        prompt = getattr(meaning, "prompt", None)
        if isinstance(meaning, Shown) and meaning.text is None:
            trained = [place for place, one in enumerate(meaning.messages) if one["role"] == "assistant"]
            prompt = meaning.messages[: trained[-1]]
        elif isinstance(meaning, Shown):
            prompt = meaning.text[0]
        if isinstance(prompt, str):
            ids, labels = reference.continued(self.tokenizer, prompt, "", self.eos)
            return [ids[: labels.count(-100)]]
        messages, tools = self.as_read(prompt, meaning.tools)
        return [reference.context(self.tokenizer, messages, tools)]


def called(message):
    """A message with its calls as text."""
    calls = [json.dumps(call["function"]) for call in message.get("tool_calls", ())]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)} if calls else message


# --- what is refused, and why; everything else is as the reference has it


def reason(kind, name, stage, jinja):
    case = CASES[name]
    meaning = case.means[0]
    is_text = isinstance(getattr(meaning, "prompt", None), str) or getattr(meaning, "text", None)
    if isinstance(meaning, SingleVerdict) and stage == "sft":
        return "without an answer to learn|gives no usable row"
    if not isinstance(meaning, Compared) and stage in ("dpo", "reward"):
        return "holds no comparisons of answers"
    if name in ("text", "full_text") and stage == "prompts":
        return "has no prompts"
    if is_text:
        return None
    if not jinja:
        return "has no chat template"
    needs = case.needs
    if "field" in needs and stage == "sft" and "think>" not in jinja:
        return "the chat template writes no reasoning"
    if kind in NO_SYSTEM and ({"system"} & needs or ({"tool"} & needs and "alone" not in needs)):
        return "no system|No system role"
    if kind in ("gemma2", "gemma3") and "tool" in needs:
        return "Turns must go"
    messages = getattr(meaning, "messages", None) or getattr(meaning, "prompt", None) or []
    if kind == "r1" and any(message["role"] == "tool" for message in messages):
        return "leaves out message [34], of the tool|opens <think>, and the answer"
    if kind == "r1" and stage != "prompts" and ("thought" not in needs or "half" in needs):
        return "opens <think>, and the answer|does not write"
    return None


def check(path, rows, kind, name, stage, template):
    """Return what is wrong, or None."""
    entry = [DatasetEntry(path=str(path))]
    meant = Meant(kind, template)
    refused = reason(kind, name, stage.__name__, jinja_of(meant.tokenizer, getattr(rows[0], "tools", None)))
    try:
        found = stage(entry, template)
    except AlignmentError as error:
        if refused is not None and re.search(refused, str(error)) and "\n" not in str(error).strip():
            return None
        return f"refused: {error}"
    if refused is not None:
        return f"not refused with {refused!r}"
    wanted = [one for meaning in rows for one in getattr(meant, stage.__name__)(meaning)]
    return None if found == wanted else f"found {shown(template, found)}\nwanted {shown(template, wanted)}"


def shown(template, made):
    return [[template.tokenizer.decode([i for i in part if i >= 0]) if isinstance(part, list) else part for part in row]
            if isinstance(row, tuple) else template.tokenizer.decode(row) for row in made]  # fmt: skip


STAGES = [pytest.param(stage, id=stage.__name__) for stage in (sft, dpo, reward, prompts)]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_layout_are_as_the_reference_has_them_or_refused(tmp_path, templates, kind, stage, capsys):
    faults = faults_of(tmp_path, "jsonl", kind, stage, templates(kind))
    capsys.readouterr()
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("extension", ["json", "jsonl.gz", "parquet"])
def test_the_kind_of_file_makes_no_difference(tmp_path, templates, extension, stage, capsys):
    faults = faults_of(tmp_path, extension, "strips history", stage, templates("strips history"))
    capsys.readouterr()
    assert not faults, "\n".join(faults)


def faults_of(folder, extension, kind, stage, template):
    faults = []
    for name, case in CASES.items():
        path = folder / f"{re.sub('[^a-z_]+', '-', name)}.{extension}"
        if extension == "parquet" and name in NOT_COLUMNAR:
            continue
        write(path, case.row)
        fault = check(path, case.means, kind, name, stage, template)
        if fault is not None:
            faults.append(f"{name}: {fault}")
    return faults


def write(path, row):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(json.dumps(row).encode() + b"\n"))
    else:
        path.write_text(json.dumps([row] if path.suffix == ".json" else row) + "\n")
