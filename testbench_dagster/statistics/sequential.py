"""Wald's sequential probability ratio test, for scores from 0 to 1.

Source: A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of Mathematical Statistics 16 (1945),
117-186. Tested is a mean of at most ``fail`` (p0) against one of at least ``pass_`` (p1). A score x adds

    x log(p1 / p0) + (1 - x) log((1 - p1) / (1 - p0))

to the log likelihood ratio; the test ends when that reaches log((1 - beta) / alpha), a pass, or falls to
log(beta / (1 - alpha)), a failure. For scores of 0 and 1 this is Wald's test of a share. It stays valid for
scores in between: exp is convex, so a score x multiplies the ratio by at most what a coin that shows 1 with
probability x does on average, and the ratio remains a supermartingale under either hypothesis. By Ville's
inequality it may thus be looked at after every score: a pass at a mean of ``fail`` or less has a probability
of at most alpha / (1 - beta), a failure at ``pass_`` or more of at most beta / (1 - alpha).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SequentialVerdict:
    """Outcome of a test after ``n`` scores.

    ``log_ratio`` is the log likelihood ratio (nats) where the test ended, or so far; ``decided_at`` the
    number of scores it ended after, None while undecided. What came after the decision changes nothing.
    """

    decision: Literal["pass", "fail", "undecided"]
    log_ratio: float
    n: int
    decided_at: int | None


def sprt(values: Sequence[float], fail: float, pass_: float, alpha: float, beta: float) -> SequentialVerdict:
    """Test scores in the order they came; the first crossing of a threshold decides.

    ``alpha`` bounds the probability of passing wrongly, ``beta`` of failing wrongly. Raises ValueError unless
    0 < fail < pass_ < 1, 0 < alpha and beta < 0.5, and every score lies between 0 and 1.
    """
    gain, loss = _steps(fail, pass_)
    low, high = _thresholds(alpha, beta)
    ratio = 0.0
    for count, value in enumerate(values, start=1):
        ratio += _checked(value) * gain + (1 - value) * loss
        if ratio >= high:
            return SequentialVerdict("pass", ratio, len(values), count)
        if ratio <= low:
            return SequentialVerdict("fail", ratio, len(values), count)
    return SequentialVerdict("undecided", ratio, len(values), None)


def docs_to_decide(
    values: Sequence[float], fail: float, pass_: float, alpha: float, beta: float
) -> int | None:
    """How many further scores an undecided test will need on average, at the present mean and spread.

    The mean time for a Brownian motion of the same drift and variance to leave the interval between the
    thresholds (Wald's identity, excess over the thresholds neglected): a figure for messages, not for
    decisions. 0 when the test is decided; None without any score, and where the scores so far lead nowhere
    (equal ones that leave the ratio as it is). Raises ValueError as :func:`sprt`.
    """
    verdict = sprt(values, fail, pass_, alpha, beta)
    if verdict.decided_at is not None:
        return 0
    if not values:
        return None
    gain, loss = _steps(fail, pass_)
    low, high = _thresholds(alpha, beta)
    mean = math.fsum(values) / len(values)
    drift = mean * gain + (1 - mean) * loss
    spread = (gain - loss) ** 2 * math.fsum((v - mean) ** 2 for v in values) / len(values)
    ahead, behind = (high - verdict.log_ratio, verdict.log_ratio - low)
    if drift < 0:  # the mirror image: what lies ahead is where the drift leads
        ahead, behind, drift = behind, ahead, -drift
    if max(drift, spread) < 1e-12:
        return None
    if 2 * drift * (ahead + behind) < 1e-6 * spread:  # the limit without drift
        return math.ceil(ahead * behind / spread)
    tilt = 2 * drift / spread if spread else math.inf
    reached = math.expm1(-tilt * behind) / math.expm1(-tilt * (ahead + behind))
    return math.ceil((reached * ahead - (1 - reached) * behind) / drift)


def _steps(fail: float, pass_: float) -> tuple[float, float]:
    """What a score of 1 and a score of 0 add."""
    if not 0 < fail < pass_ < 1:
        raise ValueError(f"want 0 < fail < pass < 1, got fail {fail} and pass {pass_}")
    return math.log(pass_ / fail), math.log((1 - pass_) / (1 - fail))


def _thresholds(alpha: float, beta: float) -> tuple[float, float]:
    for name, rate in (("alpha", alpha), ("beta", beta)):
        if not 0 < rate < 0.5:
            raise ValueError(f"{name} must lie between 0 and 0.5, such as 0.01; got {rate}")
    return math.log(beta / (1 - alpha)), math.log((1 - beta) / alpha)


def _checked(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"a score must lie between 0 and 1, got {value}")
    return value
