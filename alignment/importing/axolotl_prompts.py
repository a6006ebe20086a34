"""The prompts that axolotl's `type: alpaca:STYLE` and written-out types have, as chat templates."""

import re

from alignment.data.layouts import INPUT

TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
TASK_WITH_INPUT = TASK.replace("task.", "task, paired with an input that provides further context.")
ALPACA_STYLES = {  # of `type: alpaca:STYLE`: the system message, and the prompts without and with an input
    "chat": ("SYSTEM: {system}\n", "USER: {instruction}\nASSISTANT:", "USER: {instruction}\n{input}\nASSISTANT:"),
    "chatml": ("<|im_start|>system\n{system}<|im_end|>\n",
               "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
               "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n"),
    "phi": ("<|system|>\n{system}<|end|>\n", "<|user|>\n{instruction}<|end|>\n<|assistant|>\n", ""),
}  # fmt: skip
JOINED = "; an input follows its instruction after a line break"  # of a note


def is_split(prompt: str, with_input: str) -> bool:
    """Whether a prompt with {instruction} and then {input} ends as that without an input."""
    if [re.findall(r"\{\w+\}", with_input)] != [["{instruction}", "{input}"]]:
        return False
    return with_input.partition("{input}")[2] == prompt.partition("{instruction}")[2]


def jinja(prompt: str, system: str, system_with_input: str = "", with_input: str = "") -> str:
    """Return a chat template of a prompt with {instruction}: the user's message in it, the answer behind it.

    Args:
        with_input: the prompt of an instruction with an input, which ends as the other; "": there is none.
    """
    before, _, behind = prompt.partition("{instruction}")
    opening = f"({system!r} if loop.first else '') + {before!r} + message['content']"
    if with_input:
        first, _, rest = with_input.partition("{instruction}")
        middle, parts = rest.partition("{input}")[0], f"message['content'].split({INPUT!r}, 1)"
        split = f"({system_with_input!r} if loop.first else '') + {first!r} + {parts}[0] + {middle!r} + {parts}[1]"
        opening = f"({split}) if {INPUT!r} in message['content'] else ({opening})"
    return (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] }}"
        f"{{% elif message['role'] == 'user' %}}{{{{ {opening} }}}}"
        f"{{% else %}}{{{{ {behind!r} + message['content'] + eos_token }}}}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {behind!r} }}}}{{% endif %}}"
    )
