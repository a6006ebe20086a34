"""The table of tuning methods in docs/tuning.md, from the facts that tests/policy/test_peft_types.py tries."""

import sys

from alignment.config.methods import TUNING_METHODS, TuningMethod
from alignment.config.peft_types import REFUSED


def markdown() -> str:
    """Return the methods with their facts, then the types of PEFT that cannot be used."""
    lines = [
        "| `peft_method` | method | fields of `peft_config` | base in 4 bits | `alignment merge` | vLLM samples with |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(name, method) for name, method in TUNING_METHODS.items()]
    lines += ["", "| type of PEFT | why it cannot be used |", "|---|---|"]
    lines += [f"| `{name}` | {reason} |" for name, reason in REFUSED.items()]
    return "\n".join(lines)


def _row(name: str, method: TuningMethod) -> str:
    fields = f"`{method.config.partition(':')[2]}`" if method.config else "none"
    merges = ("yes" if method.merges else "no") if method.has_adapter else "nothing to merge"
    vllm = "the adapter" if method.vllm_adapter else "merged weights" if method.merges else "no"
    return f"| `{name}` | {method.title} | {fields} | {'yes' if method.allows_4bit else 'no'} | {merges} | {vllm} |"


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
