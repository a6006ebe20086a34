"""PPO: a fine-tuned policy and a reward model in, a policy that scores higher out.

accelerate launch recipes/ppo.py --config recipes/tiny/ppo.yaml [--key value …]
"""

import sys

from alignment.config import load_recipe  # isort: skip, it turns off the telemetry of the libraries below

from transformers import TrainingArguments, set_seed

from alignment.calls.store_rows import unanswered
from alignment.config.schema import PPORecipe
from alignment.data.prompts import prompts_to_answer
from alignment.data.template import Template
from alignment.policy.base import load_tokenizer
from alignment.policy.generation import stop_at
from alignment.policy.load_roles import load_roles, reward_roles
from alignment.preview.recorded import recorded
from alignment.preview.stages import prompt_stage
from alignment.run.callbacks import callbacks_for
from alignment.run.directory import RunDirectory
from alignment.run.script import script
from alignment.train.arguments import training_arguments
from alignment.train.policy_gradient.engines import require_engine
from alignment.train.policy_gradient.scoring import Scoring, require_same_tokenizer, reward_adapter_on_base
from alignment.train.policy_gradient.trainer import PPOTrainer
from alignment.train.policy_gradient.update_shape import UpdateShape
from alignment.train.running import run_training
from alignment.train.saving import generation_of, lineage_of, save_trained
from alignment.train.trial import require_accepted
from reward.scorers import build_scoring, build_watch, describe, describe_watch, reward_models


def scoring_of(recipe: PPORecipe, lineage: dict[str, object]) -> tuple[Scoring, list[str]]:
    """Load what scores from outside, and find the reward models' adapters that stand on the policy's base."""
    require_same_tokenizer(recipe, lineage)
    adapters = {path: reward_adapter_on_base(path, recipe, lineage) for path in reward_models(recipe)}
    standing = {path: adapter for path, adapter in adapters.items() if adapter is not None}
    return build_scoring(recipe, dict(zip(standing, reward_roles(standing), strict=True))), [*standing.values()]


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe("ppo", sys.argv[1:] if argv is None else argv)
    require_accepted([recipe])
    require_engine(recipe)
    run = RunDirectory.open(recipe, expendable=unanswered)
    set_seed(recipe.seed)

    tokenizer = load_tokenizer(recipe)
    template = Template(tokenizer, recipe.chat_template, recipe.eos_token)
    lineage = lineage_of(recipe, tokenizer, template)
    run.record(lineage=lineage)
    watch = build_watch(recipe)
    scoring, adapters = scoring_of(recipe, lineage)
    # From here on ZeRO-3 cuts weights as they load: the roles', and of no scorer, which nothing would put together.
    arguments = training_arguments(TrainingArguments, recipe, run)
    first, *more = adapters or [None]
    roles = load_roles(recipe, reward_adapter=first, more_reward_adapters=more)
    stop_at(roles.causal_lm("policy"), template.stop_token_ids)
    run.record(scorers=describe(recipe, scoring), **({"watch_scorers": describe_watch(recipe, watch)} if watch else {}))
    loaded = prompts_to_answer(recipe, template, roles.context)
    kept = recorded(prompt_stage("ppo", loaded, loaded.rows, template), template)
    run.record(data=loaded.files, prompts=len(loaded.rows), skipped=loaded.skipped, preview=kept)

    shape = UpdateShape.of(
        recipe,
        per_device_train_batch_size=arguments.per_device_train_batch_size,
        world_size=arguments.world_size,
    )
    trainer = PPOTrainer(
        roles,
        training_arguments(TrainingArguments, recipe, run, **shape.forced_arguments()),
        recipe=recipe,
        template=template,
        prompts=loaded.rows,
        scorer=scoring,
        monitor=watch,
        run=run,
        callbacks=callbacks_for(run, recipe),
    )
    run_training(trainer, run)
    save_trained(trainer, run.path, generation_of(recipe, template))
    run.finish(**trainer.results())


if __name__ == "__main__":
    script(main)
