"""axolotl's `datasets`, `test_datasets` and `pretraining_dataset`: prompt strategies as layouts and chat templates."""

import re
from dataclasses import dataclass, field
from typing import Any

from alignment.data.conversations import REASONING, ROLES
from alignment.data.keys import TRAINING_MARKS
from alignment.importing.axolotl_prompts import ALPACA_STYLES, JOINED, TASK, TASK_WITH_INPUT, is_split, jinja
from alignment.importing.chat_templates import ASSISTANT, OWN, SHIPPED, shipped, vicuna
from alignment.importing.conversion import Conversion
from alignment.importing.keys import Ours, Refuse

SPEAKERS = ({"role": "role", "content": "content"}, {"role": "from", "content": "value"})
PLACE = {"path": "path", "name": "name", "data_dir": "data_dir", "data_files": "data_files", "split": "split"}
UNREAD = {  # keys of an entry that change what is trained, with the reason, refused where they are on
    "shards": "a part of a data set is a slice: split: train[:10%]",
    "shards_idx": "a part of a data set is a slice: split: train[:10%]",
    "input_transform": "names code that axolotl runs; prepare the rows with stage prepare",
    "message_field_training_detail": "parts of a message cannot be marked; mark whole messages with weight: 0",
    "drop_system_message": "system messages are kept; take them out with stage prepare",
    "logprobs_field": "no loss here reads log-probabilities",
    "split_thinking": "the chat template decides about reasoning",
    "step_separator": "steps are not rewarded here",
    "train_on_last_step_only": "steps are not rewarded here",
    "skip": "the rows to read are a slice: split: train[1000:]",
}
HARMLESS = ("ds_type", "preprocess_shards", "conversation", "temperature", "max_completion_length", "trust_remote_code",
            "text_column", "field", "field_messages", "field_chosen", "field_rejected", "field_system", "field_tools",
            "field_thinking", "template_thinking_key", "message_field_role", "message_field_content",
            "message_property_mappings", "message_field_training", "roles", "roles_to_train", "train_on_eos",
            "train_on_eot", "type", "chat_template", "chat_template_jinja", "field_human", "field_model",
            "input_format", "revision", *PLACE)  # fmt: skip
CHAT, ALPACA, TEXT = "chat_template", "alpaca", ("completion", "pretrain")
COMPARED = {"chosen": "chosen", "rejected": "rejected"}


@dataclass(frozen=True, slots=True)
class Strategy:
    """What a prompt strategy reads, as a layout here."""

    layout: str
    columns: dict[str, str] = field(default_factory=dict)  # key of the layout → column that the strategy reads


# Strategies of preferences, without the chat template that is the first part of their names. `intel`, `icr` and others
# name columns of well-known data sets.
PREFERENCES = {
    "default": Strategy("alpaca_preference", {"instruction": "prompt"}),
    "intel": Strategy("alpaca_preference", {"instruction": "question"}),
    "icr": Strategy("alpaca_preference", {"instruction": "input"}),
    "prompt_pairs": Strategy("alpaca_preference", {"instruction": "prompt"}),
    "ultra": Strategy("implicit_preference"),
    "argilla_chat": Strategy("implicit_preference"),
    "argilla": Strategy("implicit_preference"),
}
UNPAIRED = {
    "argilla": Strategy("kto", {"output": "completion"}),
    "intel": Strategy("kto", {"instruction": "question", "output": "completion"}),
    "prompt_pairs": Strategy("kto", {"instruction": "prompt", "output": "completion"}),
    "ultra": Strategy("kto", {"instruction": "prompt", "output": "completion"}),
    "argilla_chat": Strategy("kto", {"messages": "completion"}),
}
NAMED_TEMPLATES = ("chatml", "llama3")  # of strategies such as `chatml.intel`
FASTCHAT = {  # template of FastChat → of this package, or text
    "chatml": "chatml",
    "vicuna_v1.1": vicuna("{{ bos_token }}", " "),
    "llama-3": "llama3",
    "llama3": "llama3",
}


def datasets(ours: str) -> Any:
    """Return the conversion of a list of data sets, into the key `ours`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        entries = value if isinstance(value, list) else [value]
        if not entries or not all(isinstance(entry, dict) for entry in entries):
            raise Refuse("must be a list of mappings, each with path and type")
        found, templates = [], []
        for number, entry in enumerate(entries):
            try:
                made, template = _entry(conversion, entry)
            except Refuse as refuse:
                raise Refuse(f"entry {number}: {refuse}") from None
            found.append(made)
            templates.append(template)
        chosen = {template for template in templates if template is not None}
        if len(set(templates)) > 1 and chosen:
            shown = ", ".join(sorted(str(template or "the tokenizer's own") for template in set(templates)))
            raise Refuse(f"a recipe has one chat template, and these have {shown}")
        return {ours: found, **({"chat_template": chosen.pop()} if chosen else {})}

    return convert


def _entry(conversion: Conversion, given: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return an entry of `datasets` here, and the chat template that its strategy has."""
    for key, value in given.items():
        if value in (None, False, "", []):
            continue
        if key in UNREAD:
            raise Refuse(f"{key}: {UNREAD[key]}")
        if key not in HARMLESS:
            raise Refuse(f"{key}: is no key of a data set that is known here")
    if not given.get("path"):
        raise Refuse("path: is missing")
    entry = {ours: given[key] for key, ours in PLACE.items() if given.get(key) not in (None, "", "train")}
    if given.get("revision"):
        raise Refuse(
            "revision: data sets of the Hub are read at their newest revision; download it and name its folder"
        )
    strategy, template = _strategy(conversion, given)
    columns = {key: column for key, column in strategy.columns.items() if column and column != key}
    entry["format"] = strategy.layout
    return {**entry, **({"columns": columns} if columns else {})}, template


