"""A causal language model in this process as a chat model, with the probabilities of its whole vocabulary."""

import functools
import json
import math
import queue
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alignment.calls.backends.openai import TOP_LOGPROBS
from alignment.calls.call import ChatReply
from alignment.calls.chat import ChatCall
from alignment.calls.replies import well_formed
from alignment.config.schema import ModelKeys
from alignment.config.schema.chat_models import LocalKeys
from alignment.data.template import Template
from alignment.errors import DataError, JudgeError
from alignment.policy.base import load_causal_lm
from alignment.policy.inference import best_device, context_limit
from alignment.policy.model_source import resolve_model
from alignment.policy.tokenizer import load_tokenizer
from alignment.policy.weights import weights_hash
from alignment.rollout.engine import Sampling
from alignment.rollout.steps import last_logits, next_logits
from alignment.rollout.transformers_engine import TransformersEngine

Request = dict[str, Any]


class LocalChat:
    """Answers the requests of several threads in batches, in one thread that runs the model.

    If the reply is one of several choices that are single tokens, nothing is generated: the probability of each choice
    after the prompt, summed over its spellings (" A", "A"), is read, and the most probable choice is the reply.
    """

    def __init__(self, entry: LocalKeys) -> None:
        self.entry = entry
        self.where = entry.model_name_or_path
        self.keys = ModelKeys(
            model_name_or_path=self.where,
            dtype=entry.dtype,
            load_in_4bit=entry.load_in_4bit,
            load_in_8bit=entry.load_in_8bit,
            chat_template=entry.chat_template,
            trust_remote_code=entry.trust_remote_code,
        )
        self.weights = weights_hash(resolve_model(self.where).newest)
        tokenizer = load_tokenizer(self.keys)
        self.template = Template(tokenizer, entry.chat_template)
        if self.template.chat_template is None:
            raise JudgeError(
                f"{entry.FAMILY}.model_name_or_path {self.where}: its tokenizer has no chat template; give "
                f"{entry.FAMILY}.chat_template, Jinja text or a file."
            )
        self._letters = functools.cache(self._spellings)
        self._queue: queue.SimpleQueue[tuple[Request, Future[ChatReply]]] = queue.SimpleQueue()
        self._model: Any = None

    def request(self, call: ChatCall) -> Request:
        """Return everything that determines the reply; the weights are given by their hash."""
        short = bool(call.choices) and call.temperature == 0 and all(map(self._letters(call.choices).get, call.choices))
        return {
            "weights": self.weights,
            "messages": call.messages,
            "max_tokens": call.max_tokens,
            "temperature": call.temperature,
            "seed": call.seed,
            "logprobs": call.logprobs,
            "choices": list(call.choices) if short else [],
            **({"as_user": True} if call.as_user else {}),
        }

    def send(self, request: Request) -> ChatReply:
        """Wait for the reply."""
        future: Future[ChatReply] = Future()
        self._queue.put((request, future))
        return future.result()

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < self.entry.per_device_eval_batch_size:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            groups: dict[str, list[tuple[Request, Future[ChatReply]]]] = {}
            for place, (request, future) in enumerate(batch):
                alike = json.dumps(
                    [
                        request["choices"],
                        request.get("as_user"),
                        request["max_tokens"],
                        request["temperature"] and place,
                    ]
                )
                groups.setdefault(alike, []).append((request, future))  # samples are not batched: each has its own seed
            for group in groups.values():
                self._answer(group)

    @torch.inference_mode()
    def _answer(self, group: list[tuple[Request, "Future[ChatReply]"]]) -> None:
        """Answer requests of one kind; an invalid request fails alone, an error of the model fails all."""
        read: list[tuple[Request, Future[ChatReply], list[int]]] = []
        most = context_limit(self._model)
        for request, future in group:
            try:
                ids = self._prompt_ids(request)
            except DataError as error:
                future.set_result(ChatReply("api_error", str(error)))
                continue
            room = 1 if request["choices"] else request["max_tokens"]
            if most is not None and len(ids) + room > most:
                message = (
                    f"{len(ids)} tokens of the question and {room} of the reply exceed the model's context of {most}"
                )
                future.set_result(ChatReply("truncated", message))
            else:
                read.append((request, future, ids))
        if not read:
            return
        try:
            prompts = [ids for _, _, ids in read]
            request = read[0][0]
            replies = self._choose(prompts, request) if request["choices"] else self._write(prompts, read)
            for (_, future, _), reply in zip(read, replies, strict=True):
                future.set_result(reply)
        except BaseException as error:  # the waiting threads raise it
            message = f"{self.entry.FAMILY}.model_name_or_path {self.where}: {type(error).__name__}: {error}"
            for _, future, _ in read:
                if not future.done():
                    future.set_exception(
                        JudgeError(
                            f"{message}; lower {self.entry.FAMILY}.per_device_eval_batch_size if memory is "
                            "insufficient."
                        )
                    )

    def _prompt_ids(self, request: Request) -> list[int]:
        """Return the ids that the reply is generated from."""
        messages = request["messages"]
        return self.template.user_turn(messages)[0] if request.get("as_user") else self.template.prompt_ids(messages)

    @functools.cached_property
    def _closing(self) -> str:
        """The text without special tokens by which the chat template ends the user's message; "" if a token ends it."""
        tokenizer, after = self.template.tokenizer, self.template.user_turn([])[1]
        ids = tokenizer(after, add_special_tokens=False)["input_ids"]
        return "" if set(ids) & {*self.template.stop_token_ids, *tokenizer.all_special_ids} else after.strip()

    @functools.cached_property
    def _user_stops(self) -> list[int]:
        """The tokens that end a message of the user: those of an answer, and every special token."""
        return sorted({*self.template.stop_token_ids, *self.template.tokenizer.all_special_ids})

    def _choose(self, prompts: list[list[int]], request: Request) -> list[ChatReply]:
        """Return the most probable choice after each prompt, with the probabilities of all."""
        letters = self._letters(tuple(request["choices"]))
        last = next_logits(self._model, prompts, self.template.tokenizer.pad_token_id or 0).float().log_softmax(-1)
        summed = torch.stack([last[:, spellings].logsumexp(-1) for spellings in letters.values()], dim=-1).tolist()
        replies = []
        for row, prompt in zip(summed, prompts, strict=True):
            logps = dict(zip(letters, row, strict=True))
            details = self._details(len(prompt), 0)
            if not all(map(math.isfinite, logps.values())):
                message = f"the model's probabilities of {', '.join(logps)} are not finite"
                replies.append(ChatReply("api_error", message, details=details))
                continue
            best = max(logps, key=lambda text: logps[text])
            top = [{"token": text, "logprob": min(0.0, logp)} for text, logp in logps.items()]
            tokens = [{"token": best, "logprob": min(0.0, logps[best]), "top_logprobs": top}]
            replies.append(ChatReply("ok", best, best, tokens, details))
        return replies

    def _write(self, prompts: list[list[int]], read: list[Any]) -> list[ChatReply]:
        request = read[0][0]
        stops = self._user_stops if request.get("as_user") else self.template.stop_token_ids
        sampling = Sampling(
            request["max_tokens"], request["temperature"], stop_token_ids=stops, seed=request["seed"] or 0
        )
        pad = self.template.tokenizer.pad_token_id or 0
        engine = TransformersEngine(self._model, pad, self.entry.per_device_eval_batch_size)
        replies = []
        for (own, _, _), prompt, completion in zip(read, prompts, engine.generate(prompts, sampling), strict=True):
            ids = completion.words
            text = well_formed(self.template.answer_text(prompt, ids))
            if own.get("as_user") and self._closing and self._closing in text:
                text = text.partition(self._closing)[0]
                completion = replace(completion, stopped=True)
            tokens = self._tokens(prompt, ids) if own["logprobs"] else []
            details = self._details(len(prompt), len(completion.ids))
            replies.append(ChatReply("ok" if completion.stopped else "truncated", text, text, tokens, details))
        return replies

    def _tokens(self, prompt: list[int], ids: list[int]) -> list[dict[str, Any]]:
        """Return each generated token with the most probable alternatives at its position."""
        if not ids:
            return []
        whole = torch.tensor([prompt + ids], device=self._model.device)
        logits = self._model(input_ids=whole, use_cache=False, **last_logits(self._model, len(ids) + 1)).logits
        logps = logits[0, -len(ids) - 1 : -1].float().log_softmax(-1)
        top: tuple[Tensor, Tensor] = logps.topk(min(TOP_LOGPROBS, logps.shape[-1]))
        decode = self.template.tokenizer.decode
        tokens, before = [], ""
        for place, token in enumerate(ids):
            text = self.template.answer_text(prompt, ids[: place + 1])
            if text.endswith("\N{REPLACEMENT CHARACTER}") and place + 1 < len(
                ids
            ):  # a later token completes the character
                text = before
            others = [
                {"token": decode([other]), "logprob": logp}
                for logp, other in zip(top[0][place].tolist(), top[1][place].tolist(), strict=True)
                if other != token
            ]
            written = {"token": text[len(before) :], "logprob": logps[place, token].item()}
            tokens.append({**written, "top_logprobs": [written, *others]})
            before = text
        return tokens

    def _spellings(self, choices: tuple[str, ...]) -> dict[str, list[int]]:
        """Return the ids of the tokens that spell each choice, with or without white space around it."""
        tokenizer = self.template.tokenizer
        found: dict[str, list[int]] = {choice: [] for choice in choices}
        for token in range(len(tokenizer)):
            text = tokenizer.decode([token]).strip()
            if text in found and token not in self.template.stop_token_ids:
                found[text].append(token)
        return found

    def _details(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return {"model": self.where, "usage": usage}


def open_chat(entry: LocalKeys, *, connect: bool) -> LocalChat:
    """Load the tokenizer and, if `connect`, the model.

    Raises: ModelError if there is none; JudgeError if its tokenizer has no chat template.
    """
    chat = LocalChat(entry)
    if connect:
        model = load_causal_lm(chat.keys, trainable=False)
        chat._model = (model if chat.keys.bits else model.to(best_device())).eval()
        threading.Thread(target=chat._work, name="local-model", daemon=True).start()
    return chat
