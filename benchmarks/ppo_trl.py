"""Run the baseline script as it is, and add processor time to the line it prints.

    PYTHONPATH=DIR python benchmarks/ppo_trl.py SCRIPT [arguments of SCRIPT]

`time.perf_counter` is unchanged; each reading is stored with the process's CPU time, which on a machine
that others use too is the steadier of the two.
"""

import contextlib
import io
import itertools
import json
import runpy
import statistics
import sys
import time

wall_clock = time.perf_counter
readings: dict[float, float] = {}


def both_clocks() -> float:
    """Wall time, with the processor time of the same moment kept."""
    now = wall_clock()
    readings[now] = time.process_time()
    return now


def main() -> None:
    """Run and print one JSON object."""
    script, sys.argv = sys.argv[1], sys.argv[1:]
    time.perf_counter = both_clocks
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        left = runpy.run_path(script, run_name="__main__")
    found = json.loads(printed.getvalue().splitlines()[-1])
    cpu = [readings[moment] for moment in (left["start"], *left["Clock"].ends)]
    seconds = [b - a for a, b in itertools.pairwise(cpu)]
    tokens = left["response_tokens"]
    found["update_cpu_seconds"], found["response_tokens"] = seconds, tokens
    found["response_tokens_per_cpu_second"] = statistics.median(tokens[1:]) / statistics.median(seconds[1:])
    if left["torch"].cuda.is_available():
        found["peak_cuda_mib"] = left["torch"].cuda.max_memory_allocated() / 2**20
    print(json.dumps(found))


if __name__ == "__main__":
    main()
