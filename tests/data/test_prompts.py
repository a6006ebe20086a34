import json

from alignment.config.schema import LabelRecipe
from alignment.data.prompts import prompts_to_answer
from alignment.data.splits import split_by_prompt


class Words:
    sides = None

    def prompt_ids(self, prompt):
        return prompt.split()


def test_held_out_prompts_are_never_answered(tmp_path):
    texts = [f"question number {i}" for i in range(40)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    recipe = LabelRecipe.model_validate(
        {
            "stage": "label", "output_dir": "runs/x", "model_name_or_path": "m", "test_split_size": 0.25,
            "datasets": [{"path": str(tmp_path / "prompts.jsonl")}],
            "judge": {"kind": "rules", "function": "m:f"},
        }
    )  # fmt: skip
    answered = prompts_to_answer(recipe, Words(), None).rows
    train, held_out = split_by_prompt(texts, 0.25, recipe.seed)
    assert sorted(answered) == sorted(train)
    assert held_out
