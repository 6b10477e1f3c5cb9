"""Streams of scores of which old docs are folded: kept small, and as good as whole ones."""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from testbench_dagster.core.records.identity import FoldedStream, ScoreStreamRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.identity import Change, FoldedScores, ScoreStream, score_change
from testbench_dagster.stages.discover.roster import active_suppliers, cut_windows, refresh_roster
from testbench_dagster.stages.identify import score_streams
from testbench_dagster.stages.identify.folded_streams import packed, restored, stored, unpacked
from testbench_dagster.stages.identify.identify import detect_changes
from testbench_dagster.stages.identify.score_streams import ScoreStreams
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import SCORE_STREAMS, SCORES
from testbench_dagster_tests.identity import scored
from testbench_dagster_tests.identity.folding import docs_older_than, folded_at, part
from testbench_dagster_tests.identity.scored import (
    FIRST,
    PERIOD,
    asked,
    fallen,
    stream_of,
    synthetic,
    times,
)
from testbench_dagster_tests.stages.score.facts import Facts

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
TASKS = [{"name": "starter_reading"}, {"name": "starter_arithmetic"}]
A_DAY, DAYS, BANK = 4, 200, 60
START = NOW - DAYS * DAY
#: An entry of a stream.
ENTRY = [
    ("at", "<i8"), ("task", "<u2"), ("doc", "<u4"), ("epoch", "<u4"), ("round", "<u4"), ("value", "<f4"),
    ("failed", "u1"), ("peers", "<f4"), ("n_peers", "u1"),
]  # fmt: skip


def key(name: str) -> str:
    return f"{name}@external"


@pytest.fixture
def open_workspace(
    open_installation: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Workspace]:
    """Opens an installation that folds a few docs at a time, and read all streams from the first doc on."""
    monkeypatch.setattr(ScoreStreams, "_anew_from", lambda _self, _spec, begins: begins)
    monkeypatch.setattr(score_streams, "LEVEL_DOCS", 60)
    monkeypatch.setattr(score_streams, "LEAST_FOLDED", 40)

    def build(**blocks: Any) -> Workspace:
        opened = open_installation({"address": "a"}, {"address": "b"}, tasks=TASKS, **blocks)
        refresh_roster(opened)
        return opened

    return build


@pytest.fixture
def workspace(open_workspace: Callable[..., Workspace]) -> Workspace:
    return open_workspace()


@pytest.fixture
def facts(workspace: Workspace) -> Facts:
    return Facts(workspace)


@pytest.fixture
def task(facts: Facts) -> Registration:
    return facts.registration("starter_reading", n_docs=BANK)


