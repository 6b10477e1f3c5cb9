"""What a simulated host reaches of this machine: some ports of loopback, and nothing else.

``python link.py PID PORT…``: listens on the ports in the network namespace of a process, and connects whoever
comes with the same port here. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def listening_in(pid: int, ports: list[int]) -> list[socket.socket]:
    """Sockets that listen in the network of another process; ours stays the same."""
    ours, theirs = (os.open(f"/proc/{of}/ns/net", os.O_RDONLY) for of in ("self", pid))
    enter(theirs)
    try:
        return [socket.create_server(("127.0.0.1", port), backlog=128) for port in ports]
    finally:
        enter(ours)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def connect(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        there, back = await asyncio.open_connection("127.0.0.1", port)
    except OSError:  # that server is away
        writer.close()
        return
    await asyncio.gather(pump(reader, back), pump(there, writer))


async def serve(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        port = listener.getsockname()[1]
        await asyncio.start_server(lambda r, w, port=port: connect(port, r, w), sock=listener)
    print("ready", flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(listening_in(int(sys.argv[1]), [int(port) for port in sys.argv[2:]])))