def _strategy(conversion: Conversion, given: dict[str, Any]) -> tuple[Strategy, str | None]:
    kind = given.get("type")
    if kind is None and conversion.given.get("pretraining_dataset"):
        kind = TEXT[1]
    if isinstance(kind, dict):
        return _user_defined(conversion, kind)
    name, _, detail = str(kind or "").partition(".")
    if conversion.stage in ("dpo", "reward"):
        return _preference(conversion, given, name, detail)
    if conversion.stage == "kto":
        return _unpaired(name, detail)
    if conversion.stage in ("grpo", "rloo"):
        conversion.unsettled["datasets"] = f"{kind} is code, which does not run; name a file of its rows, with prompt"
        return Strategy("prompt"), None
    if name in TEXT:
        return Strategy("text", {"text": given.get("field") or given.get("text_column") or "text"}), None
    if kind == ALPACA:
        return Strategy("stanford_alpaca", _around(given)), "alpaca"
    if name.startswith(f"{ALPACA}:") and name.partition(":")[2] in ALPACA_STYLES:
        system, prompt, with_input = ALPACA_STYLES[name.partition(":")[2]]
        conversion.note("chat_template", f"as type: {name}" + ("" if with_input else JOINED))
        tasks = (system.format(system=TASK), system.format(system=TASK_WITH_INPUT))
        layout = "stanford_alpaca" if with_input else "alpaca"
        return Strategy(layout, _around(given)), jinja(prompt, *tasks, with_input)
    if kind == "sharegpt":
        return _conversation(given, "conversations"), _template_of_sharegpt(conversion, given)
    if kind == CHAT:
        return _conversation(given, "messages"), _template_of(conversion, given)
    if not kind:
        raise Refuse("rows that are tokenised beforehand are not read; name the data set of their texts")
    raise Refuse(f"type: {kind} has no chat template here; write rows of prompt and completion with stage prepare")


def _template_of(conversion: Conversion, given: dict[str, Any]) -> str | None:
    """Return the chat template of conversations: the entry's, else the file's; None: the tokenizer's own."""
    where = given if given.get("chat_template") else conversion.given
    name, text = where.get("chat_template"), where.get("chat_template_jinja")
    if name == "jinja" or (text and not name):
        return str(text)
    if name in SHIPPED:
        return shipped(conversion, name)
    if where is given and name != "tokenizer_default":
        conversion.note("datasets", f"chat_template {name}: {OWN}")
    return None


def _template_of_sharegpt(conversion: Conversion, given: dict[str, Any]) -> str | None:
    """Return the chat template of `type: sharegpt`, which names one of FastChat's in `conversation`."""
    if given.get("chat_template"):
        return _template_of(conversion, given)
    name = given.get("conversation") or conversion.given.get("chat_template") or "vicuna_v1.1"
    if name in FASTCHAT:
        if not given.get("conversation") and not conversion.given.get("chat_template"):
            conversion.note("chat_template", "of type: sharegpt without conversation")
        if FASTCHAT[name] in SHIPPED:
            conversion.differences["datasets"] = f"type: sharegpt begins with {ASSISTANT!r} where a row has no system"
        return FASTCHAT[name]
    conversion.note("datasets", f"conversation {name}: {OWN}")
    return None


def _around(given: dict[str, Any]) -> dict[str, str]:
    return {key: given[f"field_{key}"] for key in ("system", "tools") if given.get(f"field_{key}")}


def _conversation(given: dict[str, Any], default: str) -> Strategy:
    mapping = given.get("message_property_mappings") or {}
    old = {"role": given.get("message_field_role"), "content": given.get("message_field_content")}
    speaker = {key: mapping.get(key) or old[key] or key for key in ("role", "content")}
    turns = given.get("field_messages") or default
    if given.get("type") == "sharegpt" and not (mapping or any(old.values())):
        speaker = SPEAKERS[1]
    if speaker not in SPEAKERS:
        raise Refuse(
            f"role and content of a message are called {speaker['role']} and {speaker['content']}; rename them"
        )
    others = {key: name for key, name in mapping.items() if key not in ("role", "content") and key != name}
    if others:
        raise Refuse(f"message_property_mappings renames {', '.join(others)}; rename these keys in the data")
    _require_roles(given)
    thinking = given.get("field_thinking")
    if thinking and thinking not in REASONING:
        raise Refuse(f"field_thinking: {thinking} is read as none of {', '.join(REASONING)}; rename it")
    mark = given.get("message_field_training")
    if mark and mark not in TRAINING_MARKS:
        raise Refuse(f"message_field_training: {mark} is read as none of {', '.join(TRAINING_MARKS)}; rename it")
    key = "conversations" if speaker["role"] == "from" else "messages"
    return Strategy("sharegpt" if key == "conversations" else "messages", {key: turns, **_around(given)})


