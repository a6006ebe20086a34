"""Chat models behind an OpenAI-compatible endpoint: OpenAI, vLLM, SGLang, Ollama, `transformers serve`, ..."""

import math
import weakref
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from alignment.calls.call import ChatReply
from alignment.calls.chat import ChatCall
from alignment.calls.logprobs import LARGEST_TOTAL
from alignment.calls.replies import ReplyFault, chat_completion, details_of
from alignment.calls.transport import WITHOUT_LOGPROBS, Transport, client_arguments
from alignment.config.schema.chat_models import OpenAIKeys
from alignment.errors import JudgeError

TOP_LOGPROBS = 20  # the most that OpenAI and vLLM give
USAGE = {"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens", "total_tokens": "total_tokens"}
TYPED_USAGE = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}


class OpenAIChat:
    """`send` makes one attempt; the caller has limits, budget and retries."""

    def __init__(self, entry: OpenAIKeys, client: openai.OpenAI) -> None:
        self.entry = entry
        self.client = client
        self.where = str(client.base_url)
        self.transport = Transport(entry, openai, self.where, client.api_key)
        # OpenAI's newer models refuse `max_tokens`; other servers have no other key.
        official = (urlsplit(self.where).hostname or "").endswith("openai.com")
        self._limit = "max_completion_tokens" if official else "max_tokens"
        self._has_logprobs = False  # the endpoint has returned some
        weakref.finalize(self, client.close).atexit = False  # connections close with the chat

    def request(self, call: ChatCall) -> dict[str, Any]:
        """Return the body of the request."""
        if self.entry.typed_choices:
            return self._typed_choice(call)
        form = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": call.schema}}
        return {
            "model": self.entry.model,
            "messages": call.messages,
            "temperature": call.temperature,
            self._limit: call.max_tokens,
            **({"seed": call.seed} if call.seed is not None else {}),
            **({"logprobs": True, "top_logprobs": TOP_LOGPROBS} if call.logprobs else {}),
            **({"response_format": form} if call.schema else {}),
            **self.entry.extra_body,
        }

    def send(self, request: dict[str, Any]) -> ChatReply:
        """Make one attempt.

        Raises: JudgeError if every other call would fail alike: no access, no such model, no log-probabilities.
        """
        typed = "questions" in request
        # `chat.completions.create` would spend a millisecond on parsing that is repeated here.
        path = "/systemone" if typed else "/chat/completions"
        parsed = self.transport.attempt(
            lambda: self.client.post(path, cast_to=httpx2.Response, body=request).content,
            max_tokens=request.get(self._limit),
            logprobs=bool(request.get("logprobs")),
        )
        if isinstance(parsed, ChatReply):
            return parsed
        return self._choice(parsed, request) if typed else self._completion(parsed, request)

    def _completion(self, parsed: dict[str, Any], request: dict[str, Any]) -> ChatReply:
        try:
            reply, logprobs = chat_completion(parsed)
            wanted = bool(request.get("logprobs"))
            tokens = self._tokens(logprobs) if wanted and reply.text else []
        except ReplyFault as fault:
            return self.transport.unexpected(parsed, fault)
        details = details_of(parsed, reply, USAGE)
        raw = self.transport.clean(reply.text)
        if reply.ended == "refusal":
            return ChatReply("refusal", self.transport.clean(reply.refusal or reply.text), details=details)
        one_token = wanted and request.get(self._limit) == 1  # the token is the whole reply
        if reply.ended == "truncated" and not one_token:
            return ChatReply("truncated", raw, reply.text, details=details)
        if wanted and reply.text and not tokens:
            return ChatReply("api_error", f"no log-probabilities with the reply {raw}", details=details)
        return ChatReply("ok", raw, reply.text, tokens, details)

    def _tokens(self, logprobs: Any) -> list[dict[str, Any]]:
        """Return the tokens with their log-probabilities; [] if only this reply has none.

        Raises: JudgeError if the endpoint has returned none so far; ReplyFault if they are of another type.
        """
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
        if isinstance(tokens, list) and tokens:
            if not all(isinstance(token, dict) for token in tokens):
                raise ReplyFault("its log-probabilities are of another type")
            self._has_logprobs = True
            return tokens
        if tokens or not isinstance(logprobs, dict | list | None):
            raise ReplyFault("its log-probabilities are of another type")
        if self._has_logprobs:
            return []
        raise JudgeError(
            f"{self.where} returned no log-probabilities for model {self.entry.model}, and judge.logprobs is true; "
            f"{WITHOUT_LOGPROBS}"
        )

    def _typed_choice(self, call: ChatCall) -> dict[str, Any]:
        """Return a request of `transformers serve`'s System One endpoint: choose one of several texts."""
        if not call.choices:
            raise JudgeError(
                "judge.endpoint systemone only chooses one of several texts; this question needs a written reply, "
                "endpoint: chat."
            )
        *_, last = call.messages
        question = {"type": "choice", "criteria": dict.fromkeys(call.choices)}
        return {"model": self.entry.model, "state": last["content"], "questions": {"verdict": question},
                **self.entry.extra_body}  # fmt: skip

    def _choice(self, parsed: dict[str, Any], request: dict[str, Any]) -> ChatReply:
        offered = request["questions"]["verdict"]["criteria"]
        try:
            answer = parsed["answers"]["verdict"]
            chosen, listed = answer["choice"], answer["probabilities"]
            probabilities = {text: listed[text] for text in offered}
            if len(listed) != len(offered) or not all(type(p) in (int, float) for p in probabilities.values()):
                raise ValueError
            if not all(0.0 <= p <= 1.0 for p in probabilities.values()) or sum(probabilities.values()) > LARGEST_TOTAL:
                raise ValueError
            if not 0.0 < probabilities[chosen] == max(probabilities.values()):
                raise ValueError
        except (LookupError, TypeError, ValueError, AttributeError):
            return self.transport.unexpected(
                parsed, ReplyFault("it is not one of the choices with valid probabilities")
            )
        top = [{"token": text, "logprob": math.log(p)} for text, p in probabilities.items() if p > 0]
        tokens: list[dict[str, Any]] = [{"token": chosen, "top_logprobs": top}]
        # The probabilities sum to one over the choices; the probability of other replies is unknown.
        details = {**details_of(parsed, None, TYPED_USAGE), "normalised": True}
        return ChatReply("ok", chosen, chosen, tokens, details)


def open_chat(entry: OpenAIKeys, *, connect: bool) -> OpenAIChat:
    """Build the client and, if `connect`, check the connection; without it no server and no key are needed.

    Raises: JudgeError if the key is missing, there is no server, or it refuses the key. A run finds out before it
        samples for hours.
    """
    chat = OpenAIChat(entry, openai.OpenAI(**client_arguments(entry, openai, connect=connect)))
    if connect:
        chat.transport.check_connection(chat.client.models.with_raw_response.list)
    return chat
