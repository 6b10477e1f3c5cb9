"""Detectors of change: false alarms, delays, dates, and baselines learnt from the stream itself."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from testbench_dagster.statistics.change import DropDetector, may_alarm


def run(detector: DropDetector, values: list[float]) -> int | None:
    """Number of observations at the first alarm."""
    for number, value in enumerate(values, start=1):
        if detector.step(value):
            return number
    return None


def coin(rng: random.Random, rate: float, n: int) -> list[float]:
    return [float(rng.random() < rate) for _ in range(n)]


def test_unless_told_otherwise_a_false_alarm_comes_every_hundred_thousand_values() -> None:
    one = DropDetector()
    assert (one.arl, one.baseline_alpha, one.ceiling) == (1e5, 0.01, 0.95)


@pytest.mark.parametrize(
    "rate", [pytest.param(0.95, marks=pytest.mark.slow), 0.7, pytest.param(0.3, marks=pytest.mark.slow)]
)
def test_the_mean_time_to_a_false_alarm_is_what_was_asked_for(rate: float) -> None:
    """ARL >= A = 200 where nothing ever changes, with the baseline learnt: few alarms in a third of A."""
    rng, arl, runs = random.Random(5), 200.0, 300
    times = [run(DropDetector(arl=arl), coin(rng, rate, 1000)) or 1000 for _ in range(runs)]
    # runs without an alarm count as 1000, which only lowers the mean
    assert statistics.fmean(times) >= arl


def test_the_known_baseline_meets_its_promise_too() -> None:
    """The baseline at its ceiling from the start, the mean exactly there: the boundary of the null."""
    rng, arl, runs = random.Random(6), 100.0, 400
    times = []
    for _ in range(runs):
        detector = DropDetector(arl=arl, ceiling=0.9)
        detector.baseline = 0.9
        times.append(run(detector, coin(rng, 0.9, 3000)) or 3000)
    assert statistics.fmean(times) >= arl
    assert min(times) < 1500  # alarms do happen, so the mean means something


@pytest.mark.parametrize(("rate", "most"), [(0.98, 9), (0.95, 12)])
def test_a_full_swap_after_60_probes_is_seen_soon_and_dated(rate: float, most: int) -> None:
    rng = random.Random(1)
    delays, starts = [], []
    for _ in range(200):
        detector = DropDetector()
        alarm = run(detector, coin(rng, rate, 60) + coin(rng, 0.11, 200))
        assert alarm is not None
        delays.append(alarm - 60)
        starts.append(detector.start - 60)
    print(rate, statistics.median(delays), sorted(delays)[-3:], statistics.median(starts))
    assert statistics.median(delays) <= most
    assert statistics.median(starts) == 0
    assert statistics.fmean(abs(s) <= 3 for s in starts) >= 0.9


def test_noisy_streams_teach_a_low_baseline() -> None:
    rng = random.Random(2)
    for rate in (0.9, 0.6, 0.2):
        detector = DropDetector()
        assert run(detector, coin(rng, rate, 2000)) is None
        assert rate - 0.12 < detector.baseline < rate + 0.03


def test_the_baseline_holds_at_all_times_together() -> None:
    """It is a lower bound of the true mean in all but a share baseline_alpha of runs."""
    rng, above, runs = random.Random(3), 0, 300
    for number in range(runs):
        detector = DropDetector(arl=1e300, baseline_alpha=0.1, ceiling=0.999)
        for _ in range(300):
            detector.step(float(rng.random() < 0.8) if number % 2 else rng.betavariate(8, 2))
        above += detector.baseline > 0.8
    assert above / runs <= 0.1 + 3 * math.sqrt(0.09 / runs)


def test_what_came_first_does_not_wait_for_a_baseline_it_cannot_have() -> None:
    detector = DropDetector()
    assert detector.start == 0 and detector.height == 0 and detector.log_e == -math.inf
    assert run(detector, [0.0] * 500) is None  # always different: no fall


@pytest.mark.parametrize("arl", [4.0, 60.0])
def test_of_many_streams_at_once_those_are_named_that_raise_an_alarm_or_all_but_do(arl: float) -> None:
    rng, streams = random.Random(8), []
    for number in range(400):
        rate = rng.choice([0.0, 0.4, 0.9, 0.97, 1.0])
        streams.append(coin(rng, rate, rng.choice([0, 1, 5, 40, 150])))
        streams[-1] += coin(rng, 0.1 * (number % 3), rng.choice([0, 0, 6]))
    highest = []
    for values in streams:
        detector = DropDetector(arl=arl)
        levels = [detector.step(value) or detector.log_e for value in values]
        highest.append(math.inf if True in levels else max(levels, default=-math.inf))
    values = np.array([value for stream in streams for value in stream], dtype=bool)
    named = may_alarm(DropDetector(arl=arl), values, np.array([len(stream) for stream in streams]))
    raised = np.isinf(highest) & (np.array(highest) > 0)
    assert 40 < raised.sum() < 360
    assert not (raised & ~named).any()
    assert all(level > math.log(arl) - 0.01 for level in np.array(highest)[named])


def test_of_no_streams_none_raises_an_alarm() -> None:
    assert may_alarm(DropDetector(), np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)).tolist() == []
    assert may_alarm(DropDetector(), np.zeros(0, dtype=bool), np.array([0, 0])).tolist() == [False, False]


@pytest.mark.parametrize(
    ("field", "value"), [("arl", 1.0), ("baseline_alpha", 0.0), ("ceiling", 1.0), ("ratios", (1.0,))]
)
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        DropDetector(**{field: value})  # type: ignore[arg-type]


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.5"):
        DropDetector().step(1.5)
