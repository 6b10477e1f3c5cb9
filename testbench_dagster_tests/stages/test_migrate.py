"""A home or servers made by commit b1e3080 become those of this version without losing anything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import bson
import pytest
import sqlalchemy as sa
from pymongo import MongoClient

from testbench_dagster.cli import cli
from testbench_dagster.config import Config, load_config
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.migrate import HOLDER, migrate, migrate_if_safe
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores import migrations
from testbench_dagster.stores.datasets import open_datasets
from testbench_dagster.stores.documents import open_documents, typed
from testbench_dagster.stores.documents.collections import ALL, ATTEMPTS, SUPPLIERS
from testbench_dagster.stores.documents.values import CODEC
from testbench_dagster.stores.schema import DATASETS_SCHEMA, DOCUMENTS_SCHEMA, SchemaError
from testbench_dagster_tests.fixtures import b1e3080

_TABLES = ("registrations", "current_tasks", "dataset_docs", "dataset_fewshot")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "TESTBENCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def old_home(tmp_path: Path) -> Path:
    """The configuration of the installation as that commit left it, on the embedded stores."""
    return b1e3080.unpack(tmp_path / "installation")


@pytest.fixture(params=["embedded", "servers"])
def old(request: pytest.FixtureRequest, old_home: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The same on the embedded stores and on MongoDB and PostgreSQL, filled as that commit wrote them."""
    if request.param == "servers":
        mongo, postgres = (
            request.getfixturevalue(name) for name in ("mongo_database_uri", "postgres_database_uri")
        )
        home = old_home.parent / ".testbench"
        _fill_mongo(home / "documents.sqlite3", mongo)
        _fill_postgres(home / "datasets.sqlite3", postgres)
        monkeypatch.setenv("TESTBENCH_MONGO_URI", mongo)
        monkeypatch.setenv("TESTBENCH_POSTGRES_URI", postgres)
    return load_config(old_home)


