"""`--engine vllm`: vLLM's own server, started with the arguments that serve runs as they were trained.

vLLM needs a GPU. The arguments are tested; they have not been run on hardware.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from alignment.errors import LineageError, ModelError, RecipeError, named_inputs
from alignment.policy.adapter_files import read_adapter_config
from alignment.policy.generation import write_generation
from alignment.policy.plain_lora import is_accepted
from alignment.policy.policies import Policy
from alignment.rollout.vllm_adapter import RANKS
from alignment.rollout.vllm_engine import vllm_is_installed
from alignment.serve.names import named_runs
from alignment.serve.serve import Settings
from alignment.serving.token import token_of

TEMPLATE = "chat_template.jinja"
GRACE_SECONDS = 30  # for vLLM to end
OWN = {  # options of our engine that vLLM has no counterpart of
    "adapters": "vLLM would load adapters from any folder",
    "cache_tokens": "vLLM sizes its cache by the GPU's memory",
    "proxy": "vLLM computes one model at a time",
}


def serve(settings: Settings) -> None:
    """Run vLLM until it ends.

    Raises: RecipeError if vLLM is not installed, or has no counterpart of an option; ModelError or LineageError if it
        cannot serve the runs.
    """
    faults = [
        f"--{name} with --engine vllm: {why}; leave it out" for name, why in OWN.items() if getattr(settings, name)
    ]
    if not vllm_is_installed():
        faults.append("--engine vllm needs the package vllm; run `pip install 'alignment-stack[vllm]'`")
    if faults:
        raise RecipeError(faults)
    token, is_new = token_of(settings.api_key_env)
    with named_inputs(), tempfile.TemporaryDirectory() as folder:
        runs = named_runs(settings.runs)
        policies = {name: Policy.find(run, settings.keys) for name, run in runs.items()}
        words = [_program(), *arguments(policies, settings, Path(folder))]
        if is_new:
            print(f"token, made for this run: export {settings.api_key_env}={token}", flush=True)  # noqa: T201
        _run(words, token)


def arguments(policies: Mapping[str, Policy], settings: Settings, folder: Path) -> list[str]:
    """Return vLLM's arguments.

    Args:
        policies: by the names under which they are served. folder: where the chat template and the stop tokens are
            written; vLLM would read the base's.

    Raises: ModelError or LineageError if vLLM cannot serve the policies together.
    """
    first = _require_alike(policies)
    write_generation(folder, {"eos_token_id": first.template.stop_token_ids})
    words = ["serve", first.source.base, "--host", settings.host, "--port", str(settings.port)]
    whole = [name for name, policy in policies.items() if policy.source.adapter is None]
    words += ["--served-model-name", *whole] if whole else []
    words += ["--dtype", first.keys.dtype, "--max-num-seqs", str(settings.batch_size)]
    words += ["--generation-config", str(folder)]
    if not Path(first.source.base).is_dir():
        words += ["--revision", first.keys.model_revision]
    if first.template.chat_template is not None:
        (folder / TEMPLATE).write_text(first.template.chat_template, encoding="utf-8")
        words += ["--chat-template", str(folder / TEMPLATE)]
    if settings.max_length is not None:
        words += ["--max-model-len", str(settings.max_length)]
    if first.keys.load_in_4bit:
        words += ["--quantization", "bitsandbytes"]
    if first.keys.trust_remote_code:
        words += ["--trust-remote-code"]
    return words + _adapters(policies)


def _adapters(policies: Mapping[str, Policy]) -> list[str]:
    adapters = {name: policy.source.adapter for name, policy in policies.items() if policy.source.adapter is not None}
    if not adapters:
        return []
    ranks = []
    for adapter in adapters.values():
        config = read_adapter_config(adapter)
        if not is_accepted(adapter, config):
            raise ModelError(
                f"{adapter} is an adapter that vLLM does not compute as it is; convert it: alignment export "
                f"{adapter} OUT, and serve OUT."
            )
        ranks.append(config.r)
    modules = [json.dumps({"name": name, "path": str(Path(adapter).absolute())}) for name, adapter in adapters.items()]
    largest = next(size for size in RANKS if size >= max(ranks))
    return [
        "--enable-lora", "--max-lora-rank", str(largest), "--max-loras", str(len(adapters)), "--lora-modules", *modules,
    ]  # fmt: skip


def _require_alike(policies: Mapping[str, Policy]) -> Policy:
    """Return the first policy; refuse others than vLLM can serve beside it."""
    first = next(iter(policies.values()))
    for policy in policies.values():
        if policy.base_identity != first.base_identity:
            raise ModelError(
                f"{policy.path} and {first.path} have different bases, and vLLM serves one; serve it apart."
            )
        if policy.template.hash != first.template.hash:
            raise LineageError(
                f"{policy.path} and {first.path} have different chat templates or stop tokens, and vLLM has one for "
                "all; serve them apart, or with the engine own."
            )
    keys = first.keys
    if keys.load_in_4bit and not (keys.bnb_4bit_quant_type == "nf4" and keys.use_bnb_nested_quant):
        raise ModelError(f"{first.path} is held in 4 bits in another way than vLLM's: NF4 with nested constants.")
    if keys.load_in_8bit:
        raise ModelError(
            f"the base of {first.path} is held in 8 bits (load_in_8bit), to which vLLM quantises none; serve it with "
            f"the engine own, or merged: alignment merge {first.path} OUT."
        )
    return first


def _program() -> str:
    beside = Path(sys.executable).with_name("vllm")
    return str(beside) if beside.is_file() else shutil.which("vllm") or "vllm"


def _run(words: list[str], token: str) -> None:
    """Run vLLM; the token goes by the environment, since all users of a machine see a command line."""
    environment = {**os.environ, "VLLM_API_KEY": token, "VLLM_NO_USAGE_STATS": "1"}
    process = subprocess.Popen(words, env=environment)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            code = process.wait()
            if code:
                raise ModelError(f"vLLM ended with exit code {code}; its messages are above.")
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            process.kill()
