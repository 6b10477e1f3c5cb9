"""Bodies of attempts outside the document store: the same bytes, or one clear line, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import BodyUnavailable, StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord, CutAnswer, PlacedBody, RawAnswer
from testbench_dagster.core.relay import Attempt
from testbench_dagster.stages.relay import writer as writer_module
from testbench_dagster.stages.relay.writer import AttemptWriter, Fence, attempt_record
from testbench_dagster.stores.documents import BodiesOutside, DocumentStore, bodies, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, BODY_PLACES
from testbench_dagster.stores.places import Place
from testbench_dagster_tests.conftest import forget_filesystems
from testbench_dagster_tests.endpoints import relay
from testbench_dagster_tests.servers import S3_KEYS
from testbench_dagster_tests.stores.workers import Target
from testbench_dagster_tests.tasks.layouts import REPOSITORY

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LARGE = b'{"choices": [{"message": {"content": "' + b"thinking, " * 800 + b'"}}]}'
SMALL = b'{"choices": []}'


def record(number: int, body: bytes = LARGE, at: datetime = NOW) -> AttemptRecord:
    """An attempt as the relay stage writes it."""
    attempt = Attempt(Fault.OK, at, at, 1.5, status=200, body=body, body_bytes=len(body))
    return attempt_record(relay(number), 1, attempt)


def put(store: DocumentStore, *records: AttemptRecord) -> None:
    assert typed.put_new(store, AttemptRecord, records) == len(records)


def stored(store: Any, id_: str) -> dict[str, Any]:
    """An attempt as it is in the document store."""
    found: dict[str, Any] = store._documents.get(ATTEMPTS, id_)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """All files of a place by their name below the folder of the store."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix().partition("/")[2]: path.read_bytes() for path in found}


Opened = Callable[..., DocumentStore]


@pytest.fixture
def opened(target: Target) -> Iterator[Opened]:
    """Opens one document store again and again, with bodies elsewhere."""
    with contextlib.ExitStack() as stack:

        def build(place: str | None, min_bytes: int = 4096) -> DocumentStore:
            outside = None if place is None else BodiesOutside(place, min_bytes)
            return stack.enter_context(contextlib.closing(target.open(outside)))

        yield build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bodies"


@pytest.fixture
def place(folder: Path) -> str:
    return f"file://{folder}"


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow(minutes=0.1))])
def any_place(request: pytest.FixtureRequest, place: str) -> str:
    return place if request.param == "file" else f"{request.getfixturevalue('s3_bucket')}/tb"


def test_readers_are_given_the_same_bytes(opened: Opened, any_place: str) -> None:
    records = [record(0), record(1, SMALL), record(2, b""), record(3, LARGE[:4096]), record(4, LARGE[:4095])]
    store = opened(any_place)
    put(store, *records)
    for again in (store, opened(None), opened(any_place, 1)):
        assert list(typed.find(again, AttemptRecord, sort=[("doc_id", 1)])) == records
        assert [typed.get(again, AttemptRecord, one.id) for one in records] == records
        read = typed.by_id(again, RawAnswer, [one.id for one in records])
        assert {id_: one.body for id_, one in read.items()} == {one.id: one.body for one in records}
        assert [list(one) for one in typed.whole(again, AttemptRecord)] == [
            list(one.to_document()) for one in records
        ], "fields keep their order"
    claimed = typed.claim(store, AttemptRecord, {"_id": records[0].id}, owner="none")
    assert claimed == records[0]
    outside = [one for one in records if "body" not in stored(store, one.id)]
    assert [one.doc_id for one in outside] == [0, 3], "from 4,096 bytes on"
    for one in outside:
        at = stored(store, one.id)["body_outside"]
        assert at["sha256"] == hashlib.sha256(one.body).hexdigest() and at["bytes"] == len(one.body)
        [compressed] = [Place(at["place"]).read(f"2026-03-01/{at['sha256'][:2]}/{at['sha256']}.gz")]
        assert compressed is not None and gzip.decompress(compressed) == one.body


