"""The files of a model's folder, checked before any library reads them.

The libraries act on what these files hold: they import modules, fetch kernels and open files that a configuration
names. So each file is read here first, within limits, and values that would choose code or files are refused.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alignment.errors import JsonError, ModelError
from alignment.strict_json import Limits, parse, shown

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
ADAPTER_CONFIG = "adapter_config.json"
CONFIG_LIMITS = Limits(size=4 << 20, depth=32, finite=False)  # Mamba's configurations hold an Infinity
TOKENIZER_BYTES = 512 << 20  # of tokenizer.json, which the tokenizers library parses
TEMPLATE_BYTES = 1 << 20
LARGEST_NUMBER = 2**31  # of an integer that is a size; a token's id is less too
MOST_LABELS = 100_000
MOST_LAYERS = 4096  # a model's skeleton takes a millisecond a layer, in `alignment plan` too, which has no weights
LAYERS = re.compile(r"(num_(\w+_)?|n_)layers?|num_hidden_groups|depth")
ATTENTIONS = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")
DTYPES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "auto")
IMPLEMENTATIONS = re.compile(r"_?(attn|experts)_implementation(_internal)?")
SIZE = re.compile(r"(num|n)_\w+|\w+_(size|dim|layers|heads|rank|positions|embeddings)|n(embd|layer|head|ctx|positions)")
# Keys by which a configuration has transformers open another file, import other classes, or spread over other machines.
DECIDES_MORE = (
    "transformers_weights",
    "fusion_config",
    "distributed_config",
    "kernel_config",
    "use_kernels",
    "gguf_file",
)
NAMES_A_FILE = re.compile(r"(\w*_)?(file|files|path)")
NUMBERS: tuple[tuple[re.Pattern[str], Callable[[Any], bool], str], ...] = (  # that a model computes with
    (re.compile(r"(\w+_)?(eps|epsilon)"), lambda value: _is_float(value) and 0 <= value <= 1, "from 0 to 1"),
    (re.compile(r"rope_theta|rotary_emb_base"), lambda value: _is_float(value) and value > 0, "a number above 0"),
    (
        re.compile(r"(\w+_)?(dropout|dropout_prob|pdrop)"),
        lambda value: isinstance(value, bool) or (_is_float(value) and 0 <= value <= 1),
        "from 0 to 1",
    ),
)
Fault = tuple[str, str]  # a key, and the rule it breaks


def check_model_files(folder: Path) -> None:
    """Refuse a local model or adapter folder whose files no library should read.

    Raises: ModelError naming file and key.
    """
    for name, rules in RULES.items():
        file = folder / name
        if is_there(file):
            _checked(file, rules)
    for file in [folder / "chat_template.jinja", *sorted(folder.glob("additional_chat_templates/*.jinja"))]:
        if is_there(file):
            _check_template(file, folder)
    file = folder / "tokenizer.json"
    if is_there(file) and file.stat().st_size > TOKENIZER_BYTES:
        raise ModelError(f"{file} has {file.stat().st_size:,} bytes; the limit is {TOKENIZER_BYTES:,}.")


@functools.lru_cache
def check_hub_files(name: str, revision: str) -> None:
    """Check the same files of a model on the Hub, once they are in the cache; nothing for a folder.

    Raises: ModelError naming file and key.
    """
    from transformers.utils import cached_file

    if Path(name).is_dir():
        return
    for wanted in (*RULES, "chat_template.jinja"):
        try:
            found = cached_file(name, wanted, revision=revision, _raise_exceptions_for_missing_entries=False)
        except (OSError, ValueError):
            return  # not in the cache, and not downloadable: loading the model reports it
        if found is not None and wanted in RULES:
            _checked(Path(found), RULES[wanted])
        elif found is not None:
            _check_template(Path(found), Path(found).parent)


def is_there(file: Path) -> bool:
    """Whether a file is there.

    Raises: ModelError if what is there is not a regular file: a folder, or a pipe that a reader would wait for.
    """
    if not file.exists() and not file.is_symlink():
        return False
    if not file.is_file():
        raise ModelError(f"{file} is not a regular file; put the model's own file there.")
    return True


def read_object(file: Path, limits: Limits = CONFIG_LIMITS) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises: ModelError if it cannot be read, is no JSON within `limits`, or holds something else.
    """
    is_there(file)
    try:
        if file.stat().st_size > limits.size:
            raise ModelError(f"{file} has {file.stat().st_size:,} bytes; the limit is {limits.size:,}.")
        value = parse(file.read_bytes(), limits)
    except (OSError, JsonError) as error:
        raise ModelError(f"{file} cannot be read: {error}. Copy the model again.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{file} holds {shown(value)}, where an object is expected. Copy the model again.")
    return value


