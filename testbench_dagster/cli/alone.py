"""One ``testbench up`` at a time on a home: a lock of the file system, which ends however the process does.

Loads nothing of Dagster: who is refused is refused at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from testbench_dagster.config import Config
from testbench_dagster.stores.files import ANOTHER_DISK, alone, create_folder, is_stored, writing

_LOCK = "up.lock"


def was_served(config: Config) -> bool:
    """Whether a process ever served this home."""
    return is_stored(config.home / _LOCK)


@contextmanager
def alone_at_home(config: Config, url: str) -> Iterator[bool]:
    """While this lasts no other process serves this home. Yields whether one served here that was killed.

    Raises:
        StoreError: the home cannot be written.
        TestbenchError: another process serves it; says which, where, and what to do.
    """
    create_folder(config.home)
    path = config.home / _LOCK

    def who() -> str:
        told = path.read_text("utf-8", errors="replace").strip() or "another process"
        return (
            f"`testbench up` serves {config.home} already: {told}; use that one, or end it first "
            "(Ctrl-C where it runs, or kill the process)"
        )

    with alone(path, who):
        killed = path.stat().st_size > 0
        with writing(path, f"{ANOTHER_DISK}, which this user may write"):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}, {url}\n", encoding="utf-8")
        try:
            yield killed
        finally:
            path.write_text("", encoding="utf-8")
