"""Which keys of a row are content and which are harmless; error messages for unread keys of messages."""

import difflib
import functools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from alignment.data.fields import BadRow, keys_of
from alignment.strict_json import shown

LABEL_LENGTH = 200  # characters; a longer text, or one of several lines, is content under any name but metadata's
ORIGIN = "row_origin"  # the column of prepared rows with "file:line" of the row that each was read as
_ANY_VALUE = (
    r"meta|meta_?data|additional_metadata|.*_metadata|extra_info|provenance|emojis|detoxify|vectors?|embeddings?|"
    + ORIGIN
)
_IDS = (
    r"_*(id|ids|idx|index|key|uid|uuid|guid|hash|sha256|index_level_0)_*|unnamed_\d+|"
    r".*_(id|ids|id_list|idx|index|uuid|uid|hash|sha256)"
)
_SOURCES = (
    r"sources?|.*_source|source_.*|dataset|datasets|.*_dataset|dataset_.*|origin|provider|subset|section|split|domain|"
    r"category|categories|.*_category|sub_?category|sub_?topic|topics?|subject|tags?|.*_tags|type|.*_type|kind|ability|"
    r"task_name|skill|difficulty|level|languages?|lang|locale|url|urls|.*_url|link|license|version|.*_version|revision|file|dump|"
    r"file_?name|path|.*_path|country|region|status|tree_state|template|name"
)
_MODELS = r"models?|.*_model|model_.*|generator|.*_name|author|annotators?|labell?ers?|raters?|workers?|judges?"
_TIMES = r"date|time|timestamp|created|.*_at|.*_date|.*_time|.*_timestamp|seconds|duration"
_SCORES = (
    r"scores?|.*_scores?|scores?_.*|ratings?|.*_ratings?|rating_.*|rewards?|.*_reward|margin|rank|quality|helpfulness|"
    r"correctness|coherence|complexity|verbosity|toxicity|perplexity|likes|votes|upvotes|downvotes|agreement|kappa|"
    r"confidence|similarity|.*_count|count_.*|num_.*|n_.*|.*_num|length|.*_length|.*_tokens|tokens_.*|turns?|.*_turns"
)
_LABELLED = re.compile("|".join((_IDS, _SOURCES, _MODELS, _TIMES, _SCORES)))
_METADATA = re.compile(_ANY_VALUE)
_YAML_WORDS = frozenset("y n yes no true false on off null".split())
_NUMBER = re.compile(  # or a boolean, or a date as columnar files give it
    r"\s*[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?\s*|\s*(true|false)\s*|\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?[\d.+:Z-]*)?",
    re.IGNORECASE,
)

