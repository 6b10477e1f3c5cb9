"""Kept windows: used while they hold, and never anything but what the facts say, whatever else happens."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.config.fields import RelayOverrides
from testbench_dagster.coordination.heartbeats import Heartbeat, beating
from testbench_dagster.coordination.writing import FactWriter, writing_facts
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.reliability import availability
from testbench_dagster.stages.discover.roster import cut_windows
from testbench_dagster.stages.score.windows import (
    measured_suppliers,
    primary_windows,
    refresh_window_cache,
    windows,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster.stores.documents.collections import (
    ATTEMPTS,
    HEARTBEATS,
    IDENTITY_GROUPS,
    SCORES,
    WINDOWS,
)
from testbench_dagster.stores.documents.mongo import MongoDocuments
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration, days_ago
from testbench_dagster_tests.tasks.layouts import REPOSITORY

TASK = "starter_logic"
SUMS = "starter_arithmetic"


@pytest.fixture(autouse=True)
def _embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Callable[..., Facts]]:
    opened: list[Workspace] = []

    def build(sampling: Mapping[str, Any] | None = None, **task: Any) -> Facts:
        tasks = [{"name": TASK, **task}, {"name": SUMS, "samples": {"min": 1, "max": 2}}]
        config = configuration(tmp_path, {"tasks": tasks, "sampling": dict(sampling or {})})
        opened.append(Workspace(config))
        return Facts(opened[-1])

    yield build
    for workspace in opened:
        workspace.close()


@contextlib.contextmanager
def writing(documents: DocumentStore) -> Iterator[FactWriter]:
    """Write facts as a process of its own does."""
    with beating(documents, None) as heartbeat, writing_facts(documents, heartbeat) as writer:
        yield writer


def from_facts(facts: Facts, now: datetime = NOW) -> list[Window]:
    return windows(facts.workspace, now=now, from_facts=True)


def purge_facts(facts: Facts) -> None:
    """Take the facts away behind everybody's back: what can still be read was kept."""
    for collection in (SCORES, ATTEMPTS):
        facts.workspace.documents.purge(collection, {"supplier": {"in": [ALPHA, BETA]}})


def keep(facts: Facts, now: datetime = NOW) -> int:
    return refresh_window_cache(facts.workspace, [ALPHA, BETA], now=now)


# ----------------------------------------------------------------------------------------------- what is kept


def test_kept_rows_are_the_rows_of_the_facts_to_the_last_digit(installation: Callable[..., Facts]) -> None:
    facts = installation()
    one = facts.registration(TASK, metrics={"exact_match": "mean", "loss": "mean"}, filters=("a", "b"))
    for doc in range(30):
        values = {"exact_match": float(doc % 3 == 0), "loss": doc / 7}
        facts.score(one, doc, metrics={"a": values, "b": values}, at=days_ago(doc / 3), latency_ms=doc / 3)
    facts.attempt(one, 50, Fault.SUPPLIER_HTTP, days_ago(1))
    facts.attempt(one, 51, Fault.TRANSPORT, days_ago(2))
    facts.score(facts.registration(SUMS), 0, 0.25, supplier=BETA)
    computed = from_facts(facts)
    assert {row.n for row in computed if row.supplier == ALPHA and row.task == TASK} == {30}
    assert keep(facts) == 4
    assert keep(facts) == 0, "what holds is not written again"
    purge_facts(facts)
    assert windows(facts.workspace, now=NOW) == computed
    assert dict(primary_windows(facts.workspace, now=NOW)) == {
        key: [row for row in computed if row.supplier == key and row.primary] for key in (ALPHA, BETA)
    }
    assert from_facts(facts) != computed


