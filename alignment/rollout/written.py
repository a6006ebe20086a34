"""What a batch has written so far, on the host."""

from collections.abc import Iterable


class Written:
    """The answers of a batch, of which rows that ended leave the batch now and then.

    Args:
        prompts: how many.
        stop_token_ids: any of these ends an answer.
    """

    def __init__(self, prompts: int, stop_token_ids: Iterable[int]) -> None:
        self.stops = frozenset(stop_token_ids)
        self.answers: list[list[int]] = [[] for _ in range(prompts)]
        self.logp: list[list[float]] = [[] for _ in range(prompts)]  # of the answers' tokens, if the engine keeps them
        self.rows = list(range(prompts))  # the prompt of each row that is still in the batch
        self.live = set(self.rows)  # prompts whose answers go on

    def read(self, tokens: list[list[int]], logp: list[list[float]] | None = None) -> None:
        """Take what each row drew since the last time, (rows, steps); what came after a stop token is dropped."""
        for place, prompt in enumerate(self.rows):
            if prompt not in self.live:
                continue
            drawn = tokens[place]
            end = next((index + 1 for index, token in enumerate(drawn) if token in self.stops), None)
            self.answers[prompt] += drawn[:end]
            if logp is not None:
                self.logp[prompt] += logp[place][:end]
            if end is not None:
                self.live.discard(prompt)

    def compact(self) -> list[int]:
        """Drop the rows that have ended; returns the places of the others."""
        places = [place for place, prompt in enumerate(self.rows) if prompt in self.live]
        self.rows = [self.rows[place] for place in places]
        return places
