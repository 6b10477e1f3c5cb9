"""Two suppliers on the same docs: the difference of their mean scores, and what may be concluded from it.

Scores on the same doc vary together, so their differences vary less than the scores of two suppliers on docs
of their own: the variance of the mean difference is (var A + var B - 2 cov) / n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from testbench_dagster.statistics import betting
from testbench_dagster.statistics.intervals import betting_interval, standard_error
from testbench_dagster.statistics.sequences import mean_bounds
from testbench_dagster.statistics.strata import Rounds

Verdict = Literal["A better", "B better", "equal within", "undecided"]

#: Docs beyond which :func:`docs_to_decide` gives up: more than any task has.
FAR = 10**7


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Difference of two mean scores, A less B, over ``n`` common docs.

    ``low`` and ``high`` hold the true difference at all n together, and decide; ``fixed`` does so only for an
    n chosen beforehand. ``only_a`` and ``only_b`` count docs on which the one scored higher. ``halves`` are
    the :func:`half_differences`, and ``alpha`` the share of intervals that may miss.
    """

    n: int
    mean_a: float
    mean_b: float
    difference: float
    standard_error: float
    low: float
    high: float
    only_a: int
    only_b: int
    halves: Sequence[float]
    alpha: float

    @property
    def fixed(self) -> tuple[float, float]:
        """The interval for an n chosen beforehand."""
        low, high = betting_interval(self.halves, 1 - self.alpha)
        return 2 * low - 1, 2 * high - 1

    def docs_to_decide(self, margin: float | None = None) -> int | None:
        """How many further common docs the next verdict will take; see :func:`docs_to_decide`."""
        bounds = (self.low + 1) / 2, (self.high + 1) / 2
        return _docs_to_decide(self.halves, [1.0] * self.n, bounds, self.alpha, margin)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    alpha: float = 0.05,
    bounds: tuple[float, float] | None = None,
) -> PairedDifference:
    """Compare scores from 0 to 1 on common docs, in an order that follows from nothing they answered.

    The intervals are betting intervals of (difference + 1) / 2, which lies between 0 and 1. ``bounds`` are
    those of the :func:`half_differences`, where they are known. Raises ValueError without docs, for unequal
    numbers of scores, and for a score or alpha out of range.
    """
    halves = half_differences(a, b)
    if not halves:
        raise ValueError("want at least one common doc, got none")
    low, high = bounds or mean_bounds(halves, alpha)
    n = len(halves)
    mean_a, mean_b = math.fsum(a) / n, math.fsum(b) / n
    return PairedDifference(
        n=n,
        mean_a=mean_a,
        mean_b=mean_b,
        difference=math.fsum(x - y for x, y in zip(a, b, strict=True)) / n,
        standard_error=2 * standard_error(halves),
        low=2 * low - 1,
        high=2 * high - 1,
        only_a=sum(x > y for x, y in zip(a, b, strict=True)),
        only_b=sum(x < y for x, y in zip(a, b, strict=True)),
        halves=halves,
        alpha=alpha,
    )


