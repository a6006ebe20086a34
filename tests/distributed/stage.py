"""Stages in processes that can be killed, started by forking so that the libraries load once."""

import contextlib
import importlib
import json
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.models import save_tiny_model

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([f"recipes.{stage}" for stage in ("sft", "reward", "dpo", "kto", "ppo", "label")])


def make_inputs(folder: Path, **config: Any) -> Path:
    """A base, a reward adapter on it, and prompts."""
    save_tiny_model(folder / "base", initializer_range=0.3, **config)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base", num_labels=1, pad_token_id=0)
    lora = LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["q_proj"], modules_to_save=["score"], init_lora_weights=False
    )
    get_peft_model(model, lora).save_pretrained(folder / "reward")
    AutoTokenizer.from_pretrained(folder / "base").save_pretrained(folder / "reward")
    rows = [{"prompt": [{"role": "user", "content": f"tell me {number}"}]} for number in range(12)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_recipe(folder: Path, out: Path, **keys: Any) -> list[str]:
    """The arguments of the stage's command."""
    recipe = {
        "stage": "ppo", "output_dir": str(out), "model_name_or_path": str(folder / "base"),
        "reward_model_path": str(folder / "reward"), "datasets": [{"path": str(folder / "prompts.jsonl")}],
        "total_episodes": 48, "rollout_batch_size": 8, "max_new_tokens": 6, "num_ppo_epochs": 2, "num_mini_batches": 2,
        "per_device_train_batch_size": 2, "learning_rate": 1e-3, "num_sample_generations": 6, "save_steps": 3,
        "normalize_scores": "running", **keys,
    }  # fmt: skip
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return ["--config", str(file)]


def _main(
    stage: str, argv: list[str], log: str, environment: dict[str, str], before: Callable[[], None] | None
) -> None:
    os.environ.update(environment)
    multiprocessing.current_process()._config["daemon"] = False  # a daemon may have no workers that load data
    with open(log, "a") as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        import torch

        from alignment.run.script import script

        torch.set_num_threads(1)
        if before is not None:
            before()
        script(lambda: importlib.import_module(f"recipes.{stage}").main(argv))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


class Stage:
    """One start of the command, on one or more processes."""

    def __init__(
        self,
        argv: list[str],
        log: Path,
        *,
        processes: int = 1,
        stage: str = "ppo",
        before: Callable[[], None] | None = None,
        **environment: str,
    ) -> None:
        """Start; `before` is called in each process before the stage, and must be importable there."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.log, self.processes = log, []
        shared = {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **environment}
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)} if processes > 1 else {}
            process = SERVER.Process(
                target=_main, args=(stage, argv, f"{log}.{rank}", {**shared, **own}, before), daemon=True
            )
            process.start()
            self.processes.append(process)

    def ends_within(self, seconds: float) -> bool:
        """Wait; whether all processes ended, each of them well."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        if any(code not in (None, 0) for code in codes):
            self.kill()
            logs = [Path(f"{self.log}.{rank}").read_text()[-3000:] for rank in range(len(codes))]
            raise AssertionError(f"exit codes {codes}\n" + "\n".join(logs))
        return all(code == 0 for code in codes)

    def kill(self) -> None:
        """SIGKILL to every process."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


if __name__ == "__main__":
    sys.exit("for tests")