# Names that other programs and data sets use → the keys of our layouts that hold the same, the likeliest first. A value
# under such a name is content, also a number or a boolean.
MEANT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("question", "query", "instruction", "user", "user_prompt", "human", "post", "problem", "inputs",
                     "history"), ("prompt", "instruction")),
    **dict.fromkeys(("chosen_messages", "chosen_conversation"), ("chosen",)),
    **dict.fromkeys(("rejected_messages", "rejected_conversation"), ("rejected",)),
    "input": ("prompt",),
    "output": ("completion",),
    **dict.fromkeys(("response", "answer", "reply", "target", "solution", "assistant", "model_response", "targets",
                     "bot", "gpt"),
                    ("completion", "output", "chosen")),
    **dict.fromkeys(("system_prompt", "system_message", "sys"), ("system",)),
    **dict.fromkeys(("good", "better", "accepted", "preferred", "chosen_response", "preferred_output", "response_j"),
                    ("chosen",)),
    **dict.fromkeys(("bad", "worse", "dispreferred", "rejected_response", "non_preferred_output", "response_k"),
                    ("rejected",)),
    **dict.fromkeys(("conversation", "dialogue", "dialog", "chat"), ("messages", "conversations")),
    **dict.fromkeys(("context", "passage", "document"), ("input",)),
    "article": ("input", "prompt"),
    "summary": ("completion", "output", "chosen"),
    **dict.fromkeys(("candidates", "generations", "completions", "outputs", "answers"), ("responses",)),
    **dict.fromkeys(("kto_tag", "labels", "desirable", "is_desirable", "thumbs_up", "label"), ("label",)),
    **dict.fromkeys(("undesirable", "is_undesirable", "thumbs_down", "is_good", "is_bad", "flipped",
                     "thumb", "thumbs", "vote", "verdict", "feedback", "upvoted", "downvoted", "is_chosen",
                     "is_rejected", "is_preferred", "is_desired", "swapped", "swap",
                     "flip", "reversed"), ()),
    **dict.fromkeys(("functions", "function_definitions"), ("tools",)),
    **dict.fromkeys(("better_response_id", "safer_response_id"), ("better",)),
    **dict.fromkeys(
        ("winner", "preference", "choice", "weight", "weights", "sample_weight", "loss_weight",
         "reasoning_content", "reasoning", "thinking", "thought", "chat_template_kwargs", "template_kwargs",
         "enable_thinking", "input_ids"), ()
    ),
}  # fmt: skip
# Names of marks that keep texts out of the loss, weigh them or label them; numbers and booleans under them are content.
_MARK = re.compile(
    r"((.*_)?(labels?|weights?|weightings?|masks?|loss|losses|importances?|coefs?|coefficients?|multipliers?|"
    r"advantages?|repeats?|repetitions)|(.*_)?(up|over|down|under)_?(sampled?|sampling|weight|weighted|weighting)(_.*)?|"
    r"masked|(loss|mask|weight|importance)_.*|labels?_(type|kind|value|class|name|text)|"
    r"((do|no|is|not|skip|to)_)?(train|training|trainable|trained|untrained)(_(on|on_.*|details?|this|turns?|flags?))?)"
    r"(_?\d+)?"
)
MEDIA = re.compile("(image|video|audio|sound|picture)s?(_(path|url|file|name|file_name|uri|base64|bytes)s?)?")
_MAY_BE_TEXT = re.compile(f"{_SOURCES}|")  # a sentence under these names is content
_TRUE_SPEAKS = (  # names whose true leaves the row or its answer out, or contradicts a choice
    "skip skipped exclude excluded ignore ignored delete deleted is_deleted remove removed discard discarded invalid "
    "is_invalid hidden do_not_use truncated is_truncated tie is_tie tied is_wrong incorrect is_incorrect"
)
_FALSE_SPEAKS = (  # names whose false does
    "valid is_valid keep include included use used approved is_approved enabled selected correct is_correct passed "
    "is_passed success is_success successful safe is_safe"
)
_SPEAKS = {**dict.fromkeys(_TRUE_SPEAKS.split(), True), **dict.fromkeys(_FALSE_SPEAKS.split(), False)}
_MODEL_TEXT = re.compile("model_(input|output|answer|response|completion|prompt)s?")
_THOUGHTS = ("thinking", "thought", "reasoning")  # types of messages that are no answers
_VERDICTS = ("winner", "preference", "choice", "better_response_id", "label", "labels")
_VOICES = ("user", "users")  # who judged, where it is one word, or else a prompt
TRAINING_MARKS = ("weight", "train", "training", "trainable", "loss")  # on a message: whether it is learned


class UnreadKey(BadRow):
    """A key that looks like content and is not read: it ends the run for every value of `on_bad_row`.

    Args:
        fault: what is wrong. remedy: what the data or a recipe can change, behind the fault.
    """

    def __init__(self, fault: str, remedy: str = "") -> None:
        super().__init__(f"{fault}{remedy}")
        self.fault = fault


