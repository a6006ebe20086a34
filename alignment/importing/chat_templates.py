"""Chat templates by the names that peers give them."""

from alignment.importing.conversion import Conversion
from alignment.importing.keys import Drop, Ours, Refuse

SHIPPED = ("chatml", "alpaca", "vicuna", "llama3")  # of this package, which are the peers' of these names
NO_TOKENIZERS = ("default", "empty", "fewshot", "inst")  # that no tokenizer has
OWN = "the tokenizer's own chat template is used; compare it with `alignment preview`"


def by_name(conversion: Conversion, name: object) -> Ours:
    """Return the chat template that a peer names.

    Raises: Drop if it is that of the model's tokenizer. Refuse if neither a tokenizer nor this package has it.
    """
    if name in (None, "", "tokenizer_default"):
        raise Drop(OWN)
    if name in SHIPPED:
        return {"chat_template": name}
    if name in NO_TOKENIZERS:
        raise Refuse(f"the template {name} belongs to no tokenizer; write it as Jinja text or a file in chat_template")
    raise Drop(OWN)
