"""`--push` against a stand-in for the Hub's API on loopback: one private repository, one commit with all files."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from alignment.errors import AlignmentError
from alignment.export.hub import push


class Hub(BaseHTTPRequestHandler):
    """Keeps what it is sent; every file may come within the commit."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.server.refuses and self.path.endswith(self.server.refuses):
            self.answer(403, {"error": "no right to write here"})
        elif self.path == "/api/repos/create":
            self.answer(200, {"url": f"http://{self.headers['Host']}/{json.loads(body)['organization']}/x"})
        elif self.path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self.answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self.answer(200, {"files": files})
        elif "/commit/" in self.path:
            self.answer(
                200,
                {"success": True, "commitOid": "0" * 40, "commitUrl": f"http://{self.headers['Host']}/me/x/commit/0"},
            )
        else:
            self.answer(404, {"error": "not found"})

    def do_GET(self):
        if self.server.refuses == "/repos/create":
            self.answer(404, {"error": "not found"})
            return
        self.answer(200, {"sha": "0" * 40, "id": "me/x", "siblings": [], "xetEnabled": False})

    def answer(self, code, value):
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *given):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.refuses = [], None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 30)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (tmp_path / "out/model.safetensors").write_bytes(bytes(range(256)))
    return tmp_path / "out"


@pytest.mark.parametrize("public", [True, False])
def test_all_files_go_up_in_one_commit(hub, folder, public):
    push(folder, "me/x", public=public)
    made = next(json.loads(body) for path, _, body in hub.asked if path == "/api/repos/create")
    assert (made["name"], made["organization"], made["visibility"]) == ("x", "me", "public" if public else "private")
    [commit] = [body for path, _, body in hub.asked if path.endswith("/commit/main")]
    lines = [json.loads(line)["value"] for line in commit.splitlines() if json.loads(line)["key"] == "file"]
    found = {line["path"]: base64.b64decode(line["content"]) for line in lines}
    assert found == {file.name: file.read_bytes() for file in folder.iterdir()}
    assert {who for _, who, _ in hub.asked} == {"Bearer hf_" + "a" * 30}


def test_a_refusal_is_one_line_and_the_folder_stays(hub, folder):
    for refused in ("/repos/create", "/commit/main"):
        hub.refuses = refused
        with pytest.raises(AlignmentError, match=r"was not pushed to me/x: .*hf upload me/x") as caught:
            push(folder, "me/x", public=False)
        assert "\n" not in str(caught.value)
        assert "hf_aaa" not in str(caught.value)
    assert len(list(folder.iterdir())) == 2


def test_a_hub_that_is_not_there_is_one_line(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AlignmentError, match="was not pushed to me/x") as caught:
        push(folder, "me/x", public=False)
    assert "\n" not in str(caught.value)