@functools.lru_cache
def plain_name(key: str) -> str:
    """Return a name in snake_case, from a name with dashes, blanks, dots or capitals inside."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)
    return re.sub(r"[^a-z0-9]+", "_", parted.lower())


@functools.lru_cache
def is_meant(key: str) -> bool:
    """Whether a name means content, a label or a training mark, so that numbers and booleans count too."""
    name = plain_name(key)
    return (name in MEANT and name not in _VOICES) or bool(_MARK.fullmatch(name))


def speaks_against(key: str, value: Any) -> bool:
    """Whether a boolean, 1 or 0 under this name speaks against the row, as `skip: true` and `is_correct: false` do."""
    return isinstance(value, bool | int) and value == _SPEAKS.get(plain_name(key))


def is_content(value: Any, *, numbers: bool = False) -> bool:
    """Whether a value holds text, or bytes; with `numbers`, numbers and booleans count too, at any depth.

    In objects, numbers never count under a name that means ids, counts or scores, and always under a mark.
    """
    if isinstance(value, str):
        return bool(value.strip()) and (numbers or not _NUMBER.fullmatch(value))
    if isinstance(value, bool | int | float):
        return numbers
    if isinstance(value, Mapping):
        return any(is_content(part, numbers=_counts(str(key), part, numbers)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return any(is_content(part, numbers=numbers) for part in value)
    return isinstance(value, bytes) and bool(value)


def _counts(key: str, part: Any, numbers: bool) -> bool:
    """Whether numbers and booleans count in a part of an object."""
    return bool(_MARK.fullmatch(plain_name(key))) or (numbers and not is_harmless(key, part))


def is_harmless(key: str, value: Any) -> bool:
    """Whether a name means ids, sources, models, times, scores or metadata, and the value fits.

    Only metadata may hold texts that are long or have several lines.
    """
    name = plain_name(key)
    if _METADATA.fullmatch(name):
        return True
    if MEDIA.fullmatch(name) or (name in ("turn", "turns") and any(" " in text for text in texts_in(value))):
        return False
    if _MODEL_TEXT.fullmatch(name) and any(" " in text.strip() for text in texts_in(value)):
        return False
    if _MAY_BE_TEXT.fullmatch(name) and any(map(_is_sentence, texts_in(value))):
        return False
    if name in _VOICES:
        return not any(" " in text.strip() for text in texts_in(value))
    return bool(_LABELLED.fullmatch(name) or not name) and _is_label(value)


def _is_sentence(text: str) -> bool:
    """Return whether a text is a sentence: four words or more that end with a mark."""
    return len(text.split()) >= 4 and text.rstrip().endswith((".", "?", "!", "…", "。", "？", "！"))


def _is_label(value: Any) -> bool:
    """Whether texts are lines of labels; those of an object must have names of labels too."""
    if isinstance(value, Mapping):
        return all(not is_content(part) or is_harmless(str(key), part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_label, value))
    return not isinstance(value, str) or (len(value) <= LABEL_LENGTH and "\n" not in value)


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts of a value at any depth, without the roles of messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in ("role", "from"):
                yield from texts_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts_in(part)


def unread(
    row: Mapping[str, Any], reads: Collection[str], harmless: Collection[str] = (), *, numbers: bool = False
) -> list[str]:
    """Return the keys that look like content and are not read; with `numbers`, numbers are content.

    A copy of what is read does not count: `prompt` beside messages that begin with it, or `text` that renders them.
    A verdict is never a copy, though an answer may be "A".
    """
    found = []
    for key in row:
        if key in reads or key in harmless:
            continue
        meant = is_meant(key) or speaks_against(key, row[key])
        if is_content(row[key], numbers=meant or numbers) and (meant or not is_harmless(key, row[key])):
            found.append(key)
    if not found:
        return []
    read = [text.strip() for key in row.keys() & set(reads) for text in texts_in(row[key]) if text.strip()]
    return [key for key in found if plain_name(key) in _VERDICTS or not _is_copy(row[key], read)]


def refuse_unread_of(
    part: Mapping[str, Any], what: str, reads: tuple[str, ...], known: tuple[str, ...] = (), *, numbers: bool = False
) -> None:
    """Reject keys of a part of a row that look like content and are not read.

    Args:
        known: keys that programs add there and that have no content.
        numbers: numbers and booleans are content too.
    Raises: UnreadKey.
    """
    if keys := unread(part, reads, known, numbers=numbers):
        raise UnreadKey(
            f"{what} has {', '.join(f'{shown(key)} ({example(part[key])})' for key in keys[:5])}, which is not read; "
            f"{', '.join(reads)} are read there. Rename it, or set ignore_columns: [{', '.join(map(as_yaml, keys))}]"
        )


def _is_copy(value: Any, read: list[str]) -> bool:
    texts = [text.strip() for text in texts_in(value) if text.strip()]
    if not texts or not read:
        return False
    return set(texts) <= set(read) or (isinstance(value, str) and all(text in value for text in read))


def refuse_unread_of_message(turn: Mapping[str, Any], what: str, reads: tuple[str, ...]) -> None:
    """Reject a message's keys that are not read, also numbers and booleans.

    A mark that a message is not trained is harmless if no message of its role is trained.
    """
    for key in turn.keys() - set(reads):
        value = turn[key]
        if not is_content(value, numbers=True):
            continue
        if key in TRAINING_MARKS and isinstance(value, bool | int | float) and not value:
            continue
        is_thought = plain_name(key) == "type" and isinstance(value, str) and plain_name(value) in _THOUGHTS
        if is_meant(key) or plain_name(key) in _VOICES or is_thought or not is_harmless(key, value):
            raise UnreadKey(
                f"{what} has the key {shown(key)} ({example(value)}), which is not read",
                f". A message has the keys {', '.join(reads)}{_message_hint(key, reads)}",
            )


def _message_hint(key: str, reads: tuple[str, ...]) -> str:
    name = plain_name(key)
    if name in TRAINING_MARKS:
        return (
            f". Only messages of the assistant are trained; set ignore_columns: [{as_yaml(key)}] to leave the key out"
        )
    if name in ("loss_mask", "loss_weight", "weights", "sample_weight"):
        return f". Mark messages that are not to be trained with weight: 0, or set ignore_columns: [{as_yaml(key)}]"
    if "reason" in name or "think" in name or name == "thought":
        given = ". Give the reasoning of a message of the assistant as reasoning_content"
        return f"{given}, or set ignore_columns: [{as_yaml(key)}]"
    near = difflib.get_close_matches(key, reads, 1)
    return (f"; the nearest is {near[0]}" if near else "") + f". Rename it, or set ignore_columns: [{as_yaml(key)}]"


def example(value: Any) -> str:
    """Return a value for a message, shortened."""
    return shown(value) if not isinstance(value, Mapping) else f"an object with {keys_of(dict(value))}"


def as_yaml(name: str) -> str:
    """Return a key in YAML's flow style, quoted and escaped if needed."""
    plain = re.fullmatch(r"[^\W\d][\w.-]*", name) and name.isprintable() and name.lower() not in _YAML_WORDS
    return name if plain else json.dumps(name)
