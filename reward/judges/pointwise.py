"""A chat model that rates single answers."""

from dataclasses import replace
from typing import Any

from alignment.calls.call import CallContext, ChatReply
from alignment.calls.caller import Caller
from alignment.calls.chat import Model, build_model
from alignment.config.schema.judges import ChatEntry
from alignment.data.conversations import readable
from alignment.evaluate.judging import Mode, Rating, Verdict
from reward.judges.prompting import PointwisePrompt, joint_hash
from reward.judges.ratings import SCALE, distribution_of_mean, find_rating, mean, rating_probabilities
from reward.judges.rubric import SCALE as RUBRIC_SCALE
from reward.judges.rubric import Criterion, Rubric

MAX_TOKENS, REASONING_MAX_TOKENS = 16, 512
REPAIR = "Your reply gives no number that can be read. Reply with one whole number from {} to {}, and nothing else."
JSON_FORM = "Reply with a JSON object of the form {}; its score is a whole number from {} to {}."
OVERALL = Criterion("overall", "")


class PointwiseJudge:
    """Asks for a number from 1 to 10 for each criterion of a rubric, in a call each, and takes their weighted mean.

    Without a rubric it asks for one number from 0 to 10. With log-probabilities, each number is the expectation under
    them.
    """

    mode: Mode = "pointwise"

    def __init__(self, entry: ChatEntry, prompt: PointwisePrompt, model: Model, rubric: Rubric | None = None) -> None:
        self.entry = entry
        self.prompt = prompt
        self.model = model
        self.criteria = rubric.criteria if rubric else (OVERALL,)
        self.scale = RUBRIC_SCALE if rubric else SCALE
        self.name = entry.label
        self.prompt_hash = joint_hash(prompt.hash, *((rubric.hash,) if rubric else ()))
        self.max_tokens = entry.max_tokens or (REASONING_MAX_TOKENS if entry.reasoning else MAX_TOKENS)

    @classmethod
    def from_entry(cls, entry: ChatEntry, caller: Caller) -> "PointwiseJudge":
        """Read the files and open the backend.

        Raises: JudgeError if a file, the model or the key is missing, there is no server, or it refuses the key.
        """
        rubric = Rubric.load(entry.rubric) if entry.rubric else None
        prompt = PointwisePrompt.load(entry.prompt, reasoning=entry.reasoning, rubric=rubric is not None)
        return cls(entry, prompt, build_model(entry, caller), rubric)

    def ask(self, rating: Rating) -> Verdict:
        """Rate an answer by every criterion; if one fails, the answer has no score.

        Returns: a verdict with one score, and in its details `criteria`, the score of each; with log-probabilities also
            `distributions`, the probabilities of the numbers by criterion, and `distribution`, those of the mean.

        Raises: JudgeError if every other call would fail alike.
        """
        scores: dict[str, float] = {}
        distributions: dict[str, dict[str, float]] = {}
        masses: list[float] = []
        unlikely: list[str] = []  # calls whose numbers have too little mass
        replies: list[str] = []
        details: dict[str, Any] = {}
        for place, criterion in enumerate(self.criteria, 1):
            reply, found = self._number(rating, criterion, len(self.criteria) - place)
            details |= reply.details
            if reply.status != "ok" or found is None:
                status = "parse_error" if reply.status == "ok" else reply.status
                return Verdict(None, status, reply.raw, {**details, "criterion": criterion.name})
            score, probabilities = found
            if probabilities:
                total = sum(probabilities.values())
                distributions[criterion.name] = {str(number): p / total for number, p in probabilities.items()}
                masses.append(total)
                unlikely += reply.details["calls"] if total < self.entry.min_mass else []
            scores[criterion.name] = score
            replies.append(reply.raw)
        details |= {"criteria": scores}
        if distributions:
            details |= {"distributions": distributions, "distribution": self._of_the_mean(scores, distributions)}
        if masses and "normalised" not in details:
            details["mass"] = min(masses)
            if min(masses) < self.entry.min_mass:
                low = f"the numbers together have the probability {min(masses):.3g}, less than min_mass; reply: "
                return Verdict(None, "parse_error", low + "\n".join(replies), {**details, "calls": unlikely})
        weights = {criterion.name: criterion.weight for criterion in self.criteria}
        total = sum(weights[name] * score for name, score in scores.items()) / sum(weights.values())
        return Verdict(None, "ok", "\n".join(replies), details, (total,))

    def _of_the_mean(self, scores: dict[str, float], distributions: dict[str, dict[str, float]]) -> dict[str, float]:
        """Return the distribution of the weighted mean over criteria."""
        weights = sum(criterion.weight for criterion in self.criteria)
        shares = [criterion.weight / weights for criterion in self.criteria]
        certain = {name: {str(score): 1.0} for name, score in scores.items()}
        return distribution_of_mean(shares, [(certain | distributions)[each.name] for each in self.criteria])

    def _number(
        self, rating: Rating, criterion: Criterion, calls_to_come: int
    ) -> tuple[ChatReply, tuple[float, dict[int, float] | None] | None]:
        lowest, highest = self.scale[0], self.scale[-1]
        question = self.prompt.render(
            rating.prompt, rating.answer, criterion.text, secret=self.model.caller.fence_secret
        )
        repair = REPAIR.format(lowest, highest)
        in_json = self.entry.json_replies
        if in_json:
            form = '{"reasoning": "...", "score": 7}' if self.entry.reasoning else '{"score": 7}'
            form = JSON_FORM.format(form, lowest, highest)
            question, repair = f"{question}\n\n{form}", f"Your reply gives no number that can be read. {form}"
        shown = (readable(rating.prompt), rating.answer, question)
        reply, found = self.model.ask_twice(
            CallContext(self.name, self.prompt_hash, rating, calls_to_come=calls_to_come),
            question,
            read=lambda text: find_rating(text, self.scale, shown),
            repair=repair,
            max_tokens=self.max_tokens,
            choices=() if self.entry.reasoning or in_json else tuple(map(str, self.scale)),
            schema=_schema(self.scale, self.entry.reasoning) if in_json else None,
        )
        if found is None:
            return reply, None
        probabilities = None
        if reply.tokens:
            probabilities = rating_probabilities(reply.text, found, reply.tokens, self.scale)
        if probabilities is None and self.entry.logprobs and found.whole:
            return replace(reply, raw=f"the log-probabilities do not match the reply {reply.raw}"), None
        return reply, (mean(probabilities) if probabilities else found.value, probabilities)


build = PointwiseJudge.from_entry


def _schema(scale: range, reasoning: bool) -> dict[str, Any]:
    score = {"type": "integer", "enum": list(scale)}
    properties: dict[str, Any] = {"reasoning": {"type": "string"}, "score": score} if reasoning else {"score": score}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
