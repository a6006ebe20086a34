"""Answer tokens per second and memory of 1, 8, 64 and 1,000 LoRA adapters in one batch, against other ways.

    python -m benchmarks.many_adapters [--model ../shared/models/stories260K] [--adapters 1 8 64 1000]

- ours: `ManyAdapters`, an adapter for each row, stacked A and B.
- serial: PEFT's model, one adapter at a time, each with its own rows.
- peft: PEFT's `adapter_names`, an adapter for each row.

All sample greedily with the same engine and must give the same answers. Each way runs in a process of its own, so that
its peak of memory is its own. Above `--most_others` adapters only ours is measured. Of each
number of adapters, the answers of `--checked` are compared with those of one at a time. Ours keeps `--capacity`
adapters in memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

WAYS = ("ours", "serial", "peft")


def main() -> None:
    """Measure each way and number of adapters; print a table and one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="../shared/models/stories260K")
    parser.add_argument("--adapters", type=int, nargs="+", default=[1, 8, 64, 1000])
    parser.add_argument("--rows", type=int, default=32, help="rows of a batch")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--capacity", type=int, default=64)
    parser.add_argument("--most_others", type=int, default=64)
    parser.add_argument("--checked", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.worker:
        way, number, folder = args.worker
        print(json.dumps(measure(args, way, int(number), Path(folder))))
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_adapters(args.model, args.rank, max(args.adapters), Path(folder))
        for number in args.adapters:
            ways = [
                way for way in WAYS if way == "ours" or (number <= args.most_others and (number > 1 or way == "serial"))
            ]
            found[str(number)] = {way: _in_process(way, number, folder) for way in ways}
            same = {row.pop("answers") for row in found[str(number)].values()}
            found[str(number)]["same_answers"] = len(same) == 1
            print(number, json.dumps(found[str(number)]), flush=True)
    print(json.dumps(found))


def _in_process(way: str, number: int, folder: str) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.many_adapters", *sys.argv[1:], "--worker", way, str(number), folder]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def write_adapters(model: str, rank: int, number: int, folder: Path) -> None:
    """Write adapters with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    torch.manual_seed(0)
    for place in range(number):
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        wrapped.save_pretrained(folder / str(place))


def measure(args: argparse.Namespace, way: str, number: int, folder: Path) -> dict[str, Any]:
    """Sample with one way; returns tokens per second of the median repeat, memory in MiB, and a hash of the answers."""
    import hashlib
    import statistics

    from transformers import AutoModelForCausalLM

    from alignment.rollout.engine import Sampling

    model = AutoModelForCausalLM.from_pretrained(args.model)
    rows = max(args.rows, number)
    prompts = [[1, 100 + row % 300, 50 + row % 7] for row in range(rows)]
    names = [str(row % number) for row in range(rows)]
    sampling = Sampling(max_new_tokens=args.tokens, temperature=0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = {"ours": _ours, "serial": _serial, "peft": _peft}[way](args, model, names, folder)
    seconds = []
    for _ in range(args.repeats):
        began = time.perf_counter()
        answers = run(prompts, sampling)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if way == "ours":
        _compare(args, answers, prompts, names, folder)
    return {
        "tokens_per_second": round(rows * args.tokens / statistics.median(seconds)),
        "MiB_above_the_base": round((peak - before) / 1024, 1),
        "answers": hashlib.sha256(json.dumps(answers).encode()).hexdigest(),
    }


def _compare(
    args: argparse.Namespace, answers: list[list[int]], prompts: list[list[int]], names: list[str], folder: Path
) -> None:
    """Require the answers of some adapters to be those of one at a time."""
    from transformers import AutoModelForCausalLM

    from alignment.rollout.engine import Sampling

    every = [*dict.fromkeys(names)]
    chosen = every[:: -(-len(every) // args.checked)]
    rows = [row for row, name in enumerate(names) if name in chosen]
    run = _serial(args, AutoModelForCausalLM.from_pretrained(args.model), [names[row] for row in rows], folder)
    wanted = run([prompts[row] for row in rows], Sampling(max_new_tokens=args.tokens, temperature=0))
    differ = sorted({names[row] for row, each in zip(rows, wanted, strict=True) if answers[row] != each})
    if differ:
        raise SystemExit(f"of {len(every)} adapters, these differ from one at a time: {', '.join(differ)}")
    print(f"{len(every)} adapters: {len(chosen)} of them answer as one at a time")


def _ours(args: argparse.Namespace, model: Any, names: list[str], folder: Path) -> Any:
    from alignment.policy.many_adapters import ManyAdapters
    from alignment.rollout.transformers_engine import TransformersEngine

    adapters = ManyAdapters(model, args.model, args.capacity)
    for name in dict.fromkeys(names):
        adapters.add(name, folder / name)
    engine = TransformersEngine(model, 0, args.rows, adapters=adapters)
    return lambda prompts, sampling: [answer.ids for answer in engine.generate(prompts, sampling, names)]


def _serial(args: argparse.Namespace, model: Any, names: list[str], folder: Path) -> Any:
    from peft import PeftModel
    from peft.utils.hotswap import hotswap_adapter

    from alignment.rollout.transformers_engine import TransformersEngine

    wrapped = PeftModel.from_pretrained(model, folder / names[0])
    engine = TransformersEngine(wrapped, 0, args.rows)

    def run(prompts: list[list[int]], sampling: Any) -> list[list[int]]:
        answers: list[list[int]] = [[]] * len(prompts)
        for name in dict.fromkeys(names):
            own = [row for row, each in enumerate(names) if each == name]
            if len(set(names)) > 1:
                hotswap_adapter(wrapped, str(folder / name), "default")
            for row, answer in zip(own, engine.generate([prompts[row] for row in own], sampling), strict=True):
                answers[row] = answer.ids
        return answers

    return run


def _peft(args: argparse.Namespace, model: Any, names: list[str], folder: Path) -> Any:
    from peft import PeftModel

    from alignment.rollout.transformers_engine import TransformersEngine

    wrapped = PeftModel.from_pretrained(model, folder / names[0], adapter_name=names[0])
    for name in list(dict.fromkeys(names))[1:]:
        wrapped.load_adapter(folder / name, adapter_name=name)
    rows: list[str] = []

    class WithNames(type(wrapped)):  # type: ignore[misc]
        def forward(self, *inputs: Any, **options: Any) -> Any:
            return super().forward(*inputs, adapter_names=rows, **options)

    wrapped.__class__ = WithNames
    engine = TransformersEngine(wrapped, 0, args.rows)

    def run(prompts: list[list[int]], sampling: Any) -> list[list[int]]:
        answers = []
        for start in range(0, len(prompts), args.rows):
            rows[:] = names[start : start + args.rows]
            answers += [each.ids for each in engine.generate(prompts[start : start + args.rows], sampling)]
        return answers

    return run


if __name__ == "__main__":
    main()