def stored(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Every document of an embedded store, by collection and id, read without this package."""
    found: dict[str, dict[str, dict[str, Any]]] = {collection.name: {} for collection in ALL}
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for name in tables & found.keys():
            for (body,) in connection.execute(f'SELECT "_body" FROM "{name}"'):
                document = bson.decode(body, CODEC)
                found[name][document["_id"]] = document
    return found


def _fill_mongo(path: Path, uri: str) -> None:
    with MongoClient(uri) as client:
        database = client.get_default_database()
        for name, documents in stored(path).items():
            if documents:
                database[name].insert_many(list(documents.values()))


def _fill_postgres(path: Path, uri: str) -> None:
    engine = sa.create_engine(uri.replace("postgresql://", "postgresql+psycopg2://"))
    with closing(sqlite3.connect(path)) as source, engine.begin() as target:
        for (made,) in source.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"):
            target.execute(sa.text(made))
        for name in _TABLES:
            rows = source.execute(f"SELECT * FROM {name}")
            names = [column[0] for column in rows.description]
            marks = ", ".join(f":{column}" for column in names)
            for row in rows:
                target.execute(
                    sa.text(f"INSERT INTO {name} VALUES ({marks})"), dict(zip(names, row, strict=True))
                )
    engine.dispose()


def run_command(
    config: Path, *arguments: str, prefix: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    command = [
        *prefix,
        sys.executable,
        "-c",
        "from testbench_dagster.cli import main; main()",
        "-c",
        str(config),
    ]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=False, **options
    )


@contextmanager
def opened(config: Config, *, any_schema: bool = False) -> Iterator[tuple[Any, Any]]:
    with (
        closing(open_documents(config.home, config.mongo_uri, any_schema=any_schema)) as documents,
        closing(open_datasets(config.home, config.postgres_uri, any_schema=any_schema)) as datasets,
    ):
        yield documents, datasets


def unchanged_but(documents: Any, before: Mapping[str, Mapping[str, Any]]) -> None:
    """Every stored document is there to the last byte, attempts with the number of their classifier."""
    for collection in ALL:
        now = {document["_id"]: document for document in documents.find(collection)}
        wanted = dict(before[collection.name])
        if collection is ATTEMPTS:
            wanted = {id_: {**document, "classifier": 1} for id_, document in wanted.items()}
        assert now == wanted, collection.name


#: Fields that are new since that commit, and those that mean something else.
NEW = {
    "scores": {
        "cost", "cost_per_1000_right", "failures", "first_attempt_success", "kind", "missing", "model",
        "n_failed", "n_late", "n_open", "n_released", "n_unmetered", "n_void", "next_attempt_at",
        "score_answered",
    },
    "leaderboard": {
        "as_reference", "asked_with", "first_attempt_success", "model", "n_open", "n_own", "own_score",
        "public_gap", "ranked_among", "shared", "standing", "tokens_per_s_p50", "ttft_p50_ms", "unit",
        "uptime", "uptime_low",
    },
    "taxonomies": {
        "left_out", "model", "n_open", "n_own", "not_applicable", "own_score", "set_aside", "shared",
    },
    "identity": {"model", "n_cuts", "split_at"},
}  # fmt: skip
GONE = {"scores": {"pooled"}}
CHANGED = {
    "availability", "coverage", "latency_ms", "likely_high", "likely_low", "n_planned", "p_best",
    "rank_high", "rank_low",
}  # fmt: skip
#: Rows with docs that failed: asked anew, they had been answered before, and their last outcome stays until
#: the next closes; two probes were never answered, and wait for their next occasion.
RECOUNTED = {
    ("sim-04@simulation", "sums"): {"n": 12, "score": 0.25, "errors": {}, "n_open": 0, "status": "ok"},
    ("sim-04@simulation", "identity"): {"n": 28, "n_open": 2, "status": "partial"},
}


#: Tasks that are put in another way than then: a run registers them anew, and they are due for everybody.
PUT_ANEW = frozenset({"tokenizer", "config", "identity"})


def as_before(now: Any, then: Any, command: str, anew: frozenset[str] = frozenset()) -> None:
    """What a command says is what that commit's said, but for the fields that are new or changed meaning."""
    for row, before in zip(now, then, strict=True):
        if row.get("task") in anew:
            assert (row["n"], row["status"], before["status"]) == (0, "no_data", "ok")
            continue
        assert row.keys() - before.keys() == NEW[command]
        assert before.keys() - row.keys() == GONE.get(command, set())
        before = {name: value for name, value in before.items() if name in row}
        recounted = RECOUNTED.get((row["supplier"], row.get("task")))
        if recounted is not None:
            assert {k: row[k] for k in recounted} == recounted
            continue
        assert {k: row[k] for k in before.keys() - CHANGED} == {k: before[k] for k in before.keys() - CHANGED}
        if command == "scores":
            assert (row["score_answered"], row["n_failed"], row["n_open"]) == (row["score"], 0, 0)
            assert row["n_released"] == row["n"]


def test_steps_lead_to_the_versions_of_this_code() -> None:
    assert [step.to for step in migrations.DOCUMENT_STEPS] == list(range(1, DOCUMENTS_SCHEMA + 1))
    assert [step.to for step in migrations.DATASET_STEPS] == list(range(1, DATASETS_SCHEMA + 1))


def test_nothing_is_lost_and_a_second_time_does_nothing(old: Config) -> None:
    before = stored(old.path.parent / ".testbench/documents.sqlite3")
    assert len(before["attempts"]) == b1e3080.N_ATTEMPTS
    with opened(old, any_schema=True) as (documents, datasets):
        assert (documents.schema_version(), datasets.schema_version()) == (0, 0)
        tasks = datasets.tasks()
        docs = {r.task: list(datasets.docs(r.task_hash)) for r in tasks}
    said: list[str] = []
    migrate(old, said.append)
    assert said[-1].endswith(f"schema {DATASETS_SCHEMA}, done")
    for _ in range(2):
        with opened(old) as (documents, datasets):
            assert (documents.schema_version(), datasets.schema_version()) == (
                DOCUMENTS_SCHEMA,
                DATASETS_SCHEMA,
            )
            unchanged_but(documents, before)
            assert datasets.tasks() == tasks
            assert {r.task: list(datasets.docs(r.task_hash)) for r in tasks} == docs
        again: list[str] = []
        migrate(old, again.append)
        assert [line.rpartition(", ")[2] for line in again] == ["up to date", "up to date"]


def test_the_numbers_are_those_that_commit_published(old: Config, capsys: pytest.CaptureFixture[str]) -> None:
    migrate(old, lambda _: None)
    for command, said in b1e3080.SAID.items():
        cli.main(["-c", str(old.path), command, "--format", "json"], standalone_mode=False)
        as_before(json.loads(capsys.readouterr().out), json.loads(said.read_text("utf-8")), command)


def test_scores_stored_by_that_commit_stand_and_lack_what_was_extracted(old: Config) -> None:
    migrate(old, lambda _: None)
    with Workspace(old) as workspace:
        scores = typed.find(workspace.documents, ScoreRecord)
        assert {score.extracted for score in scores} == {None}
        keys = [supplier.key for supplier in known_suppliers(workspace)]
        newest = max(score.answered_at for score in typed.find(workspace.documents, ScoreRecord))
        report = score_new(workspace, keys, now=newest)
    assert (report.n_scored, report.n_failed, report.n_put_off) == (0, 0, 0)


def test_an_older_store_is_refused_in_one_line_with_the_remedy(old: Config) -> None:
    with opened(old) as (documents, datasets):
        for use in (lambda: documents.count(SUPPLIERS), datasets.tasks):
            with pytest.raises(SchemaError, match=r"earlier version .*run `testbench migrate`$") as refused:
                use()
            assert "\n" not in str(refused.value) and "password" not in str(refused.value)
    done = run_command(old.path, "scores")
    assert done.returncode == 1 and "`testbench migrate`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("what", ["document", "dataset"])
def test_a_newer_store_is_refused(old: Config, what: str) -> None:
    migrate(old, lambda _: None)
    newer = max(DOCUMENTS_SCHEMA, DATASETS_SCHEMA) + 1
    with opened(old) as (documents, datasets):
        if what == "document":
            assert documents.move_schema(DOCUMENTS_SCHEMA, newer)
        else:
            assert datasets.move_schema(DATASETS_SCHEMA, newer, lambda _: None)
    with opened(old) as (documents, datasets):
        use = (lambda: documents.count(SUPPLIERS)) if what == "document" else datasets.tasks
        with pytest.raises(SchemaError, match=rf"newer version of testbench_dagster \(schema {newer},"):
            use()
    for bring in (migrate, migrate_if_safe):
        with pytest.raises(SchemaError, match=f"{what} store .* newer version"):
            bring(old, lambda _: None)


def test_a_dry_run_tells_and_changes_nothing(old_home: Path) -> None:
    files = [old_home.parent / ".testbench" / name for name in ("documents.sqlite3", "datasets.sqlite3")]
    with closing(sqlite3.connect(files[0])) as connection:
        tables = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    before = stored(files[0])
    done = run_command(old_home, "migrate", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"document store {files[0]}: schema 0, to become 2",
        f"  1: attempts name the classifier that decided their fault ({b1e3080.N_ATTEMPTS} in attempts)",
        "  2: indexes find what is young enough without reading what is older ("
        + ", ".join(
            f"{len(before[name])} in {name}"
            for name in ("attempts", "scores", "prompts", "epochs", "lane_ends")
        )
        + ")",
        f"dataset store {files[1]}: schema 0, to become 1",
        "  1: the store carries its schema version",
    ]
    with closing(sqlite3.connect(files[0])) as connection:
        assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == tables
        assert connection.execute("PRAGMA user_version").fetchone() == (0,)
    assert stored(files[0]) == before


def test_what_does_not_exist_is_not_created(tmp_path: Path, old_home: Path) -> None:
    for file in (old_home.parent / ".testbench").iterdir():
        file.unlink()
    said: list[str] = []
    for bring in (migrate, migrate_if_safe):
        bring(load_config(old_home), said.append)
    assert [line.rpartition(": ")[2] for line in said] == ["nothing is stored yet"] * 2
    assert list((old_home.parent / ".testbench").iterdir()) == []


#: Root may write everywhere, unless it gives that up.
_AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
#: Migrates while others have the files open, and ends without closing them: what was written is in the logs.
_LEFT_OPEN = """
import os, sqlite3, sys
from pathlib import Path
from testbench_dagster.config import load_config
from testbench_dagster.stages.migrate import migrate

held = [sqlite3.connect(file) for file in Path(sys.argv[1]).parent.glob(".testbench/*.sqlite3")]
for connection in held:
    connection.execute("SELECT * FROM sqlite_master").fetchall()
migrate(load_config(sys.argv[1]), print)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(_AS_ANYBODY) and shutil.which("setpriv") is None, reason="root without setpriv")
@pytest.mark.parametrize("closed", [True, False])
def test_a_home_that_is_up_to_date_is_only_read(old_home: Path, closed: bool) -> None:
    home = old_home.parent / ".testbench"
    if closed:
        migrate(load_config(old_home), lambda _: None)
    else:
        subprocess.run([sys.executable, "-c", _LEFT_OPEN, str(old_home)], check=True, timeout=60)
    assert [log.stat().st_size > 0 for log in home.glob("*-wal")] == ([] if closed else [True, True])
    for path in (*home.iterdir(), home):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        for options in (["--dry-run"], []):
            done = run_command(old_home, "migrate", *options, prefix=_AS_ANYBODY)
            assert done.returncode == 0, done.stderr
            said = [line.rpartition(": ")[2] for line in done.stdout.splitlines()]
            assert said == ["schema 2, up to date", "schema 1, up to date"]
    finally:
        home.chmod(0o700)


def test_a_new_store_beside_an_old_one_begins_at_the_current_version(old_home: Path) -> None:
    (old_home.parent / ".testbench/documents.sqlite3").unlink()
    config = load_config(old_home)
    migrate(config, lambda _: None)
    with opened(config) as (documents, datasets):
        assert documents.count(SUPPLIERS) == 0 and datasets.tasks()
        assert documents.schema_version() == DOCUMENTS_SCHEMA


# ------------------------------------------------------------------------------- others at work


def test_nothing_is_changed_under_a_living_process(old: Config) -> None:
    with opened(old, any_schema=True) as (documents, _):
        before = {d["_id"]: d for d in documents.find(ATTEMPTS)}
        with Heartbeat(documents, "a run"):
            for bring in (migrate, migrate_if_safe):
                with pytest.raises(SchemaError, match=rf"process {os.getpid()} on .* is at work"):
                    bring(old, lambda _: None)
            assert documents.schema_version() == 0
            assert {d["_id"]: d for d in documents.find(ATTEMPTS)} == before
    migrate_if_safe(old, lambda _: None)


def test_a_step_that_takes_something_away_has_to_be_asked_for(
    old: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = migrations.DOCUMENT_STEPS
    harsh = migrations.DocumentStep(first.to, first.what, False, first.touches, first.run)
    monkeypatch.setattr("testbench_dagster.stages.migrate.DOCUMENT_STEPS", (harsh, *others))
    with pytest.raises(SchemaError, match="run `testbench migrate`"):
        migrate_if_safe(old, lambda _: None)
    with opened(old, any_schema=True) as (documents, datasets):
        assert (documents.schema_version(), datasets.schema_version()) == (0, 0)
    migrate(old, lambda _: None)
    with opened(old) as (documents, _):
        assert documents.count(ATTEMPTS, {"classifier": 1}) == b1e3080.N_ATTEMPTS


def test_a_second_migration_waits_for_the_first(old: Config) -> None:
    said: list[str] = []
    with opened(old, any_schema=True) as (documents, datasets):
        heartbeat = Heartbeat(documents, HOLDER)
        heartbeat.__enter__()

        def tell(text: str) -> None:
            """The other one ends as soon as somebody waits for it."""
            said.append(text)
            if "waiting" in text:
                documents.fill(ATTEMPTS, "classifier", 1)
                documents.move_schema(0, DOCUMENTS_SCHEMA)
                datasets.move_schema(0, 1, lambda _: None)
                heartbeat.__exit__(None, None, None)

        migrate_if_safe(old, tell)
    assert [text for text in said if "is migrating; waiting" in text] and not [t for t in said if "done" in t]


def many_attempts(home: Path, n: int) -> None:
    """Let the embedded store of that commit hold many more attempts."""
    with closing(sqlite3.connect(home / "documents.sqlite3")) as connection:
        names = [row[1] for row in connection.execute('PRAGMA table_info("attempts")')][1:]
        listed = ", ".join(f'"{name}"' for name in names)
        row = connection.execute(f'SELECT {listed} FROM "attempts" LIMIT 1').fetchone()
        body = bson.decode(row[-1], CODEC)
        rows = []
        for number in range(n):
            id_ = f"{number:040d}"
            rows.append((id_, *row[1:-1], bson.encode({**body, "_id": id_}, codec_options=CODEC)))
        marks = ", ".join("?" * len(names))
        connection.executemany(f'INSERT INTO "attempts" ({listed}) VALUES ({marks})', rows)
        connection.commit()


def filled(home: Path) -> int:
    """How many attempts name their classifier by now."""
    with closing(sqlite3.connect(home / "documents.sqlite3", timeout=30)) as connection:
        if "classifier" not in {row[1] for row in connection.execute('PRAGMA table_info("attempts")')}:
            return 0
        query = 'SELECT COUNT(*) FROM "attempts" WHERE "classifier" IS NOT NULL'
        return int(connection.execute(query).fetchone()[0])


def started(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from testbench_dagster.cli import main; main()", "-c", str(config)]
    return subprocess.Popen(
        [*command, "migrate"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


#: Migrates, and is killed at the end of its n-th transaction, before that is kept.
_KILLED = """
import os, signal, sys
from contextlib import contextmanager
from testbench_dagster.config import load_config
from testbench_dagster.stages.migrate import migrate
from testbench_dagster.stores.documents.connections import Connections

begin, left = Connections.write, int(sys.argv[2])

@contextmanager
def write(self):
    global left
    with begin(self) as connection:
        yield connection
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

Connections.write = write
migrate(load_config(sys.argv[1]), print)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(old_home: Path) -> None:
    home = old_home.parent / ".testbench"
    many_attempts(home, 2_000)
    before = stored(home / "documents.sqlite3")
    progress = []
    for transactions in (1, 3, 4, 5, 6):
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, str(old_home), str(transactions)], check=False, timeout=120
        )
        assert killed.returncode == -signal.SIGKILL
        progress.append(filled(home))
        with closing(open_documents(home, None)) as documents, pytest.raises(SchemaError):
            documents.count(SUPPLIERS)
    assert progress == sorted(progress) and len({*progress}) > 2, "it was not killed in the middle"
    assert 0 < progress[-1] < 2_000 + b1e3080.N_ATTEMPTS
    config = load_config(old_home)
    migrate(config, lambda _: None)
    with opened(config) as (documents, _):
        unchanged_but(documents, before)


def test_two_at_once_are_as_good_as_one(old_home: Path) -> None:
    home = old_home.parent / ".testbench"
    many_attempts(home, 2_000)
    before = stored(home / "documents.sqlite3")
    processes = [started(old_home) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    with opened(load_config(old_home)) as (documents, _):
        unchanged_but(documents, before)


@pytest.mark.slow
def test_a_run_migrates_by_itself_and_says_so(old_home: Path) -> None:
    """Nobody listens at the suppliers' address: what is fresh need not be asked."""
    done = run_command(old_home, "run", "--max-relays", "0")
    assert done.returncode == 0, done.stderr
    home = old_home.parent / ".testbench"
    assert (
        f"document store {home / 'documents.sqlite3'}: migrating from schema 0 to {DOCUMENTS_SCHEMA}"
        in done.stderr
    )
    assert filled(home) == b1e3080.N_ATTEMPTS
    shown = run_command(old_home, "scores", "--format", "json")
    before = json.loads(b1e3080.SAID["scores"].read_text("utf-8"))
    as_before(json.loads(shown.stdout), before, "scores", PUT_ANEW)
