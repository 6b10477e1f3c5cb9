"""Comparisons over hand-made facts in a real store, and the command that prints them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.compare import (
    CROSSED,
    NO_BOUNDS,
    NO_MEAN,
    NO_SCORES,
    OPEN_FIRST,
    OPEN_TASKS,
    Comparison,
    compare,
)
from testbench_dagster.stages.score import windows
from testbench_dagster.stages.score.samples import Task, samples_by_task
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.paired import docs_to_decide, half_differences, mcnemar, paired_difference
from testbench_dagster.statistics.strata import rounds_of
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration, days_ago
from testbench_dagster_tests.test_architecture import imports, modules

LOGIC, ARITHMETIC = "starter_logic", "starter_arithmetic"


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Facts]:
    """Two tasks and two suppliers; parametrized with a further task."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    tasks: list[dict[str, Any]] = [{"name": name, "samples": "all"} for name in (LOGIC, ARITHMETIC)]
    tasks += [request.param] if hasattr(request, "param") else []
    with Workspace(configuration(tmp_path, {"tasks": tasks})) as workspace:
        yield Facts(workspace)


def answer(facts: Facts, task: Registration, a: list[Any], b: list[Any]) -> None:
    """Scores of both suppliers, doc by doc, the first doc the oldest; None: not asked."""
    for supplier, values in ((ALPHA, a), (BETA, b)):
        for doc, value in enumerate(values):
            if value is not None:
                facts.score(task, doc, value, days_ago(1 - doc / 10_000), supplier=supplier)


def rows(facts: Facts, **options: Any) -> dict[str, Comparison]:
    return {row.task: row for row in compare(facts.workspace, ALPHA, BETA, now=NOW, **options)}


def coins(seed: int, share: float, n: int) -> list[float]:
    chance = random.Random(seed)
    return [float(chance.random() < share) for _ in range(n)]


def test_a_row_holds_the_paired_difference_of_the_common_docs(facts: Facts) -> None:
    task = facts.registration(LOGIC)
    a, b = coins(1, 0.9, 80), coins(2, 0.4, 80)
    answer(facts, task, [*a, 1.0, None], [*b, None, 1.0])
    row = rows(facts)[LOGIC]
    expected = paired_difference(a, b)
    assert (row.n_common, row.metric, row.filter) == (80, "exact_match", "none")
    assert (row.mean_a, row.mean_b) == (sum(a) / 80, sum(b) / 80)
    assert (row.difference, row.se) == (expected.difference, expected.standard_error)
    assert (row.ci_low, row.ci_high) == (expected.low, expected.high)
    only_a = sum(x > y for x, y in zip(a, b, strict=True))
    only_b = sum(x < y for x, y in zip(a, b, strict=True))
    assert (row.only_a_higher, row.only_b_higher) == (only_a, only_b)
    assert row.p_mid == mcnemar(only_a, only_b).mid
    assert (row.verdict, row.docs_needed) == ("A better", 0)


def test_the_other_way_round_is_the_mirror_image(facts: Facts) -> None:
    answer(facts, facts.registration(LOGIC), coins(1, 0.9, 60), coins(2, 0.4, 60))
    row = rows(facts)[LOGIC]
    turned = compare(facts.workspace, BETA, ALPHA, now=NOW)[0]
    assert turned.verdict == "B better"
    assert (turned.ci_low, turned.ci_high) == pytest.approx((-row.ci_high, -row.ci_low))
    assert (turned.difference, turned.only_a_higher) == (-row.difference, row.only_b_higher)


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_docs_enter_in_the_order_of_asking_not_of_answering(facts: Facts, share: float) -> None:
    """Two that are equally good: one of them answers slowly where the other is wrong, and right itself."""
    task = facts.registration(LOGIC)
    a, b = coins(3, share, 150), coins(4, share, 150)
    for doc in range(150):
        slow = doc / 10_000 + (a[doc] > b[doc])
        facts.score(task, doc, a[doc], days_ago(2 + doc / 10_000), supplier=ALPHA)
        facts.score(task, doc, b[doc], days_ago(2 - slow), supplier=BETA)
    row = rows(facts)[LOGIC]
    asked = paired_difference(a, b)
    assert (row.ci_low, row.ci_high, row.verdict) == (asked.low, asked.high, "undecided")
    order = sorted(range(150), key=lambda doc: (a[doc] > b[doc], doc))
    by_time = paired_difference([a[doc] for doc in order], [b[doc] for doc in order])
    assert by_time.high < 0, "in the order of answering the slow one is better, or this test shows nothing"
    both = rows(facts, tasks=[LOGIC])["overall"]
    assert both.verdict == "undecided"


