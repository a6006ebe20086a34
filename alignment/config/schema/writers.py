"""The schema of writers: the models that stage `synthesize` calls, one class per kind.

The backend is `alignment/calls/backends/KIND.py`. To add a kind, write that module and add a class to `WriterEntry`.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from alignment.config.schema.chat_models import AnthropicKeys, CalledEntry, LocalKeys, OpenAIKeys


class AnyWriter(CalledEntry):
    """Keys of every writer."""

    FAMILY: ClassVar[str] = "writer"


class OpenAIWriter(OpenAIKeys, AnyWriter):
    """A chat model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    """An OpenAI-compatible endpoint."""


class AnthropicWriter(AnthropicKeys, AnyWriter):
    """A Claude model behind Anthropic's Messages API."""

    kind: Literal["anthropic"]
    """Anthropic's Messages API."""


class LocalWriter(LocalKeys, AnyWriter):
    """A causal language model in this process."""

    kind: Literal["local"]
    """A language model in this process."""


WriterEntry = Annotated[OpenAIWriter | AnthropicWriter | LocalWriter, Field(discriminator="kind")]
