"""Finding a model by its path, and loading it: the base, its tokenizer, and the adapter that lies on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import find_adapter_config_file

from alignment.config.launched import is_sharded
from alignment.config.methods import methods_where
from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.errors import ModelError, first_line
from alignment.hub import local, may_be_on_hub, reach, why_not_on_hub
from alignment.manifest import read_manifest
from alignment.policy.adapter_files import named_base, read_adapter_config
from alignment.policy.adapters import attach_adapter, continue_adapter, copies_in_float32
from alignment.policy.four_bits import compute_as_configured, quantization
from alignment.policy.generation import read_generation, stops_of
from alignment.policy.methods import adapter_config, completed, method_of
from alignment.policy.model_files import ADAPTER_CONFIG, check_hub_files, check_model_files, is_there
from alignment.policy.saved_files import require_weights_as_saved
from alignment.policy.weight_files import (
    report_left_to_us,
    require_complete,
    require_described,
    require_finite,
    require_floats,
    tensor_shapes,
)
from alignment.policy.weights import weights_hash

TOKENIZER_FILES = ("tokenizer*", "vocab*", "spiece.model", "sentencepiece*.model", "*.tiktoken", "tekken.json")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's weights are: a base, and the adapter on it where there is one. Folders or Hub ids."""

    base: str
    adapter: str | None = None

    @property
    def newest(self) -> str:
        """What was trained last: the adapter, else the base."""
        return self.adapter or self.base


