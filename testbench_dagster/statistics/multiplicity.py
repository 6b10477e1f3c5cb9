"""Many tests at once: which e-values and p-values may be believed.

Sources: R. Wang and A. Ramdas, "False discovery rate control with e-values", Journal of the Royal Statistical
Society B 84 (2022), 822-852 (e-BH); Bonferroni's inequality for the family-wise threshold; S. Holm, "A simple
sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979), 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def e_bh_least(alpha: float) -> float:
    """Log e-value (nats) below which :func:`e_bh_threshold` rejects nothing, however many tests there are."""
    _check_alpha(alpha)
    return math.log(1 / alpha)


def e_bh_threshold(log_e: Any, alpha: float, tests: int | None = None) -> float:
    """Smallest log e-value of m that is rejected at a false discovery rate of ``alpha`` (e-BH).

    Whatever the hypotheses' dependence: sorted from the largest, the first k are rejected for the largest k
    with e_k >= m / (k alpha). Takes natural logarithms of e-values of any shape; infinity where none is
    rejected. Compared in double precision: a threshold that was rounded to fewer digits lies above some of
    the very values that it was taken from. ``tests``: how many there were, where those below
    :func:`e_bh_least`, which decide nothing, are not among ``log_e``. Raises ValueError unless 0 < alpha < 1,
    no value is nan and there are no more values than tests.
    """
    import numpy as np

    _check_alpha(alpha)
    logs = np.asarray(log_e, dtype=np.float64)
    if np.isnan(logs).any():
        raise ValueError("log_e must hold numbers, got nan")
    m = logs.size if tests is None else tests
    if logs.size > m:
        raise ValueError(f"tests must be {logs.size} or more, as many as there are values; got {m}")
    if not logs.size:
        return math.inf
    ordered = np.sort(logs, axis=None)[::-1]
    enough = ordered >= np.log(m / (np.arange(1, logs.size + 1) * alpha))
    rejected = np.flatnonzero(enough)
    return float(ordered[rejected[-1]]) if rejected.size else math.inf


def family_wise_threshold(tests: int, alpha: float) -> float:
    """Log e-value (nats) that one of ``tests`` null hypotheses ever reaches with probability ``alpha``.

    ln(tests / alpha): Ville's inequality for each and Bonferroni's for all. Raises ValueError unless
    0 < alpha < 1 and tests >= 0; no test counts as one.
    """
    _check_alpha(alpha)
    if tests < 0:
        raise ValueError(f"tests must be 0 or more, got {tests}")
    return math.log(max(tests, 1) / alpha)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p values of several tests: at most alpha for those that Holm's procedure rejects at alpha.

    Whatever their dependence.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    ordered = sorted(p_values.items(), key=lambda one: (one[1], one[0]))
    for place, (name, p) in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(ordered) - place)))
        adjusted[name] = highest
    return adjusted


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, such as 0.05; got {alpha}")
