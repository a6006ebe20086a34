"""A chat model that orders several answers."""

from typing import Any

from alignment.calls.call import CallContext
from alignment.calls.caller import Caller
from alignment.calls.chat import Model, build_model
from alignment.config.schema.judges import ChatEntry
from alignment.data.conversations import readable
from alignment.errors import JudgeError
from alignment.evaluate.judging import Listing, Mode, Verdict
from reward.judges.prompting import LETTERS, ListwisePrompt
from reward.judges.verdicts import find_ranking

MAX_TOKENS, REASONING_MAX_TOKENS = 96, 768


class ListwiseJudge:
    """Asks for one order of all answers; a score is the number of answers ranked below an answer."""

    mode: Mode = "listwise"

    def __init__(self, entry: ChatEntry, prompt: ListwisePrompt, model: Model) -> None:
        self.entry = entry
        self.prompt = prompt
        self.model = model
        self.name = entry.label
        self.prompt_hash = prompt.file.hash
        self.max_tokens = entry.max_tokens or (REASONING_MAX_TOKENS if entry.reasoning else MAX_TOKENS)

    @classmethod
    def from_entry(cls, entry: ChatEntry, caller: Caller) -> "ListwiseJudge":
        """Read the prompt and open the backend.

        Raises: JudgeError if a file, the model or the key is missing, there is no server, or it refuses the key.
        """
        # An order is read from the text, so log-probabilities are not requested.
        entry = entry.model_copy(update={"logprobs": False})
        return cls(entry, ListwisePrompt.load(entry.prompt, reasoning=entry.reasoning), build_model(entry, caller))

    def ask(self, listing: Listing) -> Verdict:
        """Ask for the order of 2 to 26 answers.

        Raises: JudgeError if every other call would fail alike, or there are more answers than letters.
        """
        count = len(listing.answers)
        if not 2 <= count <= len(LETTERS):
            raise JudgeError(f"a listwise judge orders 2 to {len(LETTERS)} answers, found {count}.")
        letters = LETTERS[:count]
        question = self.prompt.render(listing, secret=self.model.caller.fence_secret)
        form = f"in a line that names each of {', '.join(letters)} once, the best first, such as "
        form += " > ".join(reversed(letters))
        schema = None
        if self.entry.json_replies:
            reasoning = '"reasoning": "...", ' if self.entry.reasoning else ""
            shape = f'{{{reasoning}"ranking": ["B", "A"]}}'
            form = f"with a JSON object of the form {shape}, each of {', '.join(letters)} once"
            question += f"\n\nReply {form}."
            schema = _schema(letters, self.entry.reasoning)
        shown = (readable(listing.prompt), *listing.answers, question)
        reply, order = self.model.ask_twice(
            CallContext(self.name, self.prompt_hash, listing),
            question,
            read=lambda text: find_ranking(text, letters, shown),
            repair=f"Your reply gives no order that can be read. Reply {form}, and nothing else.",
            max_tokens=self.max_tokens,
            schema=schema,
        )
        if reply.status != "ok" or order is None:
            return Verdict(None, "parse_error" if reply.status == "ok" else reply.status, reply.raw, reply.details)
        scores = tuple(float(count - 1 - order.index(letter)) for letter in letters)
        return Verdict(None, "ok", reply.raw, {**reply.details, "order": list(order)}, scores)


build = ListwiseJudge.from_entry


def _schema(letters: str, reasoning: bool) -> dict[str, Any]:
    ranking = {"type": "array", "items": {"type": "string", "enum": list(letters)}}
    properties: dict[str, Any] = {"reasoning": {"type": "string"}} if reasoning else {}
    properties["ranking"] = ranking
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
