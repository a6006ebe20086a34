"""Conversations that a chat template does not write as they are."""

from alignment.errors import DataError


class TemplateError(DataError):
    """A chat template does not write a conversation as it is.

    Args:
        fault: what is wrong. remedy: what a recipe can change, behind the fault.
    """

    def __init__(self, fault: str, remedy: str = "") -> None:
        super().__init__(f"{fault}{remedy}")
        self.fault = fault


class NameUnwritten(TemplateError):
    """A message names its speaker, and the chat template writes no names."""

    def __init__(self, role: str, name: str) -> None:
        super().__init__(
            f"a message of the {role} has the name {name}, and the chat template writes no names",
            "; set chat_template to one that does, or ignore_columns: [name]",
        )
        self.role = role