def refuse(file: Path, faults: Iterator[Fault]) -> None:
    """Raise a ModelError for the first fault, if there is one."""
    for key, rule in faults:
        raise ModelError(f"{file}: {key} {rule}.")


def _checked(file: Path, rules: Callable[[dict[str, Any], Path], Iterator[Fault]]) -> None:
    refuse(file, rules(read_object(file), file))


def _config(config: dict[str, Any], file: Path) -> Iterator[Fault]:
    """Faults of config.json, in the configurations inside it too."""
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        yield "model_type", f"is {shown(kind)}, which is not a name"
    for key, value in _nested(config):
        name = key.rpartition(".")[2]
        if IMPLEMENTATIONS.fullmatch(name):
            yield from _implementation(key, value)
        elif name in DECIDES_MORE and value:
            yield key, f"is {shown(value)}; a model's folder may not decide that. Take the key out"
        elif name in ("dtype", "torch_dtype") and not isinstance(value, dict) and not _is_dtype(value):
            yield key, f"is {shown(value)}, which is not a type of weights"
        elif name == "num_labels" and not (isinstance(value, int) and 0 <= value <= MOST_LABELS):
            yield key, f"is {shown(value)}; it must be a number up to {MOST_LABELS:,}"
        elif LAYERS.fullmatch(name) and isinstance(value, int) and not 0 <= value <= MOST_LAYERS:
            yield key, f"is {shown(value)}; it must be a number up to {MOST_LAYERS:,}"
        elif SIZE.fullmatch(name) and isinstance(value, bool | int | float | str):
            yield from _size(key, value)
        elif isinstance(value, float) and not math.isfinite(value):  # Mamba's infinity is in a list
            yield key, f"is {shown(value)}; it must be a finite number"
        else:
            yield from (
                (key, f"is {shown(value)}; it must be {rule}")
                for pattern, is_right, rule in NUMBERS
                if value is not None and pattern.fullmatch(name) and not is_right(value)
            )
    architectures = config.get("architectures")
    if architectures is not None and not _is_texts(architectures):
        yield "architectures", f"is {shown(architectures)}, which is not a list of names"


