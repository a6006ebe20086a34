"""Compare trained policies with a baseline on held-out prompts: win rates, KL, and losses elsewhere.

alignment evaluate --config recipes/tiny/evaluate.yaml [--key value …]
    --reparse   reads the verdicts of a finished run anew from its recorded calls, without a call
"""

import sys

from rich.console import Console

from alignment.calls.prices import tariff_of
from alignment.calls.rejecting import RejectingJudge
from alignment.calls.session import caller_of, recording, usage
from alignment.calls.store_rows import unanswered
from alignment.config import load_recipe
from alignment.config.schema import EvaluateRecipe
from alignment.data import require_data
from alignment.evaluate.cached_judge import VERDICTS, CachedJudge, only_failures
from alignment.evaluate.inputs import read_inputs
from alignment.evaluate.policies import measure
from alignment.evaluate.questions import answer_rows as question_rows
from alignment.evaluate.results import (
    answer_rows,
    bootstrap_of,
    judge_candidates,
    pick_examples,
    reward_agreement,
    sampled_with,
    summarise,
)
from alignment.evaluate.table import forgetting_table, table
from alignment.evaluate.tasks.comparing import compare_tasks
from alignment.evaluate.tasks.loading import load_tasks
from alignment.evaluate.tasks.rows import ANSWERS, task_rows
from alignment.evaluate.tasks.running import TaskRuns, require_room
from alignment.evaluate.tasks.table import task_table
from alignment.run.directory import RunDirectory
from alignment.run.files import write_json, write_jsonl
from alignment.run.script import script
from reward.feedback.evaluation import reparse
from reward.feedback.sampling import require_one_process
from reward.judges import build_judge
from reward.models.ensemble import Ensemble
from reward.preview.prompts import evaluated, require_reward_models
from reward.scorers.outside import build_questions

preview = evaluated  # reads the rows that `alignment preview` shows


def main(argv: list[str] | None = None) -> None:
    """Sample, judge, measure, write results.json, answers.jsonl and examples.jsonl, and print the tables."""
    recipe = load_recipe(EvaluateRecipe, sys.argv[1:] if argv is None else argv)
    if recipe.reparse:
        require_one_process("evaluate")
        Console().print(table(reparse(recipe)))
        return
    callers = [caller_of(entry, recipe, recipe.max_concurrency) for entry in recipe.judges]
    judges = list(map(build_judge, recipe.judges, callers))  # before anything is written: one may be missing
    require_data(recipe)
    tasks = load_tasks(recipe.tasks, recipe.seed)
    require_room(recipe, tasks)
    questions = build_questions(recipe)
    tariff_of(*recipe.judges)  # prices that cannot be read are refused before anything is written
    require_reward_models(recipe)
    inputs = read_inputs(recipe, questions)
    run = RunDirectory.open(recipe, expendable=lambda folder: unanswered(folder) | only_failures(folder))
    if not run.main_process:
        return
    console = Console(stderr=True, highlight=False, markup=False)
    with recording(run.path, recipe.judges, recipe, callers):  # damaged calls or verdicts end the run before it samples
        _ = [CachedJudge(judge, run.path / VERDICTS) for judge in judges]

    # Each held-out prompt once per answer.
    held_out = inputs.held_out
    prompts = [prompt for prompt in held_out.prompts for _ in range(recipe.num_generations)]
    clusters = [i for i in range(len(held_out.prompts)) for _ in range(recipe.num_generations)]
    run.record(
        data={"files": held_out.files, "skipped": held_out.skipped},
        judges={judge.name: judge.prompt_hash for judge in judges},
    )

    # What is answered, and how likely the answers are under the baseline.
    runs = TaskRuns(recipe, tasks, run.path)
    baseline, candidates = measure(recipe, prompts, inputs.text, console.print, inputs.outside, runs)
    policies = [baseline, *candidates]
    run.record(sampled_with={policy.name: sampled_with(policy) for policy in policies})

    # Scores of the reward model, and verdicts of the judges.
    scores = {}
    agreed = {}
    if recipe.reward_model_path is not None:
        models = recipe.reward_model_path
        console.print(f"scoring with {models if isinstance(models, str) else ', '.join(models)}")
        scorer = Ensemble.load(
            recipe.reward_model_path,
            batch_size=recipe.per_device_eval_batch_size,
            trust_remote_code=recipe.trust_remote_code,
        )
        scores = {
            policy.name: scorer.score(prompts, policy.texts, stopped=policy.stopped, tokens=policy.tokens)
            for policy in policies
        }
    with recording(run.path, recipe.judges, recipe, callers) as store:
        cached = [CachedJudge(RejectingJudge(judge, store), run.path / VERDICTS) for judge in judges]
        if scores:
            agreed = reward_agreement(recipe, cached, prompts, clusters, baseline, scores)
        verdicts = judge_candidates(recipe, cached, prompts, baseline, candidates)
        used = usage(store, recipe.judges)

    results = summarise(recipe, clusters, baseline, candidates, verdicts, scores, agreed)
    if tasks:
        names = [candidate.name for candidate in candidates]
        results["tasks"] = compare_tasks(runs, baseline.name, names, bootstrap_of(recipe))
        write_jsonl(run.path / ANSWERS, task_rows(runs))
    if questions:
        answers = {policy.name: policy.kept.answers for policy in policies if policy.kept}
        write_jsonl(run.path / "outside_answers.jsonl", question_rows(questions, answers))
    subsets = [name for name in held_out.subsets for _ in range(recipe.num_generations)]
    rows = answer_rows(prompts, policies, verdicts, scores, subsets)
    write_jsonl(run.path / "answers.jsonl", rows)
    run.table("answers", rows)
    examples = pick_examples(rows, recipe.num_generations, recipe.num_examples, recipe.seed)
    write_jsonl(run.path / "examples.jsonl", examples)
    write_json(run.path / "results.json", results)
    run.finish(**results, usage=used)
    forgot = [forgetting_table(results)] if inputs.outside is not None else []
    Console().print(table(results), *forgot, *([task_table(results)] if tasks else []))


if __name__ == "__main__":
    script(main)
