"""One ``testbench up`` at a time on a home: a lock of the file system, which ends however the process does.

Loads nothing of Dagster: who is refused is refused at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbench_dagster.config import HOME_ENV, Config
from testbench_dagster.stores.files import ANOTHER_DISK, alone, create_folder, is_stored, writing

_LOCK = "up.lock"


def was_served(config: Config) -> bool:
    """Whether a process ever served this home."""
    return is_stored(config.home / _LOCK)


@contextmanager
def alone_at_home(config: Config, url: str) -> Iterator[bool]:
    """While this lasts no other process serves this home, or works on Dagster's files where it keeps them.

    These are in the home, or where DAGSTER_HOME says: which a shell may have from another installation.
    Yields whether one served here that was killed.

    Raises:
        StoreError: a folder cannot be written.
        TestbenchError: another process serves it; says which, where, and what to do.
    """
    create_folder(config.home)
    with _alone_in(config.home, url, "serves", "") as killed:
        if os.environ.get("DAGSTER_POSTGRES_URL"):  # no files then: a heartbeat keeps others out
            yield killed
            return
        create_folder(config.dagster_home, config.moves_dagster, mode=0o777)
        own = config.moves_dagster == HOME_ENV
        remedy = "" if own else f", or unset {config.moves_dagster} to use the installation's own"
        with _alone_in(config.dagster_home, url, "works on Dagster's storage in", remedy):
            yield killed


@contextmanager
def _alone_in(folder: Path, url: str, does: str, remedy: str) -> Iterator[bool]:
    path = folder / _LOCK

    def who() -> str:
        told = path.read_text("utf-8", errors="replace").strip() or "another process"
        return (
            f"`testbench up` {does} {folder} already: {told}; use that one, or end it first "
            f"(Ctrl-C where it runs, or kill the process){remedy}"
        )

    with alone(path, who):
        killed = path.stat().st_size > 0
        with writing(path, f"{ANOTHER_DISK}, which this user may write"):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}, {url}\n", encoding="utf-8")
        try:
            yield killed
        finally:
            path.write_text("", encoding="utf-8")
