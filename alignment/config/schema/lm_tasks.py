"""Tasks of lm-eval in an evaluation."""

from typing import Any

from pydantic import Field, model_validator

from alignment.config.schema.parts import InputPath, Name, Part, Words


class TaskEntry(Part):
    """A task of lm-eval that every policy answers. Its name alone is the mapping with `task`."""

    task: Name
    """The task, group or tag of lm-eval (https://github.com/EleutherAI/lm-evaluation-harness), for example
    `gsm8k`.
    """
    name: Name | None = None
    """The name in tables; default: `task`. Two entries of one task need different names."""
    task_path: InputPath | None = None
    """A folder with the task's YAML file, for tasks of your own. Its `!function` Python code runs."""
    dataset_path: InputPath | None = None
    """Data in place of the task's data set: a folder in the layout of the Hub, or one JSONL, JSON, Parquet or CSV file
    with the documents to answer.
    """
    num_fewshot: int | None = Field(default=None, ge=0, le=1024)
    """Examples in the prompt; default: the task's."""
    limit: int | None = Field(default=None, gt=0, le=10**7)
    """Number of documents of each task to answer, the first ones; default: all."""
    apply_chat_template: bool = False
    """Write prompts with the chat template; examples become earlier turns."""
    system_instruction: Words | None = None
    """A system message, or the text before the prompt without the chat template."""
    gen_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of the task's `generation_kwargs`: `max_gen_toks`, `until`, `do_sample`, `temperature`,
    `top_p`, `top_k`.
    """

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, value: Any) -> Any:
        return {"task": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name or self.task
