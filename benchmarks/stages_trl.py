"""Train TRL's plain trainer of a stage on the data of `stages_vs_trl`; the last line printed is one JSON object.

Everything is TRL's. Started by `stages_vs_trl.py`, once per repetition.
"""

import tempfile

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from benchmarks.step_clock import StepClock, stage_arguments

TRAINERS = {
    "sft": (SFTTrainer, SFTConfig),
    "packed": (SFTTrainer, SFTConfig),
    "reward": (RewardTrainer, RewardConfig),
    "rankings": (RewardTrainer, RewardConfig),
    "dpo": (DPOTrainer, DPOConfig),
    "kto": (KTOTrainer, KTOConfig),
}


def main() -> None:
    """Train, save and print."""
    args = stage_arguments(__doc__)
    trainer_class, config_class = TRAINERS[args.stage]
    scores = trainer_class is RewardTrainer
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    torch.manual_seed(0)
    if scores:
        model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=1)
        model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model = AutoModelForCausalLM.from_pretrained(args.model)
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder, clock.running():
        config = config_class(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=args.batch,
            learning_rate=1e-4,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            **({"packing": True, "max_length": 256} if args.stage == "packed" else {}),
        )
        task = "SEQ_CLS" if scores else "CAUSAL_LM"
        trainer = trainer_class(
            model=model,
            args=config,
            train_dataset=load_dataset("json", data_files=args.data, split="train", cache_dir=f"{folder}/cache"),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type=task),
        )
        trainer.train()
        trainer.save_model()
    clock.print_figures("trl", args.work)


if __name__ == "__main__":
    main()
