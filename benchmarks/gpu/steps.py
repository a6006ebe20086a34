"""The steps in their order. Those of one round run side by side; a round begins when the one before it has ended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A process of its own: `python -m benchmarks.gpu.MODULE --variant VARIANT`."""

    name: str
    title: str
    module: str
    seconds: int  # that it may take on a GPU
    variant: str = ""
    parts: tuple[str, ...] = ("checks",)  # of `--part`


ROUNDS: tuple[tuple[Step, ...], ...] = (
    (
        Step("models", "Random models of Qwen3-0.6B's shape", "models", 60, "small", parts=("checks", "times")),
        Step("model-7b", "A random NF4 model of Llama-2-7B's shape", "models", 120, "large", parts=("times",)),
    ),
    (
        Step("stages-bf16", "SFT, reward, DPO, PPO and merge on a bf16 base", "stages", 160, "bf16"),
        Step("stages-nf4", "SFT, reward, DPO, PPO and merge on an NF4 base", "stages", 160, "nf4"),
        Step("stages-others", "SFT, reward, KTO, GRPO and RLOO on a bf16 base", "stages", 160, "others"),
        Step("methods", "SFT with every tuning method on a tiny model", "methods", 160),
        Step("agreement", "The same batch on a CPU and on the device, float32, bf16 and NF4", "agreement", 200),
        Step("resume", "PPO that is killed and resumed", "resume", 200),
        Step("zero3", "PPO in one process under ZeRO-3", "sharded", 160, "zero3"),
        Step("fsdp2", "PPO in one process under FSDP2", "sharded", 160, "fsdp2"),
    ),
    (Step("decode-roles", "Sampling, 7B in NF4 with LoRA, and merged", "decoding", 130, "roles", parts=("times",)),),
    (Step("serve", "`alignment serve` against `transformers serve`", "served", 90, parts=("times",)),),
    (Step("trl", "PPO against TRL 1.12.0, workload `equal`", "against_trl", 180, parts=("times",)),),
    (Step("memory-7b", "PPO with four roles on a 7B NF4 base in 24 GiB", "memory", 150, parts=("times",)),),
    (Step("judge", "The local judge, 7B in NF4", "judging", 60, parts=("times",)),),
    (Step("decode-plain", "Sampling, 7B in bf16", "decoding", 90, "plain", parts=("times",)),),
    (Step("plan", "`alignment plan`'s memory against what was allocated", "planned", 90, parts=("checks", "times")),),
)
PARTS = ("checks", "times")
STEPS = [step for together in ROUNDS for step in together]
CPU_SECONDS = 150  # that any step may take with --cpu
WHOLE_SECONDS = {"cuda": 480, "cpu": 300}  # of everything
LAST_SECONDS = 8  # kept for the archive of logs