def test_what_is_counted_of_attempts_is_kept_with_the_rows(installation: Callable[..., Facts]) -> None:
    facts = installation()
    one, other = facts.registration(TASK), facts.registration(SUMS)
    for doc in range(5):
        # long enough ago: an open doc of now is computed anew, as another answer may witness it yet
        facts.attempt(one, doc, Fault.TRANSPORT if doc else Fault.OK, days_ago(1 + doc // 2))
        facts.attempt(other, doc, Fault.OK, days_ago(1 + doc // 2), supplier=BETA)
    computed = list(measured_suppliers(facts.workspace, now=NOW))
    assert [m.tallies[TASK].asked for m in computed] == [5, 0]
    assert [m.tallies[SUMS].at_once for m in computed] == [0, 5]
    assert availability([computed[0].tallies[TASK].minutes]) == (1 / 2 + 0 + 0) / 3
    keep(facts)
    purge_facts(facts)
    assert list(measured_suppliers(facts.workspace, now=NOW)) == computed


def test_rows_hold_for_the_deadline_they_were_made_with(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.attempt(facts.registration(TASK), 0, Fault.SUPPLIER_HTTP)
    keep(facts)
    config = facts.workspace.config
    everybody = {"relays": config.settings.relays.model_copy(update={"total_s": 7.0})}
    first, second = config.settings.suppliers
    its_own = first.model_copy(update={"relays": RelayOverrides(total_s=3.0)})
    for deadline_ms, changes in ((7_000.0, everybody), (3_000.0, {"suppliers": [its_own, second]})):
        facts.workspace.config = replace(config, settings=config.settings.model_copy(update=changes))
        rows = windows(facts.workspace, suppliers=[ALPHA], tasks=[TASK], now=NOW)
        assert [row.latency_ms["p50"] for row in rows] == [deadline_ms]
        keep(facts)


def test_nothing_known_is_kept_as_well(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.registration(TASK)
    assert keep(facts) == 2, "a task that is not registered has nothing to keep"
    assert windows(facts.workspace, now=NOW) == from_facts(facts)
    (document,) = facts.workspace.documents.find(WINDOWS, {"_id": ALPHA})
    assert [row["until"] for row in document["rows"]] == [None]


def test_plain_readers_write_nothing(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.score(facts.registration(TASK), 0)
    windows(facts.workspace, now=NOW)
    list(primary_windows(facts.workspace, now=NOW))
    assert facts.workspace.documents.count(WINDOWS) == 0


# --------------------------------------------------------------------------------------------- when it holds


def together(facts: Facts) -> None:
    """Both suppliers serve one model."""
    members = [ALPHA, BETA]
    facts.workspace.documents.upsert(
        IDENTITY_GROUPS,
        [{"_id": m, "group": "g", "proxy": ALPHA, "members": members} for m in members],
    )


def aged(facts: Facts, seed: int, supplier: str) -> None:
    """Outcomes of few docs in several rounds over fifty days, half of them failures, calls out of order.

    None is of the last six days: an answer may still come that says what the newest failures mean.
    """
    dice = random.Random(f"{seed} {supplier}")
    task = facts.registration(TASK, n_docs=40)
    faults = [Fault.SUPPLIER_HTTP, Fault.TRANSPORT, Fault.RATE_LIMITED, Fault.EMPTY, Fault.OK]
    seen: set[tuple[int, int, int, int]] = set()
    for _ in range(60):
        doc, round_, at = dice.randrange(8), dice.randrange(1, 4), days_ago(dice.uniform(6.5, 50))
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        if dice.random() < 0.4:
            value = float(dice.random() < 0.5)
            facts.score(task, doc, value, at, round_=round_, supplier=supplier)
            continue
        idx, number = dice.randrange(2), dice.randrange(1, 1000)
        if (doc, round_, idx, number) in seen:
            continue
        seen.add((doc, round_, idx, number))
        call: dict[str, Any] = {"round_": round_, "idx": idx, "number": number, "supplier": supplier}
        call |= {"lease": dice.randrange(3), "latency_ms": dice.uniform(10, 90_000)}
        facts.attempt(task, doc, dice.choice(faults), at, **call)


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed not in (0, 3))) for seed in range(6)]
)
def test_rows_end_with_their_oldest_sample(installation: Callable[..., Facts], seed: int) -> None:
    """Looked at from any instant, before and after, in windows that are full and that are not."""
    facts = installation(sampling={"window": 3 if seed % 2 else 100}, samples={"min": 1, "max": 3})
    aged(facts, seed, ALPHA)
    if seed > 1:
        aged(facts, seed, BETA)
        # too old when the rows are kept, and not yet when they are looked at from before
        task = facts.workspace.datasets.current(TASK)
        assert task is not None
        facts.score(task, 30, at=days_ago(39), supplier=BETA)
        together(facts)
    kept_at = days_ago(5)
    keep(facts, kept_at)
    (document,) = facts.workspace.documents.find(WINDOWS, {"_id": ALPHA})
    [until] = [row["until"] for row in document["rows"] if row["task"] == TASK]
    moments = [kept_at + timedelta(days=d / 2) for d in range(-20, 80)]
    exact = datetime.fromtimestamp(until // 1_000_000, NOW.tzinfo) + timedelta(microseconds=until % 1_000_000)
    moments += [exact + timedelta(microseconds=d) for d in (-1001, -1, 0, 1, 1001)]
    moments += [kept_at + timedelta(microseconds=d) for d in (-1, 0, 1)]
    for moment in moments:
        assert windows(facts.workspace, suppliers=[ALPHA], tasks=[TASK], now=moment) == windows(
            facts.workspace, suppliers=[ALPHA], tasks=[TASK], now=moment, from_facts=True
        ), moment
    purge_facts(facts)
    alive = windows(facts.workspace, suppliers=[ALPHA], tasks=[TASK], now=exact - timedelta(microseconds=1))
    assert alive[0].first_sample_at or alive[0].errors, "kept to the last microsecond"
    over = windows(facts.workspace, suppliers=[ALPHA], tasks=[TASK], now=exact)
    assert not over[0].first_sample_at and not over[0].errors, "and no longer"


def test_a_hidden_doc_that_comes_back_ends_the_rows(installation: Callable[..., Facts]) -> None:
    """A later failure is not shown until the score before it is too old to keep its slot."""
    facts = installation(samples={"min": 4, "max": 4})
    task = facts.registration(TASK)
    for doc in range(3):
        facts.score(task, doc, at=days_ago(1))
    facts.score(task, 9, at=days_ago(30))
    facts.attempt(task, 9, Fault.TRANSPORT, days_ago(10), round_=2)
    keep(facts)
    later = NOW + timedelta(days=6)
    for moment in (NOW, NOW + timedelta(days=4), later):
        assert windows(facts.workspace, now=moment) == from_facts(facts, moment)
    [row] = [r for r in from_facts(facts, NOW + timedelta(days=4)) if (r.supplier, r.task) == (ALPHA, TASK)]
    assert (row.n, row.errors) == (4, {}), "due, and not closed again yet"
    [row] = [r for r in from_facts(facts, later) if r.supplier == ALPHA and r.task == TASK]
    assert row.errors == {"transport": 1}


def test_an_open_doc_behind_a_score_ends_the_rows(installation: Callable[..., Facts]) -> None:
    """A doc that is asked again keeps its score, for the time of a doc's life longer than others."""
    facts = installation()
    task = facts.registration(TASK)
    facts.attempt(task, 0, Fault.EMPTY, days_ago(30), idx=0)
    facts.attempt(task, 0, Fault.SUPPLIER_HTTP, days_ago(1), idx=1)
    facts.score(task, 0, at=days_ago(10), round_=2)
    keep(facts)
    last = NOW + timedelta(days=32 - 10 + 3)
    moments = [NOW, NOW + timedelta(days=22.5), last - timedelta(milliseconds=1), last]
    for moment in moments:
        assert windows(facts.workspace, now=moment) == from_facts(facts, moment), moment
    found = [from_facts(facts, moment)[0] for moment in moments]
    assert [row.n for row in found] == [1, 1, 1, 0]
    assert [row.n_open for row in found] == [0, 0, 0, 1]


def test_rows_hold_for_the_supplier_as_it_was(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    facts.on_roster(ALPHA)
    for doc in range(4):
        facts.score(task, doc, at=days_ago(doc))
    keep(facts)
    cut_windows(facts.workspace, ALPHA, days_ago(1.5), "another model")
    [row] = [r for r in windows(facts.workspace, now=NOW) if r.supplier == ALPHA and r.task == TASK]
    assert row.n == 2
    assert windows(facts.workspace, now=NOW) == from_facts(facts)
    assert keep(facts) == 1, "what is of this supplier, nothing of the other"


def test_rows_hold_for_the_registration_they_were_made_with(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.score(facts.registration(TASK), 0)
    keep(facts)
    facts.registration(TASK, n_docs=20)
    assert windows(facts.workspace, now=NOW) == from_facts(facts)
    [row] = [r for r in windows(facts.workspace, now=NOW) if r.supplier == ALPHA and r.task == TASK]
    assert row.n == 0


def test_rows_hold_for_an_api_that_can_be_asked(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, output_type="loglikelihood", metrics={"acc": "mean"})
    facts.echo(BETA, True)
    facts.score(task, 0, metrics={"none": {"acc": 1.0}}, supplier=BETA)
    keep(facts)
    facts.echo(BETA, False)
    assert windows(facts.workspace, now=NOW) == from_facts(facts)
    assert {r.status for r in windows(facts.workspace, now=NOW, tasks=[TASK])} == {"unsupported"}


@pytest.mark.parametrize(
    "changed",
    [
        {"sampling": {"window": 2}, "samples": {"min": 1, "max": 2}},
        {"sampling": {"max_age_days": 2}},
        {"samples": {"min": 1, "max": 4}},
        {"samples": "all"},
        {"metric": "other"},
        {"filter": "b"},
        {"planning": {"max_age_days": 1}},
        {"cluster": "half"},
    ],
    ids=str,
)
def test_rows_hold_for_the_settings_they_were_made_with(
    installation: Callable[..., Facts], changed: dict[str, Any]
) -> None:
    facts = installation()
    task = facts.registration(TASK, metrics={"exact_match": "mean", "other": "mean"}, filters=("a", "b"))
    for doc in range(6):
        values = {"exact_match": doc % 2, "other": float(doc < 2)}
        facts.score(task, doc, metrics={"a": values, "b": dict(values, other=1.0)}, at=days_ago(doc * 1.5))
    before = from_facts(facts)
    keep(facts)
    if "cluster" in changed:
        changed = {"cluster": "n"}
    other = installation(**changed)
    after = windows(other.workspace, now=NOW)
    assert after == from_facts(other)
    assert changed == {"cluster": "n"} or after != before, "the change is one that shows"
    keep(other)
    assert windows(other.workspace, now=NOW) == after
    assert windows(facts.workspace, now=NOW) == before, "two installations over one store do no harm"


def test_docs_behind_rows_are_kept_of_who_is_in_a_group(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for doc in range(8):
        facts.score(task, doc, float(doc < 4), supplier=[ALPHA, BETA][doc % 2])
    assert keep(facts) == 2

    def docs_of_alpha() -> list[tuple[int, float, bool]]:
        found = measured_suppliers(facts.workspace, now=NOW, with_docs={ALPHA})
        return [tuple(doc) for m in found for doc in m.docs.get(TASK, ())]

    computed = docs_of_alpha()
    assert computed == [(0, 1.0, False), (2, 1.0, False), (4, 0.0, False), (6, 0.0, False)]
    together(facts)
    assert keep(facts) == 2, "the docs of who is in a group are kept for the others"
    assert keep(facts) == 0
    purge_facts(facts)
    assert docs_of_alpha() == computed


def test_a_doc_that_failed_is_behind_the_row_as_worst(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for doc in range(4):
        facts.score(task, doc, 1.0, days_ago(1), supplier=ALPHA)
    facts.fail(task, 9, Fault.SUPPLIER_REFUSED, days_ago(1), supplier=ALPHA)
    [found] = [
        m for m in measured_suppliers(facts.workspace, now=NOW, with_docs={ALPHA}) if m.supplier == ALPHA
    ]
    assert [tuple(doc) for doc in found.docs[TASK]][-1] == (9, 0.0, False)


# -------------------------------------------------------------------------------- while others write facts


def test_a_task_that_is_being_written_is_left_to_its_writer(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    facts.registration(SUMS)
    keep(facts)
    with writing(facts.workspace.documents) as writer:
        writer.enter({ALPHA: [TASK]})
        assert keep(facts) == 0
        facts.score(task, 0)
        assert windows(facts.workspace, now=NOW) == from_facts(facts)
    assert keep(facts) == 1
    assert facts.workspace.documents.get(WINDOWS, ALPHA)["writers"] == []  # type: ignore[index]


def test_of_two_writers_the_second_to_end_counts(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    documents = facts.workspace.documents
    with writing(documents) as first, writing(documents) as second:
        first.enter({ALPHA: [TASK]})
        second.enter({ALPHA: [TASK, SUMS]})
        first.leave()
        keep(facts)
        facts.score(task, 0)
        assert windows(facts.workspace, now=NOW) == from_facts(facts)
    assert keep(facts) == 1


def test_one_taken_for_dead_does_no_harm(installation: Callable[..., Facts]) -> None:
    """Its heartbeat was buried while it slept; it wakes, and writes what it still had."""
    facts = installation()
    task = facts.registration(TASK)
    with Heartbeat(facts.workspace.documents, "sleeper", ttl_s=1.5) as heartbeat:
        writer = FactWriter(facts.workspace.documents, heartbeat)
        writer.enter({ALPHA: [TASK]})
        facts.workspace.documents.purge(HEARTBEATS, {"_id": "sleeper"})
        while heartbeat.alive:
            time.sleep(0.02)
        assert keep(facts) == 2
        writer.check([ALPHA])
        facts.score(task, 0)
        assert windows(facts.workspace, now=NOW) == from_facts(facts)
        assert keep(facts) == 1, "whose heartbeat has stopped holds up nobody"
        facts.score(task, 1)
        writer.leave()
        assert windows(facts.workspace, now=NOW) == from_facts(facts)


class Killed(BaseException):
    """Ends an actor at once, as a signal would."""


class Gate:
    """The real store, each of whose operations waits for its turn; a killed actor's do nothing any more."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.ended = self.killed = False

    def step(self) -> None:
        """Let the actor do one operation and come to its next."""
        self._turn.release()
        self._done.acquire()

    def end(self) -> None:
        self.ended = True
        self._done.release()

    def _wait(self) -> None:
        self._done.release()
        self._turn.acquire()
        if self.killed:
            raise Killed

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        def gated(*args: Any, **kwargs: Any) -> Any:
            self._wait()
            result = operation(*args, **kwargs)
            return iter(list(result)) if name == "find" else result

        return gated


class Actor:
    """One process of the schedule: a thread with a workspace whose store is gated."""

    def __init__(self, name: str, facts: Facts, act: Callable[[Facts, Heartbeat], None]) -> None:
        raw = facts.workspace.documents
        self.gate = Gate(raw)
        workspace = Workspace(facts.workspace.config)
        workspace.documents = self.gate
        workspace.datasets = facts.workspace.datasets

        def run() -> None:
            try:
                with contextlib.suppress(Killed), Heartbeat(raw, name) as heartbeat:
                    act(Facts(workspace), heartbeat)
            finally:
                self.gate.end()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self.gate._done.acquire()  # at its first operation

    def join(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def relaying(first_doc: int) -> Callable[[Facts, Heartbeat], None]:
    """Two lots of answers to one supplier and task, as the relay stage and the scoring stage write them."""

    def act(facts: Facts, heartbeat: Heartbeat) -> None:
        task = facts.workspace.datasets.current(TASK)
        assert task is not None
        with writing_facts(facts.workspace.documents, heartbeat) as writer:
            writer.enter({ALPHA: [TASK], BETA: [TASK]})
            for doc in range(first_doc, first_doc + 2):
                facts.attempt(task, doc, Fault.SUPPLIER_HTTP if doc % 2 else Fault.OK)
                facts.score(task, doc, float(doc % 3 == 0), supplier=BETA)

    return act


def keeping(facts: Facts, _: Heartbeat) -> None:
    for _ in range(2):
        refresh_window_cache(facts.workspace, [ALPHA, BETA], tasks=[TASK], now=NOW)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_readers_see_the_facts_whatever_the_order_of_events(
    installation: Callable[..., Facts], seed: int
) -> None:
    """Two writers and two keepers, one store operation at a time, in random order, some killed on the way."""
    facts = installation()
    facts.registration(TASK)
    if seed < 4:
        together(facts)
    dice = random.Random(seed)
    if seed % 2:
        keep(facts)
    actors = [
        Actor("w1", facts, relaying(0)),
        Actor("w2", facts, relaying(10)),
        Actor("k1", facts, keeping),
        Actor("k2", facts, keeping),
    ]
    doomed = dice.sample(actors, 2) if seed % 4 > 1 else []
    steps = kept = 0
    while running := [a for a in actors if not a.gate.ended]:
        actor = dice.choice(running)
        actor.gate.killed = actor in doomed and dice.random() < 0.1
        actor.gate.step()
        if actor.gate.killed:
            while not actor.gate.ended:  # what it does on its way out is not done either
                actor.gate.step()
        steps += 1
        kept += sum(len(d["rows"]) for d in facts.workspace.documents.find(WINDOWS))
        assert windows(facts.workspace, tasks=[TASK], now=NOW) == windows(
            facts.workspace, tasks=[TASK], now=NOW, from_facts=True
        ), f"after {steps} steps"
    for actor in actors:
        actor.join()
    assert steps > 12 and (kept or not seed % 2), "there was something to see"
    keep(facts)
    assert all(
        [row["task"] for row in d["rows"]] and not d["writers"]
        for d in facts.workspace.documents.find(WINDOWS)
    ), "nobody is left entered, and everything is kept in the end"
    assert windows(facts.workspace, now=NOW) == from_facts(facts)


# ------------------------------------------------------------------------------------------------- real kills

_WORKER = """
    import sys
    from pathlib import Path
    from testbench_dagster.config import load_config
    from testbench_dagster.coordination.heartbeats import beating
    from testbench_dagster.coordination.writing import writing_facts
    from testbench_dagster.stages.score.windows import refresh_window_cache
    from testbench_dagster.stages.workspace import Workspace
    from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts

    with Workspace(load_config(Path(sys.argv[1]))) as workspace:
        facts, doc = Facts(workspace), int(sys.argv[2])
        task = workspace.datasets.current("starter_logic")
        print("ready", flush=True)
        while True:
            documents = workspace.documents
            with beating(documents, None) as heartbeat, writing_facts(documents, heartbeat) as writer:
                writer.enter({ALPHA: ["starter_logic"], BETA: ["starter_logic"]})
                facts.score(task, doc % 190, float(doc % 2), supplier=(ALPHA, BETA)[doc % 2], epoch=doc)
                facts.score(task, (doc + 1) % 190, 1.0, supplier=ALPHA, epoch=doc)
            refresh_window_cache(workspace, [ALPHA, BETA], now=NOW)
            doc += 2
"""


@pytest.mark.slow
def test_readers_see_the_facts_after_real_kills(installation: Callable[..., Facts], tmp_path: Path) -> None:
    """Two processes write and keep the same tasks and are killed at any moment, three times over."""
    facts = installation()
    facts.registration(TASK)
    dice = random.Random(int(os.environ.get("TESTBENCH_TEST_SEED", "5")))
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(_WORKER), encoding="utf-8")
    for life in range(3):
        workers = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(script),
                    str(tmp_path / "testbench.yaml"),
                    str(life * 100_000 + i * 50_000),
                ],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
            for i in range(2)
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
            time.sleep(dice.uniform(0.3, 0.6))
        finally:
            for worker in workers:
                worker.send_signal(signal.SIGKILL)
                worker.wait()
        assert windows(facts.workspace, now=NOW) == from_facts(facts)
        assert sum(row.n for row in from_facts(facts)) > 0
        keep(facts)
        for document in facts.workspace.documents.find(WINDOWS):
            assert document["writers"] == [] and len(document["rows"]) == 1
        assert windows(facts.workspace, now=NOW) == from_facts(facts)


# -------------------------------------------------------------------------------------------------- MongoDB


def test_the_same_on_mongodb(installation: Callable[..., Facts], mongo_database_uri: str) -> None:
    facts = installation()
    facts.workspace.documents = MongoDocuments(mongo_database_uri)
    task = facts.registration(TASK)
    for doc in range(5):
        facts.score(task, doc, float(doc < 3), at=days_ago(doc))
    facts.attempt(task, 9, Fault.EMPTY, days_ago(1))
    computed = from_facts(facts)
    assert keep(facts) == 2
    with writing(facts.workspace.documents) as writer:
        writer.enter({BETA: [TASK]})
        facts.score(task, 0, supplier=BETA)
        assert keep(facts) == 0
    assert windows(facts.workspace, now=NOW) == from_facts(facts) != computed
    assert keep(facts) == 1
    final = from_facts(facts)
    purge_facts(facts)
    assert windows(facts.workspace, now=NOW) == final
    assert [replace(row, latency_ms={}) for row in final] != [replace(row, latency_ms={}) for row in computed]
