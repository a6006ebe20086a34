"""The weights of a model's folder: what the files hold, and that it is what the configuration describes."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.integrations import deepspeed

from alignment.errors import ModelError
from alignment.ops.finite import first_not_finite
from alignment.policy.model_files import is_there, read_object
from alignment.strict_json import Limits, shown

WHOLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
INDEX_LIMITS = Limits(size=64 << 20, depth=8)
SLACK = 2**24  # parameters that a model may have beyond twice those stored: heads, copies of tied weights
BUFFER_SLACK = 2**28
PACKED = 32  # weights that one stored number holds at most, if a library has quantised them
NAMES_SHOWN = 3
OUTPUT_LAYERS = ("lm_head", "embed_out", "output_layer")  # of language models, which a classifier leaves out
FLOATS = re.compile(r"B?F(8|16|32|64).*")  # safetensors' names of types
INDICES = re.compile(r"\.(shira|supertuning|unilora)_indices(\.|$)")  # which weights an adapter changes
WEIGHTS = (".weight", ".bias")
Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(folder: Path) -> Shapes:
    """Return name and shape of every tensor that transformers will read from a local model's folder.

    Raises: ModelError if a file is damaged, a shard is missing, or there is no tensor at all.
    """
    if is_there(folder / WHOLE):
        return shapes_in(folder / WHOLE)
    if not is_there(folder / INDEX):
        raise ModelError(f"{folder} holds neither {WHOLE} nor {INDEX}; copy the model again.")
    index = read_object(folder / INDEX, INDEX_LIMITS)
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ModelError(f"{folder / INDEX}: weight_map is {shown(placed)}; it must name the file of each tensor.")
    if not isinstance(index.get("metadata"), dict):  # transformers reads it
        raise ModelError(
            f"{folder / INDEX}: metadata is {shown(index.get('metadata'))}; write an object there, such as {{}}."
        )
    found: Shapes = {}
    for shard in dict.fromkeys(map(str, placed.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelError(
                f"{folder / INDEX}: weight_map names {shown(shard)}, which is not a safetensors file beside it."
            )
        if not is_there(folder / shard):
            raise ModelError(f"{folder / INDEX}: weight_map names {shard}, which is not there; copy the model again.")
        inside = shapes_in(folder / shard)
        twice = found.keys() & inside.keys()
        if twice:
            raise ModelError(f"{folder}: several of its files hold {listed(twice)}; copy the model again.")
        found |= inside
    lost = [name for name in placed if name not in found]
    if lost:
        raise ModelError(f"{folder}: its files lack {listed(lost)}, which {INDEX} names; copy the model again.")
    return found


def shapes_in(file: Path) -> Shapes:
    """Return name and shape of every tensor in a safetensors file, whose weights are not read.

    Raises: ModelError if it is damaged, or holds none.
    """
    is_there(file)
    try:
        with safe_open(file, framework="pt") as tensors:
            found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is damaged or was cut off: {error}. Copy or train it again.") from error
    if not found:
        raise ModelError(f"{file} holds no tensors; copy or train it again.")
    return found


def require_floats(folder: Path, config: Any = None) -> None:
    """Refuse weights that are stored as integers, bits or complex numbers: loaded, they would be rounded ones.

    Args:
        config: transformers' configuration of a model, whose quantisation may store integers; None for an adapter.

    Raises: ModelError with their names.
    """
    if getattr(config, "quantization_config", None) is not None:
        return
    for file in [folder / ADAPTER] if config is None else weight_files(folder):
        shapes_in(file)
        with safe_open(file, framework="pt") as tensors:
            dtypes = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}
            wrong = [
                name
                for name, dtype in dtypes.items()
                if not FLOATS.fullmatch(dtype)
                and not (config is None and INDICES.search(name) and dtype in ("I32", "I64"))
                # GPT-2's files hold causal masks as `attn.bias`, in four dimensions; transformers leaves them out.
                and (config is None or (name.endswith(WEIGHTS) and len(tensors.get_slice(name).get_shape()) <= 3))
            ]
        if wrong:
            raise ModelError(
                f"{file} holds {listed(wrong)} as {dtypes[min(wrong)]}, which is not a type of weights; copy or "
                "train it again."
            )


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a local model's weights."""
    return [folder / WHOLE] if (folder / WHOLE).is_file() else sorted(folder.glob("model-*.safetensors"))


