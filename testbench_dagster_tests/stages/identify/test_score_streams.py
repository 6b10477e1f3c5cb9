"""The streams that changes of scores show in: what is in them, kept and added to, and compared with peers."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.registration import Registration
from testbench_dagster.identity import ScoreStream, score_change
from testbench_dagster.stages.discover.roster import active_suppliers, cut_windows, refresh_roster
from testbench_dagster.stages.identify import score_streams
from testbench_dagster.stages.identify.score_streams import ScoreStreams
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, PLANS, SCORE_STREAMS
from testbench_dagster_tests.stages.score.facts import Facts

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
NAMES = ("a", "b", "c", "d")
TASKS = [{"name": "starter_reading"}, {"name": "starter_arithmetic"}]


def key(name: str) -> str:
    return f"{name}@external"


@pytest.fixture
def workspace(open_installation: Callable[..., Workspace]) -> Workspace:
    opened = open_installation(*({"address": name} for name in NAMES), tasks=TASKS)
    refresh_roster(opened)
    return opened


@pytest.fixture
def facts(workspace: Workspace) -> Facts:
    return Facts(workspace)


@pytest.fixture
def task(facts: Facts) -> Registration:
    return facts.registration("starter_reading", n_docs=400)


def read(workspace: Workspace, *names: str, now: datetime = NOW) -> dict[str, ScoreStream]:
    suppliers = active_suppliers(workspace)
    chosen = [s for s in suppliers if not names or s.address in names]
    found = ScoreStreams(workspace, "external", suppliers, now).read(chosen)
    return {supplier.partition("@")[0]: stream for supplier, stream, _ in found}


def told(one: ScoreStream) -> list[tuple[float, float]]:
    """Value and when, in hours before now."""
    return [
        (round(value, 6), round((NOW - datetime.fromtimestamp(at / 1000, UTC)) / HOUR, 3))
        for value, at in zip(one.values, one.at, strict=True)
    ]


def test_values_of_all_tasks_in_the_order_in_which_they_were_asked(
    workspace: Workspace, facts: Facts, task: Registration
) -> None:
    other = facts.registration("starter_arithmetic", n_docs=50)
    facts.score(task, 1, 1.0, NOW - 3 * HOUR, supplier=key("a"))
    facts.score(other, 1, 0.25, NOW - 4 * HOUR, supplier=key("a"))
    # answered last, but asked first
    facts.score(task, 2, 0.0, NOW - HOUR, supplier=key("a"), latency_ms=4 * 3_600_000.0)
    stream = read(workspace, "a")["a"]
    assert told(stream) == [(0.0, 5.0), (0.25, 4.0), (1.0, 3.0)]
    assert len(set(stream.docs)) == 3 and len(set(stream.tasks)) == 2


def test_what_is_asked_again_is_the_same_doc(workspace: Workspace, facts: Facts, task: Registration) -> None:
    facts.score(task, 1, 1.0, NOW - 9 * HOUR, supplier=key("a"))
    facts.score(task, 1, 0.0, NOW - 2 * HOUR, supplier=key("a"), round_=2)
    docs = read(workspace, "a")["a"].docs
    assert docs[0] == docs[1]


def test_more_is_better_whatever_the_metric_says(workspace: Workspace, facts: Facts) -> None:
    task = facts.registration("starter_reading", n_docs=50, higher_is_better=False)
    facts.score(task, 1, 0.75, NOW - HOUR, supplier=key("a"))
    facts.attempt(task, 7, at=NOW - 2 * HOUR, supplier=key("a"), text="yes")
    facts.fail(task, 2, at=NOW - 2 * HOUR, supplier=key("a"))
    assert told(read(workspace, "a")["a"]) == [(0.0, 2.0), (0.25, 1.0)], "a failed doc is the worst there is"


def test_failed_docs_count_as_in_the_score_and_open_ones_not_yet(
    workspace: Workspace, facts: Facts, task: Registration
) -> None:
    facts.score(task, 1, 1.0, NOW - 9 * HOUR, supplier=key("a"))
    facts.fail(task, 2, at=NOW - 5 * HOUR, supplier=key("a"))
    facts.attempt(task, 3, Fault.SUPPLIER_TIMEOUT, NOW - 2 * HOUR, supplier=key("a"), lease=7)
    assert told(read(workspace, "a")["a"]) == [(1.0, 9.0), (0.0, 5.0)]
    # once more: nothing doubles
    assert told(read(workspace, "a")["a"]) == [(1.0, 9.0), (0.0, 5.0)]


def test_an_answer_that_kills_the_scorer_counts_as_failed(
    workspace: Workspace, facts: Facts, task: Registration
) -> None:
    facts.score(task, 1, 1.0, NOW - 2 * HOUR, supplier=key("a"))
    facts.score(task, 2, None, NOW - HOUR, supplier=key("a"), error="unscorable: it killed it twice")
    facts.score(task, 3, None, NOW - HOUR, supplier=key("a"), error="our own fault")
    assert told(read(workspace, "a")["a"]) == [(1.0, 2.0), (0.0, 1.0)]


@pytest.mark.parametrize("lacks", [None, float("nan")])
def test_an_answer_that_leaves_no_value_counts_as_in_the_score(
    workspace: Workspace, facts: Facts, task: Registration, lacks: float | None
) -> None:
    facts.score(task, 1, lacks, NOW - 4 * HOUR, supplier=key("a"))
    assert told(read(workspace, "a")["a"]) == [], "where no answer has a value there is no score"
    facts.score(task, 2, 1.0, NOW - 3 * HOUR, supplier=key("a"))
    facts.score(task, 3, lacks, NOW - 2 * HOUR, supplier=key("a"))
    assert told(read(workspace, "a")["a"]) == [(0.0, 4.0), (1.0, 3.0), (0.0, 2.0)]
    facts.score(task, 4, lacks, NOW - HOUR, supplier=key("a"))
    later = NOW + timedelta(days=20)  # what was read before is not read again
    assert [value for value, _ in told(read(workspace, "a", now=later)["a"])] == [0.0, 1.0, 0.0, 0.0]


def test_a_fall_below_what_a_score_begins_at_is_not_left_out(workspace: Workspace, facts: Facts) -> None:
    """Nothing says where the metric ends: its values were taken to lie from 0 to 1."""
    task = facts.registration("starter_reading", n_docs=50, metrics={"reward": "mean"})
    for doc, value in enumerate((0.75, -0.5, 1.5)):
        at = NOW - (9 - doc) * HOUR
        facts.score(task, doc, metrics={"none": {"reward": value}}, at=at, supplier=key("a"))
    assert told(read(workspace, "a")["a"]) == [(0.75, 9.0), (0.0, 8.0)]


def test_values_of_a_metric_with_other_bounds_are_told_from_0_to_1(
    workspace: Workspace, facts: Facts
) -> None:
    metric = "difference_male_female"
    task = facts.registration("starter_reading", n_docs=50, metrics={metric: "mean"}, higher_is_better=False)
    for doc, value in enumerate((-1.0, 0.0, 1.0)):
        at = NOW - (9 - doc) * HOUR
        facts.score(task, doc, metrics={"none": {metric: value}}, at=at, supplier=key("a"))
    facts.attempt(task, 7, at=NOW - 2 * HOUR, supplier=key("a"), text="yes")
    facts.fail(task, 4, at=NOW - 2 * HOUR, supplier=key("a"))
    assert told(read(workspace, "a")["a"]) == [(1.0, 9.0), (0.5, 8.0), (0.0, 7.0), (0.0, 2.0)]


def test_how_well_peers_of_other_groups_did_stands_beside_new_docs(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_streams, "LEAST_LEVEL_DOCS", 2)
    for name, first, second in (("a", 1.0, 1.0), ("b", 1.0, 0.0), ("c", 0.0, 1.0), ("d", 0.0, 1.0)):
        facts.score(task, 1, first, NOW - 3 * HOUR, supplier=key(name))
        facts.score(task, 2, second, NOW - 2 * HOUR, supplier=key(name))
    facts.score(task, 3, 1.0, NOW - HOUR, supplier=key("a"))
    stream = read(workspace, "a")["a"]
    assert stream.n_peers.tolist() == [3, 3, 0]
    # each of the others is .5 on the whole
    assert stream.peers == pytest.approx([-0.5 / 3, 0.5 / 3, 0], abs=1e-6)
    # twins are no peers of each other
    workspace.documents.upsert(
        IDENTITY_GROUPS,
        [
            {"_id": key(n), "group": "twins", "proxy": key("b"), "members": [key("a"), key("b")]}
            for n in ("a", "b")
        ],
    )
    stream = read(workspace, "a")["a"]
    assert stream.n_peers.tolist() == [2, 2, 0]
    assert stream.peers == pytest.approx([-0.5, 0.5, 0])
    assert read(workspace, "c")["c"].n_peers.tolist() == [2, 2], "b, who stands for a, and d"


def test_who_joins_moves_nothing(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weak peers answer the second half of the docs only: the docs look no harder for that."""
    draw = random.Random(4)
    for doc in range(120):
        for name, share in (("a", 0.8), ("b", 0.8), ("c", 0.2), ("d", 0.2)):
            if name in "ab" or doc >= 60:
                value = float(draw.random() < share)
                facts.score(task, doc, value, NOW - (120 - doc) * HOUR, supplier=key(name))
    stream = read(workspace)["a"]
    assert stream.n_peers.tolist() == [1] * 60 + [3] * 60
    assert abs(stream.peers[:60].mean() - stream.peers[60:].mean()) < 0.1


