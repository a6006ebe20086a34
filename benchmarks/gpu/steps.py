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


ROUNDS: tuple[tuple[Step, ...], ...] = (
    (Step("models", "Random models of Qwen3-0.6B's shape", "models", 40, "small"),),
    (
        Step("stages-bf16", "SFT, reward, DPO, PPO and merge on a bf16 base", "stages", 140, "bf16"),
        Step("stages-nf4", "SFT, reward, DPO, PPO and merge on an NF4 base", "stages", 140, "nf4"),
        Step("agreement", "The same batch on a CPU and on the device, float32, bf16 and NF4", "agreement", 140),
        Step("resume", "PPO that is killed and resumed", "resume", 140),
        Step("zero3", "PPO in one process under ZeRO-3", "sharded", 120, "zero3"),
        Step("fsdp2", "PPO in one process under FSDP2", "sharded", 120, "fsdp2"),
        Step("model-7b", "A random NF4 model of Llama-2-7B's shape", "models", 120, "large"),
    ),
    (Step("memory-7b", "PPO with four roles on a 7B NF4 base in 24 GiB", "memory", 110),),
    (Step("decode-nf4", "Sampling, 7B in NF4 with LoRA", "decoding", 50, "nf4"),),
    (Step("decode-bf16", "Sampling, 7B in bf16", "decoding", 40, "bf16"),),
    (Step("decode-merged", "Sampling, merged bf16 copy of 7B, CUDA graphs", "decoding", 50, "merged"),),
    (
        Step("judge", "The local judge, 7B in NF4", "judging", 50),
        Step("plan", "What `alignment plan` predicts against what was allocated", "planned", 60),  # on the host alone
    ),
    (Step("trl", "PPO against TRL 1.12.0, workload `equal`", "against_trl", 80),),
    (Step("decode-bf16-static", "Sampling, 7B in bf16, CUDA graphs", "decoding", 40, "bf16-static"),),
    (Step("decode-nf4-static", "Sampling, 7B in NF4 with LoRA, CUDA graphs", "decoding", 50, "nf4-static"),),
    (Step("decode-continuous", "Sampling, 7B in bf16 with continuous batching", "decoding", 40, "continuous"),),
)
STEPS = [step for together in ROUNDS for step in together]
CPU_SECONDS = 150  # that any step may take with --cpu
WHOLE_SECONDS = {"cuda": 480, "cpu": 300}  # of everything
LAST_SECONDS = 8  # kept for the archive of logs
