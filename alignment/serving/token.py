"""The bearer token of a server."""

import os
import secrets

from alignment.errors import AlignmentError


def token_of(variable: str) -> tuple[str, bool]:
    """The bearer token that an environment variable holds, or a new one; and whether it is new.

    Raises: AlignmentError if the value of the variable is not valid in a header.
    """
    if not variable.isidentifier():
        raise AlignmentError(
            "--api_key_env must name an environment variable; what was given does not look like a name and is not "
            "shown here, in case it is a key."
        )
    token = os.environ.get(variable, "").strip()
    if not token:
        return secrets.token_urlsafe(32), True
    if not token.isascii() or not token.isprintable() or " " in token:
        raise AlignmentError(f"{variable} has characters that are not allowed in an HTTP header; give another token.")
    return token, False