def answer(facts: Facts, task: Registration, days: range, share: float = 0.8) -> None:
    """Four docs a day, of 60 that are asked again and again: always the same ones are right, nearly."""
    noise = random.Random(days.start)
    with facts.in_bulk():
        for number in range(days.start * A_DAY, max(days.start, days.stop) * A_DAY):
            doc, at = number % BANK, START + number * DAY / A_DAY
            right = (random.Random(doc).random() < share) is (noise.random() > 0.01)
            facts.score(task, doc, float(right), at, supplier=key("a"), round_=number // BANK + 1)


def read(workspace: Workspace, now: datetime) -> tuple[ScoreStream, FoldedScores | None]:
    suppliers = active_suppliers(workspace)
    chosen = [supplier for supplier in suppliers if supplier.address == "a"]
    ((_, stream, folded),) = ScoreStreams(workspace, "external", suppliers, now).read(chosen)
    return stream, folded


def kept(workspace: Workspace) -> ScoreStreamRecord:
    record = typed.get(workspace.documents, ScoreStreamRecord, key("a"))
    assert record is not None
    return record


def whole(workspace: Workspace, now: datetime, monkeypatch: pytest.MonkeyPatch) -> ScoreStream:
    """The stream as it is read from the facts, nothing folded; what is kept stays as it is."""
    record = typed.get(workspace.documents, ScoreStreamRecord, key("a"))
    workspace.documents.purge(SCORE_STREAMS, {"service": "external"})
    with monkeypatch.context() as patch:
        patch.setattr(score_streams, "LEAST_FOLDED", 10**9)
        stream, folded = read(workspace, now)
    assert folded is None
    if record is None:
        workspace.documents.purge(SCORE_STREAMS, {"service": "external"})
    else:
        typed.upsert(workspace.documents, ScoreStreamRecord, [record])
    return stream


def evaluations(first: int = 8, every: int = 16) -> Iterator[datetime]:
    yield from (START + day * DAY for day in range(first, DAYS + 1, every))


def same(one: Change | None, other: Change | None) -> bool:
    """Whether two alarms are the same."""
    if one is None or other is None:
        return one is other
    return (one.detected_at, one.observations, one.direction) == (
        other.detected_at, other.observations, other.direction
    ) and one.log_e == pytest.approx(other.log_e, abs=1e-9)  # fmt: skip


# ------------------------------------------------------------------------------------------------- stored


def test_what_is_stored_comes_back_as_it_was() -> None:
    pool = synthetic(2, 0.7)
    docs = asked(0, 2000, len(pool.own))
    stream = stream_of(pool, docs, 0, after=fallen(pool.own, 0.3, 0), since=1200)
    for places in ([600], [600, 900], [900, 2000]):
        folded = folded_at(stream, places)
        assert folded is not None and (folded.change is not None) == (places[-1] == 2000)
        document = stored(folded, {3, 1}).to_document()
        part_ = FoldedStream.from_document(document)
        assert part_.answered == (1, 3) and part_.n == places[-1]
        again = restored("s", part_)
        for field in dataclasses.fields(FoldedScores):
            one, other = getattr(folded, field.name), getattr(again, field.name)
            if field.name == "learnt":
                for name in ("known", "new", "fitted"):
                    assert np.array_equal(getattr(one, name), getattr(other, name))
            elif isinstance(one, np.ndarray):
                assert np.array_equal(one, other) and one.dtype == other.dtype, field.name
            else:
                assert one == other, field.name


@pytest.mark.parametrize("n", [0, 1, 300])
def test_arrays_come_back_as_they_were(n: int) -> None:
    rows = np.zeros(n, [("at", "<i8"), ("value", "<f4"), ("sums", "<f8", (2,))])
    rows["at"], rows["value"] = np.arange(n) * 10**12, np.linspace(0, 1, n)
    rows["sums"] = np.random.default_rng(0).random((n, 2))
    assert np.array_equal(unpacked(packed(rows), rows.dtype.descr), rows)


def test_three_times_the_years_take_no_more_bytes() -> None:
    """22 docs a day of a bank of 3,000, folded every few weeks: 15 kB after one year and after three."""
    pool, sizes = synthetic(1, 0.7, docs=3000), []
    for years in (1, 3):
        n = FIRST + years * 365 * scored.A_DAY
        docs, at = asked(5, n, 3000), times(n, burst=FIRST)
        stream = stream_of(pool, docs, 5, at=at)
        places = [docs_older_than(stream, 2 * PERIOD, end) for end in range(3000, n + 1, 700)]
        folded = folded_at(part(stream, 0, n), places)
        assert folded is not None and folded.change is None
        document = stored(folded, ()).to_document()
        sizes.append(sum(len(value) for value in document.values() if isinstance(value, bytes)))
    print(sizes)
    assert sizes[1] <= 1.2 * sizes[0] < 20_000


# ------------------------------------------------------------------------------- evaluation after evaluation


def test_the_alarm_comes_at_the_same_evaluation_as_of_the_whole_stream(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, alarms = 0, []
    for now in evaluations():
        until = (now - START) // DAY
        answer(facts, task, range(answered, until), share=0.8 if until < 160 else 0.2)
        answered = until
        stream, folded = read(workspace, now)
        expected = score_change("a", whole(workspace, now, monkeypatch), PERIOD)
        change = score_change("a", stream, PERIOD, folded)
        assert same(change, expected)
        alarms.append(change is not None)
        n = len(stream.at) + (folded.n if folded else 0)
        assert n == until * A_DAY, "each doc once"
    assert not any(alarms[:9]) and alarms[-1], "it changed after nine evaluations"
    record = kept(workspace)
    assert record.folded is not None and record.folded.n > 350
    assert record.n < 64 * A_DAY + 40 + 16 * A_DAY
    assert record.folded.last_at < record.read_until - 64 * DAY
    assert record.folded.answered == (0,)


def test_a_process_that_dies_before_it_is_stored_loses_nothing(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was folded and what was not are one document."""
    answer(facts, task, range(90))
    read(workspace, START + 60 * DAY)
    before = workspace.documents.get(SCORE_STREAMS, key("a"))

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(score_streams.typed, "upsert", die)
        with pytest.raises(KeyboardInterrupt):
            read(workspace, START + 110 * DAY)
    assert workspace.documents.get(SCORE_STREAMS, key("a")) == before
    stream, folded = read(workspace, START + 110 * DAY)
    assert folded is not None and folded.n + len(stream.at) == 90 * A_DAY
    # and what is read once more does not count twice
    stream, folded = read(workspace, START + 110 * DAY)
    assert folded is not None and folded.n + len(stream.at) == 90 * A_DAY


def test_all_of_the_first_period_is_there_before_anything_is_folded(
    open_workspace: Callable[..., Workspace],
) -> None:
    workspace = open_workspace(sampling={"max_age_days": 90})
    facts = Facts(workspace)
    answer(facts, facts.registration("starter_reading", n_docs=BANK), range(140))
    assert read(workspace, START + 90 * DAY)[1] is None
    folded = read(workspace, START + 140 * DAY)[1]
    assert folded is not None and folded.period == 90 and folded.n_first == folded.n


# ------------------------------------------------------------------------------- what cannot be folded


def test_where_another_scorers_values_were_folded_the_stream_begins_after_them(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others' values stay, failures that windows no longer know among them."""
    other = facts.registration("starter_arithmetic", n_docs=300)
    with facts.in_bulk():
        for day in range(150):
            facts.score(other, day, 1.0, START + day * DAY, supplier=key("a"))
    answer(facts, task, range(150))
    now = START + 150 * DAY
    before, folded = read(workspace, now)
    assert folded is not None and folded.holds(0) and folded.holds(1)
    version = score_streams.scorer_version
    newer = {other.task_hash: "newer"}
    monkeypatch.setattr(score_streams, "scorer_version", lambda one: newer.get(one.task_hash) or version(one))
    for at in (START + 10 * DAY, now - DAY):
        facts.score(other, 1, 0.5, at, supplier=key("a"), version="newer")
    stream, folded = read(workspace, now + timedelta(hours=1))
    assert folded is None
    of_other = [name for name, task_ in enumerate(kept(workspace).tasks) if task_.task == other.task]
    mine = np.isin(stream.tasks, of_other)
    assert stream.values[mine].tolist() == [0.5], "what was scored anew of the time since"
    assert np.array_equal(stream.at[~mine], before.at[~np.isin(before.tasks, of_other)])


@pytest.mark.parametrize("age", [timedelta(days=19), timedelta(days=145)])
def test_docs_of_a_task_that_is_watched_from_now_on_are_added_but_for_those_of_long_ago(
    workspace: Workspace, facts: Facts, task: Registration, age: timedelta
) -> None:
    answer(facts, task, range(150))
    now = START + 150 * DAY
    before, folded = read(workspace, now)
    assert folded is not None and not folded.holds(1)
    other = facts.registration("starter_arithmetic", n_docs=50)
    for doc in range(9):
        facts.score(other, doc, 1.0, now - age + doc * DAY, supplier=key("a"))
    stream, again = read(workspace, now)
    assert again is not None and again.n == folded.n
    assert len(stream.at) == len(before.at) + (9 if age < 64 * DAY else 0)
    assert score_change("a", stream, PERIOD, again) is None


def test_a_stream_of_before_any_were_folded_is_taken_over(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the facts no longer tell stays in it, so that nothing looks as if it had changed at an upgrade."""
    answer(facts, task, range(100))
    now = START + 100 * DAY
    with monkeypatch.context() as patch:
        patch.setattr(score_streams, "LEAST_FOLDED", 10**9)
        whole_, _ = read(workspace, now)
    document = workspace.documents.get(SCORE_STREAMS, key("a"))
    assert document is not None and document.pop("folded") is None
    rows = unpacked(document["entries"], ENTRY)
    document |= {"version": 2, "entries": zlib.compress(rows.tobytes())}
    workspace.documents.upsert(SCORE_STREAMS, [document])
    workspace.documents.purge(SCORES, {"supplier": key("a")})
    stream, folded = read(workspace, now)
    assert folded is not None and folded.n > 100
    assert folded.n + len(stream.at) == len(whole_.at) == 100 * A_DAY
    assert np.array_equal(stream.values, whole_.values[folded.n :])
    assert kept(workspace).version == 3
    document |= {"version": 1, "_id": key("a")}
    workspace.documents.upsert(SCORE_STREAMS, [document])
    assert len(read(workspace, now)[0].at) == 0, "others are read from the facts, of which there are none"


def test_after_a_cut_nothing_of_before_is_left(
    workspace: Workspace, facts: Facts, task: Registration
) -> None:
    answer(facts, task, range(150))
    read(workspace, START + 150 * DAY)
    cut_windows(workspace, key("a"), START + 140 * DAY, "another model")
    stream, folded = read(workspace, START + 150 * DAY)
    assert folded is None and len(stream.at) == 10 * A_DAY - 1


# ----------------------------------------------------------------------------------------- peers, failures


def test_only_docs_that_are_new_in_the_whole_era_are_compared_with_peers(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_streams, "LEAST_LEVEL_DOCS", 1)
    other = facts.registration("starter_arithmetic", n_docs=50)
    facts.score(other, 3, 1.0, START, supplier=key("a"))
    answer(facts, task, range(100))
    now = START + 100 * DAY
    stream, folded = read(workspace, now)
    assert folded is not None and folded.holds(1) and not (stream.tasks == 1).any()
    for name in ("a", "b"):
        facts.score(other, 7, 1.0, now, supplier=key(name))
        facts.score(other, 3, 1.0, now + timedelta(minutes=1), supplier=key(name), round_=99)
    stream, _ = read(workspace, now + DAY)
    assert stream.n_peers[-2:].tolist() == [1, 0], "the second was asked before, as what was folded tells"


def test_an_answer_without_a_value_counts_where_one_with_a_value_was_folded(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_streams, "LEVEL_DOCS", 0)
    answer(facts, task, range(64))
    now = START + 150 * DAY
    stream, folded = read(workspace, now - DAY)
    assert len(stream.at) == 0 and folded is not None
    facts.score(task, 1, None, now - timedelta(hours=3), supplier=key("a"), round_=99)
    assert read(workspace, now)[0].values.tolist() == [0.0]


# ------------------------------------------------------------------------------------------- told, not cut


def test_a_change_that_is_told_only_is_told_once_and_cuts_when_that_is_configured(
    open_workspace: Callable[..., Workspace],
) -> None:
    """Its docs are folded like all others; what they showed is remembered."""
    workspace = open_workspace(identity={"cut_on": ["repeat"]})
    facts = Facts(workspace)
    task = facts.registration("starter_reading", n_docs=BANK)
    answer(facts, task, range(70))
    answer(facts, task, range(70, DAYS), share=0.1)
    told = [
        change
        for now in evaluations(first=64, every=8)
        for change in detect_changes(workspace, [key("a")], now)
        if change.kind == "score"
    ]
    assert len(told) == 1 and told[0].cut is False
    record = kept(workspace)
    assert record.folded is not None and record.folded.change is not None
    assert record.folded.change.detected_at == told[0].seen_at
    assert record.n < 64 * A_DAY + 40 + 8 * A_DAY
    detect_changes(open_workspace(), [key("a")], NOW)
    cuts = [supplier.cut_at for supplier in active_suppliers(workspace) if supplier.address == "a"]
    assert cuts == [record.folded.change.at - timedelta(milliseconds=1)]
