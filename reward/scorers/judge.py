"""A scorer that is a chat model: it gives each answer a number from 0 to 10, and no reward model is needed."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from alignment.config.schema import ScorerEntry
from alignment.data.rows import Message, Prompt
from alignment.errors import ScorerError
from alignment.evaluate.judging import Rating
from reward.judges.calls import About, Caller, ChatReply, Step
from reward.judges.endpoint import ChatEndpoint
from reward.judges.prompting import PointwisePrompt
from reward.judges.ratings import expected_rating, find_rating

REPAIR = "Your reply gives no number that can be read. Reply with one whole number from 0 to 10, and nothing else."
SHOWN_CHARACTERS = 200


class JudgeScorer:
    """Asks about each answer once; a reply that cannot be read is asked about once more, then it is an error."""

    def __init__(
        self, name: str, prompt: PointwisePrompt, endpoint: ChatEndpoint, caller: Caller, *, max_concurrency: int
    ) -> None:
        self.name = name
        self.prompt = prompt
        self.endpoint = endpoint
        self.caller = caller
        self.max_concurrency = max_concurrency
        self.identity = {"model": endpoint.entry.model, "url": endpoint.url, "prompt_sha256": prompt.hash}

    @classmethod
    def from_entry(cls, entry: ScorerEntry, caller: Caller | None = None) -> "JudgeScorer":
        """Read the prompt and knock at the endpoint.

        Args:
            caller: makes the calls; None: one that keeps nothing and retries as the judge's entry says.

        Raises: JudgeError where the model, the key or the prompt file is missing, nobody listens, or the key is
            refused.
        """
        judge = entry.judge
        if judge is None or judge.kind != "openai":
            raise ScorerError(f"scorer {entry.label}: needs a judge of kind openai; one of kind rules compares two.")
        prompt = PointwisePrompt.load(judge.prompt)
        caller = caller or Caller(max_retries=judge.max_retries)
        return cls(entry.label, prompt, ChatEndpoint.open(judge), caller, max_concurrency=entry.max_concurrency)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool]) -> list[float]:
        """Ask about every answer, the same question once.

        Raises: ScorerError where a call fails after its retries or gives no number; JudgeError where all would.
        """
        questions = [self.prompt.render(*pair) for pair in zip(prompts, answers, strict=True)]
        asked = [Rating(*pair) for pair in zip(prompts, answers, strict=True)]
        different = dict(zip(questions, asked, strict=True))
        pool = ThreadPoolExecutor(self.max_concurrency)
        try:
            rated = dict(zip(different, pool.map(self._rate, different, different.values()), strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error nobody waits for calls in flight
        return [rated[question] for question in questions]

    def _rate(self, question: str, asked: Rating) -> float:
        messages: list[Message] = [{"role": "user", "content": question}]
        reply = self._ask(messages, asked)
        score = _score(reply)
        if score is not None:
            return score
        messages += [{"role": "assistant", "content": reply.raw or "..."}, {"role": "user", "content": REPAIR}]
        again = self._ask(messages, asked, "repair")
        score = _score(again)
        if score is None:
            said = " then ".join(repr(each.raw[:SHOWN_CHARACTERS]) for each in (reply, again))
            cut = again.status == "truncated"
            remedy = "It was cut off: raise judge.max_tokens" if cut else "Use a model that follows the prompt"
            raise ScorerError(
                f"scorer {self.name}: {self.endpoint.entry.model} gave no number from 0 to 10, asked twice; it said "
                f"{said}. {remedy}, or give another judge.prompt."
            )
        return score

    def _ask(self, messages: list[Message], asked: Rating, step: Step = "verdict") -> ChatReply:
        judge = self.endpoint.entry
        about = About(judge.name or judge.model or "", self.prompt.hash, asked, step=step, max_tokens=judge.max_tokens)
        reply = self.endpoint.ask(messages, about, self.caller)
        if reply.status in ("api_error", "refusal"):
            what = "refuses to rate an answer" if reply.status == "refusal" else "failed"
            said = reply.raw[:SHOWN_CHARACTERS]
            raise ScorerError(f"scorer {self.name}: {self.endpoint.entry.model} at {self.endpoint.url} {what}: {said}")
        return reply


def _score(reply: ChatReply) -> float | None:
    """The expected number by the log-probabilities, else the number itself; None where there is none."""
    rating = find_rating(reply.text)
    if rating is None:
        return None
    expected = expected_rating(reply.text, rating, reply.tokens) if reply.tokens else None
    return rating.value if expected is None else expected
