"""What a server prints once it listens."""

from alignment.serving.address import is_loopback

EXPOSED = "others on the network can reach it, and nothing is encrypted: put it behind a proxy with TLS"


def greeting(what: str, use: str, *, host: str, api_key_env: str, token: str | None) -> list[str]:
    """Return the lines: what is served where, a token made for this run, how to use it, and who can reach it.

    Args:
        token: None if the user has set one in `api_key_env`.
    """
    lines = [f"{what}; Ctrl-C ends"]
    if token is not None:
        lines.append(f"token, made for this run: export {api_key_env}={token}")
    lines.append(use)
    if not is_loopback(host):
        lines.append(EXPOSED)
    return lines
