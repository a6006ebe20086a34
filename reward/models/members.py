"""Ensembles by seed: reward models that differ in the initial score head and the order of the data.

All members hold out the same prompts, so that their mean can be measured, and each is a run of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alignment.config.schema import RewardRecipe
from alignment.data import load_rankings, load_split
from alignment.manifest import read_manifest
from alignment.policy.inference import context_limit
from alignment.run.directory import RunDirectory, recipe_digest, resolved_recipe
from reward.models.batches import encode_rankings
from reward.models.ensemble import Ensemble
from reward.models.metrics import preference_metrics


def member_recipes(recipe: RewardRecipe) -> list[RewardRecipe]:
    """Return one recipe for each member: a folder inside the run, and the recipe's seed plus its index."""
    return [
        recipe.model_copy(
            update={
                "output_dir": str(Path(recipe.output_dir, f"member-{place}")),
                "seed": recipe.seed + place,
                "num_members": 1,
                "overwrite": False,
            }
        )
        for place in range(recipe.num_members)
    ]


def is_trained(member: RewardRecipe) -> bool:
    """Whether an earlier start of the run finished this member."""
    manifest = read_manifest(member.output_dir)
    digest = recipe_digest(resolved_recipe(member))
    return manifest.get("status") == "finished" and manifest.get("recipe_sha256") == digest


def finish_ensemble(recipe: RewardRecipe, run: RunDirectory, members: Sequence[RewardRecipe]) -> None:
    """Measure the members' mean on the held-out prompts, and mark the run as finished."""
    if not run.main_process:
        return
    names = [Path(member.output_dir).name for member in members]
    manifests = [read_manifest(member.output_dir) for member in members]
    run.record(members=names, lineage=manifests[0].get("lineage"), data=manifests[0].get("data"))
    results: dict[str, object] = {}
    accuracies = [manifest.get("results", {}).get("reward_accuracy") for manifest in manifests]
    if None not in accuracies:
        results = ensemble_results(recipe) | {"member_accuracies": accuracies}
    run.finish(**results)


def ensemble_results(recipe: RewardRecipe) -> dict[str, object]:
    """Return the trainer's metrics for the members' mean, and the members' standard deviation in reward units."""
    held_out = load_split(load_rankings, recipe, recipe.seed).held_out
    model = Ensemble.load(
        recipe.output_dir,
        batch_size=recipe.library.get("per_device_eval_batch_size", 8),
        trust_remote_code=recipe.trust_remote_code,
    )
    first = model.members[0]
    limit = context_limit(first.model, recipe.max_length)
    rows = encode_rankings(
        held_out,
        first.template,
        max_length=limit,
        on_bad_row=recipe.on_bad_row,
        num_proc=recipe.dataset_num_proc,
    ).rows
    by_member = model.member_scores([[ids] * len(model.members) for row in rows for ids in row.input_ids])
    scores = iter(model.aggregated(by_member))
    found = preference_metrics(
        [[next(scores) for _ in row.input_ids] for row in rows],
        rows,
        center_rewards_coefficient=recipe.center_rewards_coefficient,
    )
    found.pop("loss")  # each member's own
    spread = float(by_member.std(0, correction=0).mean()) if by_member.numel() else float(torch.nan)
    return {**{f"reward_{key}": value for key, value in found.items()}, "reward_std_of_members": spread}
