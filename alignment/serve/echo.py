"""The prompt at the beginning of a completion, with the log-probabilities of its tokens."""

import asyncio

from alignment.data.answer_stream import AnswerStream
from alignment.serve.answer import TokenLogp
from alignment.serve.replies import Whole
from alignment.serve.sampling import Sampled


async def echoed(sampled: Sampled) -> dict[int, Whole]:
    """Return what each answer begins with. The first token of a prompt has no log-probability."""
    found: dict[int, Whole] = {}
    settings, served = sampled.settings, sampled.served
    for place, ids in enumerate(sampled.prompts):
        text, starts = _read(served.policy.tokenizer, ids)
        tokens: list[TokenLogp] = []
        if settings.logprobs is not None:
            rest = served.base.engine.prompt_logps(ids, served.adapter, settings.logprobs)
            logps = [TokenLogp(ids[0], None, ()), *await asyncio.wrap_future(rest)]
            tokens = [TokenLogp(one.token, one.logp, one.top, start) for one, start in zip(logps, starts, strict=True)]
        for number in range(settings.n):
            found[place * settings.n + number] = Whole(text, list(tokens))
    return found


def _read(tokenizer: object, ids: list[int]) -> tuple[str, list[int]]:
    """Return the text of a prompt, and how many characters of it are before each token."""
    stream, text, starts = AnswerStream(tokenizer, []), "", []
    for token in ids:
        starts.append(len(text))
        text += stream.add([token])
    return text + stream.end(), starts
