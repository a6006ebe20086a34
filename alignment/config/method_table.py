"""The lists in docs/tuning.md of tuning methods, and of types of PEFT that are none."""

import sys

from alignment.config.methods import TUNING_METHODS, TuningMethod
from alignment.config.peft_types import REFUSED


def markdown() -> str:
    """Return the methods with their facts, then the types of PEFT that cannot be used."""
    lines = ["| `peft_method` | method | fields of `peft_config` |", "|---|---|---|"]
    lines += [_row(name, method) for name, method in TUNING_METHODS.items()]
    lines += ["", "| type of PEFT | why it cannot be used |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in REFUSED.items()]
    return "\n".join(lines)


def _row(name: str, method: TuningMethod) -> str:
    fields = f"`{method.config.partition(':')[2]}`" if method.config else "none"
    return f"| `{name}` | {method.title} | {fields} |"


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
