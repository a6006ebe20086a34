"""A judge behind any OpenAI-compatible chat endpoint."""

from typing import Any

from alignment.config.schema import JudgeEntry
from alignment.evaluate.judging import Asks, Comparison, Verdict
from reward.judges.calls import About, Caller
from reward.judges.endpoint import ChatEndpoint
from reward.judges.prompting import PairwisePrompt
from reward.judges.verdicts import find_verdict, is_refusal, soft_probability, verdict_token


class OpenAIJudge:
    """Asks a chat model for one letter."""

    asks: Asks = "pairwise"

    def __init__(self, entry: JudgeEntry, prompt: PairwisePrompt, endpoint: ChatEndpoint, caller: Caller) -> None:
        self.entry = entry
        self.prompt = prompt
        self.endpoint = endpoint
        self.caller = caller
        self.name = entry.name or entry.model or ""
        self.prompt_hash = prompt.hash

    @classmethod
    def from_entry(cls, entry: JudgeEntry, caller: Caller) -> "OpenAIJudge":
        """Read the prompt and knock at the endpoint.

        Raises: JudgeError where the model, the key or the prompt file is missing, nobody listens, or the key is
            refused: better now than after hours of sampling.
        """
        return cls(
            entry, PairwisePrompt.load(entry.prompt), ChatEndpoint.open(entry, knock=not caller.asks_nobody), caller
        )

    def ask(self, comparison: Comparison) -> Verdict:
        """Ask one question.

        Raises: JudgeError where every other call would fail alike: no server, no access, no such model, no
            log-probabilities.
        """
        about = About(self.name, self.prompt_hash, comparison, max_tokens=self.entry.max_tokens)
        reply = self.endpoint.ask([{"role": "user", "content": self.prompt.render(comparison)}], about, self.caller)
        raw, details = reply.raw, reply.details
        if reply.status != "ok":
            return Verdict(None, reply.status, raw, details)
        found = find_verdict(reply.text, self.prompt.labels)
        if found is None:
            return Verdict(None, "refusal" if is_refusal(reply.text) else "parse_error", raw, details)
        if found.label == "abstain":
            return Verdict(None, "abstain", raw, details)
        if found.label == "tie":
            return Verdict(0.5, "tie", raw, details)
        if not self.entry.logprobs:
            return Verdict(1.0 if found.label == "A" else 0.0, "ok", raw, details)
        return self._soft(reply.text, found.position, reply.tokens, raw, details)

    def _soft(
        self, reply: str, position: int, tokens: list[dict[str, Any]], raw: str, details: dict[str, Any]
    ) -> Verdict:
        if not tokens:
            return Verdict(None, "api_error", f"no log-probabilities with the reply {raw}", details)
        token = verdict_token(reply, position, tokens)
        try:
            soft = soft_probability(token) if token is not None else None
        except (AttributeError, TypeError, OverflowError):
            soft = None
        if token is None or soft is None:
            return Verdict(None, "parse_error", f"the log-probabilities do not fit the reply {raw}", details)
        probability, mass = soft
        details |= {"mass": mass, "verdict_token": token}
        return Verdict(probability, "tie" if probability == 0.5 else "ok", raw, details)
