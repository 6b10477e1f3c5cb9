"""Windows over hand-made facts in a real store: which samples count, and what is computed of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.prompts import EpochRecord
from testbench_dagster.core.window import Window
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration, days_ago

TASK = "starter_logic"


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Facts]]:
    """Opens an installation with one task; ``samples`` and ``sampling`` as in testbench.yaml."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    opened: list[Workspace] = []

    def build(samples: Any = "all", sampling: Any = None, tasks: Any = None) -> Facts:
        settings = {"tasks": tasks or [{"name": TASK, "samples": samples}], "sampling": sampling or {}}
        opened.append(Workspace(configuration(tmp_path, settings)))
        return Facts(opened[-1])

    yield build
    for workspace in opened:
        workspace.close()


def rows_of(facts: Facts, supplier: str = ALPHA) -> list[Window]:
    return windows(facts.workspace, suppliers=[supplier], now=NOW)


def primary_of(facts: Facts, task: str) -> Window:
    (row,) = [row for row in rows_of(facts) if row.primary and row.task == task]
    return row


def primary(facts: Facts, supplier: str = ALPHA) -> Window:
    (row,) = [row for row in rows_of(facts, supplier) if row.primary]
    return row


def test_wilson_and_the_other_numbers(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=50)
    for doc in range(10):
        facts.score(task, doc, 1.0 if doc < 7 else 0.0, days_ago(doc))
        facts.attempt(task, doc, at=days_ago(doc), latency_ms=100.0 - doc)
    row = primary(facts)
    assert (row.status, row.n, row.n_planned, row.coverage) == ("ok", 10, 50, 0.2)
    assert row.score == 0.7
    assert (row.ci_low, row.ci_high) == wilson(7, 10)
    assert (row.bound_low, row.bound_high) == (0.7, 0.7), "nothing is open"
    assert row.score_errors_as_zero == row.score_answered == 0.7
    assert (row.n_released, row.n_failed, row.n_open, row.n_void, row.n_late) == (10, 0, 0, 0, 0)
    assert (row.failures, row.next_attempt_at) == ("as_worst", None)
    assert (row.first_sample_at, row.last_sample_at) == (days_ago(9), NOW)
    assert row.latency_ms == {"p50": 95.0, "p95": 100.0}
    assert row.first_attempt_success == 1.0
    assert row.tokens == {"prompt": 1000, "completion": 50}
    assert (row.epoch, row.round, row.errors, row.truncated) == (1, 1, {}, 0)


def test_latencies_are_of_calls_and_the_unanswered_stand_at_the_suppliers_deadline(
    installation: Callable[..., Facts],
) -> None:
    """Also those of docs that a full window has no place for."""
    facts = installation(samples={"min": 1, "max": 2}, sampling={"window": 2})
    task = facts.registration(TASK)
    for doc in range(3):
        facts.score(task, doc, at=days_ago(doc), latency_ms=3_000.0)
        facts.attempt(task, doc, Fault.TRANSPORT, days_ago(doc), latency_ms=1_000.0)
        for idx in range(2):
            facts.attempt(task, doc, at=days_ago(doc), idx=idx, number=2 - idx, latency_ms=100.0 * (idx + 1))
    row = primary(facts)
    assert (row.n, row.latency_ms) == (2, {"p50": 100.0, "p95": 200.0})
    assert row.first_attempt_success == 3 / 6
    facts.attempt(task, 7, Fault.SUPPLIER_HTTP, latency_ms=1.0)
    facts.attempt(task, 8, Fault.BUDGET, latency_ms=1.0)
    row = primary(facts)
    assert row.latency_ms == {"p50": 200.0, "p95": 120_000.0}, "failing quickly makes nobody quick"
    assert row.first_attempt_success == 3 / 7
    facts.attempt(task, 0, Fault.SUPPLIER_HTTP, supplier=BETA)
    assert primary(facts, BETA).latency_ms["p50"] == 120_000.0