def half_differences(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """(A - B + 1) / 2 per doc: the scale of the bets. Raises ValueError as :func:`paired_difference`."""
    if len(a) != len(b):
        raise ValueError(f"want the scores of common docs, got {len(a)} of A and {len(b)} of B")
    for scores in (a, b):
        betting.checked_scores(scores)
    return [(x - y + 1) / 2 for x, y in zip(a, b, strict=True)]


def verdict(low: float, high: float, margin: float | None = None) -> Verdict:
    """What an interval of the difference A less B, valid at all times, allows to say.

    Equal within ``margin`` where the interval lies wholly inside it, also if it excludes 0: then the
    difference is certain and too small to matter. Otherwise who is better, if the interval excludes 0. Bounds
    that crossed decide nothing: first the one was better, then the other.
    """
    if low > high:
        return "undecided"
    if margin is not None and -margin <= low and high <= margin:
        return "equal within"
    if low > 0:
        return "A better"
    return "B better" if high < 0 else "undecided"


def docs_to_decide(halves: Sequence[float], alpha: float = 0.05, margin: float | None = None) -> int | None:
    """How many further common docs the next verdict will take, if they go on like those so far.

    ``halves`` are :func:`half_differences`. The capital of the interval that decides (see
    :mod:`~testbench_dagster.statistics.betting`) grows with each further doc by the mean of its growth so
    far, at the present difference and share of docs that differ; counted is until it refutes a difference of
    0, or with a ``margin`` both of its ends, whichever is first. In all that makes nearly three times the
    docs that a test at a number fixed beforehand needs to succeed at even odds, (z / difference)^2 times the
    variance of the differences (the smallest detectable difference of arXiv 2605.28873): the price of looking
    at any time. A figure for planning, not for decisions.

    0 when it is decided; None without docs, where the docs so far lead nowhere and where the bounds crossed,
    which further docs do not mend. Raises ValueError for
    scores or alpha out of range, and for a margin that is not between 0 and 1.
    """
    scores = betting.checked_scores(halves).tolist()
    return _docs_to_decide(scores, [1.0] * len(scores), mean_bounds(scores, alpha), alpha, margin)


def docs_to_decide_overall(
    rounds: Rounds,
    alpha: float = 0.05,
    margin: float | None = None,
    bounds: tuple[float, float] | None = None,
) -> int | None:
    """The same for the mean over tasks, of rounds of :func:`half_differences`: docs of all tasks together.

    ``bounds`` are those of the rounds, where they are known. Raises ValueError as :func:`docs_to_decide`.
    """
    betting.checked_scores(rounds.scores)
    return _docs_to_decide(rounds.scores, rounds.stakes, bounds or rounds.bounds(alpha), alpha, margin)


def _docs_to_decide(
    scores: Sequence[float],
    stakes: Sequence[float],
    bounds: tuple[float, float],
    alpha: float,
    margin: float | None,
) -> int | None:
    checked_margin(margin)
    if not scores:
        return None
    mirrored = [1 - x for x in scores]
    low, high = bounds
    if low > high:
        return None
    if verdict(2 * low - 1, 2 * high - 1, margin) != "undecided":
        return 0
    score, against = (
        math.fsum(stake * x for stake, x in zip(stakes, side, strict=True)) for side in (scores, mirrored)
    )
    ways = [_until_refuted(scores if score >= against else mirrored, stakes, 0.5, alpha)]
    if margin is not None:
        ends = [_until_refuted(x, stakes, (1 - margin) / 2, alpha) for x in (scores, mirrored)]
        ways.append(None if None in ends else max(end for end in ends if end is not None))
    return min((way for way in ways if way is not None), default=None)


def checked_margin(margin: float | None) -> float | None:
    """The margin of equality. Raises ValueError unless it lies between 0 and 1."""
    if margin is not None and not 0 < margin < 1:
        raise ValueError(f"margin must lie between 0 and 1, such as 0.02; got {margin}")
    return margin


def _until_refuted(scores: Sequence[float], stakes: Sequence[float], mean: float, alpha: float) -> int | None:
    """Further scores, distributed as those so far, until the capital refutes a mean from below."""
    goal = betting.refuting(alpha) + math.log(len(betting.SHARES))
    so_far = [
        math.fsum(math.log1p(share * stake * (x / mean - 1)) for stake, x in zip(stakes, scores, strict=True))
        for share in betting.SHARES
    ]
    growth = [capital / len(scores) for capital in so_far]

    def reached(further: int) -> bool:
        parts = [capital + further * each for capital, each in zip(so_far, growth, strict=True)]
        top = max(parts)
        return top + math.log(math.fsum(math.exp(part - top) for part in parts)) >= goal

    low, high = -1, 1
    while not reached(high):
        low, high = high, high * 2
        if high > FAR:
            return None
    # the logarithm of a sum of exponentials is convex: below the goal at the start, it passes it once
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


# -------------------------------------------------------------------------------------------------- McNemar


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two-sided p values of the hypothesis that both are equally good, for one look at one number of docs."""

    exact: float
    mid: float


def mcnemar(b: int, c: int) -> McNemar:
    """McNemar's test of ``b`` docs only A got right against ``c`` only B got right.

    Exact: twice the probability of at most min(b, c) among b + c tosses of a fair coin, at most 1. Mid-p:
    half the probability of min(b, c) itself left out, which is less cautious and in practice keeps its level
    (M. Fagerland, S. Lydersen, P. Laake, BMC Medical Research Methodology 13:91, 2013). Both 1 without such
    docs. Raises ValueError for a negative count.
    """
    if b < 0 or c < 0:
        raise ValueError(f"want counts of docs, got {b} and {c}")
    n, few = b + c, min(b, c)
    ways, total = 1, 1  # of exactly i, of at most i
    for i in range(few):
        ways = ways * (n - i) // (i + 1)
        total += ways
    if n == 0:
        return McNemar(1.0, 1.0)
    tosses = 2**n
    return McNemar(min(1.0, 2 * total / tosses), (2 * total - ways) / tosses)
