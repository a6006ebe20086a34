"""The command as its users start it: in a terminal, and with lines from a pipe."""

import fcntl
import io
import os
import pty
import select
import struct
import sys
import termios
import time

import pytest
import torch

from alignment.chat import command
from alignment.chat.command import chat
from alignment.chat.screen import Screen
from alignment.cli import main
from alignment.errors import AlignmentError
from alignment.policy.base import load_sequence_classifier
from tests.models import make_model, make_tokenizer, save_tiny_model
from tests.policy.test_merge import trained_adapter

INTERRUPT, END = b"\x03", b"\x04"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, initializer_range=0.3, max_position_embeddings=2**16)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0  # a greedy answer never ends
    model.save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    trained_adapter(place / "base", place / "run", lora_target_modules=["q_proj"])
    return place


class Terminal:
    """`alignment` in a terminal of 80 columns: a fork, which need not import anything again."""

    def __init__(self, *words, cwd):
        self.program, self.side = pty.fork()
        if self.program == 0:
            code = 1
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
                os.environ["TERM"] = "xterm"
                os.chdir(cwd)
                sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in enumerate("rww"))
                sys.argv = ["alignment", *words]
                main()
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            finally:
                sys.stdout.flush()
                os._exit(code)
        self.shown = b""

    def until(self, words, seconds=60, again=b""):
        """Wait for words that were not shown when the last ones were found; return what came with them.

        Args:
            again: keys to type again while nothing comes: Python's `input` misses a signal just before it waits.
        """
        end = time.monotonic() + seconds
        while words not in self.shown:
            ready, _, _ = select.select([self.side], [], [], 2)
            if not ready and again:
                self.type(again)
            try:
                more = os.read(self.side, 2**16) if ready else b""
            except OSError:  # the program has ended
                more = None
            assert more is not None, self.shown
            assert time.monotonic() < end, self.shown
            self.shown += more
        before, _, self.shown = self.shown.partition(words)
        return (before + words).decode(errors="replace")

    def type(self, keys):
        os.write(self.side, keys)


@pytest.fixture
def terminal(place):
    opened = []

    def start(*words):
        opened.append(Terminal("chat", *words, cwd=place))
        return opened[-1]

    yield start
    for each in opened:
        os.close(each.side)


@pytest.mark.timeout(120)
def test_ctrl_c_stops_an_answer_ctrl_d_ends_and_answers_stand_side_by_side(terminal, place):
    talk = terminal("run", "base", "--temperature", "0", "--max_new_tokens", "60000")
    assert "run, adapter on" in talk.until(b"> ")
    talk.type(INTERRUPT)
    talk.until(b"Ctrl-D or /quit ends", again=INTERRUPT)
    talk.until(b"> ")
    talk.type(b"hello\n")
    talk.until("…".encode())  # the first frame
    talk.type(INTERRUPT)
    talk.until(b"\x1b[?25h")  # the last frame
    shown = talk.until(b"> ")
    assert "1 run" in shown
    assert "2 base" in shown
    assert shown.count("stopped by Ctrl-C") == 2
    talk.type(b"/set max_new_tokens 5\nhow are you\n")
    talk.until(b"\x1b[?25h")
    assert talk.until(b"> ").count("cut off at max_new_tokens 5") == 2
    talk.type(b"/nothing\n")
    assert "no such command" in talk.until(b"> ")
    talk.type(b"/prefer 2\n")
    assert "recorded in preferences.jsonl" in talk.until(b"> ")
    talk.type(END)
    assert os.waitstatus_to_exitcode(os.waitpid(talk.program, 0)[1]) == 0
    assert (place / "preferences.jsonl").read_text().count("\n") == 1


def test_a_terminal_with_a_file_for_the_answers_has_its_marks_on_standard_error(monkeypatch, capsys):
    class Typed(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Typed("hello\nhow\n"))
    assert list(command._lines(Screen())) == ["hello", "how"]
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "> > > \n")


def test_lines_of_a_pipe_are_answered_on_standard_output(place, monkeypatch, capsys, tmp_path):
    def piped(lines, **keys):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        sampling = {"temperature": 0.0, "max_new_tokens": 6}
        given = {"model": {}, "sampling": sampling, "system": None, "preferences": tmp_path / "p.jsonl"}
        return chat([str(place / "run")], **{**given, **keys}), *capsys.readouterr()

    code, shown, notes = piped(b'hello\n"""\nof two\nlines\n"""\n/save ' + bytes(tmp_path) + b"/x.jsonl\n")
    assert code == 1  # no answer has ended, so nothing was saved
    assert notes.count("cut off at max_new_tokens 6") == 2
    assert "/run, adapter on" in notes
    assert "stops at '<|im_end|>'" in notes
    again = piped(b"hello\n/quit\n/nonsense\n")
    assert again[0] == 0
    assert shown.startswith(again[1])
    assert piped(b"hello\n", system="Be kind.")[1] != again[1]
    assert "chat template" not in piped(b"", text=True)[2]


def test_what_is_no_policy_ends_with_2_and_one_line(place):
    trained_adapter(place / "base", place / "reward", load=load_sequence_classifier)
    save_tiny_model(place / "gone")
    trained_adapter(place / "gone", place / "orphan")
    (place / "gone").rename(place / "moved")
    (place / "empty").mkdir()
    save_tiny_model(place / "broken", chat_template="{{ messages[0].x.y }}")
    for name, words in (
        ("nothing/here", "does not exist"),
        ("empty", "neither a model nor an adapter"),
        ("reward", "is a reward model's adapter"),
        ("orphan", "put the base there"),
        ("broken", "broken: the chat template refuses messages"),
    ):
        with pytest.raises(AlignmentError) as caught:
            chat([str(place / name)], model={}, sampling={}, system=None, preferences=place / "x.jsonl")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
    (place / "cut.jsonl").write_text('{"prompt": ')
    with pytest.raises(AlignmentError, match="not JSON") as caught:
        chat([str(place / "base")], model={}, sampling={}, system=None, preferences=place / "cut.jsonl")
    assert caught.value.exit_code == 2
