"""The prompt at the beginning of a completion, with the log-probabilities of its tokens."""

import asyncio

from alignment.data.answer_stream import AnswerStream
from alignment.serve.answer import TokenLogp, placed
from alignment.serve.replies import Whole
from alignment.serve.sampling import Sampled


async def echoed(sampled: Sampled) -> dict[int, Whole]:
    """Return what each answer begins with. The first token of a prompt has no log-probability."""
    found: dict[int, Whole] = {}
    settings, served = sampled.settings, sampled.served
    for place, ids in enumerate(sampled.prompts):
        parts = _read(served.policy.tokenizer, ids)
        tokens: list[TokenLogp] = []
        if settings.logprobs is not None:
            rest = served.base.engine.prompt_logps(ids, served.adapter, settings.logprobs)
            logps = [TokenLogp(ids[0], None, ()), *await asyncio.wrap_future(rest)]
            tokens = placed(logps, parts, 0)
        for number in range(settings.n):
            found[place * settings.n + number] = Whole("".join(parts), list(tokens))
    return found


def _read(tokenizer: object, ids: list[int]) -> list[str]:
    """Return the parts of a prompt's text, one for each token."""
    stream, parts = AnswerStream(tokenizer, []), list[str]()
    for token in ids:
        stream.add([token])
        parts += stream.parts()
    stream.end()
    return parts + stream.parts()