def test_docs_of_a_later_epoch_come_behind(facts: Facts) -> None:
    task = facts.registration(LOGIC)
    a, b = coins(3, 0.8, 40), coins(4, 0.5, 40)
    for supplier, values in ((ALPHA, a), (BETA, b)):
        for doc, value in enumerate(values):  # the first half was asked last
            facts.score(task, doc, value, days_ago(1), supplier=supplier, epoch=2 if doc < 20 else 1)
    turned = paired_difference(a[20:] + a[:20], b[20:] + b[:20])
    row = rows(facts)[LOGIC]
    assert (row.ci_low, row.ci_high) == (turned.low, turned.high)
    assert turned.low != paired_difference(a, b).low, "the order matters, or this test shows nothing"


def test_docs_behind_an_open_one_wait(facts: Facts) -> None:
    """Who leaves a doc open that it would lose would else end the comparison where it likes."""
    task = facts.registration(LOGIC)
    a, b = coins(1, 0.9, 60), coins(2, 0.4, 60)
    answer(facts, task, [*a[:30], None, *a[31:]], b)
    facts.attempt(task, 30, Fault.TRANSPORT, days_ago(0.001), supplier=ALPHA)
    row = rows(facts)[LOGIC]
    first = paired_difference(a[:30], b[:30])
    assert (row.n_common, row.ci_low, row.ci_high) == (30, first.low, first.high)
    assert row.note == OPEN_FIRST
    assert rows(facts)["overall"].n_common == 30


@pytest.mark.parametrize("asked", ["first", "all", "nothing"])
def test_a_task_whose_first_doc_is_open_is_not_left_out_of_the_verdict(facts: Facts, asked: str) -> None:
    """A is better in one task and knows nothing of the other, and leaves its first doc open, or all."""
    first, second = facts.registration(LOGIC), facts.registration(ARITHMETIC)
    answer(facts, first, coins(1, 0.9, 100), coins(2, 0.5, 100))
    answer(facts, second, [None] + [0.0 if asked == "first" else None] * 99, [1.0] * 100)
    for doc in range({"first": 1, "all": 100, "nothing": 0}[asked]):
        facts.attempt(second, doc, Fault.TRANSPORT, days_ago(0.001), supplier=ALPHA)
    found = rows(facts)
    overall, alone = found["overall"], found[LOGIC]
    assert alone.verdict == "A better" and found[ARITHMETIC].n_common == 0
    if asked == "nothing":  # it was not asked yet
        assert (overall.verdict, overall.note) == ("A better", None)
        return
    assert (overall.verdict, overall.note, overall.docs_needed) == ("undecided", OPEN_TASKS, None)
    assert overall.difference == alone.difference
    sure = rows(facts, tasks=[LOGIC])["overall"]
    assert (overall.ci_low, overall.ci_high) == pytest.approx(((sure.ci_low - 1) / 2, (sure.ci_high + 1) / 2))


@pytest.mark.parametrize("higher", [True, False])
def test_bounds_that_crossed_decide_nothing(facts: Facts, higher: bool) -> None:
    """A was better, then B: no difference fits all docs."""
    task = facts.registration(LOGIC, higher_is_better=higher)
    answer(facts, task, [1.0] * 60 + [0.0] * 120, [0.0] * 60 + [1.0] * 120)
    for row in compare(facts.workspace, ALPHA, BETA, now=NOW, tasks=[LOGIC]):
        assert (row.verdict, row.note, row.docs_needed) == ("undecided", CROSSED, None)
        assert (row.ci_low, row.ci_high) == (None, None)
        assert row.difference == pytest.approx(-1 / 3 if higher or row.task == LOGIC else 1 / 3)


def test_an_undecided_row_says_how_many_docs_it_takes(facts: Facts) -> None:
    a, b = coins(1, 0.65, 40), coins(2, 0.5, 40)
    answer(facts, facts.registration(LOGIC), a, b)
    row = rows(facts)[LOGIC]
    assert row.verdict == "undecided" and row.ci_low < 0 < row.ci_high
    assert row.docs_needed == docs_to_decide(half_differences(a, b))
    assert row.docs_needed > 0


def test_equal_answers_are_equal_only_within_a_margin(facts: Facts) -> None:
    answer(facts, facts.registration(LOGIC), [1.0, 0.0] * 50, [1.0, 0.0] * 50)
    row = rows(facts)[LOGIC]
    assert (row.difference, row.verdict, row.docs_needed, row.p_mid) == (0, "undecided", None, 1)
    assert rows(facts, margin=0.1)[LOGIC].verdict == "equal within"
    close = rows(facts, margin=0.01)[LOGIC]
    assert close.verdict == "undecided" and close.docs_needed > 100