def resolve_model(path: str, *, revision: str = "main") -> ModelSource:
    """Find base and adapter behind a model folder, an adapter folder, a run directory or a Hub id.

    An adapter's base may itself be a run directory, as long as that holds a whole model.

    Raises: ModelError where there is nothing to load, or an adapter lies on another adapter.
    """
    folder = local(path)
    if folder is None:
        return _resolve_hub(path, revision)
    if not folder.is_dir():
        raise ModelError(f"{path} is a file; name the folder that holds the model.")
    check_model_files(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        _require_weights(folder)
        return ModelSource(base=str(folder))
    _require_safetensors(folder, "adapter_model.safetensors", "adapter_model.bin", "an adapter")
    base = _base_of(folder)
    if (Path(base) / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{path} is an adapter on {base}, which is itself an adapter; only an adapter on a whole model can be "
            f"loaded. Merge the lower one first: alignment merge {base} OUT."
        )
    source = ModelSource(base=resolve_model(base).base, adapter=str(folder))
    _require_own_base(source, folder)
    return source


def _require_own_base(source: ModelSource, adapter: Path) -> None:
    """Refuse a base whose weights are not those that the adapter's manifest, where it has one, names."""
    trained_on = read_manifest(adapter).get("lineage", {}).get("base_sha256")
    if trained_on is None:
        return
    found = weights_hash(source.base)
    if found != trained_on and not any(identity.startswith("hub:") for identity in (found, trained_on)):
        raise ModelError(
            f"{adapter} is an adapter of another base: it was trained on weights {trained_on[:12]}, and {source.base} "
            f"holds {found[:12]}. Put the old base back, or train the adapter anew."
        )


def _resolve_hub(path: str, revision: str) -> ModelSource:
    reason = why_not_on_hub(path)
    if reason is not None:
        raise ModelError(f"model {path} does not exist: {reason}; name a model folder, a run directory or a Hub id.")
    reach()
    try:
        config = find_adapter_config_file(path, revision=revision)
    except Exception as error:
        raise _cannot_load(path, error) from error
    if config is None:
        return ModelSource(base=path)
    return ModelSource(base=named_base(Path(config)), adapter=path)


def _base_of(adapter: Path) -> str:
    """Read the base from an adapter's configuration.

    A relative path counts from the working directory, as for peft; failing that from a folder above the adapter, so
    that a project that moved, or is used from elsewhere, still fits together.
    """
    file = adapter / ADAPTER_CONFIG
    base = named_base(file)
    for root in (Path(), *adapter.resolve().parents):
        if (root / base).is_dir():
            return str(root / base)
    if may_be_on_hub(base):
        return base
    raise ModelError(
        f"{adapter} is an adapter on {base}, which does not exist; put the base there or correct "
        f"base_model_name_or_path in {file}."
    )


def _require_weights(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no config.json and no {ADAPTER_CONFIG}, so it is neither a model nor an adapter"
            f"{_unfinished(folder)}."
        )
    _require_safetensors(folder, "model*.safetensors", "pytorch_model*.bin", "a model")


def _require_safetensors(folder: Path, weights: str, pickled: str, what: str) -> None:
    require_weights_as_saved(folder)
    files = [file for file in sorted(folder.glob(weights)) if is_there(file)]
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ModelError(f"{file} is damaged or was cut off: {error}. Copy or train it again.") from error
    if files:
        return
    if any(folder.glob(pickled)):
        raise ModelError(
            f"{folder} holds weights only as {pickled}, a pickle, which can run code when it is read; only safetensors "
            "are loaded. Convert it where you trust it: load it with transformers and call save_pretrained."
        )
    raise ModelError(f"{folder} is {what} without weights: no {weights} in it{_unfinished(folder)}.")


def _unfinished(folder: Path) -> str:
    if (folder / "manifest.json").is_file():
        return "; it is a run directory whose stage has not finished, or is not one that trains a model"
    return ""


def load_tokenizer(keys: ModelKeys) -> Any:
    """Load the tokenizer of a model or adapter, ready to train and sample with.

    The recipe's `eos_token` replaces the tokenizer's own. A missing pad token becomes the unknown token, else EOS:
    no part of the project tells padding by its id. The chat template is `alignment.data.template`'s matter, and so
    are the stop tokens: `generation_stop_ids` notes for it where the model's generation config stops.

    Raises: ModelError where there is no tokenizer, no EOS token, or more tokens than the model has embeddings.
    """
    source = resolve_model(keys.model_name_or_path, revision=keys.model_revision)
    place = source.adapter if source.adapter and _has_tokenizer(source.adapter) else source.base
    if not _has_tokenizer(place):
        raise ModelError(
            f"{place} holds no tokenizer (no tokenizer.json or the like); save the model's tokenizer there."
        )
    options = {"trust_remote_code": keys.trust_remote_code, "revision": keys.model_revision}
    check_hub_files(place, keys.model_revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        config = AutoConfig.from_pretrained(source.base, **options)
    except Exception as error:
        raise _cannot_load(place, error) from error
    added = _add_tokens(tokenizer, getattr(keys, "add_tokens", None))
    generation = read_generation(source.adapter, source.base, revision=keys.model_revision)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokenizer.generation_stop_ids = [*own, *stops_of(generation)]
    _set_eos(tokenizer, keys.eos_token, place)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    known = [token_id for word, token_id in tokenizer.get_vocab().items() if word not in added]
    highest, rows = max(known), config.get_text_config().vocab_size
    if highest >= rows:
        raise ModelError(
            f"the tokenizer in {place} has token ids up to {highest}, but the model {source.base} has {rows} "
            "embeddings; they do not belong together."
        )
    return tokenizer


def _has_tokenizer(place: str) -> bool:
    folder = Path(place)
    return not folder.is_dir() or any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES)


def _add_tokens(tokenizer: Any, tokens: list[str] | None) -> set[str]:
    """Add a recipe's tokens to the vocabulary; return those that were not there."""
    missing = [token for token in tokens or [] if token not in tokenizer.get_vocab()]
    tokenizer.add_tokens(missing, special_tokens=True)
    return set(missing)


def _set_eos(tokenizer: Any, eos_token: str | None, place: str) -> None:
    if eos_token is not None:
        if eos_token not in tokenizer.get_vocab():
            raise ModelError(f"eos_token {eos_token!r} is not a token of the tokenizer in {place}.")
        tokenizer.eos_token = eos_token
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer in {place} has no EOS token, so no answer could ever end; name the token that ends an "
            "answer as eos_token in the recipe."
        )


def load_causal_lm(keys: ModelKeys, *, trainable: bool, peft: AdapterKeys | None = None) -> Any:
    """Load a language model, with its adapter where `model_name_or_path` is one.

    Args:
        keys: which model and how it is held.
        trainable: whether weights will change: the adapter's, or all of them, as `peft_method` decides.
        peft: what trains; None: everything. An adapter that exists already is continued.

    Returns: a PreTrainedModel, or a PeftModel whose adapter is named `default`.
    Raises: ModelError.
    """
    return _load(AutoModelForCausalLM, "CAUSAL_LM", keys, trainable, peft)


