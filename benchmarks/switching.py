"""Time and peak memory of `alignment switch` against `alignment merge`, on a random bfloat16 Llama.

    python -m benchmarks.switching --layers 24

Each command runs in a process of its own. Both write the same bytes, which is checked.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WEIGHTS = "model.safetensors"


def main() -> None:
    """Write a base and two adapters, merge both, switch, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden_size", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokenizer", default="../shared/models/stories260K", help="folder to take the tokenizer of")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run([sys.executable, "-c", _WRITE, json.dumps(vars(given)), str(work)], check=True)
        merged = {name: _measured("merge", name, f"merged-{name}", "--tolerance", "100", cwd=work) for name in "ab"}
        switched = _measured("switch", "merged-a", "out", "--from", "a", "--to", "b", cwd=work)
        same = (work / "merged-b" / WEIGHTS).read_bytes() == (work / "out" / WEIGHTS).read_bytes()
        size = (work / "base" / WEIGHTS).stat().st_size
        result: dict[str, Any] = {"base_MiB": size >> 20, "merge": merged["b"], "switch": switched, "same_bytes": same}
        print(json.dumps(result))


def _measured(*words: str, cwd: Path) -> dict[str, float]:
    """Run a command; return its seconds and its own peak of resident memory."""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "alignment.cli", *words], cwd=cwd, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"alignment {' '.join(words)} failed")
    return {"seconds": round(time.perf_counter() - began, 1), "peak_MiB": usage.ru_maxrss >> 10}


_WRITE = """
import json, sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
given, work = json.loads(sys.argv[1]), sys.argv[2]
tokenizer = AutoTokenizer.from_pretrained(given["tokenizer"])
width = given["hidden_size"]
config = LlamaConfig(vocab_size=32000, hidden_size=width, intermediate_size=4 * width, tie_word_embeddings=False,
                     num_hidden_layers=given["layers"], num_attention_heads=width // 64, max_position_embeddings=512,
                     bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
torch.manual_seed(0)
model = LlamaForCausalLM(config).to(torch.bfloat16)
model.save_pretrained(f"{work}/base")
tokenizer.save_pretrained(f"{work}/base")
model.name_or_path = model.config._name_or_path = "base"
wrapped = get_peft_model(model, LoraConfig(r=given["rank"], target_modules="all-linear", task_type="CAUSAL_LM"))
for name in "ab":
    for key, parameter in wrapped.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.02)
    wrapped.save_pretrained(f"{work}/{name}")
"""

if __name__ == "__main__":
    main()