def test_the_newest_score_of_a_doc_counts(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    facts.score(task, 0, 0.0, days_ago(3), round_=1)
    facts.score(task, 0, 1.0, days_ago(1), round_=2)
    facts.score(task, 1, 1.0, days_ago(2), epoch=2)
    facts.score(task, 1, 0.0, days_ago(4), epoch=1)
    row = primary(facts)
    assert (row.n, row.score, row.epoch) == (2, 1.0, 2)


def test_the_newest_is_so_by_time_not_by_round(installation: Callable[..., Facts]) -> None:
    """A supplier that changed to completions starts again at round 1, on other prompts of the same docs."""
    facts = installation()
    task = facts.registration(TASK)
    facts.score(task, 0, 0.0, days_ago(9), round_=3)
    facts.score(task, 0, 1.0, days_ago(1), round_=1)
    assert primary(facts).score == 1.0


def test_samples_past_the_age_do_not_count(installation: Callable[..., Facts]) -> None:
    facts = installation(sampling={"max_age_days": 10})
    task = facts.registration(TASK)
    facts.score(task, 0, 1.0, days_ago(12.999))
    facts.score(task, 1, 0.0, days_ago(13))
    facts.attempt(task, 2, Fault.EMPTY, days_ago(10))
    facts.attempt(task, 3, Fault.EMPTY, days_ago(9.999))
    row = primary(facts)
    assert (row.n, row.n_open, row.score_answered, row.errors) == (1, 1, 1.0, {"empty": 1})


def test_the_window_holds_the_docs_of_the_newest_epoch_failed_ones_included(
    installation: Callable[..., Facts],
) -> None:
    facts = installation(samples={"min": 1, "max": 5}, sampling={"window": 5})
    task = facts.registration(TASK)
    for doc in range(4):
        facts.score(task, doc, 0.0, days_ago(20 + doc))
    for doc in range(4, 7):
        facts.score(task, doc, 1.0, days_ago(2), epoch=2)
    facts.fail(task, 7, at=days_ago(1), epoch=2)
    facts.attempt(task, 8, Fault.TRANSPORT, days_ago(1), epoch=2)
    row = primary(facts)
    assert row.n == 4, "three of the new epoch, the first of the old one, and a failed one make five"
    assert (row.n_failed, row.n_open, row.status) == (1, 1, "partial")
    assert row.errors == {"supplier_refused": 1, "transport": 1}
    assert (row.score, row.score_answered) == (3 / 6, 0.75), "the open one takes no place, and counts"


def test_samples_all_ignores_the_window(installation: Callable[..., Facts]) -> None:
    facts = installation(samples="all", sampling={"window": 2})
    task = facts.registration(TASK)
    for doc in range(6):
        facts.score(task, doc)
    assert primary(facts).n == 6


def test_our_own_faults_count_against_nobody(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=40)
    for doc in range(10):
        facts.score(task, doc, 1.0 if doc < 8 else 0.0, truncated=doc == 0)
    theirs = [fault for fault in Fault if fault.row.occasions]
    ours = [fault for fault in Fault if not fault.answered and not fault.row.occasions]
    for doc, fault in enumerate((*theirs, *ours)):
        facts.attempt(task, 10 + doc, fault)
    row = primary(facts)
    assert row.errors == {fault.value: 1 for fault in sorted((*theirs, *ours))}
    assert (row.n, row.n_open, row.n_failed, row.score_answered, row.truncated) == (
        10,
        len(theirs),
        0,
        0.8,
        1,
    )
    assert row.score == row.score_errors_as_zero == row.bound_low == 8 / (10 + len(theirs))
    assert row.bound_high == (8 + len(theirs)) / (10 + len(theirs))
    assert row.status == "partial"


def test_what_many_own_faults_hold_up_is_partial(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=40)
    for doc in range(10):
        facts.score(task, doc, 1.0)
    facts.attempt(task, 10, Fault.INTERNAL)
    assert (primary(facts).status, primary(facts).score) == ("ok", 1.0), "one doc may lack"
    facts.attempt(task, 11, Fault.BUDGET)
    assert (primary(facts).status, primary(facts).score, primary(facts).n_open) == ("partial", 1.0, 0)


def test_the_interval_of_a_partial_row_holds_every_way_it_may_close(
    installation: Callable[..., Facts],
) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for doc in range(6):
        facts.score(task, doc, float(doc < 4))
    facts.fail(task, 6)
    for doc in range(7, 10):
        facts.attempt(task, doc, Fault.TRANSPORT, days_ago(1))
    row = primary(facts)
    assert (row.status, row.n, row.n_failed, row.n_open, row.n_released) == ("partial", 6, 1, 3, 10)
    assert (row.score, row.score_answered) == (4 / 10, 4 / 6)
    assert (row.ci_low, row.ci_high) == (wilson(4, 10)[0], wilson(7, 10)[1])
    assert (row.bound_low, row.bound_high) == (4 / 10, 7 / 10)
    assert row.next_attempt_at is not None and row.next_attempt_at > days_ago(1)


def test_the_worst_value_of_a_loss_is_one(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, metrics={"exact_match": "mean"}, higher_is_better=False)
    for doc in range(6):
        facts.score(task, doc, float(doc < 2))
    facts.fail(task, 6)
    facts.attempt(task, 7, Fault.TRANSPORT, days_ago(1))
    row = primary(facts)
    assert (row.score, row.score_answered, row.score_errors_as_zero) == (4 / 8, 2 / 6, None)
    assert (row.ci_low, row.ci_high) == (wilson(3, 8)[0], wilson(4, 8)[1])
    assert (row.bound_low, row.bound_high) == (3 / 8, 4 / 8)


def test_a_metric_without_bounds_leaves_failed_docs_out(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for doc, value in enumerate((3.5, -1.0)):
        facts.score(task, doc, value)
    facts.fail(task, 2)
    row = primary(facts)
    assert (row.score, row.score_answered, row.failures, row.n_failed) == (1.25, 1.25, "excluded", 1)


def test_a_task_may_name_the_worst_value(installation: Callable[..., Facts]) -> None:
    facts = installation(tasks=[{"name": TASK, "samples": "all", "worst": 10.0}])
    task = facts.registration(TASK, metrics={"loss": "mean", "acc": "mean"}, higher_is_better=False)
    facts.score(task, 0, metrics={"none": {"loss": 4.0, "acc": 0.5}})
    facts.fail(task, 1)
    loss, other = rows_of(facts)
    assert (loss.score, loss.score_answered, loss.failures, loss.ci_low) == (7.0, 4.0, "as_worst", None)
    assert other.score == 0.75, "it is the primary metric's"


def test_who_answered_nothing_has_no_score(installation: Callable[..., Facts]) -> None:
    facts = installation(tasks=[{"name": TASK}, {"name": "starter_units"}])
    task = facts.registration(TASK)
    other = facts.registration("starter_units")
    for doc in range(5):
        facts.attempt(task, doc, Fault.SUPPLIER_HTTP)
    row = primary_of(facts, TASK)
    assert (row.status, row.score, row.n_open) == ("no_data", None, 5)
    facts.attempt(other, 0, text="one answer, to whatever")
    row = primary_of(facts, TASK)
    assert (row.status, row.score, row.ci_high) == ("partial", 0.0, 1.0)
    for doc in range(5):
        facts.attempt(task, doc, Fault.SUPPLIER_HTTP, NOW - timedelta(seconds=20), number=2, lease=2)
        facts.attempt(task, doc, Fault.SUPPLIER_HTTP, NOW - timedelta(seconds=40), number=3, lease=3)
    row = primary_of(facts, TASK)
    assert (row.status, row.score, row.n_failed, row.n) == ("ok", 0.0, 5, 0)


def test_a_network_fault_does_not_hide_an_earlier_score(installation: Callable[..., Facts]) -> None:
    """Found by review: an unreachable supplier lost its scores as soon as the next round began."""
    facts = installation()
    task = facts.registration(TASK)
    facts.score(task, 0, 1.0, days_ago(5), round_=1)
    facts.attempt(task, 0, Fault.TRANSPORT, days_ago(1), round_=2)
    row = primary(facts)
    assert (row.n, row.score, row.errors) == (1, 1.0, {})


def test_a_newer_failure_that_is_closed_does(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    facts.score(task, 0, 1.0, days_ago(5), round_=1)
    facts.fail(task, 0, at=days_ago(1), round_=2)
    row = primary(facts)
    assert (row.status, row.n, row.score, row.errors) == ("ok", 0, 0.0, {"supplier_refused": 1})
    assert (row.ci_low, row.score_answered) == (0.0, None)


def test_a_later_success_replaces_a_fault(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    facts.attempt(task, 0, Fault.EMPTY, days_ago(2), number=1)
    facts.attempt(task, 0, Fault.OK, days_ago(1), number=2, text="yes")
    facts.score(task, 0, 1.0, days_ago(1))
    row = primary(facts)
    assert (row.n, row.errors) == (1, {})


def test_of_several_failed_calls_the_last_stands_for_the_doc(
    installation: Callable[..., Facts],
) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for idx, fault in enumerate((Fault.RATE_LIMITED, Fault.SUPPLIER_HTTP, Fault.TRANSPORT, Fault.OK)):
        facts.attempt(task, 0, fault, NOW - timedelta(seconds=(9, 2, 5, 1)[idx]), idx=idx)
    assert primary(facts).errors == {"supplier_http": 1}


@pytest.mark.parametrize("lacks", [{}, {"exact_match": None}, {"exact_match": float("nan")}])
@pytest.mark.parametrize("higher", [True, False])
def test_a_scored_doc_without_a_value_counts_as_failed(
    installation: Callable[..., Facts], lacks: dict[str, Any], higher: bool
) -> None:
    """An answer that leaves the primary metric without a value is no way out of the mean, or of a score."""
    facts = installation()
    metrics = {"exact_match": "mean", "other": "mean"}
    task = facts.registration(TASK, metrics=metrics, higher_is_better=higher)
    right = float(higher)
    for doc in range(50):
        values = {"exact_match": right} if doc < 30 else lacks
        facts.score(task, doc, metrics={"none": {**values, **({"other": 1.0} if doc % 2 else {})}})
    row, other = rows_of(facts)
    assert (row.status, row.n, row.n_failed, row.score_answered) == ("ok", 30, 20, right)
    assert row.score == pytest.approx(0.6 if higher else 0.4)
    assert row.errors == {"unscorable": 20}
    assert (other.n, other.n_failed, other.score) == (25, 0, 1.0), "of other metrics a doc need not have each"


def test_where_no_doc_has_a_value_or_it_has_no_bounds_nothing_is_made_up(
    installation: Callable[..., Facts],
) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for doc in range(5):
        facts.score(task, doc, metrics={"none": {}})
    assert (primary(facts).score, primary(facts).n_failed) == (None, 0)
    facts.score(task, 5, 7.5)
    assert (primary(facts).score, primary(facts).n_failed) == (7.5, 0)


def test_an_answer_the_scorer_could_not_digest_is_ours(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, filters=("strict", "flexible"))
    facts.score(task, 0, error="score took longer than 30 s and was stopped")
    facts.score(task, 1, metrics={"strict": {"exact_match": 1.0}, "flexible": {"exact_match": 1.0}})
    for row in rows_of(facts):
        assert (row.n, row.errors, row.score_errors_as_zero) == (1, {"internal": 1}, 1.0)


def test_scores_of_an_older_scorer_or_dataset_do_not_count(installation: Callable[..., Facts]) -> None:
    facts = installation()
    old = facts.registration(TASK, n_docs=10)
    facts.score(old, 0, 0.0)
    task = facts.registration(TASK, n_docs=20)
    facts.score(task, 1, 0.0, version="lm_eval-0.0/older/0")
    facts.score(task, 2, 1.0)
    row = primary(facts)
    assert (row.n, row.score, row.task_hash) == (1, 1.0, task.task_hash)


def test_one_row_per_metric_and_filter_the_primary_first(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, metrics={"zeta": "mean", "alpha": "mean"}, filters=("strict", "flexible"))
    values = {"zeta": 1.0, "alpha": 0.0, "unlisted": 0.5}
    facts.score(task, 0, metrics={"strict": values, "flexible": {"zeta": 0.0}})
    rows = rows_of(facts)
    assert [(row.metric, row.filter) for row in rows] == [
        ("zeta", "strict"),
        ("alpha", "strict"),
        ("unlisted", "strict"),
        ("zeta", "flexible"),
    ]
    assert [row.primary for row in rows] == [True, False, False, False]
    assert [row.score for row in rows] == [1.0, 0.0, 0.5, 0.0]


def test_the_configured_pair_is_primary(installation: Callable[..., Facts]) -> None:
    tasks = [{"name": TASK, "metric": "b", "filter": "second", "samples": "all"}]
    facts = installation(tasks=tasks)
    task = facts.registration(TASK, metrics={"a": "mean", "b": "mean"}, filters=("first", "second"))
    facts.score(task, 0, metrics={f: {"a": 0.0, "b": 1.0} for f in ("first", "second")})
    rows = rows_of(facts)
    assert [(r.metric, r.filter) for r in rows if r.primary] == [("b", "second")]
    assert (rows[0].metric, rows[0].filter) == ("b", "second")
    assert len(rows) == 4


def test_values_outside_the_unit_interval_have_a_mean_but_no_interval(
    installation: Callable[..., Facts],
) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for doc, value in enumerate((3.5, -1.0)):
        facts.score(task, doc, value)
    row = primary(facts)
    assert (row.score, row.ci_low, row.bound_low, row.score_errors_as_zero) == (1.25, None, None, None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_unknown(installation: Callable[..., Facts], value: float) -> None:
    facts = installation()
    task = facts.registration(TASK)
    facts.score(task, 0, value)
    row = primary(facts)
    assert (row.n, row.score) == (1, None)
    assert json.loads(json.dumps(row.to_json(), allow_nan=False))["score"] is None


def test_a_corpus_metric_is_aggregated_by_the_task_in_doc_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """perplexity = exp(-mean): only lm-eval's own aggregation gives it, and it has no interval."""
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own_corpus.yaml").write_text(
        "task: own_corpus\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        'doc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\nnum_fewshot: 0\n'
        "metric_list: [{metric: exact_match, aggregation: perplexity, higher_is_better: false}]\n",
        encoding="utf-8",
    )
    settings = {"tasks": [{"name": "own_corpus", "samples": "all"}], "task_paths": ["mine"]}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        task = facts.registration("own_corpus", metrics={"exact_match": "perplexity"})
        for doc, value in ((2, -0.1), (0, -0.5), (1, -0.9)):
            facts.score(task, doc, value)
        row = primary(facts)
    assert row.score == math.exp(-sum([-0.5, -0.9, -0.1]) / 3)
    assert (row.n, row.ci_low, row.bound_high) == (3, None, None)


def test_no_dataset_no_samples_and_no_support_are_told_apart(installation: Callable[..., Facts]) -> None:
    tasks = [{"name": n} for n in ("starter_logic", "starter_units", "starter_choice")]
    facts = installation(tasks=tasks)
    facts.registration("starter_units")
    choice = facts.registration("starter_choice", metrics={"acc": "mean"}, output_type="multiple_choice")
    facts.score(choice, 0, metrics={"none": {"acc": 1.0}}, supplier=BETA)
    by_task = {row.task: row for row in rows_of(facts)}
    assert [by_task[t["name"]].status for t in tasks] == ["no_data", "no_data", "unsupported"]
    assert by_task["starter_logic"].task_hash is None
    assert by_task["starter_logic"].n_planned is None
    assert (by_task["starter_units"].n, by_task["starter_units"].n_planned) == (0, 50)
    assert by_task["starter_units"].coverage == 0.0
    for row in by_task.values():
        assert (row.score, row.ci_low, row.score_errors_as_zero, row.bound_low) == (None,) * 4
    assert {r.task: r.status for r in rows_of(facts, BETA)}["starter_choice"] == "ok", "completions: maybe"
    facts.echo(BETA, False)
    assert {r.task: r.status for r in rows_of(facts, BETA)}["starter_choice"] == "unsupported"


def test_rows_are_ordered_as_configured_and_stable(installation: Callable[..., Facts]) -> None:
    tasks = [{"name": n} for n in ("starter_units", "starter_logic")]
    facts = installation(tasks=tasks)
    for name in ("starter_logic", "starter_units"):
        facts.registration(name)
    rows = windows(facts.workspace, now=NOW)
    order = [(row.supplier, row.task) for row in rows]
    assert order == [(s, t["name"]) for s in (ALPHA, BETA) for t in tasks]
    assert windows(facts.workspace, now=NOW) == rows
    chosen = windows(facts.workspace, suppliers=[BETA], tasks=["starter_logic"], now=NOW)
    assert [(row.supplier, row.task) for row in chosen] == [(BETA, "starter_logic")]


def epoch(facts: Facts, number: int, variance: float | None = None) -> None:
    """Start an epoch of the task, in which the docs were found to vary so much."""
    record = EpochRecord(
        id=f"epoch-{number}",
        task=TASK,
        epoch=number,
        started_at=days_ago(20 - number),
        seed="s",
        seed_sha256="",
        groups=0 if variance is None else 5,
        variance=variance,
    )
    assert typed.put_new(facts.workspace.documents, EpochRecord, [record]) == 1


def test_the_planned_number_is_the_epochs_whatever_is_answered(installation: Callable[..., Facts]) -> None:
    facts = installation(samples={"min": 5, "max": 100, "half_width": 0.1})
    task = facts.registration(TASK, n_docs=150)
    assert primary(facts).n_planned == 50
    epoch(facts, 1, 0.85 * 0.15)
    assert primary(facts).n_planned == 49
    for doc in range(8):
        facts.score(task, doc, float(doc % 2))
    for doc in range(8, 11):
        facts.fail(task, doc)
    row = primary(facts)
    assert (row.n_planned, row.coverage) == (49, 8 / 49)
    epoch(facts, 2, 0.25)
    assert primary(facts).n_planned == 93
    epoch(facts, 3)
    assert primary(facts).n_planned == 50


def test_more_docs_than_slots_leave_out_the_last_of_the_sequence(
    installation: Callable[..., Facts],
) -> None:
    """As after an epoch's start that wants fewer docs than the last: those that were answered last gain
    nothing by that, for a supplier would answer slowly where it is sure."""
    facts = installation(samples={"min": 5, "max": 100})
    task = facts.registration(TASK)
    for doc in range(60):
        facts.score(task, doc, float(doc >= 10), at=days_ago(10 - doc / 10))
    assert (primary(facts).n, primary(facts).score) == (50, 0.8)
    epoch(facts, 1, 0.25)
    assert primary(facts).n == 60


def test_what_a_gate_asked_beyond_the_slots_is_in_no_score(installation: Callable[..., Facts]) -> None:
    facts = installation(samples={"min": 5, "max": 100})
    task = facts.registration(TASK)
    for doc in range(20):
        facts.score(task, doc, 0.0, at=days_ago(2), round_=1)
    for doc in range(20, 40):
        facts.score(task, doc, 1.0, at=days_ago(1), round_=0)
    facts.fail(task, 50, round_=0)
    facts.attempt(task, 51, Fault.TRANSPORT, round_=0)
    row = primary(facts)
    assert (row.n, row.score, row.n_failed, row.n_open, row.status) == (20, 0.0, 0, 0, "ok")


def test_a_slot_keeps_its_outcome_until_another_closes(installation: Callable[..., Facts]) -> None:
    """Up to a doc's life: neither a dip nor a gain while docs are asked again or replaced."""
    facts = installation(samples={"min": 4, "max": 4}, sampling={"max_age_days": 10})
    task = facts.registration(TASK)
    for doc in range(4):
        facts.score(task, doc, float(doc < 2), at=days_ago(11))
    assert (primary(facts).n, primary(facts).score) == (4, 0.5)
    facts.attempt(task, 0, Fault.TRANSPORT, round_=2)  # asked again
    facts.attempt(task, 9, Fault.TRANSPORT, epoch=2)  # takes another's place
    row = primary(facts)
    assert (row.n, row.score, row.n_open, row.status) == (4, 0.5, 0, "ok")
    facts.score(task, 1, 1.0, round_=2)
    facts.score(task, 8, 1.0, epoch=2)
    assert (primary(facts).n, primary(facts).score) == (4, 0.75)
    gone = [row for row in windows(facts.workspace, now=NOW + timedelta(days=2), tasks=[TASK]) if row.primary]
    row = next(row for row in gone if row.supplier == ALPHA)
    assert (row.n, row.n_open, row.score) == (2, 2, 0.5), "what is open counts once nothing keeps its slot"


def test_json_holds_the_fields_of_the_design(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    facts.score(task, 0, at=NOW - timedelta(milliseconds=1))
    given = primary(facts).to_json()
    wanted = [
        "supplier",
        "service",
        "address",
        "task",
        "group",
        "framework",
        "metric",
        "filter",
        "primary",
        "status",
        "n",
        "n_planned",
        "coverage",
        "score",
        "ci_low",
        "ci_high",
        "score_errors_as_zero",
        "bound_low",
        "bound_high",
        "errors",
        "latency_ms",
        "first_sample_at",
        "last_sample_at",
        "cut_at",
        "task_hash",
        "epoch",
        "round",
    ]
    assert set(wanted) <= set(given)
    assert given["last_sample_at"] == "2026-03-01T11:59:59.999000+00:00"
    assert json.loads(json.dumps(given)) == given


def test_answers_of_another_model_do_not_count(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=50)
    cut = days_ago(2)
    facts.on_roster(ALPHA, cut_at=cut)
    facts.score(task, 0, 0.0, days_ago(3))
    facts.score(task, 1, 0.0, cut)
    facts.score(task, 2, 1.0, cut + timedelta(milliseconds=1))
    facts.attempt(task, 3, Fault.EMPTY, cut)
    facts.attempt(task, 4, Fault.EMPTY, days_ago(1))
    facts.score(task, 0, 0.0, days_ago(3), supplier=BETA)
    row = primary(facts)
    assert (row.n, row.n_open, row.score_answered, row.cut_at) == (1, 1, 1.0, cut)
    assert row.errors == {"empty": 1}
    assert row.first_sample_at is not None and row.first_sample_at > cut
    assert row.to_json()["cut_at"] == cut.isoformat()
    other = primary(facts, BETA)
    assert (other.n, other.cut_at) == (1, None)


def test_who_left_is_shown_where_named_and_not_otherwise(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=50)
    gone = "gone@external"
    facts.on_roster(gone, status="left", left_at=days_ago(1), source="roster.json")
    facts.score(task, 0, 1.0, days_ago(3), supplier=gone)
    everyone = {row.supplier for row in windows(facts.workspace, now=NOW)}
    assert everyone == {ALPHA, BETA}
    (row,) = rows_of(facts, gone)
    assert (row.n, row.score, row.address, row.service) == (1, 1.0, "gone", "external")
    with Testbench(facts.workspace) as testbench:
        assert {row["supplier"] for row in testbench.scores([gone]).rows} == {gone}
        assert {row["supplier"] for row in testbench.item_matrix().rows} == set()
        with pytest.raises(ConfigError, match="'nobody@external' is not on the roster; on it are: alpha@ext"):
            testbench.scores(["nobody@external"])


def test_of_named_docs_no_others_count(installation: Callable[..., Facts]) -> None:
    """Answers to other docs, asked before these were named, are none of its score, cached or not."""
    facts = installation(samples={"min": 1, "max": 6, "half_width": None})
    task = facts.registration(TASK, n_docs=50)
    for doc in range(6):
        facts.score(task, doc, float(doc == 4), days_ago(1))
    facts.fail(task, 7)
    facts.on_roster(ALPHA)
    refresh_window_cache(facts.workspace, [ALPHA], now=NOW)
    before = primary(facts)
    assert (before.n + before.n_failed, before.n_planned) == (6, 6)
    facts = installation(samples={"ids": [4, 5, 9]}, sampling={"window": 1})
    row = primary(facts)
    assert (row.n, row.n_planned, row.n_failed, row.score) == (2, 3, 0, 0.5)
    facts.fail(task, 9)
    row = primary(facts)
    assert (row.n, row.n_failed, row.score) == (2, 1, 1 / 3)
