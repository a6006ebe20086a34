"""Trying a combination for real: a stage's own command on a small model, on one or two CPU processes."""

import contextlib
import importlib
import json
import multiprocessing
import os
import socket
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.distributed.launch import FSDP2
from tests.models import save_tiny_model

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["recipes.ppo", "recipes.sft", "recipes.dpo", "recipes.reward", "recipes.label"])
DEEPSPEED = Path(__file__).parents[2] / "launch" / "deepspeed"


@dataclass
class Outcome:
    """What came of a try."""

    works: bool
    said: str  # the end of what the processes printed
    out: Path  # the run's folder


def environment(strategy: str) -> dict[str, str]:
    """What a launcher tells its processes."""
    if strategy == "fsdp2":
        return FSDP2
    if strategy.startswith("zero"):
        config = DEEPSPEED / f"{strategy}.json"
        ours = {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_DEEPSPEED": "true"}
        return {**ours, "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(config)}
    return {"ACCELERATE_USE_CPU": "true"}


def write_inputs(folder: Path) -> None:
    """A base, rankings, demonstrations and prompts."""
    save_tiny_model(folder / "base", initializer_range=0.3, hidden_size=64)
    words = ("fox", "dog", "cat", "ball", "story", "friend", "name", "question")
    prompts = [[{"role": "user", "content": f"tell me about the {word}"}] for word in words]
    rows: dict[str, list[dict[str, Any]]] = {
        "prompts": [{"prompt": prompt} for prompt in prompts],
        "chats": [{"messages": [*p, {"role": "assistant", "content": "a small cat"}]} for p in prompts],
        "pairs": [{"prompt": p, "responses": ["a cat", "a big red ball"], "ranks": [1, 2]} for p in prompts],
    }
    for name, many in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))


def recipe_for(stage: str, folder: Path, out: Path, keys: dict[str, Any]) -> dict[str, Any]:
    """A recipe of two steps."""
    data = {"sft": "chats", "reward": "pairs", "dpo": "pairs", "ppo": "prompts", "label": "prompts"}[stage]
    recipe: dict[str, Any] = {
        "stage": stage,
        "output_dir": str(out),
        "model_name_or_path": str(folder / "base"),
        "datasets": [{"path": str(folder / f"{data}.jsonl")}],
    }
    if stage in ("sft", "reward", "dpo"):
        recipe |= {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "save_strategy": "no"}
    if stage == "ppo":
        recipe |= {
            "scorers": [{"kind": "function", "function": "tests.doctor.trying:length"}],
            "total_episodes": 16, "rollout_batch_size": 8, "max_new_tokens": 6, "num_ppo_epochs": 1,
            "per_device_train_batch_size": 2, "learning_rate": 1e-3, "num_sample_generations": 0, "save_strategy": "no",
        }  # fmt: skip
    if stage == "label":
        recipe |= {"judge": {"kind": "rules", "function": "tests.doctor.trying:prefer"}, "max_new_tokens": 6}
    return {key: value for key, value in {**recipe, **keys}.items() if value is not None}


def length(prompts: list[Any], answers: list[str]) -> list[float]:
    """A scorer."""
    return [float(len(answer)) for answer in answers]


def prefer(prompt: Any, first: str, second: str) -> float:
    """A judge."""
    return 0.9 if len(first) > len(second) else 0.1


def attempt(
    stage: str,
    strategy: str,
    keys: dict[str, Any],
    folder: Path,
    *,
    more: dict[str, str] | None = None,
    shard: bool = True,
    unguarded: bool = False,
    seconds: float = 150,
) -> Outcome:
    """Run a stage.

    Args:
        more: of the environment. shard: let FSDP shard on the CPU, which Accelerate alone does not.
        unguarded: with an empty table of combinations. seconds: after which it is taken never to end.
    """
    number = len(list(folder.glob("out-*.yaml")))
    out = folder / f"out-{number}"
    file = folder / f"out-{number}.yaml"
    file.write_text(yaml.safe_dump(recipe_for(stage, folder, out, keys)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = 1 if strategy == "single" else 2
    started = []
    for rank in range(processes):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **environment(strategy), **(more or {})}
        told = {**shared, **(own if processes > 1 else {})}
        log = folder / f"out-{number}.{rank}.log"
        arguments = (stage, ["--config", str(file)], log, told, shard, unguarded)
        process = SERVER.Process(target=_main, args=arguments, daemon=True)
        process.start()
        started.append((process, log))
    codes = _wait([process for process, _ in started], seconds)
    said = "\n".join(log.read_text(errors="replace")[-1500:] for _, log in started)
    return Outcome(codes == [0] * processes, said, out)


def _wait(processes: list[Any], seconds: float) -> list[int | None]:
    """Exit codes; where one process fails, the others would wait for it for ever and are ended."""
    import time

    end = time.monotonic() + seconds
    while any(process.exitcode is None for process in processes):
        if time.monotonic() > end or any(process.exitcode not in (None, 0) for process in processes):
            time.sleep(1.0)  # others may be about to fail by themselves, and their words are worth reading
            break
        time.sleep(0.05)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def _main(stage: str, argv: list[str], log: Path, told: dict[str, str], shard: bool, unguarded: bool) -> None:
    os.environ.update(told)
    if unguarded:
        from alignment.config.rules import combinations

        combinations.COMBINATIONS = ()
    with log.open("a", buffering=1) as output, contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        import torch

        from alignment.run.script import script

        torch.set_num_threads(1)
        if told.get("ACCELERATE_USE_FSDP") == "true" and shard:
            from tests.distributed.worker import let_accelerate_shard_on_cpu

            let_accelerate_shard_on_cpu()
        try:
            script(lambda: importlib.import_module(f"recipes.{stage}").main(argv))
        except BaseException:
            traceback.print_exc()
            output.flush()
            os._exit(1)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
