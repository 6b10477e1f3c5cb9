"""A disk that is full or nearly so: told in one line, with the path, what is left and the remedy."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from pathlib import Path

import pytest

from testbench_dagster.stages.disk_space import low_space
from testbench_dagster.stores import disk
from testbench_dagster.stores.disk import free_bytes, is_full
from testbench_dagster_tests.cli.test_unwritable import folder as folder
from testbench_dagster_tests.commands import Said
from testbench_dagster_tests.namespaces import python_on_small_disk
from testbench_dagster_tests.servers import free_port

FILL = {"fill": None}
KEY = "a@external"


def said(folder: Path, size_kb: int, *commands: object) -> list[Said]:
    """What the commands do on a filesystem of so many kilobytes, which holds the configuration."""
    small = folder / "small"
    small.mkdir()
    setup = {"testbench.yaml": (folder / "testbench.yaml").read_text(encoding="utf-8")}
    arguments = ["-m", "testbench_dagster_tests.cli.saying", *map(json.dumps, (setup, *commands))]
    done = python_on_small_disk(small, size_kb, *arguments, environment=os.environ, cwd=small)
    assert done.returncode == 0, done.stderr
    return [Said(*json.loads(line)) for line in done.stdout.splitlines()]


def assert_told(one: Said, path: str, remedy: str) -> None:
    """One line with the path, what is left and the remedy."""
    assert one.returncode == 1, one
    assert "Traceback" not in one.stderr, one
    errors = [line for line in one.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, one
    assert path in errors[0] and "its disk is full (" in errors[0] and " kB left in " in errors[0], one
    assert "free some space there, or " in errors[0] and remedy in errors[0], one


def test_a_full_disk_is_told(folder: Path) -> None:
    started, run, scores = said(folder, 3000, ["scores"], FILL, ["run"], ["scores"])
    assert started.returncode == 0, started
    assert_told(run, "small/.testbench/", "set TESTBENCH_HOME to a folder on another disk")
    assert scores == started, "what is stored can be read"


@pytest.mark.slow
def test_what_shows_reads_where_the_disk_is_full(folder: Path) -> None:
    showing = [["scores"], ["plan"], ["show", KEY], ["leaderboard"]]
    before = said(folder, 3000, ["scores"], *showing, FILL, *showing)[1:]
    for command, one, again in zip(showing, before[:4], before[4:], strict=True):
        assert again.returncode == one.returncode and "disk" not in again.stderr, (command, again)


@pytest.mark.slow
def test_a_full_disk_is_told_by_whatever_needs_it(folder: Path) -> None:
    home = "set TESTBENCH_HOME to a folder on another disk"
    commands: list[object] = [["scores"], FILL, ["scores"], ["run"]]
    commands += [["up", "--port", str(free_port()), "--no-board"]]
    commands += [["backfill", "--all"], ["feed", "--out", "feed.json"], ["check", "--no-suppliers"]]
    started, scores, run, up, backfill, feed, check = said(folder, 3000, *commands)
    assert started.returncode == 0 and scores == started
    for one in (run, up, backfill):
        assert_told(one, "small/.testbench/", home)
    assert_told(feed, "feed.json", "choose another file")
    assert "warn  disk: TESTBENCH_HOME" in check.stdout and " 0 kB left in " in check.stdout
    assert "less than 512 MB" in check.stdout and home in check.stdout
    assert "FAIL  document store: " in check.stdout and "its disk is full" in check.stdout


def test_what_is_full_is_told_from_what_else_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_full(OSError(errno.ENOSPC, "")) and is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EACCES, ""))
    assert is_full(sqlite3.OperationalError("database or disk is full"))
    unclear = sqlite3.OperationalError("disk I/O error")
    assert not is_full(unclear) and not is_full(unclear, tmp_path / "file")
    monkeypatch.setattr(disk, "free_bytes", lambda path: (path, 4096))
    assert is_full(unclear, tmp_path / "file")
    unsaid = ValueError("and could not even say so")
    unsaid.__context__ = OSError(errno.ENOSPC, "")
    assert is_full(unsaid)


def test_little_space_is_told_once_per_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from testbench_dagster.config import load_config

    config = load_config()
    where, free = free_bytes(config.home)
    assert where == folder and free > 0, "the home is not there yet: of the folder that it will be in"
    assert (list(low_space(config)) == []) == (free >= disk.LOW_BYTES)
    monkeypatch.setattr("testbench_dagster.stages.disk_space.LOW_BYTES", free * 2 + 1)
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "dagster"))
    (told,) = low_space(config)
    assert told.startswith(f"TESTBENCH_HOME {config.home}: ") and f"left in {folder}" in told


def test_a_store_is_written_again_when_there_is_space(tmp_path: Path) -> None:
    """In one process, as `up` is: it reads while the disk is full, and no longer than that."""
    small = tmp_path / "small"
    small.mkdir()
    script = """
import pathlib
from contextlib import closing
from testbench_dagster.core.errors import StoreError
from testbench_dagster.stores.documents.collections import EPOCHS, SUPPLIERS
from testbench_dagster.stores.documents.sqlite import SqliteDocuments

def put(store, number):
    epoch = {"task": "t", "epoch": number, "started_at": None, "seed": "", "seed_sha256": ""}
    store.put_new(EPOCHS, [{"_id": str(number), **epoch}])

path, fill = pathlib.Path("documents.sqlite3"), pathlib.Path("fill")
with closing(SqliteDocuments(path)) as store:
    put(store, 1)
with fill.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
with closing(SqliteDocuments(path)) as store:
    assert [one["epoch"] for one in store.find(EPOCHS)] == [1] and not list(store.find(SUPPLIERS))
    try:
        put(store, 2)
    except StoreError as error:
        assert "its disk is full (" in str(error), error
    else:
        raise AssertionError("it was written")
    assert store.count(EPOCHS) == 1
    fill.unlink()
    put(store, 2)
    assert store.count(EPOCHS) == 2 and not list(store.find(SUPPLIERS))
"""
    done = python_on_small_disk(small, 1000, "-c", script, environment=os.environ, cwd=small)
    assert done.returncode == 0, done.stderr