def test_docs_left_unanswered_for_good_have_the_worst_value(facts: Facts) -> None:
    task = facts.registration(LOGIC)
    answer(facts, task, [1.0] * 10 + [None] * 3, [0.0] * 10 + [1.0] * 3)
    facts.fail(task, 10, Fault.SUPPLIER_TIMEOUT, days_ago(1), supplier=ALPHA)
    facts.fail(task, 11, Fault.EMPTY, days_ago(1), supplier=ALPHA)
    facts.attempt(task, 12, Fault.TRANSPORT, days_ago(1), supplier=ALPHA)  # still open
    for supplier in (ALPHA, BETA):
        facts.fail(task, 20, Fault.EMPTY, days_ago(1), supplier=supplier)
    row = rows(facts)[LOGIC]
    assert row.n_common == 10 + 2, "and doc 20 waits behind the open one"
    assert row.difference == pytest.approx((10 - 2) / 12)
    assert (row.only_a_failed, row.only_b_failed) == (2, 0)
    overall = rows(facts)["overall"]
    assert (overall.only_a_failed, overall.only_b_failed) == (2, 0)


@pytest.mark.parametrize("lacks", [None, float("nan"), float("inf")])
def test_an_answer_that_leaves_no_value_counts_as_failed(facts: Facts, lacks: float | None) -> None:
    """It is right on .6 of the docs, and answers the others so that the metric has no value."""
    task = facts.registration(LOGIC)
    knows = coins(1, 0.6, 100)
    for doc in range(100):
        value = 1.0 if knows[doc] else lacks
        facts.score(task, doc, metrics={"none": {"exact_match": value}}, at=days_ago(1), supplier=ALPHA)
        facts.score(task, doc, float(doc % 10 != 0), at=days_ago(1), supplier=BETA)
    facts.fail(task, 100, Fault.EMPTY, days_ago(1), supplier=BETA)  # still the worst there is
    facts.score(task, 100, 1.0, days_ago(1), supplier=ALPHA)
    row = rows(facts)[LOGIC]
    assert (row.n_common, row.verdict) == (101, "B better")
    assert row.mean_a == pytest.approx((sum(knows) + 1) / 101) and row.mean_b == pytest.approx(90 / 101)
    assert (row.only_a_failed, row.only_b_failed) == (100 - sum(knows), 1)
    refresh_window_cache(facts.workspace, [ALPHA, BETA], now=days_ago(1 / 24 / 60))
    assert rows(facts)[LOGIC] == row


def test_a_task_in_which_one_has_no_value_at_all_is_not_left_out_of_the_verdict(facts: Facts) -> None:
    first, second = facts.registration(LOGIC), facts.registration(ARITHMETIC)
    answer(facts, first, coins(1, 0.9, 100), coins(2, 0.5, 100))
    answer(facts, second, [None] * 100, [1.0] * 100)
    for doc in range(100):
        facts.score(second, doc, metrics={"none": {}}, at=days_ago(1), supplier=ALPHA)
    found = rows(facts)
    assert found[LOGIC].verdict == "A better"
    assert (found["overall"].verdict, found["overall"].note) == ("undecided", OPEN_TASKS)


def register(facts: Facts, task: str, metric: str, aggregation: str, higher: bool) -> Registration:
    """A task with one metric, and which direction is good."""
    return facts.registration(task, metrics={metric: aggregation}, higher_is_better=higher)


def test_where_lower_is_better_the_lower_one_is(facts: Facts) -> None:
    task = register(facts, LOGIC, "toxicity", "mean", False)
    for doc in range(60):
        for supplier, value in ((ALPHA, 0.1 + doc % 2 / 10), (BETA, 0.8)):
            facts.score(task, doc, supplier=supplier, at=days_ago(1), metrics={"none": {"toxicity": value}})
    row = rows(facts)[LOGIC]
    assert row.verdict == "A better"
    assert row.mean_a == pytest.approx(0.15) and row.mean_b == pytest.approx(0.8)
    assert row.difference == pytest.approx(-0.65)
    assert row.ci_low <= row.difference <= row.ci_high < 0
    assert (row.only_a_higher, row.only_b_higher, row.p_mid) == (0, 60, None)
    overall = rows(facts)["overall"]
    assert overall.verdict == "A better"
    assert overall.difference == pytest.approx(0.65) and overall.ci_low > 0


