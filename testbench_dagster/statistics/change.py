"""Has the mean of a stream fallen? Shiryaev-Roberts e-detectors against a baseline learnt from the stream.

Source: J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection", New England Journal of Statistics in Data Science 2 (2024), 229-260 (arXiv 2203.03532). With L a
factor whose mean given the past is at most 1 before the change,

    R = (R + 1) L,    alarm when R reaches A

has a mean time to a false alarm of at least A observations, whatever the stream. Averages of such R over
alternatives are one as well, which spares guessing how deep the fall is.

The factor for a mean of at least q against r q is r^x ((1 - r q) / (1 - q))^(1 - x), x from 0 to 1: for 0 and
1 the likelihood ratio, for values between at most its interpolation, exp being convex.

q is not known; it is the largest lower bound so far of a confidence sequence of the stream itself (Robbins'
mixture with a Beta weight, the same convexity making it hold for values between 0 and 1), at error
``baseline_alpha``. A stream that was always noisy has a low q and raises no alarm by being as it is; a fall
after the bound was learnt cannot lower it. The promise is then: but for a probability of ``baseline_alpha``,
a mean of at least A observations between false alarms.

The change is dated by maximum likelihood: the last time the sum of log factors that never falls below 0
(Page's CUSUM) rose from 0, under the alternative where it stands highest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Alternatives to the baseline mean, as parts of it: from a full swap (typical distinct models agree on .1
#: of prompts) to a fraction of the traffic. Delays: tests/statistics/test_change.py.
RATIOS = (0.1, 0.4, 0.7, 0.88)
#: How exactly baselines are found, and in how many halvings of 0 to 1.
_BISECTED = 1e-6
_HALVINGS = 21
#: What rounding can make of a level, as a share of it; and a sum that has long been an alarm.
_ROUNDING = 1e-6
_HUGE = 1e300


@dataclass(slots=True)
class DropDetector:
    """Watches a stream of values from 0 to 1 for a fall of its mean.

    ``arl``: mean number of observations between false alarms. ``ceiling``: largest baseline ever assumed.
    ``weight``: (a, b) of the Beta weight of the baseline's confidence sequence; any is valid, one near the
    expected mean learns faster.
    """

    arl: float = 1e5
    baseline_alpha: float = 0.01
    ceiling: float = 0.95
    weight: tuple[float, float] = (9.5, 0.5)
    ratios: tuple[float, ...] = RATIOS
    n: int = 0
    total: float = 0.0
    baseline: float = 0.0
    _sums: list[float] = field(default_factory=list)
    _heights: list[float] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.arl > 1:
            raise ValueError(f"arl must be more than 1 observation, got {self.arl}")
        if not 0 < self.baseline_alpha < 1:
            raise ValueError(f"baseline_alpha must lie between 0 and 1, got {self.baseline_alpha}")
        if not 0 < self.ceiling < 1:
            raise ValueError(f"ceiling must lie between 0 and 1, got {self.ceiling}")
        if not self.ratios or not all(0 < r < 1 for r in self.ratios):
            raise ValueError(f"ratios must lie between 0 and 1, got {self.ratios}")
        self._sums = [0.0] * len(self.ratios)
        self._heights = [0.0] * len(self.ratios)
        self._starts = [0] * len(self.ratios)

    def step(self, value: float) -> bool:
        """Take the next value; True while the evidence for a fall stands at the alarm level.

        Raises ValueError for a value that is not between 0 and 1.
        """
        if not 0 <= value <= 1:
            raise ValueError(f"a value of the stream must lie between 0 and 1, got {value}")
        # the bound is needed, and at its highest, just before a value below 1; it is of earlier values only
        if value < 1 and self.n:
            self._learn()
        q = self.baseline
        for i, r in enumerate(self.ratios):
            gain = value * math.log(r) + (1 - value) * (math.log1p(-r * q) - math.log1p(-q))
            # beyond e^690 a float overflows; such a sum has long been an alarm
            self._sums[i] = math.exp(min(math.log1p(self._sums[i]) + gain, 690.0))
            if self._heights[i] <= 0:
                self._starts[i] = self.n
            self._heights[i] = max(0.0, self._heights[i] + gain)
        self.n += 1
        self.total += value
        return self.log_e >= math.log(self.arl)

    @property
    def log_e(self) -> float:
        """The detector's level, nats: logarithm of the average R."""
        mean = sum(self._sums) / len(self._sums)
        return math.log(mean) if mean > 0 else -math.inf

    @property
    def height(self) -> float:
        """Log likelihood ratio (nats) of the best dated fall against none; 0 when nothing speaks for one."""
        return max(self._heights)

    @property
    def start(self) -> int:
        """Index of the first observation after the estimated change; ``n`` when nothing speaks for one."""
        best = max(range(len(self._heights)), key=self._heights.__getitem__)
        return self._starts[best] if self._heights[best] > 0 else self.n

    def _learn(self) -> None:
        """Raise the baseline to the lower bound of the confidence sequence now, if that is higher."""
        mean = self.total / self.n
        if mean <= self.baseline or self.baseline >= self.ceiling:
            return
        a, b = self.weight
        k, rest = self.total, self.n - self.total
        refuted = _log_beta(a + k, b + rest) - _log_beta(a, b) + math.log(self.baseline_alpha)

        def likelihood(p: float) -> float:
            return k * math.log(p) + rest * math.log1p(-p)

        if self.baseline > 0 and likelihood(self.baseline) > refuted:
            return
        low, high = self.baseline, min(mean, 1.0)
        while high - low > _BISECTED:
            middle = (low + high) / 2
            if likelihood(middle) <= refuted:
                low = middle
            else:
                high = middle
        self.baseline = min(low, self.ceiling)