def test_equal_bodies_of_a_day_are_stored_once_and_privately(
    opened: Opened, place: str, folder: Path
) -> None:
    store = opened(place)
    put(store, *(record(n) for n in range(5)))
    put(store, record(5), record(6, at=NOW + timedelta(days=1)))
    names = sorted(files(folder))
    assert [name[:10] for name in names] == ["2026-03-01", "2026-03-02"]
    assert len(list(typed.find(store, AttemptRecord))) == 7
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_who_needs_no_body_fetches_none(opened: Opened, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(place)
    put(store, record(0), record(1, SMALL))
    monkeypatch.setattr(Place, "read", None)
    assert len(typed.by_id(store, CutAnswer, [record(0).id, record(1).id])) == 2
    where = [one.body_outside for one in typed.find(store, PlacedBody, sort=[("doc_id", 1)])]
    assert where[0] is not None and where[0].place.startswith(place) and where[1] is None


def test_histories_with_bodies_here_and_there_are_read(
    opened: Opened, place: str, folder: Path, tmp_path: Path
) -> None:
    put(opened(None), record(0))
    put(opened(place), record(1))
    put(opened(f"file://{tmp_path}/second"), record(2))
    put(opened(place, 10_000), record(3))
    for store in (opened(None), opened(place), opened(f"file://{tmp_path}/third")):
        assert list(typed.find(store, AttemptRecord, sort=[("doc_id", 1)])) == [record(n) for n in range(4)]
    folder.rename(tmp_path / "moved")
    with pytest.raises(BodyUnavailable, match="or name the place that it was moved to as `bodies`"):
        list(typed.find(opened(None), AttemptRecord))
    moved = opened(f"file://{tmp_path}/moved")
    assert list(typed.find(moved, AttemptRecord, sort=[("doc_id", 1)])) == [record(n) for n in range(4)]


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "flipped":
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    elif how == "cut":
        path.write_bytes(whole[:-9])
    elif how == "another":
        path.write_bytes(gzip.compress(LARGE[::-1]))
    elif how == "bomb":
        path.write_bytes(gzip.compress(bytes(1 << 26)))
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("gone", "is not at"),
        ("flipped", "is damaged"),
        ("cut", "is damaged"),
        ("another", "is damaged"),
        ("bomb", "is damaged"),
        ("unreadable", "cannot read"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line_and_holds_up_no_other(
    tmp_path: Path, folder: Path, place: str, how: str, told: str
) -> None:
    with contextlib.closing(Target(str(tmp_path)).open(BodiesOutside(place, 10))) as store:
        records = [record(n, LARGE + b" " * n) for n in range(6)]
        put(store, *records)
        digest = hashlib.sha256(records[3].body).hexdigest()
        [path] = folder.rglob(f"{digest}.gz")
        damaged(path, how)
        found = typed.find(store, AttemptRecord, sort=[("doc_id", 1)])
        assert list(itertools.islice(found, 3)) == records[:3]
        with pytest.raises(BodyUnavailable) as error:
            next(found)
        text = str(error.value)
        assert told in text and "\n" not in text
        assert text.startswith(f"attempts[{records[3].id}]: ") and str(path) in text
        for one in (*records[:3], *records[4:]):
            assert typed.get(store, AttemptRecord, one.id) == one
        for _ in range(5):  # others are read in between: the place is not away
            with pytest.raises(BodyUnavailable, match=told):
                typed.get(store, AttemptRecord, records[3].id)
            assert typed.get(store, AttemptRecord, records[4].id) == records[4]


@pytest.mark.slow(minutes=0.2)
def test_a_place_that_is_away_is_told_of_each_attempt_and_not_waited_for_again(
    tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(Target(str(tmp_path)).open(BodiesOutside(f"{s3_bucket}/tb", 10))) as store:
        records = [record(n, LARGE + b" " * n) for n in range(8)]
        put(store, *records)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget_filesystems()
    asked: list[str] = []
    real = Place.read
    monkeypatch.setattr(Place, "read", lambda self, name: asked.append(name) or real(self, name))
    with contextlib.closing(Target(str(tmp_path)).open()) as store:
        for one in records:
            with pytest.raises(BodyUnavailable) as error:
                typed.get(store, AttemptRecord, one.id)
            text = str(error.value)
            digest = hashlib.sha256(one.body).hexdigest()
            assert text.startswith(f"attempts[{one.id}]: cannot read {s3_bucket}/tb/")
            assert (
                f"/{digest}.gz: Could not connect" in text and "\n" not in text and "check the place" in text
            )
            assert not any(value in text for value in S3_KEYS.values())
        assert len(asked) == 3
        assert typed.count(store, AttemptRecord) == 8
        assert len(list(typed.find(store, CutAnswer))) == 8


def test_a_place_that_fails_leaves_bodies_in_the_document_store(
    opened: Opened,
    place: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = opened(place)
    put(store, record(0))
    folder.rename(folder.with_name("away"))
    folder.write_text("no folder")
    put(store, *(record(n, LARGE + b" " * n) for n in range(1, 30)))
    put(store, record(30, LARGE + b"!"))
    folder.unlink()
    folder.with_name("away").rename(folder)
    put(store, record(31, LARGE + b"?"))
    assert ["body" in stored(store, record(n).id) for n in (0, 1, 29, 30, 31)] == [False, *[True] * 4]
    [told] = [one.getMessage() for one in caplog.records]
    assert re.fullmatch(r"bodies stay in the document store for now, and are tried .*: cannot write .*", told)
    monkeypatch.setattr(bodies, "_NO_WRITES_S", 0.0)
    store._no_writes_until = 0.0  # type: ignore[attr-defined]
    put(store, record(32, LARGE + b"."))
    assert "body" not in stored(store, record(32).id)
    read = {one.doc_id: one.body for one in typed.find(store, AttemptRecord)}
    assert len(read) == 33 and read[1] == LARGE + b" " and read[32] == LARGE + b"."


@pytest.mark.slow(minutes=0.3)
def test_an_s3_that_is_gone_in_mid_run_costs_no_attempt(
    target: Target, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = os.environ["AWS_ENDPOINT_URL"]
    outside = BodiesOutside(f"{s3_bucket}/tb", 10)
    records = [record(n, LARGE + b" " * n) for n in range(60)]
    for there, batch in ((True, records[:20]), (False, records[20:40]), (True, records[40:])):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address if there else "http://127.0.0.1:9")
        forget_filesystems()
        with contextlib.closing(target.open(outside)) as store:
            typed.write_ahead(store, AttemptRecord, batch)
            put(store, *batch)
            assert {"body" in stored(store, one.id) for one in batch} == {not there}
    with contextlib.closing(target.open()) as store:
        assert list(typed.find(store, AttemptRecord, sort=[("doc_id", 1)])) == records


def test_no_document_says_itself_where_its_body_is(tmp_path: Path, folder: Path, place: str) -> None:
    """What comes out of a bundle of another must not make this machine read files."""
    folder.mkdir()
    (folder / "secret").write_text("key")
    claim = {"place": f"{place}/x", "sha256": hashlib.sha256(b"key").hexdigest(), "bytes": 3}
    for outside in (None, BodiesOutside(place, 10)):
        with contextlib.closing(Target(str(tmp_path / repr(outside))).open(outside)) as store:
            document = {**record(0).to_document(), "body_outside": claim}
            assert store.put_new(ATTEMPTS, [document]) == 1
            assert stored(store, record(0).id).get("body_outside") != claim
            assert typed.get(store, AttemptRecord, record(0).id) == record(0)


def test_the_lease_is_looked_at_after_bodies_are_written(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place may take long, and somebody else may take the supplier over meanwhile."""
    order: list[str] = []
    real = Place.store

    def slowly(self: Place, name: str, data: bytes) -> None:
        real(self, name, data)
        order.append("body")

    class Dead:
        alive = False

    def verify(suppliers: Any) -> set[str]:
        order.append("lease")
        return set(suppliers)

    monkeypatch.setattr(Place, "store", slowly)
    fence = Fence({relay(0).supplier: 7}, Dead(), verify)  # type: ignore[arg-type]
    with contextlib.closing(Target(str(tmp_path)).open(BodiesOutside(place, 10))) as store:
        with AttemptWriter(store, fence=fence) as writer:
            writer.add(relay(0), 1, Attempt(Fault.OK, NOW, NOW, 1.5, body=LARGE, body_bytes=len(LARGE)))
        assert order == ["body", "lease"]
        [kept] = typed.find(store, AttemptRecord)
        assert kept.fault == Fault.INTERNAL.value and kept.body == LARGE
        assert "body" not in stored(store, kept.id)


def test_a_slow_place_holds_up_no_relay_and_is_asked_by_few_at_once(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, at_once, most = threading.Event(), 0, 0
    lock = threading.Lock()
    real = Place.store

    def slowly(self: Place, name: str, data: bytes) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        assert go.wait(30)
        real(self, name, data)
        with lock:
            at_once -= 1

    monkeypatch.setattr(Place, "store", slowly)
    monkeypatch.setattr(writer_module, "MAX_QUEUED", 100)

    async def relays(writer: AttemptWriter) -> int:
        waited = 0
        for n in range(130):
            body = b"%d" % n * 5_000
            room = writer.add(relay(n), 1, Attempt(Fault.OK, NOW, NOW, 1.5, body=body, body_bytes=len(body)))
            if room is not None:
                waited += 1
                asyncio.get_running_loop().call_later(0.05, go.set)  # which the loop is free to do
                await room
        return waited

    with contextlib.closing(Target(str(tmp_path)).open(BodiesOutside(place, 10))) as store:
        with AttemptWriter(store, flush_s=0.0, batch=25) as writer:
            assert asyncio.run(relays(writer)) > 0
        assert typed.count(store, AttemptRecord) == 130
        assert len(list(typed.find(store, RawAnswer))) == 130
    assert 1 < most <= 16


# -- retention ------------------------------------------------------------------------------------------


def age(folder: Path, days: float = 2) -> None:
    """Let all files have been written a while ago."""
    moment = time.time() - days * 86_400
    for path in folder.rglob("*.gz"):
        os.utime(path, (moment, moment))


def days(folder: Path) -> list[str]:
    return sorted({name[:10] for name in files(folder)})


def test_bodies_go_with_the_attempts_of_their_day(opened: Opened, place: str, folder: Path) -> None:
    store = opened(place)
    put(store, *(record(n, LARGE + b" " * n, NOW - timedelta(days=n)) for n in range(6)))
    put(store, record(7, LARGE, NOW - timedelta(days=4)))  # equal to one of another day
    age(folder)
    horizon = NOW - timedelta(days=2)
    some = {"finished_at": {"lt": horizon}, "fault": "nobody has it"}
    assert typed.purge(store, AttemptRecord, some) == 0
    assert len(days(folder)) == 6, "others of these days are left"
    assert typed.purge(store, AttemptRecord, {"finished_at": {"lt": horizon}}) == 4
    assert days(folder) == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert {one.body for one in typed.find(store, AttemptRecord)} == {LARGE + b" " * n for n in range(3)}
    assert sorted(path.name for path in folder.glob("*/*")) == days(folder), "no empty folders stay"
    assert typed.purge(store, AttemptRecord, {"finished_at": {"lt": horizon}}) == 0
    assert len(days(folder)) == 3
    assert typed.purge(store, AttemptRecord, {"supplier": relay(0).supplier}) == 3
    assert len(days(folder)) == 3, "only a purge by time removes bodies"
    typed.purge(store, AttemptRecord, {"finished_at": {"lt": NOW + timedelta(days=1)}})
    assert files(folder) == {}


def test_a_body_is_kept_that_was_just_written_or_is_needed(
    opened: Opened, place: str, folder: Path, tmp_path: Path
) -> None:
    store = opened(place)
    put(store, record(0, LARGE, NOW - timedelta(days=9)))
    past = {"finished_at": {"lt": NOW - timedelta(days=1)}}
    store._documents.purge(ATTEMPTS, past)  # type: ignore[attr-defined]
    assert typed.purge(store, AttemptRecord, past) == 0
    assert len(days(folder)) == 1, "whoever wrote it may be about to store its attempt"
    age(folder, 0.9)
    typed.purge(store, AttemptRecord, past)
    assert len(days(folder)) == 1
    put(store, record(1, LARGE, NOW - timedelta(days=9)))  # again: written anew, and fresh by that
    assert typed.purge(store, AttemptRecord, {"finished_at": {"lt": NOW - timedelta(days=30)}}) == 0
    assert typed.get(store, AttemptRecord, record(1).id) is not None
    age(folder)
    other = Target(str(tmp_path / "other")).open(BodiesOutside(place, 10))
    with contextlib.closing(other):
        put(other, record(5, LARGE, NOW - timedelta(days=9)), record(6, LARGE, NOW))
        age(folder)
        assert typed.purge(store, AttemptRecord, past) == 1
        assert {one.body for one in typed.find(other, AttemptRecord)} == {LARGE}, "a folder for each store"
        assert len(list(folder.rglob("*.gz"))) == 2


@pytest.mark.slow(minutes=0.1)
def test_retention_on_s3_leaves_places_of_the_past(
    opened: Opened, place: str, folder: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(opened(place), record(0, LARGE, NOW - timedelta(days=9)))
    s3 = f"{s3_bucket}/tb"
    store = opened(s3)
    put(store, *(record(n, LARGE + b" " * n, NOW - timedelta(days=n)) for n in range(1, 9)))
    age(folder)
    bucket = Place(s3)
    [own] = bucket.folders("")
    assert len(bucket.folders(own)) == 8
    past = {"finished_at": {"lt": NOW - timedelta(days=4)}}
    typed.purge(store, AttemptRecord, past)
    assert len(days(folder)) == 1, "a copy of a store would remove what the store needs"
    assert len(bucket.folders(own)) == 8, "all of it has just been written"
    monkeypatch.setattr(bodies, "_GRACE", timedelta(hours=-1))
    typed.purge(store, AttemptRecord, past)
    assert bucket.folders(own) == ["2026-02-25", "2026-02-26", "2026-02-27", "2026-02-28"]
    assert len(list(typed.find(store, AttemptRecord))) == 4


def test_retention_removes_bodies_that_were_copied_here_and_nothing_else(
    opened: Opened, place: str, folder: Path, tmp_path: Path
) -> None:
    put(opened(place), *(record(n, LARGE + b" " * n, NOW - timedelta(days=n)) for n in range(6)))
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    [own] = [path for path in moved.iterdir() if path.is_dir()]
    elsewhere = tmp_path / "elsewhere" / "ab"
    elsewhere.mkdir(parents=True)
    (elsewhere / "precious.gz").write_text("precious")
    (own / "2025-01-01").symlink_to(elsewhere.parent)
    [part] = (own / "2026-02-25").iterdir()
    (part / "@eaDir").mkdir()
    (part / "notes.txt").write_text("somebody's")
    (own / "2026-02-26" / "cd").symlink_to(elsewhere)
    for root in (moved, elsewhere):
        for path in root.rglob("*"):
            if path.is_file():
                os.utime(path, (0, 0))
    store = opened(moved.as_uri())
    typed.purge(store, AttemptRecord, {"finished_at": {"lt": NOW - timedelta(days=1)}})
    left = sorted(str(path.relative_to(own)) for path in own.rglob("*.gz"))
    assert {name[:10] for name in left} <= {"2026-02-28", "2026-03-01"} and len(left) == 2, left
    assert (elsewhere / "precious.gz").is_file()
    assert (part / "notes.txt").is_file() and (part / "@eaDir").is_dir()


def test_a_store_without_a_place_removes_nothing(opened: Opened, place: str, folder: Path) -> None:
    put(opened(place), record(0, LARGE, NOW - timedelta(days=9)))
    age(folder)
    copy = opened(None)
    assert typed.purge(copy, AttemptRecord, {"finished_at": {"lt": NOW}}) == 1
    assert len(days(folder)) == 1


def test_a_place_that_is_away_is_left_to_the_next_retention(
    opened: Opened, place: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(place)
    put(store, record(0, LARGE, NOW - timedelta(days=9)), record(1))
    age(folder)
    folder.rename(folder.with_name("away"))
    folder.write_text("no folder")
    past = {"finished_at": {"lt": NOW - timedelta(days=1)}}
    assert typed.purge(store, AttemptRecord, past) == 1
    assert "are left to the next time: cannot list" in caplog.text
    folder.unlink()
    folder.with_name("away").rename(folder)
    assert typed.purge(store, AttemptRecord, past) == 0
    assert days(folder) == ["2026-03-01"]


# -- kills ----------------------------------------------------------------------------------------------

WRITE = """
import itertools, os, sys
from datetime import UTC, datetime
from pathlib import Path
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt
from testbench_dagster.stages.relay.writer import AttemptWriter
from testbench_dagster.stores.documents import BodiesOutside, open_documents
from testbench_dagster_tests.endpoints import relay
home, uri, place, first, stop = sys.argv[1:]
store = open_documents(Path(home), uri or None, outside=BodiesOutside(place, 10))
if stop:
    def hold(*_):
        print("held", flush=True)
        sys.stdin.read()
    put = store._documents.put_new
    store._documents.put_new = lambda c, d: hold() if c.name == "attempts" else put(c, d)
with AttemptWriter(store, flush_s=0.001, batch=20) as writer:
    for n in itertools.count(int(first)):
        now = datetime.now(UTC)
        body = b"%d " % n * 500
        writer.add(relay(n), 1, Attempt(Fault.OK, now, now, 1.0, status=200, body=body, body_bytes=len(body)))
        if n % 100 == 99:
            writer.flush()
            print(n, flush=True)
"""


def writing(target: Target, place: str, first: int, *, stop: bool = False) -> subprocess.Popen[str]:
    script = [WRITE, target.home, target.mongo_uri or "", place, str(first), "stop" if stop else ""]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", *script], env=environment, stdin=pipe, stdout=pipe, text=True
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow(minutes=0.1)
def test_a_kill_between_body_and_attempt_leaves_a_body_that_nobody_names(
    target: Target, place: str, folder: Path
) -> None:
    process = writing(target, place, 0, stop=True)
    assert process.stdout is not None
    while process.stdout.readline() not in ("held\n", ""):
        pass
    kill(process)
    assert files(folder), "it was there before its attempt"
    with contextlib.closing(target.open()) as store:
        assert typed.count(store, AttemptRecord) == 0
    with contextlib.closing(target.open(BodiesOutside(place, 10))) as store:
        again = replace(record(0, b"0 " * 500), finished_at=datetime.now(UTC))
        put(store, again)
        found = typed.get(store, AttemptRecord, again.id)
        assert found is not None and found.body == again.body


@pytest.mark.slow(minutes=0.5)
def test_no_kill_leaves_an_attempt_without_its_body(target: Target, place: str, folder: Path) -> None:
    first, n = 0, 0
    for round_ in range(4):
        process = writing(target, place, first)
        assert process.stdout is not None
        for _ in range(1 + round_ % 3):
            n = int(process.stdout.readline())
        time.sleep(0.03 * round_)  # into the next batches
        kill(process)
        first = n + 10_000
    with contextlib.closing(target.open()) as store:
        found = list(typed.find(store, AttemptRecord))
        assert len(found) > 400
        for one in found:
            assert one.body == b"%d " % one.doc_id * 500
            assert "body" not in stored(store, one.id)
    assert len(list(folder.rglob("*.gz"))) >= len(found)
    assert all(len(gzip.decompress(path.read_bytes())) > 999 for path in folder.rglob("*.gz"))


def test_processes_agree_on_the_folder_of_a_store(opened: Opened, place: str, folder: Path) -> None:
    first, second = opened(place), opened(place)
    put(first, record(0))
    put(second, record(1, LARGE + b" "))
    assert len(list(folder.iterdir())) == 1
    [known] = second.find(BODY_PLACES)
    assert known["_id"] == place and known["folder"] == next(folder.iterdir()).name


def test_a_package_that_is_missing_is_told_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(Target(str(tmp_path)).open(BodiesOutside("none://here/x", 10))) as store:
        put(store, record(0))
        assert typed.get(store, AttemptRecord, record(0).id) == record(0)
    assert "fsspec knows no protocol 'none'" in caplog.text
    with pytest.raises(StoreError):
        Place("none://here/x").look()
