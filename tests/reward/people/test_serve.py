"""The command itself: what it prints, where it listens, how it ends, and what it leaves."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from alignment.errors import AlignmentError
from reward.people.serve import Settings, annotate, export
from tests.reward.people.browser import ROOT, annotating


def write_items(folder, count=3):
    rows = [{"prompt": f"Q{n}", "responses": [f"a{n}", f"b{n}"], "ranks": [1, 2]} for n in range(count)]
    path = folder / "x.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Client:
    """A browser without a screen: cookies and an origin."""

    def __init__(self, link):
        self.base = link.partition("/enter")[0]
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.opener.addheaders = [("Origin", self.base)]
        with self.opener.open(link) as reply:
            assert reply.status == 200

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"})
        with self.opener.open(request) as reply:
            return json.load(reply)

    def label(self, person, verdict="abstain"):
        view = self.call(f"/api/next?annotator={person}")["next"]
        body = {"annotator": person, "item": view["item"], "view": view["view"], "verdict": verdict, "seconds": 1}
        return self.call("/api/label", body)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_labels_reach_the_file_while_it_serves_and_ctrl_c_ends_it(tmp_path):
    with annotating(write_items(tmp_path)) as running:
        client = Client(running.link())
        client.label("Anna", {"ranks": [1, 2]})
        output, until = tmp_path / "x.people.jsonl", time.monotonic() + 20
        while not output.exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert len(rows_of(output)) == 1
        client.label("Anna")
        assert running.end(signal.SIGINT) == 0
    assert len(rows_of(output)) == 2
    assert "x.jsonl: layout ranking; first row: " in running.seen[0]
    assert running.seen[1].startswith("3 items of ")
    assert running.seen[-1] == f"{output}: 2 labels"
    assert not any("Traceback" in line or "INFO" in line for line in running.seen)
    assert not [path.name for path in tmp_path.iterdir() if path.name.endswith(("-wal", "-shm"))]


def test_sigterm_keeps_everything_too(tmp_path):
    with annotating(write_items(tmp_path)) as running:
        Client(running.link()).label("Anna")
        running.end(signal.SIGTERM)
    assert len(rows_of(tmp_path / "x.people.jsonl")) == 1


def test_after_sigkill_export_writes_what_was_confirmed(tmp_path):
    source = write_items(tmp_path)
    with annotating(source) as running:
        client = Client(running.link())
        client.label("Anna")
        client.label("Ben")
        running.end(signal.SIGKILL)
    (tmp_path / "x.people.jsonl").unlink(missing_ok=True)
    command = [sys.executable, "-m", "alignment.cli", "annotate", str(source), "--export", "--output", "out.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.jsonl: 2 labels of 2 people\n", "")
    assert {row["provenance"]["annotator"] for row in rows_of(tmp_path / "out.jsonl")} == {"Anna", "Ben"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not list its sockets in /proc")
def test_it_listens_on_loopback_alone(tmp_path):
    with annotating(write_items(tmp_path)) as running:
        link = running.link()
        port = int(link.rpartition(":")[2].partition("/")[0])
        with open("/proc/net/tcp") as file:
            listening = [line.split()[1] for line in file if f":{port:04X}" in line.split()[1]]
        assert listening == [f"0100007F:{port:04X}"]  # 127.0.0.1
        with open("/proc/net/tcp6") as file:
            assert not [line for line in file if f":{port:04X}" in line.split()[1]]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/state")
        assert refused.value.code == 403
        refused.value.close()


def test_a_second_one_on_the_same_labels_or_port_is_refused(tmp_path):
    source = write_items(tmp_path)
    with annotating(source) as running:
        running.link()
        with pytest.raises(AlignmentError, match="another process labels or annotates here"):
            annotate(Settings(source, port=0), lambda _: None)
        with pytest.raises(AlignmentError, match="another process labels or annotates here"):
            export(source, None, lambda _: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AlignmentError, match=r"cannot be listened on .*name another --port"):
            annotate(Settings(source, port=taken.getsockname()[1]), lambda _: None)


def test_labels_of_another_store_are_not_written_over(tmp_path):
    source = write_items(tmp_path)
    (tmp_path / "x.people.jsonl").write_text("{}\n")
    with pytest.raises(AlignmentError, match="they would be lost"):
        annotate(Settings(source, port=0), lambda _: None)
    assert (tmp_path / "x.people.jsonl").read_text() == "{}\n"


def test_export_of_nothing_is_reported(tmp_path):
    source = write_items(tmp_path)
    with pytest.raises(AlignmentError, match="has no labels yet"):
        export(source, None, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