def test_metrics_without_bounds_have_no_interval_and_no_verdict(facts: Facts) -> None:
    task = register(facts, LOGIC, "loss", "mean", False)
    for doc in range(30):
        for supplier, value in ((ALPHA, 1.0 + doc), (BETA, 3.0 + doc)):
            facts.score(task, doc, supplier=supplier, at=days_ago(1), metrics={"none": {"loss": value}})
    row = rows(facts)[LOGIC]
    assert (row.n_common, row.difference, row.se) == (30, -2, 0)
    assert (row.ci_low, row.verdict, row.docs_needed, row.note) == (None, "undecided", None, NO_BOUNDS)
    assert rows(facts)["overall"].verdict == "no data"


def test_what_is_not_known_to_be_a_share_is_none_though_all_its_values_are(facts: Facts) -> None:
    task = register(facts, LOGIC, "bleu_diff", "mean", True)
    for doc in range(30):
        for supplier, value in ((ALPHA, 0.9), (BETA, 0.1)):
            metrics = {"none": {"bleu_diff": value}}
            facts.score(task, doc, supplier=supplier, at=days_ago(1), metrics=metrics)
    row = rows(facts)[LOGIC]
    assert (row.difference, row.ci_low, row.note) == (pytest.approx(0.8), None, NO_BOUNDS)


def test_a_metric_that_is_no_mean_is_not_compared(facts: Facts) -> None:
    answer(facts, register(facts, LOGIC, "exact_match", "perplexity", True), [1.0] * 9, [0.0] * 9)
    row = rows(facts)[LOGIC]
    assert (row.n_common, row.difference, row.verdict, row.note) == (9, None, "no data", NO_MEAN)


@pytest.mark.parametrize("facts", [{"name": "config", "framework": "signatures"}], indirect=True)
def test_signatures_are_compared_only_to_say_that_they_have_no_scores(facts: Facts) -> None:
    assert list(rows(facts)) == [LOGIC, ARITHMETIC, "overall"]
    named = rows(facts, tasks=["config", LOGIC])
    assert list(named) == [LOGIC, "config", "overall"]
    assert (named["config"].verdict, named["config"].note) == ("no data", NO_SCORES)
    command = ["-c", str(facts.workspace.config.path), "compare", ALPHA, BETA]
    assert "signatures" not in CliRunner().invoke(cli, command, catch_exceptions=False).stdout
    assert NO_SCORES[:20] in CliRunner().invoke(cli, [*command, "--task", "config"]).stdout


def test_overall_is_the_mean_over_tasks_with_its_interval(facts: Facts) -> None:
    first, second = facts.registration(LOGIC), facts.registration(ARITHMETIC)
    a1, b1 = coins(1, 0.8, 90), coins(2, 0.6, 90)
    a2, b2 = coins(3, 0.9, 60), coins(4, 0.6, 60)
    answer(facts, first, a1, b1)
    answer(facts, second, a2, b2)
    found = rows(facts)
    overall = found["overall"]
    assert list(found) == [LOGIC, ARITHMETIC, "overall"]
    assert overall.n_common == 150
    assert overall.difference == pytest.approx((found[LOGIC].difference + found[ARITHMETIC].difference) / 2)
    assert overall.se == pytest.approx((found[LOGIC].se ** 2 + found[ARITHMETIC].se ** 2) ** 0.5 / 2)
    assert overall.ci_low <= overall.difference <= overall.ci_high
    halves = [half_differences(a1, b1), half_differences(a2, b2)]
    low, high = rounds_of(halves, [200, 200]).bounds()  # both are asked all of their 200 docs
    assert (overall.ci_low, overall.ci_high) == (2 * low - 1, 2 * high - 1)
    wider = found[ARITHMETIC].ci_high - found[ARITHMETIC].ci_low
    assert overall.ci_high - overall.ci_low < wider, "two tasks tell more than the one with fewer docs"


