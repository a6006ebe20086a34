"""Whether LoRA's matrices fit their base, by the shapes in the files: before any weight is read."""

import re
from pathlib import Path

from alignment.errors import ModelError
from alignment.policy.model_files import ADAPTER_CONFIG
from alignment.policy.weight_files import ADAPTER, Shapes, shapes_in

MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


def require_fit(adapter: Path, base: str, stored: Shapes) -> None:
    """Refuse an adapter whose matrices are of another width than the base's layers.

    A layer that the base stores under another name, or packed, is compared when the adapter is loaded.

    Args:
        adapter: its folder. base: the base's. stored: shapes of the base's tensors.

    Raises: ModelError.
    """
    for name, shape in shapes_in(adapter / ADAPTER).items():
        match = MATRIX.fullmatch(name)
        widths = stored.get(f"{match[1]}.weight", ()) if match else ()
        if match is None or len(widths) != 2 or len(shape) != 2:
            continue
        width, side = (shape[1], "inputs") if match[2] == "A" else (shape[0], "outputs")
        if width not in widths:  # GPT-2 stores inputs and outputs the other way round
            raise ModelError(
                f"adapter {adapter} does not fit the base {base}: it was made for a {match[1]} with {width} {side}, "
                f"and the base's weight is {widths[0]} × {widths[1]}. Name the model that it was trained on as "
                f"base_model_name_or_path in its {ADAPTER_CONFIG}."
            )
