"""`benchmarks.ppo_vs_trl`: PPO here and in TRL 1.12.0, on the same work and the same device."""

import json
import subprocess
import sys

from benchmarks.gpu.step import Findings, Place, run_step

BASELINE, TRL = "trl_ppo_baseline.py", "trl-1.12.0"  # in the pack


def main(place: Place, found: Findings, variant: str) -> None:
    """Run it and keep the ratios."""
    missing = [name for name in (BASELINE, TRL) if place.pack is None or not (place.pack / name).exists()]
    if place.pack is None or missing:
        found.skip(f"the pack lacks {' and '.join(missing)}; run `make gpu-pack` where ../shared is")
        return
    workload = "equal" if place.on_gpu else "tiny"
    command = ["-m", "benchmarks.ppo_vs_trl", "--workload", workload, "--device", place.device, "--repetitions", "1"]
    command += ["--updates", "3" if place.on_gpu else "2", "--work", str(place.own)]
    command += ["--value_model", *(("head", "adapter") if place.on_gpu else ("head",))]
    command += ["--baseline", str(place.pack / BASELINE), "--trl", str(place.pack / TRL)]
    last = ""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line
    if process.returncode:
        sys.exit(process.returncode)
    said = json.loads(last)
    memory = "peak_cuda_mib" if place.on_gpu else "peak_rss_mib"
    for system in [name for name in said if name.startswith(("ours-", "trl"))]:
        (run,) = said[system]
        kept = {"response tokens a second": run["response_tokens_per_second"], "peak MiB": run[memory]}
        found.numbers(**{system: kept})
    found.numbers(**{f"ratio to TRL, value {value}": ratios for value, ratios in said["by_value_model"].items()})


if __name__ == "__main__":
    run_step(main)