def load_sequence_classifier(
    keys: ModelKeys, *, trainable: bool, peft: AdapterKeys | None = None, pad_token_id: int | None = None
) -> Any:
    """Load a model with one scalar output, for rewards; arguments as `load_causal_lm`.

    A reward adapter is continued or used as it is. On a language model's adapter a new one of the same shape is put
    on the same base, starting from its weights, with a new `score` head. The head's first weights come from torch's
    global generator: seed it first. `pad_token_id` goes to the configuration; plain transformers reads the score at
    the last token that is not padding, so a pad token that is also EOS moves it one token to the left.
    """
    return _load(AutoModelForSequenceClassification, "SEQ_CLS", keys, trainable, peft, pad_token_id=pad_token_id)


def _load(
    cls: Any,
    task: str,
    keys: ModelKeys,
    trainable: bool,
    peft: AdapterKeys | None,
    *,
    pad_token_id: int | None = None,
) -> Any:
    source = resolve_model(keys.model_name_or_path, revision=keys.model_revision)
    full = trainable and (peft is None or peft.method.trains_base)
    require_method(source, keys, trainable, peft)
    new = [peft] if trainable and peft is not None and source.adapter is None else []
    whole = whole_modules(source.base, keys, [source.adapter] if source.adapter else [], new)
    model = load_base(cls, source.base, keys, full=full, whole=whole, **_head(cls, pad_token_id))
    if trainable and not full:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    if source.adapter is not None:
        model = continue_adapter(model, source.adapter, source.base, task=task, trainable=trainable, keys=peft)
    elif trainable and peft is not None and peft.method.has_adapter:
        model = attach_adapter(model, peft, task=task)
    return copies_in_float32(model) if trainable else model


def require_loadable(keys: ModelKeys, *, trainable: bool, peft: AdapterKeys | None, task: str = "CAUSAL_LM") -> None:
    """Refuse what `load_causal_lm` or `load_sequence_classifier` refuses of a model before its weights are read.

    Raises: ModelError.
    """
    source = resolve_model(keys.model_name_or_path, revision=keys.model_revision)
    require_method(source, keys, trainable, peft)
    cls = AutoModelForSequenceClassification if task == "SEQ_CLS" else AutoModelForCausalLM
    revision = keys.model_revision if not Path(source.base).is_dir() else "main"
    try:
        _described(cls, source.base, keys, revision, **_head(cls, None))
    except ModelError:
        raise
    except Exception as error:
        raise _cannot_load(source.base, error) from error


def require_method(source: ModelSource, keys: ModelKeys, trainable: bool, peft: AdapterKeys | None) -> None:
    """Refuse a way of training that the model, an adapter or one in 4 bits, does not allow.

    Raises: ModelError.
    """
    full = trainable and (peft is None or peft.method.trains_base)
    if trainable and (peft is None or not peft.method.has_adapter) and source.adapter is not None:
        given = peft.peft_method if peft else "full"
        raise ModelError(
            f"{source.adapter} is an adapter, but peft_method is {given}; merge it first (alignment merge "
            f"{source.adapter} OUT) and name OUT as model_name_or_path, or train an adapter."
        )
    if keys.load_in_4bit and (full or (trainable and peft is not None and not peft.method.allows_4bit)):
        others = methods_where(lambda method: method.allows_4bit)
        raise ModelError(f"load_in_4bit holds the base in 4 bits, which cannot train; set peft_method to {others}.")


def whole_modules(base: str, keys: ModelKeys, adapters: Sequence[str], new: Sequence[AdapterKeys]) -> list[str]:
    """Return the modules that adapters train as copies of the base's, which must not be quantised.

    Args:
        adapters: folders of existing ones. new: keys of those that are about to be made.
    """
    if not keys.load_in_4bit:
        return []
    configs = [read_adapter_config(adapter) for adapter in adapters]
    copying = [each for each in new if each.method.copies_modules]
    if copying:
        with torch.device("meta"):
            config = model_config(base, keys, keys.model_revision if not Path(base).is_dir() else "main")
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=keys.trust_remote_code)
        configs += [completed(adapter_config(each, task="CAUSAL_LM"), model) for each in copying]
    return sorted({name for config in configs if method_of(config).copies_modules for name in config.target_modules})


