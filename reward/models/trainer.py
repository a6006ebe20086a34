"""A `transformers.Trainer` whose batches are prompts, with all answers of a prompt in one forward pass."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from alignment.errors import TrainingError
from alignment.train.resuming import ResumableTrainer
from alignment.train.sharding import is_sharded
from reward.models.batches import EncodedRanking, RankingCollator
from reward.models.loading import score_sequences
from reward.models.losses import ranking_loss
from reward.models.metrics import preference_metrics
from reward.models.ties import LEARNING_RATE, NAME, add_log_nu, read_nu, write_nu

NO_ANSWER = -100.0  # pads prompts with fewer answers, as the Trainer does


class Rankings(Dataset[dict[str, Any]]):
    """Encoded rankings with their index; `input_ids` are of the longest answer, for grouping by length."""

    def __init__(self, rows: Sequence[EncodedRanking]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {"index": index, "ranking": row, "input_ids": max(row.input_ids, key=len)}


class RewardTrainer(ResumableTrainer):
    """Trains a sequence classifier on rankings; `per_device_train_batch_size` counts prompts.

    The loss is the mean over the prompts of the whole batch, over accumulated microbatches and processes,
    independent of the microbatch size.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        tokenizer: Any,
        train: Sequence[EncodedRanking],
        evaluation: Sequence[EncodedRanking] | None = None,
        center_rewards_coefficient: float = 0.0,
        use_margin: bool = False,
        label_smoothing: float = 0.0,
        ties: Literal["half", "davidson"] = "half",
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        """Wrap the rankings; `args` needs `remove_unused_columns=False`, as batches are rankings, not columns."""
        self.log_nu = add_log_nu(model, train) if ties == "davidson" else None
        args._n_gpu = min(args.n_gpu, 1)  # DataParallel would split a flat batch between the answers of a prompt
        super().__init__(
            model,
            args,
            data_collator=RankingCollator(tokenizer.pad_token_id),
            train_dataset=Rankings(train),
            eval_dataset=Rankings(_longest_first(evaluation)) if evaluation else None,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the whole batch's prompts itself
        self.center_rewards_coefficient = center_rewards_coefficient
        self.use_margin = use_margin
        self.label_smoothing = label_smoothing
        if self.log_nu is not None and is_sharded(self.accelerator):
            raise TrainingError("ties: davidson cannot be trained with sharded weights; use ties: half, or ZeRO-2.")
        self._seen = torch.zeros(3, dtype=torch.float64)  # since the last log: decided pairs, agreed, sum of gaps

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return this microbatch's share of the batch's loss, so that shares add up to the mean over its prompts."""
        scores = score_sequences(model, inputs["input_ids"], inputs["attention_mask"])
        loss = ranking_loss(
            scores,
            inputs["first"],
            inputs["second"],
            inputs["probability"],
            inputs["prompt"],
            num_prompts=len(inputs["index"]) if num_items_in_batch is None else num_items_in_batch,
            margin=inputs["margin"] if self.use_margin else None,
            center_rewards_coefficient=self.center_rewards_coefficient,
            label_smoothing=self.label_smoothing,
            log_nu=None if self.log_nu is None else self.log_nu[0],
        )
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over processes, shares must be summed
        self._count_agreement(scores.detach(), inputs)
        return (loss, {"scores": scores}) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """Score a batch; returns scores (prompts, maximum number of answers) and each prompt's index."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            scores = score_sequences(model, inputs["input_ids"], inputs["attention_mask"])
        answers = inputs["answers"]
        by_prompt = scores.new_full((len(answers), int(answers.max())), NO_ANSWER)
        by_prompt[torch.arange(by_prompt.shape[1], device=answers.device) < answers[:, None]] = scores
        return None, by_prompt, inputs["index"]

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score all prompts, then measure agreement with their labels; predictions are lists of scores by prompt."""
        output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        rankings = dataloader.dataset.rows
        found = {int(index): row for index, row in zip(output.label_ids, output.predictions, strict=True)}
        scores = [found[place][: len(row.input_ids)].tolist() for place, row in enumerate(rankings)]
        found_metrics = self._agreement(scores, rankings)
        numbers = {key: value for key, value in found_metrics.items() if isinstance(value, int | float)}
        metrics = {**output.metrics, **{f"{metric_key_prefix}_{key}": value for key, value in numbers.items()}}
        return EvalLoopOutput(scores, output.label_ids, metrics, len(rankings))

    def held_out_results(self) -> dict[str, Any]:
        """Evaluate, log, and return the stage's results: every metric as `reward_...`, including bins."""
        if self.eval_dataset is None:
            return {}
        output = self.predict(self.eval_dataset, metric_key_prefix="eval")
        self.log(output.metrics)
        found = self._agreement(output.predictions, self.eval_dataset.rows)
        return {**{f"reward_{key}": value for key, value in found.items()}, **self.nu}

    def score_scale(self, most_prompts: int = 1_000) -> dict[str, float]:
        """Mean and standard deviation of the scores of training answers, of up to `most_prompts` prompts."""
        rows = self.train_dataset.rows
        spread = _longest_first(rows[:: math.ceil(len(rows) / most_prompts)])
        metrics = self.predict(Rankings(spread), metric_key_prefix="train").metrics
        return {"score_mean": metrics["train_score_mean"], "score_std": metrics["train_score_std"]}

    def _agreement(self, scores: list[list[float]], rankings: Sequence[EncodedRanking]) -> dict[str, Any]:
        return preference_metrics(
            scores,
            rankings,
            center_rewards_coefficient=self.center_rewards_coefficient,
            use_margin=self.use_margin,
            label_smoothing=self.label_smoothing,
            log_nu=None if self.log_nu is None else self.log_nu.item(),
        )

    @property
    def nu(self) -> dict[str, float]:
        """Davidson's nu by its name in logs and results; {} without it."""
        return {} if self.log_nu is None else {"davidson_nu": math.exp(self.log_nu.item())}

    def own_counters(self) -> dict[str, Any]:
        """Return this process's agreement since the last log."""
        return {"seen": self._seen.tolist()}

    def restore_own(self, counters: dict[str, Any], share: float) -> None:
        """Restore the counts; with another number of processes, each takes an equal share of the first's."""
        self._seen = torch.tensor(counters["seen"], dtype=torch.float64) * share

    # Davidson's nu: its own learning rate, no weight decay, and a file of its own beside the classifier's weights

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with nu in a group of its own."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if fresh and self.log_nu is not None:
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if p is not self.log_nu]
            own = {"params": [self.log_nu], "lr": LEARNING_RATE, "weight_decay": 0.0}
            optimizer.add_param_group({**optimizer.param_groups[0], **own})
        return optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.log_nu is None:
            return super()._save(output_dir, state_dict)
        weights = self.model.state_dict() if state_dict is None else state_dict
        super()._save(output_dir, {name: weight for name, weight in weights.items() if not name.endswith(NAME)})
        if self.args.should_save:
            write_nu(Path(output_dir or self.args.output_dir), self.log_nu)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.log_nu is not None:
            read_nu(Path(resume_from_checkpoint), self.log_nu)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.log_nu is not None:
            read_nu(Path(self.state.best_model_checkpoint), self.log_nu)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add agreement on the training pairs since the last log."""
        if "loss" in logs:
            seen = self.accelerator.reduce(self._seen.to(self.args.device, torch.float32), reduction="sum")
            decided, agreed, gaps = seen.tolist()
            if decided:
                logs = {**logs, "accuracy": agreed / decided, "score_gap": gaps / decided}
            logs = {**logs, **self.nu}
            self._seen.zero_()
        super().log(logs, start_time)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """Count the prompts of all accumulated microbatches of all processes."""
        prompts = torch.tensor(sum(len(batch["index"]) for batch in batch_samples), device=device)
        return self.accelerator.gather(prompts).sum()

    def _count_agreement(self, scores: Tensor, inputs: dict[str, Tensor]) -> None:
        """Add a training batch's pairs, ties left out, to the running agreement."""
        if not self.model.training:
            return
        sign = (inputs["probability"] - 0.5).sign()
        gaps = ((scores[inputs["first"]] - scores[inputs["second"]]) * sign)[sign != 0]
        agreed = (gaps > 0).sum() + 0.5 * (gaps == 0).sum()
        self._seen += torch.stack([torch.tensor(float(len(gaps))), agreed.cpu(), gaps.sum().cpu()]).double()


def _longest_first(rows: Sequence[EncodedRanking]) -> list[EncodedRanking]:
    """Sort rows for little padding, and so that memory that is insufficient fails in the first batch."""
    return sorted(rows, key=lambda row: -max(map(len, row.input_ids)))
