"""Chat templates by the names that peers give them."""

from alignment.importing.conversion import Conversion
from alignment.importing.keys import OFF_HERE, Drop, Ours, Refuse

SHIPPED = ("chatml", "alpaca", "vicuna", "llama3")  # of this package, which are the peers' of these names, except:
ASSISTANT = "You are a helpful assistant."
POLITE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


def vicuna(start: str, between: str) -> str:
    """Return the template of vicuna with its system message, where a conversation has none.

    Args:
        start: before everything. between: behind the system message, and before an answer.
    """
    return (
        f"{start}{{% if messages[0]['role'] != 'system' %}}{{{{ {POLITE + between!r} }}}}{{% endif %}}"
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{{{{ message['content'] + {between!r} }}}}"
        "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
        f"{{% else %}}{{{{ {'ASSISTANT:' + between!r} + message['content'] + eos_token }}}}{{% endif %}}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


OF_PEERS = {  # peer and name → the template, where that of this package of the same name has other texts
    ("llamafactory", "vicuna"): vicuna("", ""),
    ("axolotl", "alpaca"): (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
        "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
        "{% else %}{{ '### Response:\\n' + message['content'] + eos_token }}"
        "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
    ),
}
NO_TOKENIZERS = ("default", "empty", "fewshot", "inst")  # that no tokenizer has
OWN = "the tokenizer's own chat template is used; compare it with `alignment preview`"


VALUES = "write the values at the head of a chat_template, as {% set enable_thinking = false %}"


def with_values(conversion: Conversion, values: object) -> Ours:
    """Convert `chat_template_kwargs`: set the values at the head of the file's own template.

    Raises: Drop if there are none. Refuse if the file has no template of its own.
    """
    if not values:
        raise Drop(OFF_HERE)
    template = conversion.recipe.get("chat_template")
    if not isinstance(values, dict) or not isinstance(template, str) or "{" not in template:
        raise Refuse(VALUES)
    if unusable := [name for name, value in values.items() if not isinstance(value, bool | int | float | str)]:
        raise Refuse(f"{unusable[0]} is no single value; {VALUES}")
    head = "".join(f"{{% set {name} = {_jinja(value)} %}}" for name, value in values.items())
    return {"chat_template": head + template}


def _jinja(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def shipped(conversion: Conversion, name: object) -> str:
    """Return the template of a name in `SHIPPED`, as the peer has it: its name here, or its text."""
    return OF_PEERS.get((conversion.peer.name, str(name)), str(name))


def by_name(conversion: Conversion, name: object) -> Ours:
    """Return the chat template that a peer names.

    Raises: Drop if it is that of the model's tokenizer. Refuse if neither a tokenizer nor this package has it.
    """
    if name in (None, "", "tokenizer_default"):
        raise Drop(OWN)
    if name in SHIPPED:
        return {"chat_template": shipped(conversion, name)}
    if name in NO_TOKENIZERS:
        raise Refuse(f"the template {name} belongs to no tokenizer; write it as Jinja text or a file in chat_template")
    raise Drop(OWN)
