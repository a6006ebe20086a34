"""Every verb with bad words on its command line: one message, never a traceback, within seconds, and nothing harmed.

Nothing here writes outside of a temporary folder; what the system has to refuse lies in /proc and /sys.
"""

import json
import os
import socket
from pathlib import Path

import pytest

from tests.hostile.commands import Commands, Ended
from tests.models import save_tiny_model
from tests.reward.bench.test_bench import save_reward

pytestmark = pytest.mark.hostile

SECONDS = 60  # that a command may take; alone it takes tenths, on a machine with much else to do more
INPUTS = [
    "nope",
    "dir",
    "empty",
    "binary",
    "text",
    "deep",
    "loop",
    "dangling",
    "nul",
    "utf16",
    "list.json",
    "bad.yaml",
    "alias.yaml",
    "large",
    "rows.of.nothing.jsonl",
    "bad.gz",
    "bad.parquet",
    "other.csv",
    "nul.tsv",
    "fifo",
    "socket",
    "",
    " ",
    "x" * 300,
    "x" * 5000,
    "a/" * 2000,
    "text/x",
    "~",
    "-",
    "/dev/null",
    "/dev/zero",
    "/proc/self/mem",
    "a,b",
    ",",
    "http://127.0.0.1:9/x",
    "file:///etc/hostname",
    "s3://x/y",
    "*",
    "$(id)",
    "C:\\x",
    "\udcff",
    "a\nb",
    "a\u2028b",
    "文件",
    "org/model",
    "a/b/c",
]
OUTPUTS = ["dir", "", "x" * 300, "x" * 5000, "text/x", "fifo/x", "/proc/x", "/proc/x/y", "/sys/x", "\udcff", "a\nb"]
NUMBERS = [
    "-1",
    "0",
    "1" + "0" * 20,
    "-1" + "0" * 20,
    "1" + "0" * 400,
    "1" * 6000,
    "nan",
    "inf",
    "-inf",
    "",
    "abc",
    "1.5",
    "1e999",
    "1e-400",
    "0x10",
    "1,5",
    "true",
    "null",
]
WORDS = ["", "nope", " ", "x" * 10_000, "文件", "a\nb", "\udcff", "\x1b[31m", "null", "[", "-1"]
HOSTS = ["", "nonsense.invalid", "999.999.999.999", "::zz", "a" * 300, "é..", "192.0.2.1", "x y", "[::1]", "\udcff"]
PORTS = ["-1", "99999", "65536", "1" + "0" * 20, "", "nan", "http", "1.5"]
SIZES = ["", "80", "-1GB", "nanGB", "infGiB", "1e400GB", "GiB", "80 GiBs", "0GB", "1" + "0" * 400 + "GB", "文"]
UNNAMED = {
    "check": 1,
    "plan": 1,
    "preview": 1,
    "doctor": 1,
    "run": 1,
    "launch": 1,
    "chat": 1,
    "export": 2,
    "merge": 2,
    "switch": 2,
    "combine": 3,
    "score": 2,
    "bench": 2,
    "report": 1,
    "serve-reward": 1,
    "annotate": 1,
    "audit": 1,
    "mix": 2,
    "winrate": 1,
}
OPTIONS = {
    ("plan", "--gpus"): NUMBERS,
    ("plan", "--memory"): SIZES,
    ("plan", "--strategy"): WORDS,
    ("plan", "--rows"): NUMBERS,
    ("plan", "--tflops"): NUMBERS,
    ("plan", "--bandwidth"): NUMBERS,
    ("plan", "--utilization"): NUMBERS,
    ("plan", "--json"): OUTPUTS,
    ("plan", "--max_steps"): NUMBERS,
    ("plan", "--nope"): WORDS,
    ("preview", "--rows"): NUMBERS,
    ("preview", "--json"): OUTPUTS,
    ("preview", "--html"): OUTPUTS,
    ("preview", "--max_length"): NUMBERS,
    ("preview", "--nope"): WORDS,
    ("doctor", "--gpus"): NUMBERS,
    ("doctor", "--memory"): SIZES,
    ("doctor", "--json"): OUTPUTS,
    ("run", "--from"): WORDS,
    ("run", "--only"): WORDS,
    ("run", "--seed"): NUMBERS,
    ("run", "--output_dir"): OUTPUTS,
    ("launch", "--on"): WORDS,
    ("launch", "--nodes"): NUMBERS,
    ("launch", "--gpus"): NUMBERS,
    ("launch", "--strategy"): WORDS,
    ("launch", "--template"): INPUTS,
    ("launch", "--image"): WORDS,
    ("chat", "--temperature"): NUMBERS,
    ("chat", "--top_p"): NUMBERS,
    ("chat", "--top_k"): NUMBERS,
    ("chat", "--max_new_tokens"): NUMBERS,
    ("chat", "--seed"): NUMBERS,
    ("chat", "--dtype"): WORDS,
    ("chat", "--system"): WORDS,
    ("chat", "--chat_template"): [*WORDS, *INPUTS],
    ("chat", "--proxy"): [*WORDS, "{tuned: base}", "{tuned: base, untuned: nope}", "{tuned: [1], untuned: 3}"],
    ("chat", "--preferences"): INPUTS,
    ("export", "--tolerance"): NUMBERS,
    ("export", "--license"): WORDS,
    ("export", "--evaluation"): INPUTS,
    ("export", "--push"): WORDS,
    ("merge", "--tolerance"): NUMBERS,
    ("switch", "--from"): INPUTS,
    ("switch", "--to"): INPUTS,
    ("combine", "--method"): WORDS,
    ("combine", "--density"): NUMBERS,
    ("combine", "--seed"): NUMBERS,
    ("score", "--output"): OUTPUTS,
    ("score", "--batch_size"): NUMBERS,
    ("score", "--aggregate"): WORDS,
    ("bench", "--json"): OUTPUTS,
    ("bench", "--max_samples"): NUMBERS,
    ("bench", "--on_bad_row"): WORDS,
    ("serve-reward", "--host"): HOSTS,
    ("serve-reward", "--port"): PORTS,
    ("serve-reward", "--api_key_env"): ["", " ", "a=b", "sk-0123456789abcdef", "a\nb"],
    ("report", "--out"): OUTPUTS,
    ("audit", "--gold"): INPUTS,
    ("audit", "--out"): OUTPUTS,
    ("audit", "--json"): OUTPUTS,
    ("audit", "--suggest"): NUMBERS,
    ("audit", "--gate"): INPUTS,
    ("audit", "--calibrate"): WORDS,
    ("annotate", "--ask"): WORDS,
    ("annotate", "--guidelines"): INPUTS,
    ("annotate", "--overlap"): NUMBERS,
    ("annotate", "--per-item"): NUMBERS,
    ("annotate", "--limit"): NUMBERS,
    ("annotate", "--host"): HOSTS,
    ("annotate", "--port"): PORTS,
    ("annotate", "--annotator"): WORDS,
    ("annotate", "--allow-host"): WORDS,
    ("mix", "--output"): OUTPUTS,
    ("mix", "--smoothing"): NUMBERS,
    ("mix", "--bootstrap"): NUMBERS,
    ("mix", "--seed"): NUMBERS,
    ("mix", "--gold"): INPUTS,
    ("winrate", "--baseline"): WORDS,
    ("winrate", "--by"): WORDS,
    ("winrate", "--length_control"): [*WORDS, *INPUTS],
    ("winrate", "--level"): NUMBERS,
    ("winrate", "--bootstrap"): NUMBERS,
    ("winrate", "--seed"): NUMBERS,
    ("winrate", "--json"): OUTPUTS,
    ("sft", "--config"): INPUTS,
    ("sft", "--learning_rate"): NUMBERS,
    ("sft", "--output_dir"): OUTPUTS,
    ("sft", "--nope"): WORDS,
}
SERVING = ("serve-reward", "annotate")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one good file of each sort and many bad ones."""
    place = tmp_path_factory.mktemp("commands")
    save_reward(save_tiny_model(place / "base"), place / "reward", 0)
    rows = [{"prompt": f"the cat {n}", "responses": ["the dog", "jumps over"], "ranks": [1, 2]} for n in range(30)]
    write_rows(place / "rows.jsonl", rows)
    write_rows(place / "answers.jsonl", [{"prompt": "p", "answer": "the cat"}])
    write_rows(place / "demos.jsonl", [{"prompt": f"the cat {n}", "completion": "the dog"} for n in range(8)])
    recipe = {
        "stage": "sft",
        "model_name_or_path": "base",
        "datasets": [{"path": "demos.jsonl"}],
        "output_dir": "sft",
        "max_steps": 1,
        "peft_method": "full",
        "eval_strategy": "no",
    }
    (place / "sft.yaml").write_text(json.dumps(recipe))
    (place / "pipeline.yaml").write_text(json.dumps({"output_dir": "pipeline", "stages": ["sft.yaml"]}))
    for name, content in {
        "empty": b"",
        "binary": bytes(range(256)) * 50,
        "text": b"hello world\n",
        "deep": b"[" * 100_000,
        "nul": b"\0" * 10_000,
        "utf16": "{}".encode("utf-16"),
        "list.json": b"[1, 2]",
        "bad.yaml": b"a: [1\nb: }",
        "alias.yaml": b"a: &a [*a]\n",
        "large": b"x" * 10**7,
        "rows.of.nothing.jsonl": b'[]\n3\n"x"\nnull\n',
        "bad.gz": b"\x1f\x8bnope",
        "bad.parquet": b"PAR1nope",
        "other.csv": b"a,b\n1,2\n",
        "nul.tsv": b"\0",
    }.items():
        (place / name).write_bytes(content)
    (place / "dir").mkdir()
    (place / "loop").symlink_to("loop")
    (place / "dangling").symlink_to("gone")
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        before = os.getcwd()
        os.chdir(place)  # a socket's path may have some 100 bytes
        bound.bind("socket")
        os.chdir(before)
    return place


@pytest.fixture(scope="module")
def commands(place):
    commands = Commands(HOME=str(place / "home"), HF_HOME=str(place / "home"), ALIGNMENT_REWARD_KEY="a-token")
    yield commands
    commands.end()


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


GOOD = {
    "check": ["sft.yaml"],
    "plan": ["sft.yaml"],
    "preview": ["sft.yaml"],
    "doctor": ["sft.yaml"],
    "run": ["pipeline.yaml"],
    "launch": ["sft.yaml"],
    "chat": ["base"],
    "export": ["base", "exported"],
    "merge": ["reward", "merged"],
    "switch": ["reward", "switched"],
    "combine": ["reward:0.5", "reward:0.5", "combined"],
    "score": ["reward", "answers.jsonl"],
    "bench": ["reward", "rows.jsonl"],
    "serve-reward": ["reward"],
    "report": ["reward"],
    "audit": ["rows.jsonl"],
    "annotate": ["rows.jsonl"],
    "mix": ["rows.jsonl", "rows.jsonl"],
    "winrate": ["rows.jsonl"],
    "sft": [],
}
MORE = {
    "switch": ["--from", "reward", "--to", "reward"],
    "mix": ["--output", "mixed.jsonl"],
    "serve-reward": ["--port", "0"],
    "annotate": ["--port", "0"],
    "sft": ["--config", "sft.yaml"],
}


def faults(ended: Ended) -> list[str]:
    """What about an end is not as it must be; a command may end well, where what looks bad means something."""
    said = ended.out + ended.err
    serves = ended.words[0] in SERVING and "http://" in ended.out
    found = []
    if "Traceback" in said or "unexpected error" in said:
        found.append("a traceback, or an error that no code expects")
    if ended.code is None and not serves:
        found.append(f"no end within {SECONDS} s")
    if ended.code and not said.strip():
        found.append("no message")
    if any(character < " " and character not in "\n\t" for character in ended.err):
        found.append("control characters in the message")
    return [f"{[word[:40] for word in ended.words]}: {fault}; {said.strip()[-300:]}" for fault in found]


def swept(commands: Commands, place: Path, lines: list[list[str]]) -> list[str]:
    found = []
    for words in lines:
        ready = 3 if words[0] in SERVING else SECONDS  # a word that is taken means that it serves until it is killed
        found += faults(commands.run(words, place, seconds=ready))
    assert (place / "fifo").is_fifo()
    assert Path("/dev/null").is_char_device()
    return found


@pytest.mark.parametrize(
    ("verb", "which"), [(verb, which) for verb, count in UNNAMED.items() for which in range(count)]
)
def test_paths_that_are_not_what_they_must_be(commands, place, verb, which):
    good, lines = GOOD[verb], []
    for bad in OUTPUTS if (verb, which) in (("export", 1), ("merge", 1), ("switch", 1), ("combine", 2)) else INPUTS:
        lines.append([verb, *good[:which], bad, *good[which + 1 :], *MORE.get(verb, [])])
    assert swept(commands, place, lines) == []


@pytest.mark.parametrize(("verb", "option"), OPTIONS)
def test_options_with_bad_values(commands, place, verb, option):
    more = MORE.get(verb, [])
    kept = [] if option in more else more
    lines = [[verb, *GOOD[verb], *kept, option, bad] for bad in OPTIONS[verb, option]]
    assert swept(commands, place, [*lines, [verb, *GOOD[verb], *kept, option]]) == []


@pytest.mark.parametrize("verb", GOOD)
def test_unknown_arguments(commands, place, verb):
    lines = [
        [verb, *GOOD[verb], *MORE.get(verb, []), *more] for more in (["surplus", "more"], ["--unknown", "x"], ["---"])
    ]
    assert swept(commands, place, [*lines, [verb, "--help"], [verb, "--", "--help"]]) == []


def test_an_output_that_is_an_input_leaves_the_input(commands, place):
    rows, answers = ((place / name).read_bytes() for name in ("rows.jsonl", "answers.jsonl"))
    lines = [
        ["score", "reward", "answers.jsonl", "--output", "answers.jsonl"],
        ["bench", "reward", "rows.jsonl", "--json", "rows.jsonl"],
        ["audit", "rows.jsonl", "--json", "rows.jsonl"],
        ["audit", "rows.jsonl", "--out", "rows.jsonl"],
        ["mix", "rows.jsonl", "rows.jsonl", "--output", "rows.jsonl"],
        ["annotate", "rows.jsonl", "--output", "rows.jsonl", "--port", "0"],
        ["plan", "sft.yaml", "--json", "sft.yaml"],
        ["preview", "sft.yaml", "--json", "sft.yaml"],
        ["preview", "sft.yaml", "--html", "demos.jsonl"],
        ["merge", "reward", "reward"],
        ["export", "reward", "reward"],
        ["chat", "base", "--preferences", "rows.jsonl"],
        ["switch", "reward", "reward", "--from", "reward", "--to", "reward"],
    ]
    recipe = (place / "sft.yaml").read_bytes()
    assert swept(commands, place, lines) == []
    assert (place / "rows.jsonl").read_bytes() == rows
    assert (place / "answers.jsonl").read_bytes() == answers
    assert (place / "sft.yaml").read_bytes() == recipe


def test_a_port_that_is_in_use(commands, place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for verb in SERVING:
            ended = commands.run([verb, *GOOD[verb], "--port", port], place, seconds=SECONDS)
            assert ended.code == 1
            *layouts, last = ended.err.splitlines()
            assert last.endswith("name another --port (0: any that is free) or --host.")
            assert all(": layout " in line for line in layouts)
