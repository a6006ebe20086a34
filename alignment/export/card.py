"""The model card of an exported model: README.md, with the front matter that the Hub reads."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from alignment.config.schema import STAGES
from alignment.config.tasks import AUTO_CLASSES, CAUSAL, CLASSIFIER, MASKED, SEQ2SEQ
from alignment.errors import printable
from alignment.export.ancestry import Ancestry, Made, hub_data, hub_model, places
from alignment.export.evaluations import Evaluation
from alignment.export.licences import UNKNOWN, Licence, licence_of
from alignment.rollout.vllm_adapter import RANKS
from alignment.secrecy import hidden

PIPELINES = {
    CAUSAL: "text-generation",
    CLASSIFIER: "text-classification",
    MASKED: "fill-mask",
    SEQ2SEQ: "text2text-generation",
}
SHORT = 12  # digits of a hash in tables
HELD_OUT = ("eval_", "reward_accuracy")  # how the names of numbers begin that were measured on held-out data
NOT_SHOWN = ("_low", "_high", "runtime", "per_second")
# Keys of a recipe that are places on one machine, or where results are reported.
LOCAL = frozenset({"output_dir", "overwrite", "report_to", "project", "log_model", "run_name"})


@dataclass(frozen=True)
class Exported:
    """What a card describes."""

    name: str  # of the folder
    run: Path
    task: str
    is_adapter: bool
    base: str  # folder or Hub id of the base; of a whole model its own folder
    base_hash: str
    stops: Sequence[str]
    stop_ids: Sequence[int]
    chats: bool
    notes: Sequence[str]  # how the files were made
    rank: int | None = None  # of an adapter


def card(exported: Exported, before: Ancestry, evaluations: Sequence[Evaluation], licence: str | None) -> str:
    """Return the text of README.md.

    Args:
        licence: in place of the base's.
    """
    place = _place_of_base(exported, before)
    base = licence_of(place) if place is not None else Licence()
    own = Licence(licence) if licence else base
    lines = ["---", *_front(exported, before, own).splitlines(), "---", "", f"# {_cell(exported.name)}", ""]
    lines += [_summary(exported, before), ""]
    lines += ["## Use", "", *_use(exported), ""]
    lines += [*exported.notes, ""]
    lines += ["## Evaluation", "", *_evaluation(evaluations, before), ""]
    lines += ["## Lineage", "", *_lineage(exported, before), ""]
    lines += ["## Licences", "", *_licences(exported, before, base, licence), ""]
    lines += _recipe(before)
    return hidden("\n".join(lines))


def _place_of_base(exported: Exported, before: Ancestry) -> str | None:
    """Return the folder or the Hub id of the base; None if it was not found."""
    is_own = before.base_hash in (None, exported.base_hash)
    return exported.base if is_own and before.base_place is None else before.base_place


def _front(exported: Exported, before: Ancestry, licence: Licence) -> str:
    stage = before.runs[0].stage if before.runs else None
    data = ModelCardData(
        license=licence.name,
        license_name=licence.title,
        license_link=licence.link,
        library_name="peft" if exported.is_adapter else "transformers",
        pipeline_tag=PIPELINES[exported.task],
        # an adapter's is what it is put on
        base_model=hub_model(exported.base_hash if exported.is_adapter else before.base_hash or exported.base_hash),
        datasets=sorted({name for made in before.runs for file in made.data if (name := hub_data(file))}) or None,
        tags=["alignment-stack", *([stage] if stage in STAGES else []), *(["lora"] if exported.is_adapter else [])],
    )
    return data.to_yaml()


def _summary(exported: Exported, before: Ancestry) -> str:
    what = {CLASSIFIER: "A reward model"}.get(exported.task, "A language model")
    base = _name(exported.base if exported.is_adapter else before.base or exported.base)
    if not before.runs:
        return f"{what}, exported by Alignment Stack. Its folder has no record of training."
    adapter = " It is a LoRA adapter, which needs that base." if exported.is_adapter else ""
    return f"{what}, trained by stage **{_cell(before.runs[0].stage)}** of Alignment Stack on {base}.{adapter}"


def _use(exported: Exported) -> list[str]:
    loader = AUTO_CLASSES[exported.task]
    lines = ["```python"]
    if exported.is_adapter:
        lines += [
            "from peft import PeftModel",
            f"from transformers import AutoTokenizer, GenerationConfig, {loader}",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({_quoted(exported.name)})",
            f"base = {loader}.from_pretrained({_quoted(hub_model(exported.base_hash) or Path(exported.base).name)})",
            f"model = PeftModel.from_pretrained(base, {_quoted(exported.name)})",
            f"model.generation_config = GenerationConfig.from_pretrained({_quoted(exported.name)})  # the stop tokens",
        ]
    else:
        lines += [
            f"from transformers import AutoTokenizer, {loader}",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({_quoted(exported.name)})",
            f"model = {loader}.from_pretrained({_quoted(exported.name)})",
        ]
    if exported.task in (CAUSAL, SEQ2SEQ):
        lines += _generating(exported)
    lines += ["```", ""]
    if exported.task in (CAUSAL, SEQ2SEQ):
        stops = ", ".join(
            f"{_code(stop)} ({number})" for stop, number in zip(exported.stops, exported.stop_ids, strict=True)
        )
        lines += [f"An answer ends with one of the stop tokens {stops}, which `generation_config.json` lists."]
    if exported.is_adapter:
        rank = next(size for size in RANKS if size >= (exported.rank or 0))
        ids = ", ".join(map(str, exported.stop_ids))
        lines += [
            "",
            f"vLLM reads stop tokens from the base alone, so the command names them. The rank is {exported.rank}.",
            "",
            f"    vllm serve BASE --enable-lora --max-lora-rank {rank} --lora-modules tuned={exported.name} \\",
            f"        --override-generation-config '{{\"eos_token_id\": [{ids}]}}'",
        ]
    return lines


def _generating(exported: Exported) -> list[str]:
    if exported.task == SEQ2SEQ:
        text = '"Translate to French: Good morning."'
        messages = []
        if exported.chats:
            messages = [
                'messages = [{"role": "user", "content": "What is the capital of Peru?"}]',
                "text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)",
            ]
            text = "text"
        return [
            *messages,
            f'inputs = tokenizer({text}, return_tensors="pt")  # with the tokens that the encoder reads around it',
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=128)[0], skip_special_tokens=True))",
        ]
    if exported.chats:
        return [
            'messages = [{"role": "user", "content": "What is the capital of Peru?"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
            ")",
            'answer = model.generate(**inputs, max_new_tokens=128)[0, inputs["input_ids"].shape[1] :]',
            "print(tokenizer.decode(answer, skip_special_tokens=True))",
        ]
    return [
        'inputs = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=128)[0], skip_special_tokens=True))",
    ]


def _evaluation(evaluations: Sequence[Evaluation], before: Ancestry) -> list[str]:
    lines = _own_results(before)
    if not evaluations:
        return [*lines, "No run of stage evaluate was found that compared this model."]
    for found in evaluations:
        prompts = f" on {found.prompts} held-out prompts" if found.prompts else ""
        lines += [f"Against {_code(found.baseline)}{prompts} ({_cell(found.finished[:10])}):", ""]
        lines += [f"| number | value | {found.level:.0%} interval | n |", "|---|---|---|---|"]
        for number in found.numbers:
            interval = "–" if number.low is None or number.high is None else f"{number.low:.4g} to {number.high:.4g}"
            count = "–" if number.count is None else f"{number.count:,}"
            lines += [f"| {_cell(number.what)} | {number.value:.4g} | {interval} | {count} |"]
        lines += [""]
    return lines[:-1]


def _own_results(before: Ancestry) -> list[str]:
    """Return the numbers that the run itself measured on held-out data."""
    results = before.runs[0].manifest.get("results") if before.runs else None
    numbers = {key: value for key, value in (results or {}).items() if _is_number(value) and key.startswith(HELD_OUT)}
    lines = []
    for key, value in numbers.items():
        if not key.endswith(NOT_SHOWN):
            low, high = (numbers.get(f"{key}_{end}") for end in ("low", "high"))
            interval = "–" if low is None or high is None else f"{low:.4g} to {high:.4g}"
            lines += [f"| {_cell(key)} | {value:.4g} | {interval} |"]
    if not lines:
        return []
    return ["On the held-out part of its data:", "", "| number | value | interval |", "|---|---|---|", *lines, ""]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _lineage(exported: Exported, before: Ancestry) -> list[str]:
    if not before.runs:
        return ["Unknown: the folder has no manifest."]
    lines = ["| run | stage | used as | seed | finished | recipe | weights |", "|---|---|---|---|---|---|---|"]
    for made in before.runs:
        manifest = made.manifest
        row = (
            made.folder.name,
            made.stage,
            made.role or "this model",
            manifest.get("seed", "–"),
            str(manifest.get("finished", manifest.get("status", "–")))[:10],
            _digest(manifest.get("recipe_sha256")),
            _digest(made.weights),
        )
        lines += [f"| {' | '.join(map(_cell, row))} |"]
    base = _digest(before.base_hash)
    lines += [f"| {_name(before.base or exported.base)} | – | base | – | – | – | {base} |", ""]
    lines += ["Recipe and weights are the first digits of SHA-256 hashes, the weights' of sampled blocks."]
    lines += [f"- {_cell(doubt)}" for doubt in before.doubts]
    versions = before.runs[0].manifest.get("versions")
    if isinstance(versions, dict):
        lines += [
            "",
            "Versions: " + ", ".join(f"{_cell(name)} {_cell(version)}" for name, version in versions.items()) + ".",
        ]
    return lines


def _licences(exported: Exported, before: Ancestry, base: Licence, licence: str | None) -> list[str]:
    lines = ["| part | licence | source |", "|---|---|---|"]
    if _place_of_base(exported, before) is None:
        source = "it is neither beside the run nor in the working folder"
    else:
        source = "its card" if base.name != UNKNOWN else "its folder has no card that names one"
    lines += [f"| base {_name(before.base or exported.base)} | {_cell(base)} | {source} |"]
    for path, digest, found in _data(before):
        source = "its card" if found.name != UNKNOWN else "no card names one"
        lines += [f"| data {path} (SHA-256 {_digest(digest)}) | {_cell(found)} | {source} |"]
    lines += [""]
    if licence:
        lines += [f"The licence of this model, {_cell(licence)}, was given with the export."]
    elif base.name == UNKNOWN:
        lines += ["The licence of this model is unknown, because that of its base is."]
    else:
        lines += ["The licence in the head of this card is the base's; licences of data may add conditions."]
    return lines


def _data(before: Ancestry) -> Iterator[tuple[str, str | None, Licence]]:
    """Yield the data that no run of the lineage made: its name, hash and licence."""
    folders = {made.folder.resolve() for made in before.runs}
    seen = set()
    for made in before.runs:
        for file, digest in made.data.items():
            parents = places(str(Path(file).parent), made.folder)
            if folders & set(parents) or (file, digest) in seen:
                continue
            seen.add((file, digest))
            name = hub_data(file)
            if name is not None:
                yield _code(name), digest, licence_of(name, kind="dataset")
            else:
                yield _name(file), digest, licence_of(str(parents[0])) if parents else Licence()


def _recipe(before: Ancestry) -> list[str]:
    if not before.runs:
        return []
    made: Made = before.runs[0]
    defaults = {}
    if made.stage in STAGES:
        fields = STAGES[made.stage].model_fields
        defaults = {
            name: info.get_default(call_default_factory=True) for name, info in fields.items() if not info.is_required()
        }
    kept = {
        key: _portable(value)
        for key, value in made.recipe.items()
        if key not in LOCAL and not (key in defaults and _plain(defaults[key]) == value)
    }
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])  # which no text in it ends
    return [
        "## Training recipe",
        "",
        "Keys that are not at their defaults:",
        "",
        f"{fence}yaml",
        *text.splitlines(),
        fence,
        "",
    ]


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _portable(value: Any) -> Any:
    """Return a recipe's value with the last name of each absolute path, and without keys that are null."""
    if isinstance(value, dict):
        return {key: _portable(each) for key, each in value.items() if each not in (None, [], {})}
    if isinstance(value, list):
        return [_portable(each) for each in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _name(path: str) -> str:
    """Return the name of a model or a file: a path relative to a project as it is, of another one its last name."""
    portable = path if not path.startswith(("/", "~", "..")) else Path(path).name
    return _code(portable)


def _quoted(text: str) -> str:
    """Return a text as a literal of Python."""
    return json.dumps(text, ensure_ascii=False)


def _code(value: Any) -> str:
    """Return a value as code in Markdown, also within a table."""
    return f"`{printable(str(value))[:200].replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def _digest(value: Any) -> str:
    return value[:SHORT] if isinstance(value, str) else "–"


def _cell(value: Any) -> str:
    """Return a value for a table of Markdown: one line, without marks of HTML or of tables."""
    text = printable(str(value))[:200]
    for mark, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'")):
        text = text.replace(mark, written)
    return text
