"""Serves the board on a port until it is told to stop."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from collections.abc import Callable, Sequence

import uvicorn

from testbench_dagster.board.app import make_app
from testbench_dagster.board.connections import HEAD_BYTES, BoundedConnection
from testbench_dagster.board.site import Site
from testbench_dagster.core.errors import TestbenchError

#: Connections at once; further ones are told to come back. A browser opens some and keeps them for seconds.
_AT_ONCE = 256
_BACKLOG = 128
_STOP_S = 3


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, names: Sequence[str] = ()) -> frozenset[str] | None:
    """The names a request may ask for; None for all.

    Of what listens on the loopback interface they are those of that interface, and the ``names`` by which a
    proxy asks: else any page could have its own name resolve to it, and read what is shown here.
    """
    if not is_loopback(host):
        return None
    return frozenset(name.lower() for name in ("localhost", "127.0.0.1", "::1", host.strip("[]"), *names))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        TestbenchError: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise TestbenchError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose others with --host and --port"
        ) from None


def serve(
    site: Site,
    listening: socket.socket,
    hosts: frozenset[str] | None,
    on_serving: Callable[[str], None],
    *,
    with_parent: bool = False,
) -> None:
    """Answer requests until interrupted or terminated; ``on_serving`` is told the address.

    ``with_parent``: it ends with the process that started it, which holds the other end of stdin.
    """
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        make_app(site, hosts=hosts),
        http=BoundedConnection,
        h11_max_incomplete_event_size=HEAD_BYTES,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        limit_concurrency=_AT_ONCE,
        timeout_graceful_shutdown=_STOP_S,
    )
    server = uvicorn.Server(config)
    if with_parent:
        threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    on_serving(f"http://{shown}:{port}")
    server.run(sockets=[listening])


def _stop_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True
