"""Scoring answers with a finished reward model."""

import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignment.config.schema import ModelKeys
from alignment.data.rows import Prompt
from alignment.data.template import Template
from alignment.errors import DataError, ModelError
from alignment.policy.base import load_tokenizer
from alignment.run.directory import read_manifest
from alignment.run.files import write_jsonl
from reward.batches import encode, pad
from reward.model import best_device, context_limit, load_reward_model, score_sequences

ANSWER_KEYS = ("answer", "completion", "response")


@dataclass(frozen=True, slots=True)
class RewardScorer:
    """A reward model that is only read."""

    model: Any
    template: Template
    pad_token_id: int
    batch_size: int  # sequences scored together
    context: int | None  # most tokens the model can read
    manifest: dict[str, Any]  # of the run, {} for a model made elsewhere; score_mean and score_std are its scale

    @classmethod
    def load(cls, path: str, *, device: str | torch.device | None = None, batch_size: int = 64) -> "RewardScorer":
        """Load a reward run, or any sequence classifier with one output.

        Args:
            device: default the GPU where there is one.

        Raises: ModelError where `path` holds no model or one without a score head.
        """
        manifest = read_manifest(Path(path)) if Path(path).is_dir() else {}
        recipe = manifest.get("recipe", {})
        kept = {key: recipe[key] for key in HELD_AS_TRAINED if key in recipe}
        keys = ModelKeys(**{**kept, "model_name_or_path": str(path)})
        tokenizer = load_tokenizer(keys)
        template = Template(tokenizer, keys.chat_template, keys.eos_token)
        model = load_reward_model(keys, tokenizer, template.stop_token_ids, trainable=False)
        if not keys.load_in_4bit:
            model = model.to(device or best_device())
        return cls(model.eval(), template, tokenizer.pad_token_id, batch_size, context_limit(model), manifest)

    def score(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool] | None = None
    ) -> list[float]:
        """Score each answer to its prompt, in reward units; a score does not depend on what else is in the call.

        Args:
            stopped: whether each answer ended by itself; one that was cut off is read without a stop token, as in
                training. Default: all did.

        Raises: DataError where prompt and answer together are longer than the model's context.
        """
        ended = [True] * len(answers) if stopped is None else stopped
        rows = list(zip(prompts, answers, ended, strict=True))
        return self.score_tokens(
            [self.encode(*row, where=f"answer {place} of {len(rows)}") for place, row in enumerate(rows, 1)]
        )

    @torch.inference_mode()
    def score_tokens(self, sequences: Sequence[list[int]]) -> list[float]:
        """Score token ids of prompt and answer together, the longest first, in batches of like length."""
        scores = [0.0] * len(sequences)
        order = sorted(range(len(sequences)), key=lambda place: -len(sequences[place]))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            batch = pad([sequences[place] for place in places], self.pad_token_id)
            batch = {key: tensor.to(self.model.device) for key, tensor in batch.items()}
            for place, score in zip(places, score_sequences(self.model, **batch).tolist(), strict=True):
                scores[place] = score
        return scores

    def encode(self, prompt: Prompt, answer: str, stopped: bool = True, *, where: str) -> list[int]:
        """Token ids of prompt and answer; a DataError begins with `where`."""
        try:
            return encode(self.template, prompt, answer, max_length=self.context, stop=stopped)[0]
        except DataError as error:
            raise DataError(f"{where}: {error}") from None


HELD_AS_TRAINED = ("trust_remote_code", "dtype", "attn_implementation", "chat_template", "eos_token", "load_in_4bit",
                   "bnb_4bit_quant_type", "use_bnb_nested_quant")  # fmt: skip


def score_file(run: str | Path, file: str | Path, output: str | Path | None = None, *, batch_size: int = 64) -> None:
    """Write the rows of a JSONL file with their scores, to `output` whole or not at all, else to standard output.

    A row is `{"prompt": text or messages, "answer" | "completion" | "response": text}`, or `{"messages": [...]}` that
    ends with the assistant's answer.

    Raises: DataError naming file and line of the first bad row; ModelError where `run` is no reward model.
    """
    rows = list(_rows(Path(file)))
    if not Path(run).is_dir():
        raise ModelError(f"{run}: no such folder; name the run folder of a reward model.")
    scorer = RewardScorer.load(str(run), batch_size=batch_size)
    scores = scorer.score_tokens(
        [scorer.encode(prompt, answer, where=f"{file}:{number}") for number, _, prompt, answer in rows]
    )
    scored = [{**row, "score": score} for (_, row, _, _), score in zip(rows, scores, strict=True)]
    if output is not None:
        write_jsonl(output, scored)
    else:
        sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in scored)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any], Prompt, str]]:
    """Line number, row, prompt and answer of each line.

    Raises: DataError naming file and line.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file; name a JSONL file of prompts and answers.")
    opened = gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")
    empty = True
    with opened as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            empty = False
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{file}:{number}: not UTF-8 (byte {error.start + 1} of the line).") from None
            except json.JSONDecodeError as error:
                raise DataError(f"{file}:{number}: not JSON ({error.msg} at character {error.pos + 1}).") from None
            prompt, answer = _prompt_and_answer(row, f"{file}:{number}")
            yield number, row, prompt, answer
    if empty:
        raise DataError(f"{file}: empty; it needs one JSON object a line.")


def _prompt_and_answer(row: Any, where: str) -> tuple[Prompt, str]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: a {type(row).__name__}, but a row is a JSON object.")
    if "messages" in row:
        messages = _messages(row["messages"], f"{where}: messages")
        if messages[-1]["role"] != "assistant" or len(messages) < 2:
            raise DataError(f"{where}: messages must end with the assistant's answer to score.")
        return messages[:-1], messages[-1]["content"]
    keys = [key for key in ANSWER_KEYS if key in row]
    if "prompt" not in row or len(keys) != 1:
        raise DataError(
            f"{where}: has the keys {', '.join(row) or 'none'}; a row needs prompt and one of "
            f"{', '.join(ANSWER_KEYS)}, or messages."
        )
    answer = row[keys[0]]
    if not isinstance(answer, str) or not answer.strip():
        raise DataError(f"{where}: {keys[0]} is {json.dumps(answer)[:60]}, but an answer is text and not empty.")
    prompt = row["prompt"]
    return (prompt if isinstance(prompt, str) else _messages(prompt, f"{where}: prompt")), answer


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is {json.dumps(value)[:60]}; it must be text or a list of messages.")
    for message in value:
        parts = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not all(isinstance(part, str) for part in parts):
            raise DataError(f"{where} holds {json.dumps(message)[:60]}; a message has a role and a content, both text.")
    return value
