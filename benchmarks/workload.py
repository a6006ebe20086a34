"""What both systems are given: a model folder, prompts as token ids, and the numbers of an update."""

import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared"
VOCABULARY = 32_000


@dataclass(frozen=True, slots=True)
class Workload:
    """The numbers of one run of PPO or GRPO; every update but the first is timed."""

    batch: int
    prompt_len: int
    response_len: int
    mini_batches: int = 4
    epochs: int = 4
    stop_token_id: int | None = None  # None: every answer has its full length
    num_generations: int = 8  # of GRPO, TRL's default; PPO answers each prompt once


WORKLOADS = {
    "equal": Workload(batch=32, prompt_len=32, response_len=64),
    "natural": Workload(batch=64, prompt_len=32, response_len=192, stop_token_id=1),
    "tiny": Workload(  # to try a script with
        batch=4, prompt_len=8, response_len=8, mini_batches=2, epochs=1, num_generations=2
    ),
}


def model_folder(workload: str, work: Path) -> Path:
    """The model of a workload: `natural` uses stories260K, others a random Llama of 15M parameters, made once."""
    if workload == "natural":
        return SHARED / "models" / "stories260K"
    folder = work / "llama15m"
    if not (folder / "model.safetensors").is_file():
        _make_llama(folder)
    return folder


def prompts_file(workload: str) -> Path | None:
    """Texts whose first tokens are the prompts; None: random ids."""
    return SHARED / "data" / "tinystories" / "stories_train.jsonl" if workload == "natural" else None


def save_tokenizer(folder: Path, vocabulary: int) -> None:
    """A tokenizer whose words are `w0`, `w1` and so on, a token each; `w2` ends an answer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="w0", bos_token="w1", eos_token="w2", pad_token="w0"
    )
    tokenizer.save_pretrained(folder)


def _make_llama(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder, VOCABULARY)


def prompt_ids(tokenizer: Any, workload: Workload, texts: Path | None, count: int, vocab_size: int) -> list[list[int]]:
    """The very prompts that the baseline script makes: first tokens of texts, or random ids, `count` of them."""
    import torch

    if texts is None:
        generator = torch.Generator().manual_seed(0)
        drawn: list[list[int]] = torch.randint(
            3, vocab_size, (count, workload.prompt_len), generator=generator
        ).tolist()
        return drawn
    lines = [json.loads(line)["text"] for line in texts.read_text(encoding="utf-8").split("\n") if line]
    rows = tokenizer(lines)["input_ids"]
    prompts = [ids[: workload.prompt_len] for ids in rows if len(ids) >= workload.prompt_len]
    return (prompts * (count // len(prompts) + 1))[:count]


def reward(answer: str) -> float:
    """A score that costs nothing and differs between the answers of a group: a checksum of the text, 0 to 1."""
    return zlib.crc32(answer.encode()) / 2**32


if __name__ == "__main__":
    model_folder(sys.argv[1], Path(sys.argv[2]))
