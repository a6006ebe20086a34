"""Claude models behind Anthropic's Messages API; needs the extra `anthropic`."""

import weakref
from typing import Any

import httpx2

from alignment.calls.call import ChatReply
from alignment.calls.chat import ChatCall
from alignment.calls.replies import ReplyFault, details_of, message
from alignment.calls.transport import Transport, client_arguments
from alignment.config.schema.chat_models import AnthropicKeys
from alignment.errors import JudgeError

USAGE = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}


class AnthropicChat:
    """`send` makes one attempt; the caller has limits, budget and retries."""

    def __init__(self, entry: AnthropicKeys, client: Any, errors: Any) -> None:
        self.entry = entry
        self.client = client
        self.where = str(client.base_url)
        self.transport = Transport(entry, errors, self.where, client.api_key)
        weakref.finalize(self, client.close).atexit = False  # connections close with the chat

    def request(self, call: ChatCall) -> dict[str, Any]:
        """Return the body of the request; the API has no seed, so a repeat is another sample of the same request."""
        return {
            "model": self.entry.model,
            "max_tokens": call.max_tokens,
            "messages": call.messages,
            "temperature": call.temperature,
            **self.entry.extra_body,
        }

    def send(self, request: dict[str, Any]) -> ChatReply:
        """Make one attempt.

        Raises: JudgeError if every other call would fail alike: no access, no such model.
        """
        parsed = self.transport.attempt(
            lambda: self.client.post("/v1/messages", cast_to=httpx2.Response, body=request).content,
            max_tokens=request["max_tokens"],
        )
        return parsed if isinstance(parsed, ChatReply) else self._message(parsed)

    def _message(self, parsed: dict[str, Any]) -> ChatReply:
        try:
            reply = message(parsed)
        except ReplyFault as fault:
            return self.transport.unexpected(parsed, fault)
        raw, details = self.transport.clean(reply.text), details_of(parsed, reply, USAGE)
        if reply.ended != "ok":
            return ChatReply("refusal" if reply.ended == "refusal" else "truncated", raw, reply.text, details=details)
        return ChatReply("ok", raw, reply.text, details=details)


def open_chat(entry: AnthropicKeys, *, connect: bool) -> AnthropicChat:
    """Build the client and, if `connect`, check the connection; without it no server and no key are needed.

    Raises: JudgeError if the package or the key is missing, there is no server, or it refuses the key.
    """
    try:
        import anthropic
    except ModuleNotFoundError:
        raise JudgeError(
            f'{entry.FAMILY}.kind anthropic needs its client: pip install "alignment-stack[anthropic]".'
        ) from None
    client = anthropic.Anthropic(**client_arguments(entry, anthropic, connect=connect))
    chat = AnthropicChat(entry, client, anthropic)
    if connect:
        chat.transport.check_connection(client.models.with_raw_response.list)
    return chat
