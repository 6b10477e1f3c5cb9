"""What probes come to: who counts where, uptime over hours, reach, and the estimate from plain answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.columns import columns_of
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import PlainAnswer
from testbench_dagster.core.records.service_probes import ProbeTimes, ServiceProbeRecord
from testbench_dagster.core.service_quality import ALL_WORKLOADS, ServiceQuality
from testbench_dagster.stages.service.measures import Span, plain_estimate, service_quality
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster_tests.stages.service.probed import hourly, probe

ALPHA = "alpha@external"
DAY = datetime(2026, 3, 1, tzinfo=UTC)
SPAN = Span("2026-03-01", DAY, DAY + timedelta(days=1))
LAST = DAY + timedelta(hours=23, minutes=30)


def times(records: Sequence[ServiceProbeRecord]) -> list[ProbeTimes]:
    return [ProbeTimes(*(getattr(one, name) for name in ProbeTimes._fields)) for one in records]


def quality(records: Sequence[ServiceProbeRecord], workload: str = "short") -> ServiceQuality:
    return service_quality(ALPHA, "external", workload, SPAN, times(records), LAST)


def at(hour: float, **more: Any) -> ServiceProbeRecord:
    return probe(ALPHA, DAY + timedelta(hours=hour), **more)


def test_percentiles_of_a_day() -> None:
    records = list(hourly(ALPHA, LAST, 24))
    row = quality(records)
    firsts = sorted(one.first_token_ms or 0 for one in records)
    assert (row.n, row.n_answered, row.n_crowded, row.faults, row.owners) == (24, 24, 0, {}, {})
    assert row.ttft_ms["n"] == 24
    assert (row.ttft_ms["p50"], row.ttft_ms["p50_low"], row.ttft_ms["p50_high"]) == (
        firsts[11],
        firsts[6],
        firsts[16],
    )
    assert row.ttft_ms["p90"] is None, "a p90 takes 29"
    speeds = sorted(300 / ((one.last_token_ms or 0) - (one.first_token_ms or 0)) * 1000 for one in records)
    assert row.tokens_per_s["p50"] == pytest.approx(speeds[11])
    whole = sorted(301 / one.ended_ms * 1000 for one in records)
    assert row.tokens_per_s_end_to_end["p50"] == pytest.approx(whole[11])
    assert row.latency_ms["p50"] == sorted(one.ended_ms for one in records)[11]
    assert row.reasoning_share["n"] == 0
    assert row.estimated_share == 0


def test_each_percentile_from_its_least_number_on() -> None:
    records = list(hourly(ALPHA, LAST, 60, apart_h=0.3))
    known = {
        n: [name for name in ("p50", "p90", "p95") if quality(records[:n]).latency_ms[name] is not None]
        for n in (5, 6, 28, 29, 58, 59)
    }
    assert known == {
        5: [],
        6: ["p50"],
        28: ["p50"],
        29: ["p50", "p90"],
        58: ["p50", "p90"],
        59: ["p50", "p90", "p95"],
    }
    speeds = quality(records).tokens_per_s
    assert 0 < (speeds["p5"] or 0) < (speeds["p10"] or 0) < (speeds["p50"] or 0) < (speeds["p90"] or 0)


def test_answers_beside_others_of_ours_enter_no_percentile_but_count_as_up() -> None:
    alone = list(hourly(ALPHA, LAST, 12))
    crowded = [at(hour, own_in_flight=2, first_ms=9_000.0) for hour in range(12)]
    row, without = quality([*alone, *crowded]), quality(alone)
    assert row.n_crowded == 12
    assert row.n_answered == 24
    for name in ("ttft_ms", "first_answer_ms", "tokens_per_s", "tokens_per_s_end_to_end", "latency_ms"):
        assert getattr(row, name) == getattr(without, name)
    assert row.uptime == 1.0


def test_what_was_not_streamed_has_a_speed_end_to_end_alone() -> None:
    plain = {"streamed": False, "first_token_ms": None, "first_answer_ms": None, "last_token_ms": None}
    row = quality([at(hour, tokens_after_first=None, **plain) for hour in range(8)])
    assert row.ttft_ms["n"] == row.tokens_per_s["n"] == 0
    assert row.tokens_per_s_end_to_end["n"] == row.latency_ms["n"] == 8
    assert row.latency_ms["p50"] is not None


@pytest.mark.parametrize(
    "odd",
    [
        {"tokens_after_first": None},  # all came at once
        {"tokens_after_first": 0},
        {"tokens_after_first": -3},
        {"last_token_ms": 300.0},
        {"last_token_ms": 10.0},
        {"last_token_ms": None},
        {"first_token_ms": None},
    ],
)
def test_an_answer_whose_tokens_say_no_speed_has_none(odd: dict[str, Any]) -> None:
    row = quality([at(hour, **odd) for hour in range(8)])
    assert row.tokens_per_s["n"] == 0
    assert row.latency_ms["n"] == 8


def test_thoughts_and_estimated_tokens() -> None:
    row = quality(
        [at(h, reasoning_tokens=150, tokens_source="estimated" if h < 2 else "usage") for h in range(8)]
    )
    assert row.reasoning_share["p50"] == pytest.approx(150 / 301)
    assert row.estimated_share == 0.25
    odd = quality([at(h, reasoning_tokens=5_000) for h in range(8)])
    assert odd.reasoning_share["n"] == 0, "more thoughts than tokens say nothing"


# ------------------------------------------------------------------------------------------------ uptime


def test_a_day_without_a_failure_still_leaves_room_for_one() -> None:
    row = quality(list(hourly(ALPHA, LAST, 24)), ALL_WORKLOADS)
    assert (row.hours_asked, row.hours_ok, row.uptime, row.uptime_high) == (24, 24.0, 1.0, 1.0)
    assert row.uptime_low is not None
    assert 0.86 <= row.uptime_low < 0.87
    assert row.hours == "+" * 24


def test_failures_of_one_hour_count_once() -> None:
    down = [at(10 + i / 100, fault="unavailable") for i in range(50)]
    row = quality([*(at(hour) for hour in range(10)), *down], ALL_WORKLOADS)
    assert (row.hours_asked, row.hours_ok) == (11, 10.0)
    assert (row.uptime_low, row.uptime_high) == wilson(10, 11)
    assert row.hours == "+" * 10 + "-" + "." * 13
    assert row.owners == {"supplier": 50}


@pytest.mark.parametrize("fault", list(Fault))
def test_who_is_up_by_the_fault_table(fault: Fault) -> None:
    row = quality([at(5, fault=fault.value)], ALL_WORKLOADS)
    available = fault.row.available
    assert row.hours_asked == (available is not None)
    assert row.uptime == (None if available is None else float(available))
    state = {True: "+", False: "-", None: "l" if fault is Fault.RATE_LIMITED else "o"}[available]
    assert row.hours == "....." + state + "." * 18
    assert row.faults == ({} if fault.answered else {fault.value: 1})


def test_an_hour_that_is_answered_in_part_counts_in_part() -> None:
    row = quality(
        [at(5.1), at(5.2, fault="transport"), at(5.3, fault="rate_limited"), at(5.4)], ALL_WORKLOADS
    )
    assert (row.hours_asked, row.hours_ok) == (1, pytest.approx(2 / 3))
    assert row.hours[5] == "~"
    limited = quality([at(7, fault="internal"), at(7.5, fault="rate_limited")], ALL_WORKLOADS)
    assert (limited.uptime, limited.uptime_low, limited.hours[7]) == (None, None, "l")


def test_a_fault_of_a_later_version_is_nobodys() -> None:
    row = quality([at(3), _renamed(at(4), "solar_flare")], ALL_WORKLOADS)
    assert (row.n, row.n_answered, row.hours_asked) == (2, 1, 1)
    assert row.hours[3:5] == "+o"


def _renamed(record: ServiceProbeRecord, fault: str) -> ServiceProbeRecord:
    return ServiceProbeRecord.from_document(record.to_document() | {"fault": fault})


# --------------------------------------------------------------------------------- reach, all, invariants


def test_how_long_a_prompt_was_read_to_its_end() -> None:
    def reached(length: int, *, found: bool, fault: str = "ok") -> ServiceProbeRecord:
        return at(5, workload="context", sent_tokens=length, prompt_tokens=None, found=found, fault=fault)

    row = quality(
        [reached(8_000, found=True), reached(30_000, found=True), reached(120_000, found=False)], "context"
    )
    assert (row.context_reached, row.context_asked) == (30_000, 120_000)
    counted = quality(
        [at(5, workload="context", sent_tokens=8_000, prompt_tokens=9_100, found=True)], "context"
    )
    assert counted.context_reached == 9_100, "as the supplier counts them"
    nothing = quality([reached(8_000, found=False, fault="client_request")], "context")
    assert (nothing.context_reached, nothing.context_asked) == (None, 8_000)
    assert quality([at(5)]).context_asked is quality([at(5)]).context_claimed is None
    told = [at(h, workload="context", evidence={"context": {"tokens": 9_000 * h}}) for h in (2, 3, 1)]
    assert quality([*told, at(4)], "context").context_claimed == 27_000, "as it was said last"


def test_of_all_workloads_no_percentile_is_told() -> None:
    row = quality([*hourly(ALPHA, LAST, 12), *hourly(ALPHA, LAST, 12, "10k")], ALL_WORKLOADS)
    assert row.n == 24
    assert all(v in (None, 0) for v in (*row.ttft_ms.values(), *row.latency_ms.values()))
    assert row.uptime == 1.0


faults = st.sampled_from([fault.value for fault in Fault])


@given(st.lists(st.tuples(st.floats(0, 23.9), faults, st.integers(1, 3)), max_size=20), st.randoms())
def test_the_order_of_probes_does_not_matter_and_counts_add_up(
    made: list[tuple[float, str, int]], rng: random.Random
) -> None:
    records = [at(hour, fault=fault, own_in_flight=n) for hour, fault, n in made]
    row = quality(records)
    rng.shuffle(records)
    assert quality(records) == row
    assert row.n == row.n_answered + sum(row.faults.values()) == row.n_answered + sum(row.owners.values())
    assert row.latency_ms["n"] == row.n_answered - row.n_crowded
    assert 0 <= row.hours_ok <= row.hours_asked == sum(c in "+~-" for c in row.hours)
    assert len(row.hours) == 24
    back = ServiceQuality.from_json(row.to_json())
    assert back == row
    assert list(row.to_json()) == list(columns_of(ServiceQuality))


# ------------------------------------------------------------------------------------------ the estimate


def plain(
    n: int, *, per_s: float = 3_000.0, in_flight: int = 1, task: str = "t", seed: int = 5
) -> list[PlainAnswer]:
    """Answers of 13 to 399 tokens as a server of that speed gives them, each after a few milliseconds."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(13, 400, n)
    noise = rng.exponential(3.0, n)
    return [
        PlainAnswer(task, float(2.0 + 1000 * length / per_s + more), int(length), in_flight)
        for length, more in zip(lengths, noise, strict=True)
    ]


