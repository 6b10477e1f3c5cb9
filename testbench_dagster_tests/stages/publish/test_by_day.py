"""Facts by day: every fact in one file, whatever comes late, is killed in between or lies elsewhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import polars as pl
import pyarrow.dataset as pa_dataset
import pytest
from click.testing import CliRunner, Result

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.core.errors import ConfigError, StoreError, TestbenchError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.stages.publish import by_day
from testbench_dagster.stages.publish.by_day import DATED, LAST, LATE, MANIFEST, export_by_day
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster.stores.files import alone
from testbench_dagster_tests.examined import examined
from testbench_dagster_tests.stages.publish.days import AFTER, BEFORE, TODAY, fill_day
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts

#: The evening of the last of ten days with facts.
NOW = datetime(2026, 3, 10, 20, tzinfo=UTC)
DAYS = 10


@pytest.fixture
def facts(open_installation: Callable[..., Workspace]) -> Facts:
    """On both stores: four attempts and three scores a day, the last at one millisecond to midnight."""
    workspace = open_installation({"address": "alpha"}, tasks=[{"name": "starter_logic", "samples": "all"}])
    made = Facts(workspace)
    task = made.registration("starter_logic", n_docs=200)
    for day in range(DAYS):
        midnight = datetime(2026, 3, 1 + day, tzinfo=UTC)
        for number, at in enumerate(
            (midnight, midnight + timedelta(hours=9), midnight + timedelta(hours=24, milliseconds=-1))
        ):
            doc = day * 4 + number
            made.attempt(task, doc, Fault.OK, at, text=f"wörld \x00 \U0001f600 {doc}")
            made.score(task, doc, float(doc % 2), at, tokens=(doc, None))
        made.attempt(task, day * 4 + 3, Fault.SUPPLIER_TIMEOUT, midnight + timedelta(hours=11), supplier=BETA)
    return made


def add_score(facts: Facts, doc: int, answered: datetime, scored: datetime) -> None:
    """A score that was made some time after its answer came."""
    task = facts.registration("starter_logic", n_docs=200)
    facts.score(task, doc, 1.0, answered, version="later")
    [made] = [
        d
        for d in facts.workspace.documents.find(SCORES)
        if d["scorer_version"] == "later" and d["doc_id"] == doc
    ]
    facts.workspace.documents.upsert(SCORES, [made | {"scored_at": scored}])


def stored(facts: Facts, dated: by_day.Dated) -> dict[str, dict[str, Any]]:
    return {d["_id"]: d for d in facts.workspace.documents.find(dated.of.collection)}


def plain(value: Any, of: type | None) -> Any:
    """A stored value as a parquet file of its type has it."""
    if value is None or of in (int, float, bool):
        return value
    if isinstance(value, datetime):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else value


def same(facts: Facts, rows: list[Mapping[str, Any]], dated: by_day.Dated) -> None:
    """Row for row and value for value what the store has, each once, and under its own day."""
    documents = stored(facts, dated)
    assert sorted(row["_id"] for row in rows) == sorted(documents), "each once"
    for row in rows:
        document = documents[row["_id"]]
        assert row["day"] == document[dated.at].date()
        for one in dated.of.fields:
            if one.exported:
                assert row[one.name] == plain(document.get(one.name), one.scalar), one.name


def read_back(facts: Facts, out: Path) -> None:
    """By DuckDB, by Polars and by pyarrow."""
    for dated in DATED:
        if not (out / dated.name).exists():
            assert not stored(facts, dated)
            continue
        pattern = f"{out}/{dated.name}/*/*.parquet"
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            told = connection.execute(f"SELECT * FROM read_parquet('{pattern}', hive_partitioning = true)")
            names = [column[0] for column in told.description]
            rows = [dict(zip(names, row, strict=True)) for row in told.fetchall()]
        for row in rows:
            for name, value in row.items():
                if isinstance(value, datetime):
                    row[name] = value.astimezone(UTC)
        same(facts, rows, dated)
        frame = pl.scan_parquet(pattern, hive_partitioning=True, try_parse_hive_dates=True).collect()
        same(facts, frame.to_dicts(), dated)
        whole = pa_dataset.dataset(out / dated.name, partitioning="hive").to_table()
        assert whole.num_rows == len(rows), "a folder as such"


def test_all_facts_are_in_files_of_their_days(facts: Facts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export_by_day(facts.workspace.documents, out, now=NOW)
    assert len(done.files) == 2 * DAYS and not done.kept
    assert done.files[str(out / "attempts/day=2026-03-01/attempts.parquet")] == 4
    assert sum(done.files.values()) == DAYS * 7
    read_back(facts, out)
    known = json.loads((out / MANIFEST).read_text())
    assert known["through"] == "2026-03-10" and known["rows"]["scores"]["2026-03-04"] == 3
    with duckdb.connect() as connection:
        types = dict(
            connection.execute(
                f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM '{out}/attempts/*/*.parquet')"
            ).fetchall()
        )
    assert (types["finished_at"], types["status"], types["latency_ms"], types["canary"], types["day"]) == (
        "TIMESTAMP WITH TIME ZONE",
        "BIGINT",
        "DOUBLE",
        "BOOLEAN",
        "DATE",
    )


def test_the_next_export_goes_on_and_doubles_nothing(facts: Facts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export_by_day(facts.workspace.documents, out, LAST, now=NOW)
    assert len(first.files) == 2 * DAYS, "a first one writes everything"
    task = facts.registration("starter_logic", n_docs=200)
    for hours in (1, 12):
        facts.attempt(task, 100 + hours, Fault.OK, NOW + timedelta(hours=hours))
    done = export_by_day(facts.workspace.documents, out, LAST, now=NOW + timedelta(hours=13))
    written = {Path(path).parent.name for path in done.files}
    assert written == {"day=2026-03-10", "day=2026-03-11"}, "the day that was open, and the new one"
    read_back(facts, out)
    before = {path: path.read_bytes() for path in out.rglob("*.parquet")}
    export_by_day(facts.workspace.documents, out, LAST, now=NOW + timedelta(hours=14))
    export_by_day(facts.workspace.documents, out, date(2026, 3, 5), now=NOW + timedelta(hours=15))
    assert {path: path.read_bytes() for path in out.rglob("*.parquet")} == before
    assert not list(out.rglob(".*.partial"))


def test_what_came_late_is_not_lost(facts: Facts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    documents = facts.workspace.documents
    export_by_day(documents, out, LAST, now=NOW)
    add_score(facts, 7, datetime(2026, 3, 2, 9, tzinfo=UTC), NOW + timedelta(minutes=3))
    task = facts.registration("starter_logic", n_docs=200)
    facts.attempt(
        task, 120, Fault.OK, NOW - LATE + timedelta(minutes=1)
    )  # stored once the store was there again
    later = NOW + timedelta(days=2)
    done = export_by_day(documents, out, LAST, now=later)
    assert {Path(path).parent.name for path in done.files} == {"day=2026-03-02", "day=2026-03-10"}
    read_back(facts, out)
    assert len(export_by_day(documents, out, LAST, now=later + timedelta(minutes=1)).files) == 0, (
        "nothing new"
    )
    night = datetime(2026, 3, 13, 2, tzinfo=UTC)
    export_by_day(documents, out, LAST, now=night)
    facts.attempt(task, 121, Fault.OK, datetime(2026, 3, 12, 23, tzinfo=UTC))
    done = export_by_day(documents, out, LAST, now=night + timedelta(hours=1))
    assert list(done.files) == [str(out / "attempts/day=2026-03-12/attempts.parquet")], "a day that was over"
    read_back(facts, out)


def test_a_later_beginning_leaves_no_gap(facts: Facts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    documents = facts.workspace.documents
    export_by_day(documents, out, date(2026, 3, 3), now=datetime(2026, 3, 5, 12, tzinfo=UTC))
    (out / "attempts/day=2026-03-07/attempts.parquet").unlink()  # it was not there yet
    done = export_by_day(documents, out, date(2026, 3, 9), now=NOW)
    days = sorted({Path(path).parent.name for path in done.files})
    assert days[0] == "day=2026-03-05" and days[-1] == "day=2026-03-10", "what lacked since the last one too"
    add_score(facts, 7, datetime(2026, 3, 1, 9, tzinfo=UTC), NOW)
    assert not any("03-01" in path for path in export_by_day(documents, out, LAST, now=NOW).files), (
        "not wanted"
    )
    export_by_day(documents, out, date(2026, 3, 1), now=NOW)
    read_back(facts, out)


def test_retention_takes_nothing_from_what_was_exported(facts: Facts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    documents = facts.workspace.documents
    export_by_day(documents, out, now=NOW)
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    documents.purge(ATTEMPTS, {"finished_at": {"lt": noon}})
    done = export_by_day(documents, out, now=NOW)
    assert done.kept == {str(out / "attempts/day=2026-03-02/attempts.parquet"): 4}
    frame = pl.read_parquet(f"{out}/attempts/*/*.parquet", hive_partitioning=True)
    assert frame.height == DAYS * 4, "of both days, that of which nothing is left too"


def test_a_clock_that_was_ahead_hides_nothing(facts: Facts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    documents = facts.workspace.documents
    export_by_day(documents, out, now=NOW + timedelta(days=400))
    facts.attempt(facts.registration("starter_logic", n_docs=200), 150, Fault.OK, NOW + timedelta(minutes=1))
    export_by_day(documents, out, LAST, now=NOW + timedelta(hours=1))
    read_back(facts, out)


@pytest.mark.parametrize("last", [None, "attempts/day=2026-03-06", "scores/day=2026-03-09"])
def test_interrupted_anywhere_and_run_again_each_is_there_once(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str | None
) -> None:
    """An interruption before a file; one by SIGKILL, of a process, is below."""
    out = tmp_path / "out"
    documents = facts.workspace.documents
    if last is not None:
        genuine = by_day.write_documents

        def stopping(path: Path, of: type[Any], rows: Any) -> int:
            if last in str(path):
                raise KeyboardInterrupt
            return genuine(path, of, rows)

        monkeypatch.setattr(by_day, "write_documents", stopping)
        with pytest.raises(KeyboardInterrupt):
            export_by_day(documents, out, LAST, now=NOW)
        monkeypatch.undo()
        add_score(facts, 9, datetime(2026, 3, 3, 9, tzinfo=UTC), NOW + timedelta(minutes=1))
    done = export_by_day(documents, out, LAST, now=NOW + timedelta(minutes=5))
    if last is not None:
        assert len(done.files) < 2 * DAYS, "it goes on"
    read_back(facts, out)


@pytest.mark.slow(minutes=0.2)
def test_killed_in_the_middle_and_run_again_each_is_there_once(embedded: Facts, tmp_path: Path) -> None:
    """By SIGKILL at several moments, what it had begun to write lying around."""
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        "from testbench_dagster.cli import main; main()",
        "-c",
        str(embedded.workspace.config.path),
        "export",
        str(out),
        "--since",
        "last",
    ]
    for wanted in (1, 7, 15):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while len(list(out.rglob("*.parquet*"))) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (out / "attempts/day=2026-03-10").mkdir(parents=True, exist_ok=True)
    (out / "attempts/day=2026-03-10/.attempts.1.abcd.parquet.partial").write_bytes(b"PAR1")  # of one of them
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    read_back(embedded, out)
    assert not list(out.rglob(".*.partial"))


@pytest.fixture
def embedded(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> Facts:
    if facts.workspace.config.mongo_uri is not None:
        pytest.skip("once is enough")
    monkeypatch.setenv("TESTBENCH_HOME", str(facts.workspace.config.home))
    return facts


def test_what_stands_in_the_way_is_told(embedded: Facts, tmp_path: Path) -> None:
    documents = embedded.workspace.documents
    out = tmp_path / "out"
    out.mkdir()
    with (
        alone(out / ".lock", "no"),
        pytest.raises(TestbenchError, match=r"another process exports to .*out; wait"),
    ):
        export_by_day(documents, out, now=NOW)
    for text, message in (
        ("{", "is not what testbench export writes"),
        ('{"version": 7}', "has version 7, this program writes 1"),
        ('{"version": 1, "read_at": 3}', "is not what testbench export writes"),
    ):
        (out / MANIFEST).write_text(text)
        with pytest.raises(StoreError, match=message):
            export_by_day(documents, out, LAST, now=NOW)
    with pytest.raises(ConfigError, match="may not hold a password") as told:
        export_by_day(documents, "s3://me:hunter22@bucket/x", now=NOW)
    assert "hunter22" not in str(told.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        export_by_day(documents, tmp_path / "file" / "x", now=NOW)


def test_a_place_in_s3_is_brought_up_to_date_too(embedded: Facts, s3_bucket: str, tmp_path: Path) -> None:
    documents = embedded.workspace.documents
    url = f"{s3_bucket}/lake"
    assert len(export_by_day(documents, url, LAST, now=NOW).files) == 2 * DAYS
    task = embedded.registration("starter_logic", n_docs=200)
    embedded.attempt(task, 120, Fault.OK, NOW + timedelta(minutes=1))
    done = export_by_day(documents, url, LAST, now=NOW + timedelta(minutes=2))
    assert set(done.files) == {
        f"{url}/{name}/day=2026-03-10/{name}.parquet" for name in ("attempts", "scores")
    }
    files, root = fsspec.core.url_to_fs(url)
    files.get(root, str(tmp_path / "got"), recursive=True)
    read_back(embedded, tmp_path / "got")


def test_the_command_says_what_it_wrote(embedded: Facts, tmp_path: Path) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["-c", str(embedded.workspace.config.path), "export", *arguments])

    out = str(tmp_path / "out")
    done = run(out, "--since", "2026-03-09")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"{out}/attempts/day=2026-03-09/attempts.parquet  4 rows",
        f"{out}/scores/day=2026-03-09/scores.parquet  3 rows",
        f"{out}/attempts/day=2026-03-10/attempts.parquet  4 rows",
        f"{out}/scores/day=2026-03-10/scores.parquet  3 rows",
    ]
    done = run(out, "--since", "last")
    assert (done.exit_code, done.stdout) == (0, "") and "nothing to write" in done.stderr
    embedded.workspace.documents.purge(SCORES, {"doc_id": {"gte": 38}})
    assert "kept as it was: " in run(out, "--since", "2026-03-10T00:00Z").stderr
    for arguments, message in (
        ((out, "--supplier", ALPHA), "of the options it takes --since alone"),
        ((out, "--out", out), "of the options it takes --since alone"),
        ((), "Missing option '--out', for files of what is known now, or DEST"),
        ((out, "--since", "yesterday"), "'yesterday' is no time"),
        (("--since", "2026-03-09", "--out", out), "has no zone"),
        (("--since", "last", "--out", out), "'last' goes with a destination"),
    ):
        done = run(*arguments)
        assert done.exit_code == 2 and message in done.stderr, done.stderr
    done = CliRunner().invoke(
        cli,
        ["-c", str(embedded.workspace.config.path), "export", "s3://me:hunter22@b/x"],
        standalone_mode=False,
    )
    assert isinstance(done.exception, ConfigError) and "hunter22" not in str(done.exception)


def test_from_python(embedded: Facts, tmp_path: Path) -> None:
    testbench = Testbench(embedded.workspace)
    done = testbench.export_by_day(tmp_path / "out", since=date(2026, 3, 10))
    assert sum(done.files.values()) == 7
    assert not testbench.export_by_day(str(tmp_path / "out"), since="last").files
    with pytest.raises(ConfigError, match="since is 'first'; give a date"):
        testbench.export_by_day(tmp_path, since="first")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="out is 7; give a path, or a URL such as"):
        testbench.export_by_day(7)  # type: ignore[arg-type]


def test_every_collection_is_found_by_an_index_and_has_no_column_of_the_partition() -> None:
    for dated in DATED:
        assert (dated.at,) in {index[:1] for index in dated.of.collection.indexes}, dated.name
        assert all(one.name != "day" for one in dated.of.fields)
    assert ("scored_at", "answered_at") in ScoreRecord.collection.indexes
    assert {dated.of for dated in DATED} >= {AttemptRecord, ScoreRecord}


@pytest.mark.slow(minutes=0.2)
def test_a_day_costs_the_same_whatever_the_history(
    open_installation: Callable[..., Workspace], tmp_path: Path
) -> None:
    """What the store examines to bring an export up to date, with one and with three times the history."""
    workspace = open_installation({"address": "alpha"})
    per_day, found = 60, []
    for days in (range(1, 11), range(11, 31)):
        for day in days:
            fill_day(workspace, TODAY - timedelta(days=day), per_day)
        out = tmp_path / f"{days}"
        export_by_day(workspace.documents, out, LAST, now=BEFORE)
        assert len(list(out.rglob("*.parquet"))) == 2 * days[-1]
        fill_day(workspace, TODAY, per_day)
        with examined(workspace) as count:
            done = export_by_day(workspace.documents, out, LAST, now=AFTER)
            found.append(count())
        assert list(done.files.values()) == [per_day, per_day], "that day alone"
        for collection, at in ((ATTEMPTS, "finished_at"), (SCORES, "answered_at")):
            workspace.documents.purge(collection, {at: {"gte": TODAY}})
    assert found[0] >= 2 * per_day, "it counts"
    assert abs(found[1] / found[0] - 1) < 0.1, found
