"""A home that may only be read: commands that show work, and those that have to write say why they do not."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.cli.test_unwritable import KEY
from testbench_dagster_tests.cli.test_unwritable import folder as folder
from testbench_dagster_tests.commands import Said
from testbench_dagster_tests.namespaces import python_reading_alone, require_namespaces
from testbench_dagster_tests.servers import free_port
from testbench_dagster_tests.stages.score.facts import Facts

SHOWING = [
    ["scores"],
    ["show", KEY],
    ["answers", "-s", KEY, "-t", "starter_logic"],
    ["history", "-s", KEY],
    ["taxonomies"],
    ["compare", KEY, "b@external"],
    ["identity"],
    ["references"],
    ["suspicions"],
    ["twins"],
    ["leaderboard"],
    ["service"],
    ["plan"],
    ["feed"],
    ["check", "--no-suppliers"],
    ["migrate"],
    ["export", "--out", "exported"],
    ["evidence", "--supplier", KEY, "--out", "evidence.zip"],
]
WRITING = [["run"], ["up", "--port", str(free_port())], ["probe", KEY], ["backfill", "--all"]]


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with an evaluated task, in which some collections were never made."""
    require_namespaces()
    with Workspace.open() as workspace:
        from testbench_dagster.stages.discover.roster import refresh_roster

        refresh_roster(workspace)
        facts = Facts(workspace)
        registration = facts.registration("starter_logic", n_docs=4)
        for position in range(4):
            facts.attempt(registration, position, supplier=KEY)
    return folder / ".testbench"


def said(folder: Path, home: Path, *commands: list[str]) -> list[Said]:
    """What the commands do where the home cannot be written."""
    arguments = ["-m", "testbench_dagster_tests.cli.saying", *map(json.dumps, commands)]
    done = python_reading_alone(home, *arguments, environment=os.environ, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [Said(*json.loads(line)) for line in done.stdout.splitlines()]


def test_scores_of_a_home_that_it_may_not_write(folder: Path, home: Path) -> None:
    (scores,) = said(folder, home, ["scores", "--format", "json"])
    assert scores.returncode == 0 and len(json.loads(scores.stdout)) > 0, scores


@pytest.mark.slow
def test_what_shows_reads_a_home_that_it_may_not_write(folder: Path, home: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in home.iterdir()}
    for command, one in zip(SHOWING, said(folder, home, *SHOWING), strict=True):
        told = [line for line in one.stdout.splitlines() if line.startswith("FAIL")]
        assert one.returncode == 0 and not told, (command, one)
        assert "readonly" not in one.stdout + one.stderr, (command, one)
    checked = said(folder, home, ["check", "--no-suppliers"])[0].stdout
    assert f"warn  document store: SQLite in {home}, which this user may only read" in checked
    assert (folder / "exported" / "attempts.parquet").is_file() and (folder / "evidence.zip").is_file()
    assert before == {path.name: path.stat().st_mtime_ns for path in home.iterdir()}, "nothing was written"


@pytest.mark.slow
def test_what_writes_says_so(folder: Path, home: Path) -> None:
    for command, one in zip(WRITING, said(folder, home, *WRITING), strict=True):
        assert one.returncode == 1, (command, one)
        assert one.stderr.splitlines()[-1].startswith("error: "), (command, one)
        assert "TESTBENCH_HOME" in one.stderr and "to a folder this user may write" in one.stderr, one
        assert "Traceback" not in one.stderr


@pytest.mark.slow
def test_what_a_living_writer_has_in_its_log_is_read(folder: Path, home: Path) -> None:
    """The write-ahead log is read with the file, while its writer lives and after a kill; or it is told."""
    script = (
        "import sqlite3, sys, time\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA wal_autocheckpoint=0')\n"
        "c.execute('UPDATE attempts SET _id = _id')\n"
        "c.execute('DELETE FROM attempts WHERE _seq > 1')\n"
        "print('written', flush=True)\n"
        "time.sleep(600)\n"
    )
    path = home / "documents.sqlite3"
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    count = ["export", "--out", "exported"]
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "written\n"
        (alive,) = said(folder, home, count)
    finally:
        writer.kill()
        writer.wait()
    (killed,) = said(folder, home, count)
    assert path.with_name("documents.sqlite3-wal").stat().st_size > 0
    for one in (alive, killed):
        assert one.returncode == 0 and "1 row" in one.stdout.replace("1 attempt", "1 row"), one
    # copied without the index of its log, from a disk that is gone: only who writes can read it
    path.with_name("documents.sqlite3-shm").unlink()
    (without,) = said(folder, home, ["scores"])
    assert without.returncode == 1
    assert "documents.sqlite3-wal beside it holds what was written last" in without.stderr
    with sqlite3.connect(path) as connection:  # as the message says
        connection.execute("SELECT 1 FROM attempts").fetchall()
    connection.close()
    assert said(folder, home, ["scores"])[0].returncode == 0


def test_what_is_written_while_it_is_read_is_not_taken_for_right(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as if nobody wrote it: the file that changed meanwhile is noticed, and then read anew."""
    from testbench_dagster.core.errors import StoreError
    from testbench_dagster.core.records.attempts import AttemptRecord
    from testbench_dagster.stores.documents import connections, open_documents, typed

    path = home / "documents.sqlite3"
    monkeypatch.setattr(connections, "is_writable", lambda _: False)  # for root
    store = open_documents(home, None)
    assert typed.count(store, AttemptRecord) == 4
    own = connections.Connections(path)

    def disturbed() -> None:
        with own.use() as connection:
            connection.execute("SELECT 1 FROM attempts").fetchall()
            time.sleep(0.01)
            path.touch()

    with pytest.raises(StoreError, match="another process wrote it while it was read; repeat"):
        disturbed()
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("DELETE FROM attempts WHERE _seq > 1")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert typed.count(store, AttemptRecord) == 1
    store.close()
    own.close()