def _head(cls: Any, pad_token_id: int | None) -> dict[str, Any]:
    if cls is not AutoModelForSequenceClassification:
        return {}
    return {"num_labels": 1} if pad_token_id is None else {"num_labels": 1, "pad_token_id": pad_token_id}


def load_base(
    cls: Any, base: str, keys: ModelKeys, *, full: bool = False, whole: Sequence[str] = (), **config: Any
) -> Any:
    """Load a whole model with an auto class.

    Args:
        full: all its weights will train. whole: modules that are not quantised.
    """
    options: dict[str, Any] = {
        "dtype": model_dtype(base, keys, full=full),
        "revision": keys.model_revision if not Path(base).is_dir() else "main",
        "trust_remote_code": keys.trust_remote_code,
        "use_safetensors": True,
        "attn_implementation": keys.attn_implementation,  # None: the library's choice, never the folder's
    }
    if keys.load_in_4bit:
        options["quantization_config"] = quantization(keys, options["dtype"], whole)
    if torch.cuda.is_available() and not is_sharded():
        options["device_map"] = {"": PartialState().device}
    classifies = cls is AutoModelForSequenceClassification
    try:
        described = _described(cls, base, keys, options["revision"], **config)
        with report_left_to_us():
            model, info = cls.from_pretrained(
                base, config=described, **options, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except (torch.cuda.OutOfMemoryError, ModelError):
        raise
    except Exception as error:  # whatever a library raises on files that others wrote
        raise _cannot_load(base, error) from error
    require_complete(info, base, new_head=classifies and not _is_classifier(described))
    if not is_sharded():
        require_finite(dict(model.named_parameters()), base)
    return compute_as_configured(model)


def _described(cls: Any, base: str, keys: ModelKeys, revision: str, **config: Any) -> Any:
    """Return a model's configuration, compared with its kind and with the headers of its weights' files."""
    check_hub_files(base, revision)
    described = model_config(base, keys, revision, **config)
    _require_kind(described, base, classifies=cls is AutoModelForSequenceClassification)
    if Path(base).is_dir():
        shapes = tensor_shapes(Path(base))
        require_floats(Path(base), described)
        require_described(cls, described, Path(base), shapes, trust_remote_code=keys.trust_remote_code)
    return described


def model_config(base: str, keys: ModelKeys, revision: str, **changes: Any) -> Any:
    """Read a model's configuration; how attention and experts are computed is the recipe's to choose."""
    config = AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=keys.trust_remote_code, **changes)
    config._attn_implementation = keys.attn_implementation
    config._experts_implementation = None
    return config


def _require_kind(config: Any, base: str, *, classifies: bool) -> None:
    """Refuse a reward model where a policy is needed."""
    if _is_classifier(config) and not classifies:
        raise ModelError(
            f"{base} is a reward model ({config.architectures[0]}), and a policy is needed here; name a "
            "language model, or the run of an SFT, DPO or PPO stage."
        )


def _is_classifier(config: Any) -> bool:
    """Whether a configuration is a reward model's, which has its score head already."""
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or [])


def model_dtype(base: str, keys: ModelKeys, *, full: bool = False) -> torch.dtype:
    """Resolve `dtype: auto`: the checkpoint's, but float32 where all weights train or there is no GPU.

    Half precision loses small updates of the weights themselves, and on most CPUs is slower, not faster.
    """
    if keys.dtype != "auto":
        return getattr(torch, keys.dtype)
    if full or not torch.cuda.is_available():
        return torch.float32
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=keys.trust_remote_code)
    except Exception as error:
        raise _cannot_load(base, error) from error
    return getattr(config, "dtype", None) or torch.float32


def checkpoint_dtype(base: str, keys: ModelKeys) -> torch.dtype:
    """Return the type that a model's weights are saved in, float32 where that is none of the usual ones."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=keys.trust_remote_code)
    dtype = getattr(config, "dtype", None)
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32


def _cannot_load(place: str, error: Exception) -> ModelError:
    first = first_line(error)
    if "custom code" in first:  # transformers' `resolve_trust_remote_code`
        return ModelError(
            f"{place} needs Python code of its own, which runs only where you ask for it: read the code, then give "
            "trust_remote_code: true in the recipe, or --trust_remote_code."
        )
    if Path(place).is_dir():
        return ModelError(f"{place} cannot be loaded: {first}")
    return ModelError(f"{place} is neither a folder here nor a model that can be had from the Hub: {first}")
