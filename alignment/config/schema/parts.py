"""What all parts of a recipe's schema are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

DAY = 86_400.0  # seconds; nothing that a recipe waits for takes longer
Text = Annotated[str, Field(min_length=1)]  # an empty path would be the working folder


class Part(BaseModel):
    """A mapping inside a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())
