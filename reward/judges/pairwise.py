"""A chat model that compares two answers."""

from typing import Any

from alignment.calls.call import CallContext, ChatReply
from alignment.calls.caller import Caller
from alignment.calls.chat import Model, build_model
from alignment.config.schema.judges import ChatEntry
from alignment.data.conversations import readable
from alignment.evaluate.judging import Comparison, Mode, Verdict
from reward.judges.constitution import Constitution, in_words
from reward.judges.prompting import PairwisePrompt, joint_hash
from reward.judges.verdicts import ParsedVerdict, find_verdict, soft_probability, verdict_token

MAX_TOKENS, REASONING_MAX_TOKENS = 16, 512


class PairwiseJudge:
    """Asks for the letter of the better answer, and reads the letter's probability if the model returns it."""

    mode: Mode = "pairwise"

    def __init__(
        self, entry: ChatEntry, prompt: PairwisePrompt, model: Model, constitution: Constitution | None = None
    ) -> None:
        self.entry = entry
        self.prompt = prompt
        self.model = model
        self.constitution = constitution
        self.name = entry.label
        principles = (constitution.hash, entry.num_principles) if constitution else ()
        self.prompt_hash = joint_hash(prompt.hash, *principles)
        self.max_tokens = entry.max_tokens or (REASONING_MAX_TOKENS if entry.reasoning else MAX_TOKENS)

    @classmethod
    def from_entry(cls, entry: ChatEntry, caller: Caller) -> "PairwiseJudge":
        """Read the files and open the backend.

        Raises: JudgeError if a file, the model or the key is missing, there is no server, or it refuses the key. A run
            finds out before it samples for hours.
        """
        constitution: Constitution | None = None
        if entry.constitution:
            constitution = Constitution.load(entry.constitution, count=entry.num_principles)
        prompt = PairwisePrompt.load(entry.prompt, reasoning=entry.reasoning, principled=constitution is not None)
        return cls(entry, prompt, build_model(entry, caller), constitution)

    def ask(self, comparison: Comparison) -> Verdict:
        """Compare the answers in the order shown.

        Raises: JudgeError if every other call would fail alike: no server, no access, no such model, no
            log-probabilities.
        """
        labels, principles, details = self.prompt.labels, "", {}
        if self.constitution:
            drawn = self.constitution.draw(comparison, count=self.entry.num_principles, seed=self.entry.seed)
            principles, details = in_words(drawn), {"principles": [each.name for each in drawn]}
        in_json = self.entry.json_replies
        question = self.prompt.render(comparison, principles, secret=self.model.caller.fence_secret)
        one_of = ", ".join(labels[:-1]) + " or " + labels[-1]
        repair = f"Your reply gives no verdict that can be read. Reply with one of {one_of}, and nothing else."
        if in_json:
            form = '{"reasoning": "...", "verdict": "A"}' if self.entry.reasoning else '{"verdict": "A"}'
            question += f"\n\nReply with a JSON object of the form {form}; its verdict is one of {one_of}."
            repair = f"Your reply gives no verdict that can be read. Reply with a JSON object of the form {form}."
        shown = (readable(comparison.prompt), comparison.first, comparison.second, question)
        reply, found = self.model.ask_twice(
            CallContext(self.name, self.prompt_hash, comparison),
            question,
            read=lambda text: find_verdict(text, labels, shown),
            repair=repair,
            max_tokens=self.max_tokens,
            choices=() if self.entry.reasoning or in_json else labels,
            schema=_schema(labels, self.entry.reasoning) if in_json else None,
        )
        return self._verdict(reply, found, {**reply.details, **details})

    def _verdict(self, reply: ChatReply, found: ParsedVerdict | None, details: dict[str, Any]) -> Verdict:
        if reply.status != "ok":
            return Verdict(None, reply.status, reply.raw, details)
        if found is None:
            return Verdict(None, "parse_error", reply.raw, details)
        if found.label == "abstain":
            return Verdict(None, "abstain", reply.raw, details)
        if found.label == "tie":
            return Verdict(0.5, "tie", reply.raw, details)
        probability = 1.0 if found.label == "A" else 0.0
        if self.entry.logprobs:
            soft = _soft(reply, found)
            if soft is None:
                why = f"the log-probabilities do not match the reply {reply.raw}"
                return Verdict(None, "parse_error", why, details)
            probability, mass, token = soft
            details["verdict_token"] = token
            if "normalised" not in details:
                details["mass"] = mass
                if mass < self.entry.min_mass:
                    why = f"A and B together have the probability {mass:.3g}, less than min_mass; reply: {reply.raw}"
                    return Verdict(None, "parse_error", why, details)
        if self.entry.clamp:
            details["unclamped"] = probability
            probability = clamped(probability, *self.entry.clamp)
        return Verdict(probability, "tie" if probability == 0.5 else "ok", reply.raw, details)


build = PairwiseJudge.from_entry


def clamped(probability: float, low: float, high: float) -> float:
    """Limit a probability to a range, as section 4.1 of https://arxiv.org/abs/2212.08073 does to 40-60 %.

    After its own reasoning a judge is nearly always certain, more than its accuracy justifies.
    """
    return min(high, max(low, probability))


def _soft(reply: ChatReply, found: ParsedVerdict) -> tuple[float, float, dict[str, Any]] | None:
    token = verdict_token(reply.text, found.position, reply.tokens)
    soft = soft_probability(token, found.label) if token is not None else None
    return (*soft, token) if token is not None and soft is not None else None


def _schema(labels: tuple[str, ...], reasoning: bool) -> dict[str, Any]:
    verdict = {"type": "string", "enum": list(labels)}
    properties = {"reasoning": {"type": "string"}, "verdict": verdict} if reasoning else {"verdict": verdict}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
