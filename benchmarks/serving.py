"""`alignment serve` against `transformers serve`: tokens a second, and the seconds of a request, with many in flight.

Each client sends its next request when the last is answered. The servers take turns, each in a process of its own
with the same threads, and get the same requests; tokens/s and tokens for each second of a processor, which other work
changes less, are medians of the rounds.

    python -m benchmarks.serving [--width 512 --tokens 32]
"""

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

KEY = "benchmark"
HEAD = (
    "| server | in flight | tokens/s | by processor time | p50, s | p99, s | requests |\n|---|---|---|---|---|---|---|"
)
PROMPTS = ("Once upon a time", "The little dog", "Lily and Tom went to the park. They saw", "One day, a big red ball")


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients send."""

    in_flight: int
    requests: int
    tokens: int


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="../shared/models/stories260K", help="Also gives the tokenizer.")
    parser.add_argument("--width", type=int, help="A random Llama of this width in place of the model's weights.")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--in_flight", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="Turns of each server; a client sends a request in each.")
    parser.add_argument("--tokens", type=int, default=64, help="Most tokens of an answer.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = args.model if args.width is None else random_model(args.model, Path(folder), args.width, args.layers)
        print(HEAD, flush=True)
        for row in compare(model, args.in_flight, device=args.device, rounds=args.rounds, tokens=args.tokens):
            speeds, times = f"{row.speed:,.0f} | {row.per_processor:,.0f}", f"{row.half:.2f} | {row.slow:.2f}"
            print(f"| `{row.server}` | {row.in_flight} | {speeds} | {times} | {row.requests} |", flush=True)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one server with so many requests in flight."""

    server: str
    in_flight: int
    speed: float  # tokens a second, the median of the rounds
    per_processor: float  # tokens for each second of a processor that the server used, the median of the rounds
    half: float  # seconds of a request, the median
    slow: float  # the 99th percentile
    requests: int


def compare(model: str, in_flight: Sequence[int], *, device: str, rounds: int, tokens: int) -> Iterator[Row]:
    """Start the servers and measure them in turns.

    Args:
        device: "cpu" or "cuda". rounds: turns of each server. tokens: most of an answer.
    """
    with ExitStack() as stack:
        started = {name: stack.enter_context(running(command)) for name, command in servers(model, device).items()}
        for server in started.values():  # all load at the same time
            until_healthy(server.port, server.process)
            server.process.send_signal(signal.SIGSTOP)
        for server in started.values():
            server.measure(model, Load(2, 4, 8))  # the first requests load kernels
        for count in in_flight:
            load = Load(count, max(4, count), tokens)
            found: dict[str, list[Measured]] = {name: [] for name in started}
            for _ in range(rounds):
                for name, server in started.items():
                    found[name].append(server.measure(model, load))
            for name, measured in found.items():
                speed = statistics.median(one.tokens / one.seconds for one in measured)
                per_processor = statistics.median(one.tokens / one.processor_seconds for one in measured)
                seconds = sorted(each for one in measured for each in one.requests)
                half, slow = statistics.median(seconds), seconds[int(0.99 * (len(seconds) - 1))]
                yield Row(name, count, speed, per_processor, half, slow, len(seconds))


def servers(model: str, device: str) -> dict[str, list[str]]:
    """Return the commands, without the port."""
    ours = [sys.executable, "-m", "alignment.cli", "serve", f"{model}={model}"]
    theirs = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--device", device]
    return {
        "alignment serve": ours,
        "transformers serve": theirs,
        "transformers serve --continuous-batching": [*theirs, "--continuous-batching"],
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of a server."""

    tokens: int
    seconds: float
    processor_seconds: float  # of the server's processes
    requests: list[float]  # seconds of each


@dataclass(frozen=True, slots=True)
class Server:
    """A server in a process of its own, which is stopped while another is measured."""

    process: "subprocess.Popen[bytes]"
    port: int

    def measure(self, model: str, load: Load) -> Measured:
        """Let the server run while the clients send their requests."""
        self.process.send_signal(signal.SIGCONT)
        before, began = self.processor_seconds(), time.monotonic()
        try:
            answers = answers_of(self.port, model, load)
            seconds = time.monotonic() - began
            used = self.processor_seconds() - before
        finally:
            self.process.send_signal(signal.SIGSTOP)
        return Measured(sum(tokens for tokens, _ in answers), seconds, used, [each for _, each in answers])

    def processor_seconds(self) -> float:
        """Return what the server's processes have used of the processors."""
        process = psutil.Process(self.process.pid)
        times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        return sum(each.user + each.system for each in times)


@contextmanager
def running(command: Sequence[str]) -> Iterator[Server]:
    """Start a server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, env={**os.environ, "ALIGNMENT_SERVE_KEY": KEY}
        )
        try:
            yield Server(process, port)
        finally:
            process.kill()
            process.wait()


def until_healthy(port: int, server: "subprocess.Popen[bytes]", seconds: float = 300) -> None:
    """Wait for GET /health."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise SystemExit(f"{server.args} does not answer")


def answers_of(port: int, model: str, load: Load) -> list[tuple[int, float]]:
    """Send the requests; return the tokens of each answer, and its seconds."""

    def client(number: int) -> list[tuple[int, float]]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        shares = range(number, load.requests, load.in_flight)
        found = [request(connection, model, PROMPTS[place % len(PROMPTS)], load.tokens) for place in shares]
        connection.close()
        return found

    with ThreadPoolExecutor(load.in_flight) as pool:
        return [answer for answers in pool.map(client, range(load.in_flight)) for answer in answers]


def request(connection: http.client.HTTPConnection, model: str, prompt: str, tokens: int) -> tuple[int, float]:
    """Send a request; return the tokens of the answer, and the seconds that it took."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 1.0}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    began = time.monotonic()
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read()
    if response.status != 200:
        raise SystemExit(f"{response.status}: {text[:300]!r}")
    return json.loads(text)["usage"]["completion_tokens"], time.monotonic() - began


def random_model(like: str, folder: Path, width: int, layers: int) -> str:
    """Write a random Llama with the tokenizer of another model."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(like)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
