"""`torch_compile`: the same weights in files of the same names, or a refusal before the run's folder is made."""

import importlib
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from alignment.config import check_file
from alignment.errors import RecipeError
from alignment.train.trial import require_accepted
from tests.doctor.trying import recipe_for, write_inputs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compile")
    write_inputs(folder)
    return folder


def written(inputs: Path, out: Path, stage: str, **keys) -> Path:
    keys = {"save_strategy": "steps", "save_steps": 1, **keys}
    recipe = recipe_for("dpo" if stage == "kto" else stage, inputs, out, keys) | {"stage": stage}
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe))
    return file


def trained(inputs: Path, out: Path, stage: str, **keys) -> tuple[set[str], dict[str, torch.Tensor]]:
    importlib.import_module(f"recipes.{stage}").main(["--config", str(written(inputs, out, stage, **keys))])
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    weights = {name: load_file(out / name) for name in names if name.endswith(".safetensors")}
    return names, {f"{name}:{key}": tensor for name, held in weights.items() for key, tensor in held.items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        ("sft", {"gradient_checkpointing": True}),
        ("sft", {"peft_method": "full"}),
        ("reward", {}),
        ("dpo", {}),
        ("kto", {}),
    ],
)
def test_a_compiled_run_writes_the_same_files_and_weights(inputs, tmp_path, stage, keys):
    names, plain = trained(inputs, tmp_path / "plain", stage, **keys)
    torch._dynamo.reset()
    compiled_names, compiled = trained(inputs, tmp_path / "compiled", stage, torch_compile_backend="eager", **keys)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert compiled_names == names
    assert compiled.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-5, rtol=1e-4, msg=name)


def test_inductor_without_a_compiler_of_cpp_is_refused(inputs, tmp_path, monkeypatch):
    from torch._inductor import config, cpp_builder

    if torch.cuda.is_available():
        pytest.skip("a GPU needs no C++ compiler for its steps")
    recipes = check_file(str(written(inputs, tmp_path / "run", "sft", torch_compile=True)))
    require_accepted(recipes)
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    try:
        with pytest.raises(RecipeError, match=r"torch_compile: the library refuses it: .*C\+\+ compiler"):
            require_accepted(recipes)
    finally:
        cpp_builder.cpp_compiler_search.cache_clear()
