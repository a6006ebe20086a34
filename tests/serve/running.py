"""A real server on loopback in a thread, and OpenAI's client for it."""

import json
import threading
import urllib.error
import urllib.request

import openai

from alignment.policy.policies import Policy
from alignment.serve.adapters import Adapters
from alignment.serve.app import Mailbox, build_app
from alignment.serve.engine import Bounds
from alignment.serve.faults import error_body
from alignment.serve.models import Models
from alignment.serving.address import listen
from alignment.serving.server import server

TOKEN = "a-token-of-the-test"


class Running:
    """Serves policies by their names."""

    def __init__(self, runs, *, folders=(), length=None, cache_tokens=None, proxy=None, keys=None, **bounds):
        mailbox, keys = Mailbox(), keys or {}
        policies = {name: Policy.find(str(run), keys, proxy=proxy) for name, run in runs.items()}
        self.models = Models(
            policies, bounds=Bounds(**bounds), cache_tokens=cache_tokens, length=length, post=mailbox.post
        )
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        listener.listen()
        up = threading.Event()
        app = build_app(self.models, Adapters(self.models, folders, keys), TOKEN, mailbox=mailbox, started=up.set)
        self._server = server(app, grace_seconds=10, body=error_body)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        assert up.wait(10)
        self.client = openai.OpenAI(base_url=self.url, api_key=TOKEN, max_retries=0, timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self._server.should_exit = True
        self._thread.join()

    def post(self, path, body, *, token=TOKEN, method="POST"):
        """Send a body as it is; return the status and the response's JSON or text."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                text, status = response.read(), response.status
        except urllib.error.HTTPError as error:
            with error:
                text, status = error.read(), error.code
        return status, json.loads(text) if text[:1] == b"{" else text.decode()

    def text(self, **asked):
        """Return the text of a completion."""
        return self.client.completions.create(**asked).choices[0].text

    def chat(self, words, **asked):
        """Return the choice of a chat completion to a user's words."""
        messages = [{"role": "user", "content": words}]
        return self.client.chat.completions.create(messages=messages, **asked).choices[0]
