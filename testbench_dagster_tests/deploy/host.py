"""The first process of a simulated host: waits for a line, then runs one program until it ends.

``python host.py NAME HIDDEN… -- PROGRAM…``. Begun by :mod:`.hosts` in namespaces of its own, where it brings
up loopback, takes its name, hides the folders of other hosts, and inherits orphans, as init does. Without
namespaces (``NAME`` empty) it only runs the program.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | IFF_UP, b""))


def main() -> int:
    name, *rest = sys.argv[1:]
    hidden, program = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    if name:
        loopback_up()
        socket.sethostname(name)
        for folder in hidden:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return 1
    child = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    while True:  # orphans too
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
