"""Parts of stage synthesize: a method by its kind, dry run, reparse, and the files of a run."""

import contextlib
import importlib
import random
from pathlib import Path
from typing import Any

from alignment.calls.caller import Caller, DryCaller
from alignment.calls.prices import tariff_of
from alignment.calls.session import STORE
from alignment.calls.store import CallStore
from alignment.config.launched import Launch
from alignment.config.schema.synthesize import SynthesizeRecipe
from alignment.data.features import features_of
from alignment.errors import AlignmentError
from alignment.manifest import read_manifest
from alignment.run.directory import RunDirectory
from alignment.run.files import write_jsonl
from alignment.synthesize.diversity import measured
from alignment.synthesize.rows import Row, Seeds, load_seeds
from alignment.synthesize.writing import DryWriter, Record, Writer, hash_of

ROWS, DROPPED = "train.jsonl", "dropped.jsonl"


def method_of(recipe: SynthesizeRecipe) -> Any:
    """Return the module of the recipe's method."""
    return importlib.import_module(f"alignment.synthesize.{recipe.method.kind}")


def writer_of(recipe: SynthesizeRecipe, caller: Caller, cls: type[Writer] = Writer, **keys: Any) -> Any:
    """Return the recipe's writer with the hash of the method's prompts."""
    prompt_hash = hash_of(*method_of(recipe).PROMPTS)
    return cls(recipe.writer, caller, seed=recipe.seed, prompt_hash=prompt_hash, **keys)


def synthesized(
    recipe: SynthesizeRecipe, seeds: Seeds, writer: Writer, *, forgiving: bool = False
) -> tuple[list[Row], Record, dict[str, Any]]:
    """Run the method; return the rows in a random order, what was left out, and the results for the manifest.

    Args:
        forgiving: do not stop, whatever share of the replies gives nothing.

    Raises: JudgeError if too little is written; BudgetError.
    """
    record = Record(1.0 if forgiving else recipe.max_failure_share)
    rows, facts = method_of(recipe).synthesize(recipe, seeds.seeds, writer, record)
    record.check(writer.name, at_end=True)
    if not rows:
        raise AlignmentError(
            f"method {recipe.method.kind} gave no row: {record.asked} replies, left out {record.counts()}."
        )
    random.Random(recipe.seed).shuffle(rows)
    results = {"rows": len(rows), "seeds": len(seeds.seeds), **facts, "replies": record.asked, "failed": record.failed}
    return rows, record, {**results, "left_out": record.counts(), "diversity": measured(rows, seeds.seeds)}


def write_rows(run: RunDirectory, rows: list[Row], record: Record) -> None:
    """Write the rows and what was left out, and record the types of the columns."""
    write_jsonl(run.path / DROPPED, record.dropped)
    write_jsonl(run.path / ROWS, rows)
    run.record(files={"train": ROWS}, features=features_of({"train": rows}))


def lacking_calls(recipe: SynthesizeRecipe) -> DryCaller:
    """Count the calls of the recipe beyond those in its folder, if no reply fails and no filter leaves a text out.

    Raises: DataError as a run does.
    """
    path = Path(recipe.output_dir) / STORE
    seeds = load_seeds(recipe)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(CallStore(path, outcomes=True)) if path.is_file() else None
        caller = DryCaller(store, tariff_of(recipe.writer))
        writer = writer_of(recipe, caller, DryWriter, imagine=method_of(recipe).imagine, method=recipe.method)
        method_of(recipe).synthesize(recipe, seeds.seeds, writer, Record())
    return caller


def dry_run(recipe: SynthesizeRecipe) -> str:
    """Return the calls, tokens and cost of the recipe beyond the calls in its folder, as text; writes nothing."""
    caller = lacking_calls(recipe)
    cost = "no prices are given (writer.prices), so no cost"
    if caller.prices:
        cost = f"at most {caller.cost:.4f} {caller.prices.currency}"
    return (
        f"method {recipe.method.kind}, writer {recipe.writer.label}\n"
        f"{caller.calls} calls, about {caller.prompt_tokens} tokens of prompts and at most {caller.completion_tokens} "
        f"of replies, if no reply fails and no filter leaves a text out: {cost}"
    )


def reparse(recipe: SynthesizeRecipe) -> tuple[list[Row], Record, dict[str, Any]]:
    """Write a finished run's rows again from its calls, and return what `synthesized` does; makes no call.

    Raises: AlignmentError if there is no finished run, or the recipe needs calls that were never made.
    """
    path = Path(recipe.output_dir)
    manifest = read_manifest(path)
    if manifest.get("stage") != recipe.stage or manifest.get("status") != "finished":
        raise AlignmentError(
            f"{path}: holds no finished run of stage {recipe.stage}; --reparse reads the calls of a finished run."
        )
    with CallStore(path / STORE, outcomes=True) as store:
        caller = DryCaller(store)
        rows, record, results = synthesized(recipe, load_seeds(recipe), writer_of(recipe, caller), forgiving=True)
    if caller.calls:
        raise AlignmentError(
            f"{path}: the recipe needs {caller.calls} calls that were never made (another writer, method or seeds); "
            "run it into another output_dir without --reparse. The rows are unchanged."
        )
    run = RunDirectory(path, recipe, Launch.of(recipe), True)
    write_rows(run, rows, record)
    kept = manifest.get("results", {})
    run.record(results={**kept, **results}, reparsed={"method": recipe.method.model_dump(mode="json")})
    run.write_card()
    return rows, record, results
