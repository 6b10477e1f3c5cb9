"""How many docs a supplier answers: the sampling rule, and what is measured so far."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from dataclasses import dataclass
from statistics import NormalDist

from pydantic import Field, model_validator

from testbench_dagster.core.rules import Strict

_Z = NormalDist().inv_cdf(0.975)  # of two-sided 95 %


class SampleRule(Strict):
    """How many docs of a task each supplier answers per window.

    At least ``min``; then until the 95 % interval of the primary score is at most ``2 * half_width`` wide,
    but no more than ``max``. With ``half_width: null`` always ``max``.
    """

    min: int = Field(default=25, ge=1)
    max: int = Field(default=100, ge=1)
    half_width: float | None = Field(default=0.1, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _ordered(self) -> SampleRule:
        if self.min > self.max:
            raise ValueError(f"min {self.min} exceeds max {self.max}; lower min or raise max")
        return self


@dataclass(frozen=True)
class Measured:
    """What the current window says.

    ``n`` scored docs with the ``mean`` of their primary metric (None where it is no mean of values in
    [0, 1]), and ``failed`` docs that ended in the supplier's fault. ``values`` are the scores themselves in
    the order they were answered, for sequential gates; empty where there is no such mean.
    """

    n: int = 0
    mean: float | None = None
    failed: int = 0
    values: tuple[float, ...] = ()


def target_docs(rule: SampleRule | None, available: int, measured: Measured) -> int:
    """How many docs the supplier should have final: all, or as many as the rule's interval width needs.

    The number for a width solves Wilson's half width for n at the measured mean, at 95 %. Failed docs say
    nothing about the mean, so they come on top. The result is bounded by ``min`` and ``max``.
    """
    if rule is None:
        return available
    top = min(rule.max, available)
    low = min(rule.min, top)
    if rule.half_width is None:
        return top
    if measured.n == 0 or measured.n + measured.failed < rule.min:
        return low
    mean, wanted, z = measured.mean, rule.half_width, _Z
    if mean is None:
        return top
    sizes = range(measured.n, max(measured.n, top - measured.failed))  # beyond them the bound decides
    needed = measured.n + bisect_left(sizes, True, key=lambda n: _wilson_half_width(mean, n, z) <= wanted)
    return max(low, min(top, needed + measured.failed))


def predicted_half_width(measured: Measured, more: int) -> float | None:
    """Half width of the 95 % Wilson interval if ``more`` docs were scored besides, at the present mean.

    The mean is taken as 0.5, the widest, while it is unknown. None when there would be no doc at all.
    """
    n = measured.n + more
    if n <= 0:
        return None
    return _wilson_half_width(0.5 if measured.mean is None else measured.mean, n, _Z)


def _wilson_half_width(mean: float, n: int, z: float) -> float:
    return z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))


def sequence(seed: str, n_docs: int) -> list[int]:
    """Order the docs 0 … n_docs-1 by the SHA-256 of seed and doc id: the permutation of an epoch.

    Anyone can recompute it from the published seed, in any language.
    """
    return sorted(range(n_docs), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
