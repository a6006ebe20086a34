"""What judges are asked, without asking them."""

import json
from collections.abc import Sequence
from typing import Any

from alignment.calls.call import CallContext, ChatReply
from alignment.calls.caller import Caller
from alignment.calls.store_rows import Sampled
from alignment.config.schema.judges import AnyJudge, ChatEntry
from alignment.data.rows import Prompt
from alignment.evaluate.judging import Question, Rating
from reward.feedback.strategies import strategy_of
from reward.judges import build_judge
from reward.judges.pointwise import PointwiseJudge


class RequestRecorder(Caller):
    """Records the first request and makes no call."""

    makes_no_calls = True

    def __init__(self) -> None:
        super().__init__()
        self.request: dict[str, Any] | None = None

    def call(self, context: CallContext, request: dict[str, Any], send: Any) -> ChatReply:
        """Record the request."""
        self.request = self.request or request
        return ChatReply("api_error", "a preview makes no calls")

    def text(self) -> str:
        """Return the text of the request."""
        messages = (self.request or {}).get("messages")
        if not messages:
            return json.dumps(self.request, ensure_ascii=False, indent=2) if self.request else ""
        if len(messages) == 1:
            return str(messages[0]["content"])
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


class JudgePreview:
    """The judges of one entry; shows what they would read."""

    def __init__(self, entry: AnyJudge, *, seed: int, pointwise: bool = False) -> None:
        """Open the judges without a connection to their servers.

        Args:
            pointwise: the judge rates answers, as a scorer of PPO.

        Raises: JudgeError if a file is missing.
        """
        self.entry = entry
        self.members = [JudgePreview(member, seed=seed) for member in entry.each() if member is not entry]
        self._caller = RequestRecorder()
        self._judge: Any = None
        self._strategy = strategy_of("pointwise" if pointwise else entry.mode, samples=1, seed=seed)
        if isinstance(entry, ChatEntry):
            build = PointwiseJudge.from_entry if pointwise else build_judge
            self._judge = build(entry, self._caller)

    def question(self, prompt: Prompt, answers: Sequence[str]) -> str:
        """Return the first question about a prompt's answers."""
        if self.members:
            parts = [f"{member.entry.label}:\n{member.question(prompt, answers)}" for member in self.members]
            return "\n\n".join(parts)
        if self._judge is None:
            return self.entry.PREVIEW.format(self.entry.label)
        sample = Sampled(0, prompt, list(answers), [True] * len(answers))
        pairs = [(0, 1)] if len(answers) > 1 else []
        questions: list[Question] = [*self._strategy.questions(sample, pairs)] or [Rating(prompt, answers[0])]
        self._caller.request = None
        self._judge.ask(questions[0])
        return self._caller.text()
