"""How much the labeler adds to a judge's own time: against a server on loopback that answers after a fixed time.

    python -m benchmarks.labeler [--in_flight 64] [--comparisons 10000] [--latency_seconds 1.0]

The server is a separate process and reports the mean number of calls that it had in flight between the first and the
last arrival of a call. The labeler's process is measured alone: CPU seconds per call, user and system together, less
those of the same client making calls of the same size from as many threads and nothing else; and the peak of resident
memory. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CALL = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "fixed-latency",
    "usage": {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--in_flight", type=int, default=64)
    parser.add_argument("--comparisons", type=int, default=10_000)
    parser.add_argument("--latency_seconds", type=float, default=1.0)
    parser.add_argument("--answer_characters", type=int, default=600)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs, given.latency_seconds), daemon=True)
    server.start()
    port = ours.recv()
    try:
        found = measure(given, port)
    finally:
        ours.send("stop")
    occupancy = ours.recv()
    found["occupancy"] = occupancy / given.in_flight
    print(
        f"{found['calls']} calls in {found['seconds']:.1f} s: {occupancy:.2f} of {given.in_flight} in flight "
        f"({found['occupancy']:.1%}), {found['cpu_milliseconds_per_call']:.2f} ms of CPU per call, the client's "
        f"{found['client_milliseconds_per_call']:.2f} among them: {found['added_milliseconds_per_call']:.2f} added, "
        f"{found['peak_mebibytes']:.0f} MiB at most ({found['import_mebibytes']:.0f} after imports)"
    )
    print(json.dumps(found))


def measure(given: argparse.Namespace, port: int) -> dict[str, Any]:
    """Label in this process; return what it took."""
    from alignment.calls.caller import Caller
    from alignment.calls.rate_limiter import RateLimiter
    from alignment.calls.store import CallStore, Sampled
    from alignment.config.schema import judge_entry
    from alignment.evaluate.judging import Comparison
    from reward.feedback.labeler import label
    from reward.feedback.strategies import Pairwise
    from reward.judges import build_judge

    texts = [[f"{name} {i} ".ljust(given.answer_characters, "y") for name in "ab"] for i in range(given.comparisons)]
    samples = [Sampled(i, f"Question {i}: what then?", both, [True] * 2) for i, both in enumerate(texts)]
    entry = judge_entry(kind="openai", model="fixed-latency", base_url=f"http://127.0.0.1:{port}/v1", logprobs=False)
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder, CallStore(Path(folder) / "calls.sqlite") as store:
        judge = build_judge(entry, Caller(cache=store, rate_limiter=RateLimiter(given.in_flight)))
        before, start = time.process_time(), time.perf_counter()
        rankings = label(
            samples,
            judge,
            Pairwise(),
            store=store,
            pairs_per_prompt=None,
            seed=0,
            max_concurrency=given.in_flight,
            max_failure_share=0.0,
            provenance={},
        )
        seconds, cpu = time.perf_counter() - start, time.process_time() - before
        calls = store.totals().calls
    bare = bare_client(given, entry, judge.prompt.render(Comparison("Question 0: what then?", *texts[0])))
    assert all(ranking.pairs[0].status == "tie" for ranking in rankings), "the server always says A"
    return {
        "in_flight": given.in_flight,
        "comparisons": given.comparisons,
        "latency_seconds": given.latency_seconds,
        "calls": calls,
        "seconds": seconds,
        "cpu_milliseconds_per_call": 1000 * cpu / calls,
        "client_milliseconds_per_call": bare,
        "added_milliseconds_per_call": 1000 * cpu / calls - bare,
        "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "import_mebibytes": imported,
    }


def bare_client(given: argparse.Namespace, entry: Any, question: str) -> float:
    """Return the CPU milliseconds that the client alone takes for a call, with as many threads."""
    import openai

    client = openai.OpenAI(
        base_url=entry.base_url,
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )
    request: dict[str, Any] = {"model": entry.model, "messages": [{"role": "user", "content": question}]}

    def call(_: int) -> str:
        return client.chat.completions.with_raw_response.create(**request, max_tokens=16).http_response.text

    with ThreadPoolExecutor(given.in_flight) as pool:
        list(pool.map(call, range(given.in_flight)))  # connections are open now, as they are for most of a run
        count = 20 * given.in_flight
        before = time.process_time()
        list(pool.map(call, range(count)))
        return 1000 * (time.process_time() - before) / count


def serve(pipe: Connection, latency_seconds: float) -> None:
    """Answer every call with the letter A after a fixed time, until it is stopped."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A"}}
    body = json.dumps({**CALL, "choices": [choice]}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    asyncio.run(_serve(pipe, latency_seconds, head + body))


async def _serve(pipe: Connection, latency_seconds: float, answer: bytes) -> None:
    level = Level()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split("\r\n")[0] or 0)
                await reader.readexactly(length)
                if head.startswith("post"):
                    level.change(1)
                    await asyncio.sleep(latency_seconds)
                    level.change(-1)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    while not pipe.poll():
        await asyncio.sleep(0.05)
    pipe.send(level.mean())


class Level:
    """Mean number of calls in flight from the first arrival to the last."""

    def __init__(self) -> None:
        self.now, self.area = 0, 0.0
        self.first = self.last = self.at = 0.0
        self.area_at_last = 0.0

    def change(self, by: int) -> None:
        at = time.perf_counter()
        self.first = self.first or at
        self.area += self.now * (at - (self.at or at))
        self.at, self.now = at, self.now + by
        if by > 0:
            self.last, self.area_at_last = at, self.area

    def mean(self) -> float:
        return self.area_at_last / (self.last - self.first)


if __name__ == "__main__":
    main()
