"""A policy as lm-eval's language model: the model and template that answered the prompts, loaded once."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from alignment.data.template import Template
from alignment.errors import DataError, ModelError, first_line
from alignment.evaluate.tasks.answered import Answered
from alignment.evaluate.tasks.loading import DEFAULT_LENGTH
from alignment.evaluate.tasks.running import too_long
from alignment.meter import ProgressBar
from alignment.rollout.context import context_of
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine

Pair = tuple[Any, list[int], list[int]]  # texts, ids of the context, ids of the continuation


class PolicyLM(TemplateLM):
    """Answers the requests of lm-eval as its `hf` model does, batch by batch.

    Differences: an answer also ends at the stop tokens of the policy's template; text of the chat template gets no
    special tokens besides those that the template writes; `cut` counts prompts that lose their first tokens.

    Args:
        model: a causal LM. what: the title of the progress. chat: prompts are written with the chat template.
        answered: results of earlier requests.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        template: Template,
        *,
        what: str,
        batch_size: int,
        chat: bool,
        seed: int,
        answered: Answered,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.what = what
        self.batch_size = batch_size
        self.chat = chat
        self.seed = seed
        self.answered = answered
        self.cut = 0
        self.requests = 0

    @property
    def max_length(self) -> int:
        """The context, in tokens; a billion if it has no limit."""
        return context_of(self.model) or 10**9

    @property
    def eot_token_id(self) -> int:
        """The token that stands for the start of a text if there is no `<s>`."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What precedes a text without a prompt."""
        bos = self.tokenizer.bos_token_id
        return int(bos) if bos is not None else self.eot_token_id

    @property
    def tokenizer_name(self) -> str:
        """A name for lm-eval's caches, which are not used."""
        return self.template.hash

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return token ids; the tokenizer adds its special tokens unless the text begins with one."""
        adds = add_special_tokens
        if adds is None:
            bos = self.tokenizer.decode([self.prefix_token_id])
            adds = not self.chat and not (bos and string.startswith(bos))
        return list(self.tokenizer(string, add_special_tokens=adds, verbose=False)["input_ids"])

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Write turns with the template of the policy.

        Raises: ModelError if the template refuses them.
        """
        try:
            text = self.tokenizer.apply_chat_template(
                chat_history,
                chat_template=self.template.chat_template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        except Exception as error:
            roles = ", ".join(turn["role"] for turn in chat_history)
            raise ModelError(
                f"the chat template of the policy cannot write a task's turns ({roles}): {first_line(error)}. Take "
                "apply_chat_template, system_instruction or the examples out."
            ) from error
        return str(text)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the template."""
        return self.template.chat_template

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return the nats of each continuation after its context, and whether greedy decoding gives it."""
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(self, requests: Sequence[Pair], **_: Any) -> list[tuple[float, bool]]:
        inputs = []
        for _texts, context, continuation in requests:
            ids = context + continuation
            if len(continuation) > self.max_length:
                raise DataError(
                    f"a task's answer has {len(continuation)} tokens, and the context of the policy {self.max_length}."
                )
            self._count(len(ids) - 1)
            inputs.append(tuple(ids[-(self.max_length + 1) :][:-1]))
        # Continuations that differ in their last token alone, as A to D, are read in one pass.
        places: dict[tuple[int, ...], list[int]] = {}
        for place, read in enumerate(inputs):
            places.setdefault(read, []).append(place)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        different = sorted(places, key=len, reverse=True)
        with ProgressBar(self.what, "requests", len(requests)) as progress:
            for start in range(0, len(different), self.batch_size):
                batch = different[start : start + self.batch_size]
                rows = [(row, place) for row, read in enumerate(batch) for place in places[read]]
                asked = self.answered.keys("loglikelihood", [requests[place][1:] for _, place in rows])
                conts = [requests[place][2] for _, place in rows]
                compute = partial(self._likelihoods, batch, [row for row, _ in rows], conts)
                for (_row, place), result in zip(rows, self.answered.batch(asked, compute), strict=True):
                    found[place] = (float(result[0]), bool(result[1]))
                progress.advance(len(rows))
        return found

    @torch.inference_mode()
    def _likelihoods(
        self, batch: Sequence[tuple[int, ...]], rows: Sequence[int], conts: Sequence[list[int]]
    ) -> list[list[Any]]:
        """Return [nats, whether greedy decoding gives it] of each continuation.

        Args:
            batch: token ids, each without the last token of its continuations. rows: places in it, of `conts`.
        """
        device = next(self.model.parameters()).device
        longest = max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device=device)
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        results = []
        for row, cont in zip(rows, conts, strict=True):
            end = len(batch[row])
            logps = torch.log_softmax(logits[row, end - len(cont) : end].float(), dim=-1)
            tokens = torch.tensor(cont, device=device)
            nats = logps.gather(1, tokens[:, None]).sum()
            results.append([float(nats), bool((logps.argmax(dim=-1) == tokens).all())])
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the nats of whole texts, in windows of the context."""
        windows: list[Pair] = []
        owners = []
        for owner, request in enumerate(requests):
            rolled = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, rolled):
                windows.append((None, context, continuation))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (nats, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            totals[owner] += nats
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Sample answers, each cut before the first of its `until` texts."""
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        found = [""] * len(requests)
        with ProgressBar(self.what, "answers", len(requests)) as progress:
            for sampling, members in groups.items():
                keys: Any = normalize_gen_kwargs(json.loads(sampling), DEFAULT_LENGTH)
                prompts = {place: self._prompt(requests[place].args[0], keys["max_gen_toks"]) for place in members}
                order = sorted(members, key=lambda place: -len(prompts[place]))
                for start in range(0, len(order), self.batch_size):
                    batch = order[start : start + self.batch_size]
                    ids = [prompts[place] for place in batch]
                    asked = self.answered.keys("generate", [[one, keys, self.seed] for one in ids])
                    texts = self.answered.batch(asked, partial(self._generate, ids, keys, start))
                    for place, answer in zip(batch, texts, strict=True):
                        found[place] = str(answer)
                    progress.advance(len(batch))
        return found

    def _prompt(self, text: str, answer: int) -> list[int]:
        """Return the last tokens of a prompt that leave room for an answer of so many tokens."""
        room = self.max_length - answer
        if room <= 0:
            raise DataError(too_long(answer, self.max_length))
        ids = self.tok_encode(text)
        self._count(len(ids), room)
        return ids[-room:]

    def _generate(self, prompts: list[list[int]], given: dict[str, Any], first_row: int) -> list[str]:
        stops = self.template.stop_token_ids
        sampling = Sampling(
            max_new_tokens=given["max_gen_toks"],
            temperature=float(given["temperature"]) if given["do_sample"] else 0.0,
            top_p=float(given.get("top_p") or 1.0),
            top_k=int(given.get("top_k") or 0),
            stop_token_ids=stops,
            seed=self.seed,
            first_row=first_row,
        )
        pad = self.tokenizer.pad_token_id
        engine = TransformersEngine(self.model, pad if pad is not None else stops[0], self.batch_size)
        texts = [
            self.tokenizer.decode(answer.words, skip_special_tokens=True)
            for answer in engine.generate(prompts, sampling)
        ]
        return [postprocess_generated_text(text, stop=given["until"], think_end_token=None) for text in texts]

    def _count(self, tokens: int, room: int | None = None) -> None:
        self.requests += 1
        self.cut += tokens > (self.max_length if room is None else room)
