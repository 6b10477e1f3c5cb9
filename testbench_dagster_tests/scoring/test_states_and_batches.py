"""What the planner is told of a window, how batches that hang are cut, and the ends of numbers in rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.prompt import Answered, DocScore
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Window
from testbench_dagster.scoring.rows import _quantile
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.plan.measured import WindowState, window_state
from testbench_dagster.stages.score.scorer import Scorer
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import WorkerDied, WorkerTimeout
from testbench_dagster_tests.records import changeable
from testbench_dagster_tests.stages.score.facts import ALPHA, NOW, Facts, configuration, days_ago

TASK = "starter_logic"


def test_records_stay_what_they_are() -> None:
    assert changeable("testbench_dagster.scoring") <= {"ScoreReport"}


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    with Workspace(configuration(tmp_path, {"tasks": [{"name": TASK}]})) as workspace:
        yield Facts(workspace)


def state(facts: Facts) -> WindowState:
    workspace = facts.workspace
    (supplier,) = [s for s in known_suppliers(workspace) if s.key == ALPHA]
    (spec,) = workspace.chosen_specs([TASK])
    registration = workspace.datasets.current(TASK)
    assert registration is not None
    return window_state(workspace, supplier, spec, registration, NOW)


# ------------------------------------------------------------------------------------ what the planner sees


def test_nothing_is_known_of_a_task_without_samples(facts: Facts) -> None:
    registration = facts.registration(TASK)
    assert state(facts) == WindowState()
    facts.attempt(registration, 0, Fault.TRANSPORT)  # of the network: no sample of the supplier
    assert not state(facts).state.present
    facts.fail(registration, 1)
    found = state(facts)
    assert found.state.present and found.state.score == 0.0


def test_values_stand_in_the_order_they_are_asked(facts: Facts) -> None:
    registration = facts.registration(TASK)
    for doc, value, hours in ((0, 1.0, 1), (1, 0.0, 3), (2, 0.5, 2), (3, 0.25, 2)):
        facts.score(registration, doc, value, NOW - timedelta(hours=hours))
    found = state(facts)
    assert found.state.values == (1.0, 0.0, 0.5, 0.25)
    assert found.measured.values == (0.0, 0.5, 0.25, 1.0)  # as answered; of one instant by doc
    assert found.state.score == found.measured.mean == pytest.approx(0.4375)
    assert (found.measured.n, found.state.signature) == (4, None)


def test_gates_read_up_to_the_first_open_doc(facts: Facts) -> None:
    registration = facts.registration(TASK)
    for doc in (0, 1, 4, 5):
        facts.score(registration, doc, 1.0)
    facts.fail(registration, 2)
    facts.attempt(registration, 3, Fault.INTERNAL)
    facts.attempt(registration, 5, Fault.TRANSPORT, round_=2)
    found = state(facts)
    assert found.state.values == (1.0, 1.0, 0.0, 1.0, 1.0), "ours, and one asked again, hold up nothing"
    assert found.state.score == pytest.approx(4 / 5)
    facts.attempt(registration, 6, Fault.TRANSPORT)
    facts.score(registration, 7, 1.0)
    found = state(facts)
    assert found.state.values == (1.0, 1.0, 0.0, 1.0, 1.0)
    assert found.state.score == pytest.approx(5 / 7)


def test_gates_count_an_answer_without_a_value_as_failed(facts: Facts) -> None:
    registration = facts.registration(TASK)
    facts.score(registration, 0, 1.0)
    facts.score(registration, 1, None)
    facts.score(registration, 2, float("nan"))
    found = state(facts)
    assert (found.state.values, found.state.score, found.measured.n) == ((1.0, 0.0, 0.0), 1 / 3, 1)


def test_gates_take_a_metric_where_lower_is_better_the_other_way(facts: Facts) -> None:
    """A failed doc has the worst value, which is 1 there: failing opens no gate, and a low mean does."""
    registration = facts.registration(TASK, higher_is_better=False)
    for doc, value in ((0, 0.0), (1, 0.25)):
        facts.score(registration, doc, value)
    facts.fail(registration, 2)
    found = state(facts).state
    assert found.values == (1.0, 0.75, 0.0) and found.lower
    assert found.score == pytest.approx(1.25 / 3) and found.quality == pytest.approx(1.75 / 3)
    facts.score(registration, 3, 3.0)  # a loss without a bound is no share, and is not turned round
    found = state(facts).state
    assert (found.values, found.lower, found.quality) == ((), False, found.score)


def test_a_mean_of_other_numbers_is_a_score_and_no_share(facts: Facts) -> None:
    registration = facts.registration(TASK)
    for doc, value in ((0, 3.0), (1, -1.0)):
        facts.score(registration, doc, value)
    found = state(facts)
    assert (found.state.score, found.state.values, found.measured.mean) == (1.0, (), None)


def test_what_is_no_mean_is_no_score(facts: Facts) -> None:
    registration = facts.registration(TASK, metrics={"exact_match": "median"})
    facts.score(registration, 0, 1.0)
    found = state(facts)
    assert found.state.present and found.state.score is None and found.state.values == ()
    assert found.measured.n == 1 and found.measured.mean is None


def test_the_newest_signature_counts(facts: Facts) -> None:
    registration = facts.registration(TASK)
    for doc, said, days in ((0, "older", 2.0), (1, "newer", 1.0), (2, "oldest", 3.0)):
        facts.score(registration, doc, said, days_ago(days))
    found = state(facts)
    assert (found.state.signature, found.state.score, found.state.values) == ("newer", None, ())


# ------------------------------------------------------------------------------------------ numbers of rows


def row(facts: Facts) -> Window:
    (found,) = [r for r in windows(facts.workspace, now=NOW) if r.primary and r.supplier == ALPHA]
    return found


def test_quantiles_are_of_the_nearest_rank() -> None:
    assert _quantile([], 0.5) is None
    assert [_quantile(list(range(1, n + 1)), 0.5) for n in (1, 2, 3, 4)] == [1, 1, 2, 2]
    assert [_quantile(list(range(1, n + 1)), 0.95) for n in (1, 19, 20, 21, 100)] == [1, 19, 19, 20, 95]


def test_bounds_and_shares_by_hand(facts: Facts) -> None:
    """Ten docs planned, four scored (three right), two failed, one open, one held up by us."""
    registration = facts.registration(TASK, n_docs=10)
    for doc in range(4):
        facts.score(registration, doc, float(doc < 3), days_ago(doc))
        facts.attempt(registration, doc, at=days_ago(doc), latency_ms=10.0 * (doc + 1))
    facts.score(registration, 4, error="odd")
    facts.fail(registration, 5, Fault.SUPPLIER_HTTP, days_ago(5))
    facts.fail(registration, 6, Fault.SUPPLIER_HTTP)
    facts.attempt(registration, 7, Fault.TRANSPORT, days_ago(6))
    found = row(facts)
    assert (found.n, found.n_planned, found.coverage, found.score_answered) == (4, 10, 0.4, 0.75)
    assert (found.n_failed, found.n_open, found.n_released) == (2, 1, 8)
    assert found.score == found.score_errors_as_zero == pytest.approx(3 / 7)
    assert (found.bound_low, found.bound_high) == (pytest.approx(3 / 7), pytest.approx(4 / 7))
    assert found.errors == {"internal": 1, "supplier_http": 2, "transport": 1}
    assert (found.first_sample_at, found.last_sample_at) == (days_ago(5), NOW)
    assert found.latency_ms == {"p50": 40.0, "p95": 120_000.0}, "three of seven calls are unanswered"
    assert found.first_attempt_success == 4 / 7
    assert found.tokens == {"prompt": 400, "completion": 20}


@pytest.mark.parametrize(
    ("output_type", "fault", "status"),
    [
        ("get", Fault.CLIENT_REQUEST, "unsupported"),
        ("get", Fault.SUPPLIER_HTTP, "no_data"),
        ("generate_until", Fault.CLIENT_REQUEST, "no_data"),
    ],
)
def test_only_a_page_can_be_denied(facts: Facts, output_type: str, fault: Fault, status: str) -> None:
    facts.attempt(facts.registration(TASK, output_type=output_type), 0, fault)
    assert row(facts).status == status


@pytest.mark.parametrize("higher", [True, False])
def test_a_metric_says_which_way_is_better(facts: Facts, higher: bool) -> None:
    facts.score(facts.registration(TASK, higher_is_better=higher), 0)
    assert row(facts).higher_is_better is higher


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_shares_may_be_none_and_all(facts: Facts, value: float) -> None:
    facts.score(facts.registration(TASK), 0, value)
    assert row(facts).ci_low is not None and row(facts).se == 0.0


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9])
def test_what_lies_outside_has_no_interval(facts: Facts, value: float) -> None:
    facts.score(facts.registration(TASK), 0, value)
    found = row(facts)
    assert (found.score, found.ci_low, found.bound_low, found.score_errors_as_zero) == (
        value,
        None,
        None,
        None,
    )


# ------------------------------------------------------------------------------------- batches that hang


class Framework:
    """Scores a batch, but for the docs that hang it, in the place of a worker that takes half a minute."""

    def __init__(self, hanging: set[int], error: type[Exception] = WorkerTimeout) -> None:
        self.hanging, self.error = hanging, error
        self.batches: list[list[int]] = []
        self.limits: list[float] = []
        self.odd: set[int] = set()
        self.controls: list[int] = []
        self.down = False

    def score(self, spec: Any, data: Any, answers: Sequence[Answered], *, timeout_s: float) -> list[DocScore]:
        docs = [answer.doc_id for answer in answers]
        self.batches.append(docs)
        self.limits.append(timeout_s)
        if self.hanging & set(docs):
            raise self.error(f"stopped at {docs}")
        return [
            DocScore(doc, error="ValueError: odd") if doc in self.odd else DocScore(doc, {"none": {"m": 1.0}})
            for doc in docs
        ]

    def score_empty(
        self, spec: Any, data: Any, asked: Sequence[Answered], *, timeout_s: float
    ) -> list[DocScore]:
        docs = [answer.doc_id for answer in asked]
        self.controls += docs
        return [DocScore(doc, error="down" if self.down else None) for doc in docs]


def scored(
    framework: Framework,
    docs: dict[str, Sequence[int]],
    strikes: Counter[str] | None = None,
    open_: dict[int, str] | None = None,
) -> dict[int, str | None]:
    """The error of each doc that has an outcome, by number."""
    items = [(doc, supplier, Answered(doc, [], [])) for supplier, own in docs.items() for doc in own]
    spec = TaskSpec("t", "t", "t", None, None, None, None, None, {}, None)
    scorer = Scorer(framework, spec, None, Counter() if strikes is None else strikes)  # type: ignore[arg-type]
    scorer.score(items)
    if open_ is not None:
        open_ |= scorer.open
    assert not scorer.waiting and not scorer.again
    return {number: score.error for number, score in scorer.found.items()}


def test_a_batch_has_half_a_minute_and_half_a_second_per_doc() -> None:
    framework = Framework(set())
    assert scored(framework, {"a": range(10), "b": range(10, 14)}) == dict.fromkeys(range(14))
    assert (framework.batches, framework.limits) == ([list(range(14))], [30.0 + 0.5 * 14])
    assert scored(framework, {}) == {} and len(framework.batches) == 1


@pytest.mark.parametrize("error", [WorkerTimeout, WorkerDied])
def test_the_answer_that_hangs_is_found_by_cutting(error: type[Exception]) -> None:
    """An empty answer is tried, to see whether any can be scored; then the answers are cut, by supplier, then
    into eight parts, until one stands alone; then the worker itself is tried.
    """
    framework = Framework({21}, error)
    strikes: Counter[str] = Counter()
    found = scored(framework, {"a": range(20), "b": range(20, 40)}, strikes)
    assert {doc for doc, message in found.items() if message} == {21} and len(found) == 40
    assert str(found[21]).startswith("unscorable: stopped at")
    assert (strikes, framework.controls) == ({"b": 1}, [0, 21])
    parts = [list(range(start, min(start + 3, 40))) for start in range(20, 40, 3)]
    expected = [
        list(range(40)),
        list(range(20)),
        list(range(20, 40)),
        parts[0],
        [20],
        [21],
        [],
        [21],
        [22],
        *parts[1:],
    ]
    assert framework.batches == expected
    assert framework.limits[expected.index([])] == 30.0


def test_an_answer_no_metric_can_digest_is_unscorable() -> None:
    framework = Framework(set())
    framework.odd = {3}
    assert scored(framework, {"a": range(5)}) == {**dict.fromkeys(range(5)), 3: "unscorable: ValueError: odd"}
    assert framework.batches == [[0, 1, 2, 3, 4], [], [3]]


@pytest.mark.parametrize("kind", ["hanging", "odd"])
def test_answers_wait_while_the_scorer_digests_none_at_all(kind: str) -> None:
    """The service that a metric asks is down, or the doc itself is broken: nobody's answer is to blame."""
    framework = Framework({3} if kind == "hanging" else set())
    framework.odd, framework.down = {3}, True
    strikes: Counter[str] = Counter()
    open_: dict[int, str] = {}
    assert scored(framework, {"a": range(5)}, strikes, open_) == {doc: None for doc in range(5) if doc != 3}
    assert not strikes and set(open_) == {3}


def test_trouble_that_stays_without_the_answer_fails() -> None:
    class Broken(Framework):
        def score(self, *arguments: Any, timeout_s: float) -> list[DocScore]:
            self.batches.append([])
            raise WorkerDied("no memory")

    broken = Broken(set())
    with pytest.raises(WorkerDied, match="no memory"):
        scored(broken, {"a": [1]})
    assert len(broken.batches) == 2


@pytest.mark.parametrize(("before", "tried"), [(0, 3), (1, 2), (2, 1), (3, 0)])
def test_a_supplier_with_three_strikes_is_put_off(before: int, tried: int) -> None:
    strikes = Counter({"a": before})
    found = scored(Framework({0, 1, 2, 3, 4}), {"a": range(5), "b": [9]}, strikes)
    assert {doc for doc, message in found.items() if message} == set(range(tried))
    assert found[9] is None and strikes["a"] == 3
