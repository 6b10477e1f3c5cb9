"""Evidence for and against a rate of agreement, as e-values that may be looked at after every observation.

An e-value is a number of 0 or more whose mean is at most 1 where the null hypothesis holds; large ones speak
against it, and as a process over time it reaches c with a probability of at most 1 / c (Ville's inequality).
Both tests here are averages of likelihood ratios over a few alternatives, each a supermartingale under every
rate of its null (A. Wald, "Sequential Tests of Statistical Hypotheses", 1945; averages: V. Vovk and R. Wang,
"E-values: Calibration, combination and applications", Annals of Statistics 49 (2021), section 3). In nats:

* at most q0 ("do these two answer alike more often than two distinct models may?"), alternatives
  q1 = q0 + (1 - q0) k: an agreement multiplies by 1 + k (1 / q0 - 1), a disagreement by 1 - k. What a
  disagreement costs does not depend on q0, so q0 may differ from observation to observation and may even be
  raised once an agreement is seen: that only makes its factor smaller.
* at least q1 ("do they answer alike less often than one model does?"), alternatives r q1: an agreement
  multiplies by r, a disagreement by (1 - r q1) / (1 - q1).

Arguments are numbers or numpy arrays that broadcast. numpy is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def log_mean_exp(parts: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Logarithm of the mean of exp(parts) over the first axis, without overflow."""
    import numpy as np

    logs = np.asarray(parts, dtype=float)
    top = logs.max(axis=0)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        result: np.ndarray = shift + np.log(np.exp(logs - shift).mean(axis=0))
    return result


def gain_of_agreement(null: float | np.ndarray, share: float) -> np.ndarray:
    """Nats an agreement adds against "at most ``null``", the alternative being ``share`` of the way to 1."""
    import numpy as np

    gain: np.ndarray = np.log1p(share * (1 / np.asarray(null, dtype=float) - 1))
    return gain


def log_e_at_most(
    agreements: Any, disagreements: Any, null: float | np.ndarray, shares: Sequence[float]
) -> np.ndarray:
    """Log e-value against "the rate of agreement is at most ``null``", averaged over ``shares``.

    Each share k in (0, 1) stands for the alternative ``null`` + (1 - ``null``) k. Raises ValueError for a
    share or a null outside (0, 1).
    """
    _check("shares", shares)
    _check("null", null)
    return log_mean_exp(
        [agreements * gain_of_agreement(null, k) + disagreements * math.log1p(-k) for k in shares]
    )


def log_e_at_least(
    agreements: Any, disagreements: Any, null: float | np.ndarray, ratios: Sequence[float]
) -> np.ndarray:
    """Log e-value against "the rate of agreement is at least ``null``", averaged over ``ratios``.

    Each ratio r in (0, 1) stands for the alternative r ``null``. Raises ValueError for a ratio or a null
    outside (0, 1).
    """
    import numpy as np

    _check("ratios", ratios)
    _check("null", null)
    rate = np.asarray(null, dtype=float)
    return log_mean_exp(
        [agreements * math.log(r) + disagreements * (np.log1p(-r * rate) - np.log1p(-rate)) for r in ratios]
    )


def _check(name: str, values: Any) -> None:
    import numpy as np

    numbers = np.asarray(values, dtype=float)
    wrong = numbers[~((numbers > 0) & (numbers < 1))]
    if wrong.size:
        raise ValueError(f"{name} must lie between 0 and 1, both excluded; got {wrong.flat[0]}")