def may_alarm(detector: DropDetector, values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which of many streams of 0 and 1 a detector like this one, not yet used, can raise an alarm in.

    All streams at once, in a hundredth of the time of steps. Baselines and levels are rounded up: what is
    named may raise none, what is not named raises none.

    Args:
        detector: says how is watched.
        values: of all streams, one stream after the other, as booleans of shape (n,).
        lengths: of the streams, of shape (streams,).
    """
    import numpy as np

    order = np.argsort(-lengths, kind="stable")
    begins, longest_first = (np.cumsum(lengths) - lengths)[order], lengths[order]
    ratios = np.array(detector.ratios)
    sums, alarmed = np.zeros((len(order), len(ratios))), np.zeros(len(order), dtype=bool)
    baselines, totals = np.zeros(len(order)), np.zeros(len(order), dtype=np.int64)
    for n in range(int(longest_first.max(initial=0))):
        m = int(np.count_nonzero(longest_first > n))
        hit = values[begins[:m] + n]
        missed = np.flatnonzero(~hit)
        factors = np.broadcast_to(ratios, (m, len(ratios))).copy()
        if n and len(missed):
            learnt = _upper_bounds(detector.baseline_alpha, detector.weight, n)[totals[missed]]
            learnt = np.maximum(baselines[missed], np.minimum(learnt, detector.ceiling))
            baselines[missed] = learnt
        q = baselines[missed, None]
        factors[missed] = (1 - ratios * q) / (1 - q)
        sums[:m] = np.minimum((sums[:m] + 1) * factors, _HUGE)
        alarmed[:m] |= sums[:m].sum(axis=1) >= len(ratios) * detector.arl * (1 - _ROUNDING)
        totals[:m] += hit
    found = np.empty(len(order), dtype=bool)
    found[order] = alarmed
    return found


@lru_cache(maxsize=1024)  # of streams of so many values all lie in memory, in 4 MB
def _upper_bounds(alpha: float, weight: tuple[float, float], n: int) -> np.ndarray:
    """What a detector learns at most of ``n`` values when so many of them were 1: of shape (n + 1,)."""
    import numpy as np

    (a, b), k = weight, np.arange(n + 1)
    logs = np.array([_log_beta(a + ones, b + n - ones) for ones in range(n + 1)])
    refuted = logs - _log_beta(a, b) + math.log(alpha)
    low, high = np.zeros(n + 1), k / n
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):  # of no 1 nothing is learnt
            below = k * np.log(middle) + (n - k) * np.log1p(-middle) <= refuted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high + _BISECTED


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