def test_of_many_peers_always_the_same_are_looked_at_and_none_that_fails(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_streams, "LEAST_LEVEL_DOCS", 1)
    for name in NAMES:
        facts.score(task, 1, 1.0, NOW - 2 * HOUR, supplier=key(name))
    workspace.documents.upsert(
        PLANS, [{"_id": key("d"), "service": "external", "failures": 3, "planned_at": NOW, "due_at": NOW}]
    )
    assert {name: one.n_peers.tolist() for name, one in read(workspace).items()} == {
        "a": [2], "b": [2], "c": [2], "d": [3]
    }  # fmt: skip
    monkeypatch.setattr(score_streams, "PANEL", 1)
    few = [sorted(n for one in read(workspace).values() for n in one.n_peers.tolist()) for _ in range(2)]
    assert few == [[1, 1, 2, 2]] * 2, "two are looked at; neither is a peer of itself"


def test_peers_that_answer_later_are_looked_at_once_more(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_streams, "LEAST_LEVEL_DOCS", 1)
    facts.score(task, 1, 1.0, NOW - 3 * HOUR, supplier=key("a"))
    assert read(workspace, "a")["a"].n_peers.tolist() == [0]
    for name in ("b", "c"):
        facts.score(task, 1, 1.0, NOW - 2 * HOUR, supplier=key(name))
    assert read(workspace, "a")["a"].n_peers.tolist() == [2]


