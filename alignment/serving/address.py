"""The address that a server listens on."""

import ipaddress
import socket

from alignment.errors import AlignmentError


def listen(host: str, port: int) -> socket.socket:
    """Bind the address; connections wait until the server accepts them.

    Raises: AlignmentError if the address is in use, is not an address of this machine, or is none at all.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError, ValueError) as error:  # UnicodeError, of a name that IDNA refuses, is a ValueError
        raise AlignmentError(
            f"{host[:100]!r}, port {port}, cannot be listened on ({getattr(error, 'strerror', None) or error}); name "
            "another --port (0: any that is free) or --host."
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL under which clients reach a socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