def test_the_speed_of_sixty_plain_answers_is_known_within_ten_percent() -> None:
    found = plain_estimate(plain(60))
    assert found is not None
    assert found["value"] == pytest.approx(3_000, rel=0.1)
    assert (found["low"] or 0) < 3_000 < (found["high"] or 0)
    assert (found["n"], found["in_flight"]) == (60, 1)


def test_how_often_the_estimates_interval_holds_the_speed() -> None:
    held = [
        (found["low"] or 0) <= 3_000 <= (found["high"] or 0)
        for seed in range(1_000, 1_600)
        if (found := plain_estimate(plain(60, seed=seed))) is not None
    ]
    assert len(held) == 600
    assert 0.93 <= np.mean(held) <= 0.97


def test_answers_beside_many_others_are_used_only_where_there_are_no_better_ones() -> None:
    busy = plain(60, per_s=300.0, in_flight=9)
    found = plain_estimate([*busy, *plain(30, in_flight=1)])
    assert found is not None
    assert (found["value"], found["in_flight"]) == (pytest.approx(3_000, rel=0.2), 1)
    alone = plain_estimate(busy)
    assert alone is not None
    assert (alone["value"], alone["in_flight"]) == (pytest.approx(300, rel=0.1), 9)


@pytest.mark.parametrize(
    "answers",
    [
        [],
        plain(5),
        [one._replace(own_in_flight=None) for one in plain(60)],
        [one._replace(completion_tokens=None) for one in plain(60)],
        [one._replace(completion_tokens=200) for one in plain(60)],
        [one._replace(task=str(i)) for i, one in enumerate(plain(60))],
        [one._replace(latency_ms=20.0 + i % 7) for i, one in enumerate(plain(60))],
    ],
    ids=["none", "too few", "company unknown", "lengths unknown", "one length", "a task each", "no slope"],
)
def test_where_answers_do_not_tell_there_is_no_estimate(answers: list[PlainAnswer]) -> None:
    assert plain_estimate(answers) is None