def test_what_is_kept_is_added_to_and_equals_what_is_read_anew(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(3)
    start = NOW - timedelta(days=60)
    for day in range(60):
        for number, name in enumerate(NAMES):
            at = start + timedelta(days=day, minutes=number)
            facts.score(task, day, float(draw.random() < 0.5), at, supplier=key(name))
        if day % 13 == 0:
            facts.fail(task, 100 + day, at=start + timedelta(days=day, hours=1), supplier=key("a"))
        if day % 7 == 0:
            read(workspace, now=start + timedelta(days=day, hours=2))
    kept = read(workspace)
    assert len(kept["a"].at) == 65
    rows: list[int] = []
    find = score_streams.typed.find

    def counted(documents: Any, of: Any, *args: Any, **more: Any) -> Any:
        for row in find(documents, of, *args, **more):
            rows.append(1)
            yield row

    monkeypatch.setattr(score_streams.typed, "find", counted)
    read(workspace, "a")
    n_again = len(rows)
    assert n_again < 150, "only what is recent is read once more"
    workspace.documents.purge(SCORE_STREAMS, {"service": "external"})
    anew = read(workspace)
    # failed docs are known as long as windows count them
    since = 1000 * (NOW - timedelta(days=30)).timestamp()
    for name in NAMES:
        ours, theirs = (
            [
                tuple(row)
                for row in zip(one.at, one.values, one.n_peers, one.peers, strict=True)
                if row[0] > since
            ]
            for one in (kept[name], anew[name])
        )
        assert [row[:3] for row in ours] == [row[:3] for row in theirs]
        # what peers are on the whole is as of when it was looked at
        assert [row[3] for row in ours] == pytest.approx([row[3] for row in theirs], abs=0.2)


def test_what_was_read_by_a_clock_that_was_ahead_hides_nothing_that_came_since(
    workspace: Workspace, facts: Facts, task: Registration
) -> None:
    for doc in range(3):
        facts.score(task, doc, 1.0, NOW - (9 - doc) * HOUR, supplier=key("a"))
    facts.fail(task, 3, at=NOW - 5 * HOUR, supplier=key("a"))
    read(workspace, "a", now=NOW + timedelta(days=30))
    facts.score(task, 4, 0.0, NOW - HOUR, supplier=key("a"))
    for _ in range(2):
        stream = read(workspace, "a")["a"]
        assert told(stream)[-1] == (0.0, 1.0) and len(stream.at) == 5, "nor is anything there twice"
    (kept,) = workspace.documents.find(SCORE_STREAMS, {"_id": key("a")})
    assert kept["read_until"] == NOW


def test_only_one_scorers_values_count(
    workspace: Workspace, facts: Facts, task: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = NOW - timedelta(days=20)
    for doc, hours in ((1, 0), (2, 1)):
        facts.score(task, doc, 1.0, old + hours * HOUR, supplier=key("a"))
    assert len(read(workspace, "a", now=old + 2 * HOUR)["a"].at) == 2
    monkeypatch.setattr(score_streams, "scorer_version", lambda registration: "newer")
    facts.score(task, 1, 0.5, old, supplier=key("a"), version="newer")
    assert read(workspace, "a")["a"].values.tolist() == [0.5]
    assert read(workspace, "a")["a"].values.tolist() == [0.5]


def test_where_nothing_is_kept_a_stream_begins_with_the_window(
    workspace: Workspace, facts: Facts, task: Registration
) -> None:
    """Who always leaves a fifth unanswered did not fall: of months ago that is not known any more."""
    a_day, days, window = 10, 120, 32
    with facts.in_bulk():
        for number in range(1, days * a_day):
            if number % 5:
                at = NOW - number * timedelta(days=1) / a_day
                facts.score(task, number % 400, 1.0, at, supplier=key("a"), round_=1 + number // 400)
    for number in range(5, (window - 1) * a_day, 5):
        at = NOW - number * timedelta(days=1) / a_day
        facts.fail(task, number % 400, at=at, supplier=key("a"), round_=1 + number // 400)
    stream = read(workspace, "a")["a"]
    began = datetime.fromtimestamp(stream.at[0] / 1000, UTC)
    assert timedelta(days=window - 1) < NOW - began < timedelta(days=window)
    assert 0.79 < stream.values.mean() < 0.81
    assert score_change("a", stream, timedelta(days=window)) is None
    # what was kept since then is added to
    later = NOW + timedelta(days=20)
    assert read(workspace, "a", now=later)["a"].at[0] == stream.at[0]


def test_other_data_are_other_docs(workspace: Workspace, facts: Facts, task: Registration) -> None:
    facts.score(task, 1, 1.0, NOW - 9 * HOUR, supplier=key("a"))
    assert told(read(workspace, "a")["a"]) == [(1.0, 9.0)]
    newer = facts.registration("starter_reading", n_docs=399)
    facts.score(newer, 1, 0.5, NOW - HOUR, supplier=key("a"))
    stream = read(workspace, "a")["a"]
    assert told(stream) == [(1.0, 9.0), (0.5, 1.0)]
    assert len(set(stream.docs)) == len(set(stream.tasks)) == 2


def test_a_stream_begins_after_the_cut(workspace: Workspace, facts: Facts, task: Registration) -> None:
    for hour in range(1, 9):
        facts.score(task, hour, 1.0, NOW - hour * HOUR, supplier=key("a"))
    assert len(read(workspace, "a")["a"].at) == 8
    cut_windows(workspace, key("a"), NOW - 4 * HOUR, "another model")
    assert told(read(workspace, "a")["a"]) == [(1.0, 3.0), (1.0, 2.0), (1.0, 1.0)]


def test_one_document_per_supplier(workspace: Workspace, facts: Facts, task: Registration) -> None:
    facts.score(task, 1, 1.0, NOW - HOUR, supplier=key("a"))
    read(workspace)
    read(workspace)
    assert workspace.documents.count(SCORE_STREAMS) == len(NAMES)