def require_described(cls: Any, config: Any, folder: Path, shapes: Shapes, *, trust_remote_code: bool) -> None:
    """Refuse a configuration that describes a far larger model than is stored, before memory is taken for it.

    Args:
        cls: the auto class that will load it. config: transformers' configuration. shapes: of `tensor_shapes`.

    Raises: ModelError.
    """
    text = config.get_text_config()
    layers = getattr(text, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > len(shapes):
        raise ModelError(
            f"{folder}: config.json has num_hidden_layers {layers:,}, but the weights hold {len(shapes):,} tensors in "
            "all; put the model's own config.json back."
        )
    packed, most = (PACKED, " at most") if getattr(config, "quantization_config", None) is not None else (1, "")
    with _uncut(), torch.device("meta"):
        model = cls.from_config(config, trust_remote_code=trust_remote_code)
    stored = packed * sum(_numbers(shape) for shape in shapes.values())
    parameters = {name: _numbers(tuple(tensor.shape)) for name, tensor in model.named_parameters()}
    buffers = {name: _numbers(tuple(tensor.shape)) for name, tensor in model.named_buffers()}
    for described, slack in ((parameters, SLACK), (buffers, BUFFER_SLACK)):
        if sum(described.values()) > 2 * stored + slack:
            largest = max(described, key=lambda name: described[name])
            raise ModelError(
                f"{folder}: config.json describes {sum(described.values()):,} numbers ({largest} alone has "
                f"{described[largest]:,}), but the weights hold {stored:,}{most}; put the model's own config.json back."
            )


@contextmanager
def _uncut() -> Iterator[None]:
    """Make models whole under ZeRO-3 too: it cuts weights as they are made, and those on the meta device are none."""
    launched = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = launched


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def require_complete(info: dict[str, Any], place: str, *, new_head: bool) -> None:
    """Refuse a model that was loaded with weights missing, left over, or of other shapes than the configuration's.

    Args:
        info: transformers' loading information, in which tied weights are not missing.
        new_head: whether a score head may be new, and a language model's output layer left over.

    Raises: ModelError with their names.
    """
    wrong = [
        (str(name), f"{tuple(stored)} stored, {tuple(wanted)} described")
        for name, stored, wanted in info["mismatched_keys"]
    ]
    if wrong:
        shapes = "; ".join(f"{name}: {how}" for name, how in sorted(wrong)[:NAMES_SHOWN])
        raise ModelError(
            f"{place}: weights have other shapes than config.json describes ({shapes}); copy the model again."
        )
    missing = [name for name in info["missing_keys"] if not (new_head and name.startswith("score."))]
    if missing:
        raise ModelError(
            f"{place}: the weights lack {listed(missing)}, which would be random numbers; copy or train it again."
        )
    left = [name for name in info["unexpected_keys"] if not (new_head and _is_output_layer(name))]
    if left:
        raise ModelError(
            f"{place}: the weights hold {listed(left)}, which config.json has no place for; they belong to another "
            "model. Put the model's own files back."
        )


@contextmanager
def report_left_to_us() -> Iterator[None]:
    """Keep transformers' table of missing and unexpected weights from the terminal; `require_complete` names them."""
    logger = logging.getLogger("transformers.modeling_utils")

    def other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _is_output_layer(name: str) -> bool:
    return any(part in OUTPUT_LAYERS for part in name.split("."))


def require_finite(weights: Mapping[str, torch.Tensor], place: str) -> None:
    """Refuse a model with a weight that is no number.

    Raises: ModelError with its name.
    """
    name = first_not_finite(weights.items())
    if name is not None:
        raise ModelError(f"{place}: {name} holds NaN or infinity; copy the model again, or train it anew.")


def listed(names: Iterable[str]) -> str:
    """Name the first few of several tensors, and how many there are."""
    known = sorted(names)
    more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
    return ", ".join(known[:NAMES_SHOWN]) + more