def _nested(config: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of an object and of the objects inside it, spelled with dots, with its value."""
    for key, value in config.items():
        yield path + key, value
        if isinstance(value, dict):
            yield from _nested(value, f"{path}{key}.")


def _implementation(key: str, value: Any) -> Iterator[Fault]:
    """A name with a slash or a bar would be fetched as a kernel from the Hub, and run."""
    for name in value.values() if isinstance(value, dict) else [value]:
        experts = "experts" in key and isinstance(name, str) and re.fullmatch(r"\w+", name)
        if name is not None and name not in ATTENTIONS and not experts:
            yield key, f"is {shown(name)}; a model's folder may name {', '.join(ATTENTIONS)}. Take the key out"


def _is_float(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_dtype(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.removeprefix("torch.") in DTYPES)


def _size(key: str, value: Any) -> Iterator[Fault]:
    if isinstance(value, bool | str):
        if isinstance(value, str) and re.fullmatch(r"[-+\d.eE]+", value):
            yield key, f"is the text {shown(value)}, where a number is expected"
    elif not abs(value) < LARGEST_NUMBER:
        yield key, f"is {shown(value)}; no model has a size of {LARGEST_NUMBER:,} or more"


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _generation(config: dict[str, Any], file: Path) -> Iterator[Fault]:
    """Faults of generation_config.json; sampling takes only the stop tokens from it."""
    for key in ("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id"):
        value = config.get(key)
        for token in value if isinstance(value, list) else [value]:
            if token is not None and not _is_token_id(token):
                yield key, f"holds {shown(token)}, which is not a token's id"


def _is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value < LARGEST_NUMBER


def _tokenizer(config: dict[str, Any], file: Path) -> Iterator[Fault]:
    """Faults of tokenizer_config.json."""
    yield from _templates(config)
    kind = config.get("tokenizer_class")
    if kind is not None and not isinstance(kind, str):
        yield "tokenizer_class", f"is {shown(kind)}, which is not a name"
    if config.get("init_inputs"):
        yield "init_inputs", f"is {shown(config['init_inputs'])}; a tokenizer's files are those in its folder"
    for key, (is_right, what) in TOKENIZER_KEYS.items():
        if config.get(key) is not None and not is_right(config[key]):
            yield key, f"is {shown(config[key])}, which is not {what}"
    for key, value in config.items():
        if (
            key.endswith("_token")
            and not key.startswith("add_")
            and not isinstance(value, str | bool | None)
            and not _is_added(value)
        ):
            yield key, f"is {shown(value)}, which is not a token"
        if NAMES_A_FILE.fullmatch(key) and isinstance(value, str) and _is_elsewhere(value, file.parent):
            yield key, f"is {shown(value)}, a file outside the folder. Take the key out"
    added = config.get("added_tokens_decoder")
    if added is not None and not isinstance(added, dict):
        yield "added_tokens_decoder", f"is {shown(added)}, which is not a table of tokens"
    for number, token in (added or {}).items():
        if not (number.isascii() and number.isdigit() and int(number) < LARGEST_NUMBER and _is_added(token)):
            yield f"added_tokens_decoder.{shown(number)[1:-1]}", f"is {shown(token)}, which is not a token with its id"


def _is_added(token: Any) -> bool:
    return isinstance(token, dict) and isinstance(token.get("content"), str)


def _is_elsewhere(path: str, folder: Path) -> bool:
    """Whether a path leads to something that is there, outside a folder."""
    try:
        named = (folder / path).resolve()
        return named.exists() and folder.resolve() not in named.parents
    except (OSError, ValueError):  # no path at all
        return False


def _templates(config: dict[str, Any]) -> Iterator[Fault]:
    given = config.get("chat_template")
    several = given if isinstance(given, list) else []
    texts = [one.get("template") if isinstance(one, dict) else None for one in several] if several else [given]
    texts = list(given.values()) if isinstance(given, dict) else texts
    for text in texts:
        if not isinstance(text, str) and (several or given is not None):
            yield "chat_template", f"is {shown(given)}, which is no Jinja text"
        elif isinstance(text, str) and len(text) > TEMPLATE_BYTES:
            yield "chat_template", f"has {len(text):,} characters; the limit is {TEMPLATE_BYTES:,}"


def _check_template(file: Path, folder: Path) -> None:
    """Refuse a template that is no text, or a link to a file elsewhere: its text would go into every prompt."""
    home = folder.resolve()
    if home not in file.resolve().parents and home.parent.parent / "blobs" not in file.resolve().parents:
        raise ModelError(f"{file} is a link to a file outside the folder; copy the template there.")
    if file.stat().st_size > TEMPLATE_BYTES:
        raise ModelError(f"{file} has {file.stat().st_size:,} bytes; the limit is {TEMPLATE_BYTES:,}.")
    try:
        file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{file} is not UTF-8 (byte {error.start + 1}); write the template anew.") from None


def _tokens(found: dict[str, Any], file: Path) -> Iterator[Fault]:
    """Faults of special_tokens_map.json."""
    for key, value in found.items():
        for token in value if isinstance(value, list) else value.values() if key.startswith("extra") else [value]:
            if not isinstance(token, str) and not _is_added(token):
                yield key, f"holds {shown(token)}, which is not a token"


def _added_tokens(found: dict[str, Any], file: Path) -> Iterator[Fault]:
    """Faults of added_tokens.json."""
    for token, number in found.items():
        if not _is_token_id(number):
            yield shown(token), f"is {shown(number)}, which is not a token's id"


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_side(value: Any) -> bool:
    return value in ("left", "right")


def _are_tokens(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [None]
    return all(isinstance(token, str) or _is_added(token) for token in inside)


FLAGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "clean_up_tokenization_spaces", "do_lower_case",
         "legacy", "split_special_tokens", "use_default_system_prompt", "spaces_between_special_tokens")  # fmt: skip
TOKENIZER_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model_max_length": (_is_length, "a number above 0"),
    "padding_side": (_is_side, "left or right"),
    "truncation_side": (_is_side, "left or right"),
    "model_input_names": (_is_texts, "a list of names"),
    "extra_special_tokens": (_are_tokens, "a list of tokens"),
    "additional_special_tokens": (_are_tokens, "a list of tokens"),
    **dict.fromkeys(FLAGS, (_is_flag, "true or false")),
}
RULES: dict[str, Callable[[dict[str, Any], Path], Iterator[Fault]]] = {
    CONFIG: _config,
    GENERATION: _generation,
    TOKENIZER: _tokenizer,
    "special_tokens_map.json": _tokens,
    "added_tokens.json": _added_tokens,
}
