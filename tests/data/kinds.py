"""Kinds of chat templates: popular ones, with a small tokenizer, and those of ../shared/models/kinds."""

from typing import Any

from tests.models import make_tokenizer

IM = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
LOOP = "{%- for m in messages -%}BODY{%- endfor -%}{%- if add_generation_prompt -%}ASK{%- endif -%}"
ASK = "{{ '<|im_start|>assistant\\n' }}"
MORE = ["<think>", "</think>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "[INST]", "[/INST]", "<s>", "</s>"]


def written(body, ask=ASK):
    return LOOP.replace("BODY", body).replace("ASK", ask)


HISTORY = "{%- if m.role == 'assistant' and not loop.last -%}{%- set c = m.content.split('</think>')[-1] -%}"
TEMPLATES = {  # popular kinds beside those of ../shared/models/kinds
    "chatml": written(IM),
    "trims": written(IM.replace("m.content", "(m.content | trim)")),
    "strips history": written(
        HISTORY + "{%- else -%}{%- set c = m.content -%}{%- endif -%}" + IM.replace("m.content", "c")
    ),
    "empty thought": written(
        "{{ '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.role == 'assistant' and loop.last and '</think>' not in m.content -%}"
        "{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}{{ m.content + '<|im_end|>\\n' }}"
    ),
    "counts turns": "{{ 'Turns: ' ~ messages | selectattr('role', 'equalto', 'user') | list | length ~ '\\n' }}"
    + written(IM),
    "mistral": "{{ '<s>' }}{%- for m in messages -%}{%- if m.role == 'user' -%}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{%- elif m.role == 'system' -%}{{ raise_exception('no system') }}"
    "{%- else -%}{{ ' ' + m.content + '</s>' }}{%- endif -%}{%- endfor -%}",
    "phi3": written("{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}", "{{ '<|assistant|>\\n' }}").replace(
        "{%- endif -%}", "{%- else -%}{{ eos_token }}{%- endif -%}"
    ),
    "zephyr": written("{{ '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}", "{{ '<|assistant|>\\n' }}"),
    "system moves": written(
        "{%- if m.role == 'system' -%}{%- continue -%}{%- endif -%}"
        "{%- if m.role == 'user' and messages[0].role == 'system' "
        "and m == (messages | selectattr('role', 'equalto', 'user') | list)[-1] -%}"
        "{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif -%}" + IM
    ),
    "marks": written(
        "{%- if m.role == 'assistant' -%}{{ '<|im_start|>assistant\\n' }}{% generation %}{{ m.content + '<|im_end|>' }}"
        "{% endgeneration %}{{ '\\n' }}{%- else -%}" + IM + "{%- endif -%}"
    ),
    "marks without the end": written(
        "{%- if m.role == 'assistant' -%}{{ '<|im_start|>assistant\\n' }}{% generation %}{{ m.content }}"
        "{% endgeneration %}{{ '<|im_end|>\\n' }}{%- else -%}" + IM + "{%- endif -%}"
    ),
}
SHARED = ("gemma2", "gemma3", "gen", "glm", "llama3", "named", "qwen25", "qwen25base", "qwen3", "r1")
KINDS = [*TEMPLATES, *SHARED]
TEXT = "bloom cohere falcon gpt2 gptneox granite mistral olmo2 opt opt350 phi phi3"
TEMPLATELESS = [f"text {name}" for name in TEXT.split()]  # the others of ../shared/models/kinds


def jinja_of(tokenizer: Any, tools: Any) -> str:
    """The text of the template that transformers takes, with tools or without."""
    return str(tokenizer.get_chat_template(tools=tools)) if tokenizer.chat_template else ""


def tokenizer_of(kind: str, folder: Any) -> Any:
    """The tokenizer of a kind; `folder` is ../shared/models/kinds."""
    if kind not in TEMPLATES:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder / kind.removeprefix("text ")))
    tokenizer = make_tokenizer(vocab_size=400, chat_template=TEMPLATES[kind])
    tokenizer.add_special_tokens({"additional_special_tokens": MORE})
    if kind in ("mistral", "zephyr", "phi3"):
        tokenizer.eos_token = "</s>"
    return tokenizer