def _require_roles(given: dict[str, Any]) -> None:
    """Refuse roles that are not read as here, and training on others than the assistant.

    Raises: Refuse.
    """
    for role, names in (given.get("roles") or {}).items():
        for name in names if isinstance(names, list) else [names]:
            if ROLES.get(str(name).lower()) != role:
                raise Refuse(f"roles: {name} is not read as {role}; rename it in the data")
    trained = given.get("roles_to_train")
    if trained is not None and [ROLES.get(str(role).lower()) for role in trained] != ["assistant"] * max(
        len(trained), 1
    ):
        raise Refuse(f"roles_to_train: {trained}: loss is on the assistant's messages alone")
    for key in ("train_on_eos", "train_on_eot"):
        if given.get(key) not in (None, "turn"):
            raise Refuse(f"{key}: {given[key]}: the token that ends a trained answer is trained, and no other")


def _preference(conversion: Conversion, given: dict[str, Any], name: str, detail: str) -> tuple[Strategy, str | None]:
    sides = {key: given.get(f"field_{key}") or key for key in COMPARED}
    if name == "bradley_terry":
        template = detail.partition(".")[0]
        return Strategy(
            "alpaca_preference", {"instruction": "input"}
        ), template if template in NAMED_TEMPLATES else None
    if name == CHAT and detail in ("", "default"):
        turns = _conversation(given, "messages")
        return Strategy("sharegpt_dpo", {**turns.columns, **sides}), _template_of(conversion, given)
    if name == CHAT and detail in ("argilla", "argilla_chat"):
        return Strategy("implicit_preference", sides), _template_of(conversion, given)
    if name == "passthrough":
        return Strategy("preference"), None
    if name in NAMED_TEMPLATES and (detail or "default") in PREFERENCES:
        return PREFERENCES[detail or "default"], name
    raise Refuse(f"type: {given.get('type')} is not known here; write rows of prompt, chosen and rejected")


def _unpaired(name: str, detail: str) -> tuple[Strategy, str | None]:
    if name in NAMED_TEMPLATES and detail in UNPAIRED:
        return UNPAIRED[detail], name
    raise Refuse(f"type: {name}.{detail} is not known here; write rows of prompt, completion and label")


def _user_defined(conversion: Conversion, kind: dict[str, Any]) -> tuple[Strategy, str | None]:
    """Return the layout and chat template of a `type` that is written out."""
    if conversion.stage == "dpo":
        return _written(kind, ("prompt", *COMPARED), "preference")
    if conversion.stage == "kto":
        return _written(kind, ("prompt", "completion", "label"), "kto")
    columns = {key: str(kind.get(f"field_{key}") or key) for key in ("instruction", "input", "output", "system")}
    if not kind.get("field_system"):
        columns.pop("system")
    text = kind.get("no_input_format") or kind.get("format")
    if kind.get("system_format") not in (None, "", "{system}"):
        raise Refuse("system_format: write the chat template as Jinja text in chat_template")
    if not text:
        raise Refuse("format: is missing")
    if not kind.get("no_input_format"):
        conversion.differences["no_input_format"] = (
            "rows without an input have the format; axolotl writes their instruction alone, unless the key is given"
        )
    prompt, system = re.sub(r"[ \n]*\{input\}", "", str(text)), str(kind.get("system_prompt") or "")
    if prompt.count("{instruction}") != 1 or re.search(r"\{(?!instruction\})\w+\}", prompt):
        raise Refuse(f"format: {text!r} is not one instruction; write the chat template as Jinja text in chat_template")
    with_input = str(kind.get("format") or "")
    if is_split(prompt, with_input):
        conversion.note("chat_template", "of the format")
        return Strategy("stanford_alpaca", columns), jinja(prompt, system, system, with_input)
    conversion.note("chat_template", f"of the format{JOINED}")
    return Strategy("alpaca", columns), jinja(prompt, system)


def _written(kind: dict[str, Any], fields: tuple[str, ...], layout: str) -> tuple[Strategy, str | None]:
    """Return the layout of texts that are trained as they are: axolotl reads `field_system` in formats alone."""
    formats = [
        key for key in kind if key.endswith("_format") and kind[key] not in (None, f"{{{key.removesuffix('_format')}}}")
    ]
    if formats:
        raise Refuse(f"{formats[0]}: write the chat template as Jinja text in chat_template")
    return Strategy(layout, {key: str(kind.get(f"field_{key}") or key) for key in fields}), None
