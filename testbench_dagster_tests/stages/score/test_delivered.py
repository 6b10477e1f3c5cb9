"""What withholding answers brings: nothing, at no instant, by no fault and no mixture of them.

Suppliers are played through the stores, run by run, as the relay stage stores attempts and the scoring stage
scores; the rows are read after each run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Closing, Fault
from testbench_dagster.core.records.lanes import LaneEndRecord, LeftTask
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.window import Window
from testbench_dagster.stages.discover.roster import named_suppliers
from testbench_dagster.stages.score.samples import window_samples
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, PROMPTS
from testbench_dagster_tests.stages.score.facts import ALPHA, NOW, Facts, configuration

TASK, OTHER = "starter_logic", "starter_units"
N = 20
#: When the runs begin, in minutes after the first.
RUNS = (0, 15, 120, 720, 1440, 2880, 4320)
SUPPLIERS = [f"{name}@external" for name in ("alpha", "beta", "gamma", "delta")]
THEIRS = [fault for fault in Fault if fault.row.occasions and fault is not Fault.UNSCORABLE]
#: What closes a doc after two occasions lets the second follow in the same run.
QUICK = [fault for fault in THEIRS if fault.row.occasions == 2]

Behaviour = Callable[[int, int, float], Fault]
"""What a supplier does at a doc: by doc, number of the occasion from 0, and minutes since the first run."""


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    suppliers = [
        {"address": key.split("@")[0], "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "chat"}
        for key in SUPPLIERS
    ]
    settings = {"tasks": [{"name": TASK, "samples": "all"}, {"name": OTHER}], "suppliers": suppliers}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        yield Facts(workspace)


@dataclass
class Play:
    """A supplier and the docs it is asked, ``right`` where its answer would be."""

    facts: Facts
    task: Registration
    right: list[bool]
    behaviour: Behaviour
    supplier: str = ALPHA
    answered: dict[int, datetime] = field(default_factory=dict)
    failed: dict[int, list[Fault]] = field(default_factory=dict)
    sent: int = 0

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)

    def run(self, number: int, minutes: float) -> datetime:
        """One run: canaries of what was answered, then every doc that is open; return when it ended."""
        start = NOW + timedelta(minutes=minutes)
        open_ = self._open(start)
        for canary in sorted(self.answered)[:3] if number else ():
            self._send(canary, self.behaviour(canary, 99, minutes), start, number, canary=True)
        at = start
        for doc in open_:
            at += timedelta(seconds=1)
            self._ask(doc, at, number, minutes)
        again = [doc for doc in open_ if self.failed.get(doc) and self.failed[doc][-1] in QUICK]
        if again and self.answered:
            at += timedelta(seconds=20)
            canary = min(self.answered)
            answer = self.behaviour(canary, 99, minutes)
            self._send(canary, answer, at, number, canary=True)
            for doc in self._open(at) if answer.answered else ():
                if doc in again:
                    at += timedelta(seconds=1)
                    self._ask(doc, at, number, minutes, occasion=2)
        return at

    def _open(self, now: datetime) -> list[int]:
        """The docs that are not closed yet, as the windows see it."""
        workspace = self.facts.workspace
        (supplier,) = named_suppliers(workspace, [self.supplier])
        samples = window_samples(workspace, supplier, workspace.spec(TASK), self.task, now)
        closed = {sample.doc_id for sample in samples if sample.closed}
        return [doc for doc in range(len(self.right)) if doc not in closed]

    def _ask(self, doc: int, at: datetime, number: int, minutes: float, occasion: int = 1) -> None:
        fault = self.behaviour(doc, len(self.failed.get(doc, [])), minutes)
        self._send(doc, fault, at, number, occasion=occasion)
        if fault.answered:
            self.answered[doc] = at
            self.facts.score(self.task, doc, float(self.right[doc]), at, supplier=self.supplier)
        else:
            self.failed.setdefault(doc, []).append(fault)

    def _send(
        self, doc: int, fault: Fault, at: datetime, number: int, canary: bool = False, occasion: int = 1
    ) -> None:
        self.sent += 1
        self.facts.attempt(
            self.task, doc, fault, at, supplier=self.supplier, number=self.sent, lease=number + 1,
            canary=canary, occasion=occasion, text="x" if fault.answered else None, latency_ms=500.0,
        )  # fmt: skip

    def row(self, now: datetime) -> Window:
        rows = windows(self.facts.workspace, suppliers=[self.supplier], tasks=[TASK], now=now)
        (row,) = [row for row in rows if row.primary]
        return row


def play(facts: Facts, behaviour: Callable[[list[bool]], Behaviour], seed: int = 1, **more: Any) -> Play:
    """A supplier that would be right at 12 of 20 docs."""
    right = [True] * 12 + [False] * 8
    random.Random(seed).shuffle(right)
    return Play(facts, facts.registration(TASK, N), right, behaviour(right), **more)


def gains_nothing(played: Play, runs: tuple[int, ...] = RUNS) -> Window:
    """Play the runs; nothing printed after any of them, or a day later, is above what is true."""
    for number, minutes in enumerate(runs):
        ended = played.run(number, minutes)
        for later in (timedelta(seconds=1), timedelta(minutes=10), timedelta(hours=80)):
            row = played.row(ended + later)
            assert row.n_released == N
            if row.score is not None:
                assert row.score <= played.accuracy + 1e-12, (number, later)
                assert row.ci_low is not None and row.ci_high is not None
                assert row.ci_low <= row.score <= row.ci_high
                assert row.status == ("partial" if row.n_open else "ok")
    return played.row(ended + timedelta(minutes=30))


def where_wrong(*faults: Fault, otherwise: Fault = Fault.OK) -> Callable[[list[bool]], Behaviour]:
    """Withholds every answer that would be wrong, by one fault after the other."""

    def make(right: list[bool]) -> Behaviour:
        return lambda doc, asked, minutes: (
            otherwise if right[doc] or asked == 99 else faults[asked % len(faults)]
        )

    return make


# ---------------------------------------------------------------------------------------------- withholders


@pytest.mark.parametrize("fault", THEIRS)
def test_withholding_by_any_fault_gains_nothing(facts: Facts, fault: Fault) -> None:
    played = play(facts, where_wrong(fault))
    row = gains_nothing(played, RUNS[:4])
    assert (row.status, row.n, row.n_failed, row.n_open) == ("ok", 12, 8, 0)
    assert (row.score, row.score_answered) == (0.6, 1.0)
    assert (row.ci_low, row.ci_high) == wilson(12, 20)
    assert row.errors == {fault.value: 8}


@pytest.mark.parametrize("seed", range(4))
def test_withholding_by_a_mixture_of_faults_gains_nothing(facts: Facts, seed: int) -> None:
    dice = random.Random(seed)
    faults = [dice.choice(THEIRS) for _ in range(3)]
    played = play(facts, where_wrong(*faults), seed)
    row = gains_nothing(played, RUNS[:5])
    assert (row.n_open, row.score) == (0, 0.6)


def test_a_deadline_that_passes_is_witnessed_by_slow_answers(facts: Facts) -> None:
    row = gains_nothing(play(facts, where_wrong(Fault.SUPPLIER_TIMEOUT)), RUNS[:3])
    assert row.n_failed == 8


def test_withholding_every_other_time_gains_nothing(facts: Facts) -> None:
    def make(right: list[bool]) -> Behaviour:
        return lambda doc, asked, minutes: (
            Fault.SUPPLIER_HTTP if not right[doc] and doc % 2 and asked != 99 else Fault.OK
        )

    row = gains_nothing(play(facts, make), RUNS[:3])
    assert row.score == 0.6 and row.n_open == 0


@pytest.mark.parametrize("minutes", [1.0, 60.0, 80 * 60.0])
def test_going_dark_at_hard_docs_costs(facts: Facts, minutes: float) -> None:
    """It fails everything for a while once it meets a doc it would get wrong."""

    def make(right: list[bool]) -> Behaviour:
        dark = [-1.0]

        def behave(doc: int, asked: int, now: float) -> Fault:
            if not right[doc] and asked != 99 and now > dark[0]:
                dark[0] = now + minutes
            return Fault.TRANSPORT if now <= dark[0] else Fault.OK

        return behave

    played = play(facts, make, seed=3)
    row = gains_nothing(played)
    assert row.score is None or row.score < 0.6


def test_refusing_new_docs_once_ahead_gains_nothing(facts: Facts) -> None:
    def make(right: list[bool]) -> Behaviour:
        ahead = next(n for n in range(3, N) if sum(right[:n]) / n > 0.7)
        return lambda doc, asked, minutes: Fault.SUPPLIER_HTTP if doc >= ahead else Fault.OK

    row = gains_nothing(play(facts, make, seed=5), RUNS[:4])
    assert row.score is not None and row.score < 0.6


def leave(played: Play, docs: list[int], at: datetime) -> None:
    """A run goes on without the supplier before it was asked these docs."""
    task = played.task
    left = LeftTask(
        task=task.task, task_hash=task.task_hash, epoch=1, round=1, doc_ids=docs, positions=docs
    )  # fmt: skip
    record = LaneEndRecord(
        id=f"{played.supplier} {at}", supplier=played.supplier, service="external", lease=1, ended_at=at,
        fault=Fault.TRANSPORT.value, why="no answer", waited_s=600.0, left=(left,),
    )  # fmt: skip
    assert typed.put_new(played.facts.workspace.documents, LaneEndRecord, [record]) == 1


def test_refusing_everything_once_ahead_leaves_the_rest_open(facts: Facts) -> None:
    """What a run let be asked and left behind is open until it is asked: stopping ahead does not pay."""
    played = play(facts, lambda right: lambda doc, asked, minutes: Fault.OK)
    played.right = [True] * 9 + [False] * 11
    for doc in range(5):
        played._ask(doc, NOW + timedelta(seconds=doc), 0, 0.0)
    leave(played, list(range(5, N)), NOW + timedelta(minutes=10))
    row = played.row(NOW + timedelta(minutes=11))
    assert (row.status, row.n, row.n_open, row.n_released, row.score) == ("partial", 5, 15, 20, 0.25)
    assert (row.ci_low, row.ci_high, row.next_attempt_at) == (wilson(5, 20)[0], wilson(20, 20)[1], None)
    assert row.errors == {"transport": 15}
    for doc in range(5, N):
        played._ask(doc, NOW + timedelta(minutes=15, seconds=doc), 1, 15.0)
    row = played.row(NOW + timedelta(minutes=16))
    assert (row.status, row.n, row.n_open, row.score, row.n_late) == ("ok", N, 0, 9 / 20, 0)


def test_what_was_due_again_when_a_run_left_its_supplier_is_open(facts: Facts) -> None:
    """A call of a choice that was not sent, or a doc that our own fault held up: not while others wait."""
    played = play(facts, lambda right: lambda doc, asked, minutes: Fault.BUDGET if doc == N - 1 else Fault.OK)
    played.right = [True] * 11 + [False] * 9
    for doc in range(N):
        played._ask(doc, NOW + timedelta(seconds=doc), 0, 0.0)
    row = played.row(NOW + timedelta(minutes=1))
    assert (row.status, row.n, row.n_open, row.score) == ("ok", 19, 0, 11 / 19)
    leave(played, [], NOW + timedelta(minutes=10))
    row = played.row(NOW + timedelta(minutes=11))
    assert (row.status, row.n, row.n_open, row.score) == ("partial", 19, 1, 11 / 20)
    played.behaviour = lambda doc, asked, minutes: Fault.OK
    played._ask(N - 1, NOW + timedelta(minutes=15), 1, 15.0)
    row = played.row(NOW + timedelta(minutes=16))
    assert (row.status, row.n, row.n_open, row.score) == ("ok", 20, 0, 11 / 20)


def test_what_is_left_behind_in_a_renewal_keeps_what_was_known(facts: Facts) -> None:
    (played,) = asked_by(facts, [ALPHA], lambda doc, asked, minutes: Fault.OK, RUNS[:1])
    leave(played, list(range(N)), NOW + timedelta(days=31))
    for days, n in ((31.5, N), (34.5, N), (36.0, 0)):
        row = played.row(NOW + timedelta(days=days))
        assert (row.n, row.n_open) == (n, N - n), days


def test_looking_answers_up_is_a_gain_that_is_told(facts: Facts) -> None:
    """It fails where it would be wrong, and answers right a quarter of an hour later: no rule prevents it."""
    right = [True] * 12 + [False] * 8

    def make(_: list[bool]) -> Behaviour:
        return lambda doc, asked, minutes: Fault.OK if right[doc] or asked else Fault.SUPPLIER_HTTP

    played = Play(facts, facts.registration(TASK, N), right, make(right))
    ended = played.run(0, 0)
    assert (played.row(ended).score, played.row(ended).status) == (0.6, "partial")
    played.right = [True] * N
    row = played.row(played.run(1, 15) + timedelta(minutes=5))
    assert (row.score, row.n_late, row.bound_low) == (1.0, 8, 0.6)


# ---------------------------------------------------------------------------------------- honest suppliers


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_transient_errors_cost_nothing_once_they_are_over(facts: Facts, share: float) -> None:
    dice = random.Random(share)

    def make(right: list[bool]) -> Behaviour:
        return lambda doc, asked, minutes: Fault.SUPPLIER_HTTP if dice.random() < share else Fault.OK

    row = gains_nothing(play(facts, make, seed=7), RUNS[:4])
    assert (row.status, row.score, row.score_answered) == ("ok", 0.6, 0.6)


@pytest.mark.parametrize("hours", [1.0, 24.0])
def test_an_outage_blames_nobody_and_loses_no_doc(facts: Facts, hours: float) -> None:
    """It is down after 8 docs for an hour, or a day."""

    def make(right: list[bool]) -> Behaviour:
        return lambda doc, asked, minutes: (
            Fault.TRANSPORT if minutes < hours * 60 and (minutes or doc >= 8) else Fault.OK
        )

    played = play(facts, make, seed=8)
    ended = played.run(0, 0)
    first = played.row(ended + timedelta(minutes=1))
    assert (first.status, first.n, first.n_failed, first.n_open) == ("partial", 8, 0, 12)
    for number, minutes in enumerate(RUNS[1:], 1):
        ended = played.run(number, minutes)
    row = played.row(ended)
    assert (row.status, row.n, row.n_failed, row.score) == ("ok", N, 0, 0.6)


def test_one_run_and_nothing_for_80_hours_leaves_the_row_as_it_was(facts: Facts) -> None:
    played = play(facts, lambda right: lambda doc, asked, minutes: Fault.TRANSPORT if doc >= 12 else Fault.OK)
    ended = played.run(0, 0)
    rows = [played.row(ended + timedelta(hours=hours)) for hours in (0.1, 71, 73, 80, 400)]
    assert all(row == rows[0] for row in rows)
    assert (rows[0].status, rows[0].n_failed) == ("partial", 0)


def test_dark_for_good_is_unreachable_and_has_no_score(facts: Facts) -> None:
    played = play(
        facts,
        lambda right: lambda doc, asked, minutes: Fault.OK if not minutes and doc < 6 else Fault.TRANSPORT,
    )
    for number, minutes in enumerate(RUNS):
        ended = played.run(number, minutes)
        row = played.row(ended)
        assert (row.status, row.score is None) == (
            ("unreachable", True) if minutes >= 4320 else ("partial", False)
        )
    assert (row.n, row.n_open, row.ci_low, row.score_answered is None) == (6, 14, None, False)


def test_an_honest_supplier_with_one_filtered_doc_lies_above_a_withholder(facts: Facts) -> None:
    honest = play(
        facts, lambda right: lambda doc, asked, minutes: Fault.SUPPLIER_REFUSED if doc == 4 else Fault.OK
    )
    honest.right = [True] * 17 + [False] * 3
    withholder = play(facts, where_wrong(Fault.SUPPLIER_HTTP), supplier=SUPPLIERS[1])
    rows = []
    for played in (honest, withholder):
        for number, minutes in enumerate(RUNS[:3]):
            ended = played.run(number, minutes)
        rows.append(played.row(ended))
    assert (rows[0].score, rows[1].score) == (16 / 20, 0.6)


# ----------------------------------------------------------------------------- what others say of a request


def asked_by(
    facts: Facts, suppliers: list[str], behaviour: Behaviour, runs: tuple[int, ...] = RUNS[:2]
) -> list[Play]:
    right = [True] * N
    task = facts.registration(TASK, N)
    played = [Play(facts, task, right, behaviour, supplier=key) for key in suppliers]
    for one in played:
        for number, minutes in enumerate(runs):
            one.run(number, minutes)
    return played


def refuses(*docs: int) -> Behaviour:
    return lambda doc, asked, minutes: Fault.CLIENT_REQUEST if doc in docs and asked != 99 else Fault.OK


LATER = NOW + timedelta(hours=1)


def test_a_doc_that_all_refuse_is_void_for_all(facts: Facts) -> None:
    played = asked_by(facts, SUPPLIERS[:3], refuses(4))
    for one in played:
        row = one.row(LATER)
        assert (row.status, row.n, row.n_void, row.n_failed, row.score) == ("ok", N - 1, 1, 0, 1.0)
        assert (row.bound_low, row.bound_high) == (19 / 20, 1.0)
    (late,) = asked_by(facts, SUPPLIERS[3:], lambda doc, asked, minutes: Fault.OK)
    assert late.row(LATER).score == 1.0
    for one in played:
        row = one.row(LATER)
        assert (row.n_void, row.n_failed, row.score) == (0, 1, 19 / 20), "one answer, and it can be answered"


def test_below_three_groups_a_refused_doc_has_failed(facts: Facts) -> None:
    played = asked_by(facts, SUPPLIERS[:3], refuses(4))
    members = SUPPLIERS[:2]
    facts.workspace.documents.upsert(
        IDENTITY_GROUPS, [{"_id": m, "group": "g", "proxy": m, "members": members} for m in members]
    )
    for one in played:
        assert (one.row(LATER).n_failed, one.row(LATER).n_void) == (1, 0)


def voids(played: Iterable[Play], now: datetime = LATER) -> set[int]:
    return {one.row(now).n_void for one in played}


@pytest.mark.parametrize(("days", "void"), [(20.0, 0), (32.0, 0), (40.0, 1)])
def test_who_is_alone_in_asking_a_form_makes_no_doc_void_that_others_answered(
    facts: Facts, days: float, void: int
) -> None:
    """The answer is to another prompt: of another API, or of an epoch before. It counts while it may show."""
    played = asked_by(facts, SUPPLIERS[:3], refuses(4))
    assert voids(played) == {1}
    at, task, other = NOW - timedelta(days=days), played[0].task, {"supplier": SUPPLIERS[3], "epoch": 0}
    prompt = {
        "_id": "another form",
        "task": TASK,
        "task_hash": task.task_hash,
        "epoch": 0,
        "api": "completions",
    }
    more = {"position": 9, "doc_id": 4, "doc_hash": "", "calls": 1, "relayable": True, "requests": []}
    facts.workspace.documents.put_new(PROMPTS, [{**prompt, **more}])
    facts.attempt(task, 4, Fault.OK, at, prompt_id="another form", text="x", **other)
    facts.score(task, 4, 1.0, at, error="it could not be scored", **other)
    assert voids(played) == {1}
    facts.score(task, 4, 0.0, at, round_=2, **other)
    assert voids(played) == {void}


@pytest.mark.parametrize("seed", range(3))
def test_docs_that_only_some_were_asked_so_far_are_not_void_by_their_word(facts: Facts, seed: int) -> None:
    """Three Sybils are asked new docs first, and refuse those at which all of them would be wrong.

    They would be at 1.00 until somebody else is asked; what is true of them is .60.
    """
    right = [True] * 12 + [False] * 8
    random.Random(seed).shuffle(right)
    task = facts.registration(TASK, N)
    honest = SUPPLIERS[3]
    facts.score(task, right.index(True), 1.0, NOW - timedelta(hours=1), supplier=honest)
    wrong = [doc for doc in range(N) if not right[doc]]
    sybils = [Play(facts, task, right, refuses(*wrong), key) for key in SUPPLIERS[:3]]
    for number, minutes in enumerate((0, 15)):
        for sybil in sybils:
            sybil.run(number, minutes)
    for sybil in sybils:
        row = sybil.row(LATER)
        assert (row.score, row.score_answered, row.n_failed, row.n_void) == (0.6, 1.0, 8, 0)
    (other,) = asked_by(facts, [honest], refuses(wrong[0]))
    assert other.row(LATER).n_void == 1
    for sybil in sybils:
        row = sybil.row(LATER)
        assert (row.score, row.n_failed, row.n_void) == (12 / 19, 7, 1), "what all refuse is void"


def test_a_stake_owner_makes_no_doc_void_alone(facts: Facts) -> None:
    staked = [f"pokt1{name}@external" for name in "abc"]
    for key in staked:
        facts.on_roster(key, owner="pokt1one", source="chain")
    assert voids(asked_by(facts, staked, refuses(4))) == {0}
    for owner, key in zip(("pokt1two", "pokt1three"), staked, strict=False):
        facts.on_roster(key, owner=owner, source="chain")
    assert voids(
        [Play(facts, facts.registration(TASK, N), [True] * N, refuses(4), key) for key in staked]
    ) == {1}


def test_refusals_that_nothing_witnesses_make_no_doc_void(facts: Facts) -> None:
    """Three that answer nothing near their refusals, and close the doc by its age."""
    played = asked_by(facts, SUPPLIERS[:3], refuses(4), ())
    for one in played:
        for doc in {*range(N)} - {4}:
            one._ask(doc, NOW, 0, 0.0)
        for number, minutes in ((0, 10), (1, 60)):
            one._send(4, Fault.CLIENT_REQUEST, NOW + timedelta(minutes=minutes), number)
    for one in played:
        row = one.row(NOW + timedelta(hours=80))
        assert (row.n_failed, row.n_void, row.score) == (1, 0, 19 / 20)


def prompts(facts: Facts, registration: Registration, names: list[str]) -> None:
    generation = dict.fromkeys(names, 1)
    facts.workspace.documents.put_new(
        PROMPTS,
        [
            {
                "_id": f"{registration.task}-{doc}", "task": registration.task, "epoch": 1, "api": "chat",
                "task_hash": registration.task_hash, "position": doc, "doc_id": doc, "doc_hash": "",
                "calls": 1, "relayable": True,
                "requests": [{"type": "generate_until", "idx": 0, "messages": [], "generation": generation}],
            }
            for doc in range(N)
        ],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "of_other", "answers_other"),
    [
        (["max_gen_toks", "min_p"], ["max_gen_toks"], False),
        (["max_gen_toks", "min_p"], ["min_p", "max_gen_toks"], True),
        # what is not sent, or is sent anyway, makes no form of its own
        (["max_gen_toks", "do_sample"], ["temperature"], True),
    ],
)
def test_a_form_of_request_that_is_refused_everywhere_has_no_score(
    facts: Facts, asked: list[str], of_other: list[str], answers_other: bool
) -> None:
    """Unless another task's requests of that form are answered: then this task's are withheld."""
    prompts(facts, facts.registration(TASK, N), asked)
    other = facts.registration(OTHER, N)
    prompts(facts, other, of_other)
    for doc in range(3):
        facts.attempt(other, doc, at=NOW, text="x")
        facts.score(other, doc, 1.0, NOW)
    (played,) = asked_by(facts, [ALPHA], refuses(*range(N)), RUNS[:1])
    at = NOW + timedelta(minutes=5)
    row = played.row(at)
    expected = ("partial", 0.0, N) if answers_other else ("refused", None, N)
    assert (row.status, row.score, row.n_open) == expected
    refresh_window_cache(facts.workspace, [ALPHA], now=at)
    assert played.row(at) == row


def test_who_refuses_a_form_of_request_for_days_is_not_unreachable(facts: Facts) -> None:
    """It answers, if only to say no: three days of that do not turn it into a supplier that is gone."""
    prompts(facts, facts.registration(TASK, N), ["max_gen_toks"])
    played = play(facts, lambda right: lambda doc, asked, minutes: Fault.CLIENT_REQUEST)
    for number, minutes in enumerate(RUNS):
        row = played.row(played.run(number, minutes) + timedelta(minutes=5))
        assert (row.status, row.score, row.n_open) == ("refused", None, N), minutes


# ------------------------------------------------------------------------------------------ our own trouble


def test_answers_that_wait_for_the_scorer_are_no_open_docs(facts: Facts) -> None:
    task = facts.registration(TASK, N)
    for doc in range(10):
        facts.attempt(task, doc, text="x", at=NOW)
        if doc < 7:
            facts.score(task, doc, 1.0, NOW)
    (row,) = [r for r in windows(facts.workspace, suppliers=[ALPHA], tasks=[TASK], now=NOW) if r.primary]
    assert (row.n, row.n_open, row.n_failed, row.n_released, row.score) == (7, 0, 0, 10, 1.0)
    assert row.status == "partial", "more than one doc is held up"


def test_answers_that_break_the_scorer_count_as_wrong_with_all_that_wait_behind_them(facts: Facts) -> None:
    task = facts.registration(TASK, N)
    for doc in range(12):
        facts.attempt(task, doc, text="x", at=NOW)
        facts.score(task, doc, 1.0, NOW)
    facts.attempt(task, 12, text="breaks", at=NOW)
    facts.score(task, 12, error="unscorable: worker: it took longer than 30 s", at=NOW)
    facts.attempt(task, 13, text="put off", at=NOW)
    (row,) = [r for r in windows(facts.workspace, suppliers=[ALPHA], tasks=[TASK], now=NOW) if r.primary]
    assert (row.status, row.n, row.n_failed, row.n_open) == ("partial", 12, 1, 1)
    assert (row.score, row.errors) == (12 / 14, {"unscorable": 1})


def test_where_everything_is_answered_nothing_changed(facts: Facts) -> None:
    (played,) = asked_by(facts, [ALPHA], lambda doc, asked, minutes: Fault.OK, RUNS[:1])
    row = played.row(LATER)
    assert (
        row.score == row.score_answered == row.bound_low == row.bound_high == row.score_errors_as_zero == 1.0
    )
    assert (row.status, row.failures, row.n_released) == ("ok", "as_worst", N)


def test_every_fault_but_ours_closes_somehow() -> None:
    assert {fault for fault in Fault if not fault.row.occasions and not fault.answered} == {
        fault for fault in Fault if fault.row.closes is Closing.OPEN
    }
