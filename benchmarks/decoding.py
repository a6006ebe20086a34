"""Sampling alone with a growing cache and with fixed shapes: processor seconds of one rollout of a workload.

    python -m benchmarks.decoding --workload equal|natural [--repetitions 5]

The model is plain, as the policy is with its adapter merged while PPO samples on a CPU. Both ways take turns in one
process on one thread, and draw the same tokens. The last line printed is one JSON object: medians, and
static over dynamic.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.rollout.engine import Sampling
from alignment.rollout.static_batch import static_decoder
from alignment.rollout.transformers_engine import TransformersEngine
from benchmarks.comparison import WORK, make_model
from benchmarks.workload import WORKLOADS, model_folder, prompt_ids, prompts_file


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    make_model(args.workload, WORK)
    folder, workload = str(model_folder(args.workload, WORK)), WORKLOADS[args.workload]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    texts = prompts_file(args.workload)
    prompts = prompt_ids(
        AutoTokenizer.from_pretrained(folder), workload, texts, workload.batch, model.config.vocab_size
    )
    stops = [] if workload.stop_token_id is None else [workload.stop_token_id]
    sampling = Sampling(workload.response_len, stop_token_ids=stops)
    engines = {
        "dynamic": TransformersEngine(model, 0, workload.batch),
        "static": TransformersEngine(model, 0, workload.batch, decoder=static_decoder(model)),
    }
    answers: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(args.repetitions + 1):
        for name, engine in engines.items():
            begun = time.process_time()
            answers[name] = engine.generate(prompts, sampling)
            seconds[name].append(time.process_time() - begun)
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    print(
        json.dumps(
            {
                "workload": args.workload,
                "same_tokens": answers["dynamic"] == answers["static"],
                "tokens": sum(len(answer.ids) for answer in answers["dynamic"]),
                **{f"cpu_seconds_{name}": median for name, median in medians.items()},
                "static_over_dynamic": medians["static"] / medians["dynamic"],
                "runs": {name: each[1:] for name, each in seconds.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
