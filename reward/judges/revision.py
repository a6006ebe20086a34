"""A chat model that criticises and revises answers by principles (Constitutional AI, arXiv 2212.08073)."""

from typing import Any

from alignment.calls.call import CallContext, ChatReply, Step
from alignment.calls.caller import Caller
from alignment.calls.chat import Model, build_model
from alignment.calls.replies import is_refusal
from alignment.config.schema import RevisionEntry
from alignment.config.schema.judges import ChatEntry
from alignment.data.conversations import readable
from alignment.errors import JudgeError
from alignment.evaluate.judging import Mode, Rating, Verdict
from reward.judges.constitution import Constitution, in_words
from reward.judges.prompting import Fence, PromptFile, joint_hash


class Reviser:
    """Requests a critique of an answer and a revision by it, `rounds` times.

    Each round draws its own principles and starts from the last revision.
    """

    mode: Mode = "pointwise"  # one answer a question

    def __init__(
        self,
        judge: ChatEntry,
        entry: RevisionEntry,
        prompts: tuple[PromptFile, PromptFile],
        constitution: Constitution,
        model: Model,
    ) -> None:
        self.judge = judge
        self.entry = entry
        self.critique, self.revision = prompts
        self.constitution = constitution
        self.model = model
        self.name = judge.label
        self.prompt_hash = joint_hash(
            self.critique.hash, self.revision.hash, constitution.hash, judge.num_principles, entry.rounds
        )

    @classmethod
    def from_entry(cls, judge: ChatEntry, entry: RevisionEntry, caller: Caller) -> "Reviser":
        """Read the prompts and principles and open the judge's backend.

        Raises: JudgeError if a file, the model or the key is missing, there is no server, or it refuses the key.
        """
        if not judge.constitution:
            raise JudgeError("judge.constitution is not set; answers are revised by its principles.")
        fields = ["prompt", "answer", "principles"]
        what = "the request, the answer and the principles"
        critique = PromptFile.read(entry.critique_prompt, "critique.txt", fields, what)
        what = "the request, the answer, the principles and the critique"
        revision = PromptFile.read(entry.revision_prompt, "revision.txt", [*fields, "critique"], what)
        # Revisions are text, so log-probabilities are not requested.
        model = build_model(judge.model_copy(update={"logprobs": False}), caller)
        constitution = Constitution.load(judge.constitution, count=judge.num_principles)
        return cls(judge, entry, (critique, revision), constitution, model)

    def ask(self, rating: Rating) -> Verdict:
        """Revise one answer.

        Returns: a verdict whose `raw` is the revision, with `principles` and `critiques` of each round in its details;
            status "tie" if the revision equals the answer.

        Raises: JudgeError if every other call would fail alike; BudgetError.
        """
        answer, prompt = rating.answer, readable(rating.prompt)
        names: list[list[str]] = []
        critiques: list[str] = []
        for place in range(self.entry.rounds):
            drawn = self.constitution.draw(
                Rating(rating.prompt, answer, place), count=self.judge.num_principles, seed=self.judge.seed
            )
            to_come = 2 * (self.entry.rounds - place) - 1
            fence = Fence(prompt, answer, secret=self.model.caller.fence_secret)
            shown = {"prompt": fence.around("request", prompt), "answer": fence.around("answer", answer)}
            text = self.critique.fill(**shown, principles=in_words(drawn, "critique"))
            reply = self._reply(rating, "critique", text, to_come)
            if reply.status == "ok" and is_refusal(reply.text):
                return Verdict(None, "refusal", reply.raw, reply.details)
            if reply.status != "ok" or not reply.text.strip():
                return _failed(reply)
            critique = reply.text.strip()
            fence = Fence(prompt, answer, critique, secret=self.model.caller.fence_secret)
            shown = {"prompt": fence.around("request", prompt), "answer": fence.around("answer", answer)}
            shown |= {"critique": fence.around("critique", critique), "principles": in_words(drawn, "revision")}
            reply = self._reply(rating, "revision", self.revision.fill(**shown), to_come - 1)
            # The principles may require an answer that begins with "I'm sorry", so it is not a refusal to revise.
            if reply.status != "ok" or not reply.text.strip() or fence.code in reply.text:
                return _failed(reply)
            answer = reply.text.strip()
            names.append([principle.name for principle in drawn])
            critiques.append(critique)
        details: dict[str, Any] = {"principles": names, "critiques": critiques, **reply.details}
        return Verdict(None, "tie" if answer == rating.answer.strip() else "ok", answer, details)

    def _reply(self, rating: Rating, step: Step, text: str, calls_to_come: int) -> ChatReply:
        context = CallContext(self.name, self.prompt_hash, rating, step, calls_to_come)
        return self.model.ask(context, [{"role": "user", "content": text}], max_tokens=self.entry.max_tokens)


def _failed(reply: ChatReply) -> Verdict:
    return Verdict(None, "parse_error" if reply.status == "ok" else reply.status, reply.raw, reply.details)