def test_what_is_cached_is_compared_as_the_facts_are(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with docs that failed, that are open, and that only our own faults hold up."""
    task, other = facts.registration(LOGIC), facts.registration(ARITHMETIC)
    answer(facts, task, [*coins(1, 0.9, 40), None, None], [*coins(2, 0.4, 41), None])
    facts.fail(task, 40, Fault.EMPTY, days_ago(1), supplier=ALPHA)
    facts.attempt(task, 41, Fault.TRANSPORT, days_ago(0.001), supplier=BETA)
    answer(facts, other, [*coins(3, 0.9, 30), None, 1.0], coins(4, 0.4, 32))
    facts.attempt(other, 30, Fault.BUDGET, days_ago(0.001), supplier=ALPHA)
    from_facts = compare(facts.workspace, ALPHA, BETA, now=NOW)
    assert [row.n_common for row in from_facts] == [41, 31, 72], "what is held up by us stops nothing"
    refresh_window_cache(facts.workspace, [ALPHA, BETA], now=days_ago(1 / 24 / 60))
    read: list[str] = []

    def watched(workspace: Workspace, supplier: Supplier, tasks: Sequence[Task], *rest: Any) -> Any:
        read.extend(f"{supplier.key} {spec.name}" for spec, _ in tasks)
        return samples_by_task(workspace, supplier, tasks, *rest)

    monkeypatch.setattr(windows, "samples_by_task", watched)
    assert compare(facts.workspace, ALPHA, BETA, now=NOW) == from_facts
    assert f"{BETA} {ARITHMETIC}" not in read and f"{ALPHA} {LOGIC}" not in read, (
        "what holds is not read again"
    )
    assert compare(facts.workspace, ALPHA, BETA, now=NOW, overall_only=True) == from_facts[-1:]


def test_open_docs_of_both_kinds_are_told_apart_by_the_facts(facts: Facts) -> None:
    task = facts.registration(LOGIC)
    answer(facts, task, [*coins(1, 0.9, 20), None, None, *coins(5, 0.9, 8)], coins(2, 0.4, 30))
    facts.attempt(task, 20, Fault.BUDGET, days_ago(0.001), supplier=ALPHA)
    facts.attempt(task, 21, Fault.TRANSPORT, days_ago(0.001), supplier=ALPHA)
    before = rows(facts)[LOGIC]
    refresh_window_cache(facts.workspace, [ALPHA, BETA], now=days_ago(1 / 24 / 60))
    assert (before.n_common, rows(facts)[LOGIC]) == (20, before)


def test_without_common_docs_there_is_no_data(facts: Facts) -> None:
    answer(facts, facts.registration(LOGIC), [1.0], [None, 1.0])
    for row in compare(facts.workspace, ALPHA, BETA, now=NOW):
        assert (row.n_common, row.verdict, row.difference, row.docs_needed) == (0, "no data", None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"b": "gamma@external"}, "gamma@external.*not on the roster.*alpha@external"),
        ({"b": ALPHA}, "given twice"),
        ({"tasks": ["nonsense"]}, "nonsense"),
        ({"margin": 0.0}, "margin must lie between 0 and 1"),
        ({"margin": 2.0}, "margin must lie between 0 and 1.*got 2"),
    ],
)
def test_wrong_questions_are_refused(facts: Facts, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(facts.workspace, **{"a": ALPHA, "b": BETA, **options})


def test_the_command_and_python_give_the_same_rows(facts: Facts) -> None:
    task = facts.registration(LOGIC)
    a, b = coins(1, 0.9, 60), coins(2, 0.5, 60)
    at = datetime.now(UTC)
    for doc in range(60):
        facts.score(task, doc, a[doc], at, supplier=ALPHA)
        facts.score(task, doc, b[doc], at, supplier=BETA)
    path = str(facts.workspace.config.path)
    runner = CliRunner()
    done = runner.invoke(
        cli, ["-c", path, "compare", ALPHA, BETA, "--format", "json"], catch_exceptions=False
    )
    printed = json.loads(done.stdout)
    with Testbench.open(path) as testbench:
        assert testbench.compare(ALPHA, BETA).rows == printed
        assert len(testbench.compare(ALPHA, BETA, [LOGIC]).to_pandas()) == 2
    assert [row["verdict"] for row in printed] == ["A better", "no data", "A better"]
    table = runner.invoke(cli, ["-c", path, "compare", ALPHA, BETA, "--task", LOGIC, "--margin", "0.02"])
    assert "A better" in table.stdout and ARITHMETIC not in table.stdout
    assert isinstance(runner.invoke(cli, ["-c", path, "compare", ALPHA, "x@y"]).exception, ConfigError)


def test_reference_lists_the_fields() -> None:
    from testbench_dagster_tests.acceptance.test_docs import documented_keys

    assert documented_keys("Fields of `testbench compare --format json`") == set(
        Comparison("a", "b", "t").to_json()
    )


def test_numpy_is_loaded_on_use_only() -> None:
    for name, path in modules().items():
        if name.startswith(("testbench_dagster.stages.compare", "testbench_dagster.statistics.betting")):
            assert "numpy" not in set(imports(path, anywhere=False)), name
