"""Samples K answers to every prompt and stores them in chunks, so that no answer is sampled twice."""

import dataclasses
import hashlib
import os

from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled
from alignment.data.rows import Prompt
from alignment.data.sampled import Recorder
from alignment.data.template import Template
from alignment.errors import DataError, RecipeError
from alignment.meter import ProgressBar
from alignment.rollout.engine import Completion, Engine, Sampling

BATCHES_PER_CHUNK = 4  # the most that a kill loses


def require_one_process(what: str = "label") -> None:
    """Refuse several processes in a stage that calls judges.

    Raises: RecipeError, before anything is written.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise RecipeError(
            [
                f"{what} runs in one process and {processes} were started; use `alignment {what} --config FILE` or "
                f"`accelerate launch --num_processes 1 recipes/{what.split()[0]}.py --config FILE`. Judge calls run "
                "max_concurrency at a time in both cases."
            ]
        )


def sample_answers(
    prompts: list[Prompt],
    *,
    engine: Engine,
    template: Template,
    store: CallStore,
    sampling: Sampling,
    num_generations: int,
    batch_size: int,
) -> list[Sampled]:
    """Sample the answers that are not in the store.

    Equal prompts, sampling and batch size give equal answers, also in a resumed run.

    Raises: DataError if the store lost a part of a chunk; LineageError if it has answers of other prompts or settings.
    """
    size = max(1, BATCHES_PER_CHUNK * batch_size // num_generations)
    store.bind(
        prompts=hashlib.sha256(repr(prompts).encode("utf-8", "backslashreplace")).hexdigest(),
        sampling={**dataclasses.asdict(sampling), "num_generations": num_generations, "chunk": size},
    )
    have, recorder = store.samples(), Recorder(template)
    with ProgressBar("label: sampled", "prompts", len(prompts), len(have)) as progress:
        for start in range(0, len(prompts), size):
            chunk = range(start, min(start + size, len(prompts)))
            missing = [position for position in chunk if position not in have]
            if not missing:
                continue
            if len(missing) < len(chunk):
                raise DataError(
                    f"{store.path}: the answers to prompt {missing[0]} are missing from their chunk; the file was "
                    "edited or damaged. Restore it, or name another output_dir."
                )
            ids = [template.prompt_ids(prompts[position]) for position in chunk]
            repeated = [prompt_ids for prompt_ids in ids for _ in range(num_generations)]
            seed = int.from_bytes(hashlib.sha256(f"{sampling.seed}/{start}".encode()).digest()[:8], "big")
            completions = engine.generate(repeated, dataclasses.replace(sampling, seed=seed))
            groups = [completions[k : k + num_generations] for k in range(0, len(completions), num_generations)]
            samples = [
                _sampled(position, prompts[position], prompt_ids, group, template=template, recorder=recorder)
                for position, prompt_ids, group in zip(chunk, ids, groups, strict=True)
            ]
            store.add_samples(samples)
            have.update((sample.position, sample) for sample in samples)
            progress.advance(len(chunk))
    return [have[position] for position in range(len(prompts))]


def _sampled(
    position: int,
    prompt: Prompt,
    prompt_ids: list[int],
    completions: list[Completion],
    *,
    template: Template,
    recorder: Recorder,
) -> Sampled:
    """Return one prompt's answers, as text without the stop token and as the tokens that were sampled."""
    texts = [template.answer_text(prompt_ids, one.words) for one in completions]
    record = recorder.record(prompt, prompt_ids, [one.ids for one in completions])
    return Sampled(position, prompt, texts, [one.stopped for one in completions], [record])
