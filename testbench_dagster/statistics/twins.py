"""Pairs of a public and a fresh question: is somebody better on the public ones than its peers are?

Where right answers follow a Rasch model (log odds of a right answer = ability less difficulty), the odds of
"public right, fresh wrong" (n10) against "public wrong, fresh right" (n01) are e to the power of how much
harder the fresh question is, whoever answers: its ability drops out (G. Rasch, "Probabilistic Models for Some
Intelligence and Attainment Tests", 1960). So ln(n10 / n01) of one supplier is compared with that of its
peers. The difference of the shares of right answers is not: that of an able supplier is smaller than that of
a weak one, both being honest.

The test is conditional on the discordant pairs n = n10 + n01: n10 is then binomial, with the peers' odds. As
these are estimated, the tail is averaged over their normal distribution. It needs no correction for empty
cells, of which who has learnt all public questions has one (n01 = 0): there the normal approximation of
ln(n10 / n01) has little power (W. Hauck and A. Donner, JASA 72, 1977). Half of the probability of n10 itself
is left out (mid-p), as in McNemar's test of :mod:`.paired`.

Log odds that are shown, and those of peers, have 1/2 added to both counts (J. Haldane, Annals of Human
Genetics 20, 1956): the bias is then of the order of 1/n², and the same for a supplier as for peers with as
many discordant pairs, so that it drops out of the excess.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any

from testbench_dagster.core.wording import counted
from testbench_dagster.statistics.multiplicity import holm

#: Level of the test over all suppliers of a service, tasks and epochs by themselves.
ALPHA = 0.01
#: Peers have to be of so many units. With five no single one decides what is normal, and how far they differ
#: among each other is an estimate of four degrees of freedom.
LEAST_PEERS = 5
#: And of each so many pairs have to be known.
LEAST_PEER_PAIRS = 25
#: With fewer discordant pairs not even all on one side are below :data:`ALPHA` over a few suppliers.
LEAST_DISCORDANT = 8
#: No verdict where the peers' own log odds are beyond this: suppliers of unequal slopes would differ then,
#: honest as they are (alarms at 1 %: 2 % at a shift of .1, 4 % at .2, 40 % at .8).
MOST_SHIFT = 0.1
#: Nor where the standard error of that is above this: a shift of .3 would then often be taken for none.
MOST_SHIFT_ERROR = 0.2
#: A peer is no measure of what is normal where it differs from the others at this level.
ODD_ALPHA = 0.01
#: A supplier is flagged that was better in so many of its last epochs with a verdict.
FLAG_EPOCHS, FLAG_AMONG = 2, 4

_LYING = 3.0  # standard errors by which peers may be worse on public questions in an epoch
_NODES = 33  # of the normal distribution of the peers' log odds, from -4 to 4 standard errors
_HALVINGS = 28  # of the range in which a bound lies
_FAR = 30.0  # log odds beyond which bounds are not looked for


class Verdict(StrEnum):
    """What an epoch says of a supplier."""

    NONE = "no verdict"
    NOT_BETTER = "not better"
    BETTER = "better"


@dataclass(frozen=True, slots=True)
class Pairs:
    """How many pairs a supplier answered: both halves right, the public one alone, the fresh one, neither."""

    both: int = 0
    public_only: int = 0
    fresh_only: int = 0
    neither: int = 0

    @classmethod
    def from_answers(cls, answers: Iterable[tuple[bool, bool]]) -> Pairs:
        """Count pairs of (public right, fresh right)."""
        counts = [0, 0, 0, 0]
        for public, fresh in answers:
            counts[2 * (not public) + (not fresh)] += 1
        return cls(*counts)

    @property
    def n(self) -> int:
        """All pairs."""
        return self.both + self.public_only + self.fresh_only + self.neither

    @property
    def discordant(self) -> int:
        """Pairs of which one half alone is right: all that the test looks at."""
        return self.public_only + self.fresh_only

    @property
    def public_share(self) -> float | None:
        """Share of right answers to the public halves."""
        return (self.both + self.public_only) / self.n if self.n else None

    @property
    def fresh_share(self) -> float | None:
        """Share of right answers to the fresh halves."""
        return (self.both + self.fresh_only) / self.n if self.n else None

    @property
    def log_odds(self) -> float:
        """ln(n10 / n01), with 1/2 added to both."""
        return log_odds(self.public_only, self.fresh_only)


def log_odds(public_only: float, fresh_only: float) -> float:
    """ln(n10 / n01), with 1/2 added to both. Raises ValueError for a negative count."""
    if public_only < 0 or fresh_only < 0:
        raise ValueError(f"want counts of pairs, got {public_only} and {fresh_only}")
    return math.log((public_only + 0.5) / (fresh_only + 0.5))


@dataclass(frozen=True, slots=True)
class Shift:
    """How much better some suppliers are on public questions: log odds of their discordant pairs together.

    ``error`` is the standard error of the log odds: that of a binomial count, wider where the units differ
    more than that (by the square root of Pearson's chi square over its degrees of freedom). The shares are
    the means of the units' shares of right answers, where these are known.
    """

    units: int
    public_only: int
    fresh_only: int
    overdispersion: float = 1.0
    public_share: float | None = None
    fresh_share: float | None = None

    @property
    def log_odds(self) -> float:
        """ln(n10 / n01) of all together."""
        return log_odds(self.public_only, self.fresh_only)

    @property
    def error(self) -> float:
        """Standard error of it."""
        plain = 1 / (self.public_only + 0.5) + 1 / (self.fresh_only + 0.5)
        return math.sqrt(self.overdispersion * plain)


def shift_of(units: Iterable[Pairs]) -> Shift:
    """The shift of some units, each counted once."""
    return _Sums.of(units).shift


@dataclass(slots=True)
class _Sums:
    """Sums over units, from which that of all but one follows at once."""

    units: int = 0
    public_only: int = 0
    fresh_only: int = 0
    discordant_units: int = 0
    squares: float = 0.0  # of n10 over the discordant pairs, which the units' chi square follows from
    public_share: float = 0.0
    fresh_share: float = 0.0

    @classmethod
    def of(cls, units: Iterable[Pairs]) -> _Sums:
        sums = cls()
        for pairs in units:
            sums.add(pairs)
        return sums

    def add(self, pairs: Pairs, sign: int = 1) -> None:
        self.units += sign
        self.public_only += sign * pairs.public_only
        self.fresh_only += sign * pairs.fresh_only
        self.public_share += sign * (pairs.public_share or 0.0)
        self.fresh_share += sign * (pairs.fresh_share or 0.0)
        if pairs.discordant:
            self.discordant_units += sign
            self.squares += sign * pairs.public_only**2 / pairs.discordant

    def without(self, pairs: Pairs) -> Shift:
        rest = replace(self)
        rest.add(pairs, -1)
        return rest.shift

    @property
    def shift(self) -> Shift:
        n, overdispersion = self.public_only + self.fresh_only, 1.0
        if self.discordant_units > 1 and self.public_only and self.fresh_only:
            share = self.public_only / n
            chi2 = (self.squares - share * self.public_only) / (share * (1 - share))
            overdispersion = max(1.0, chi2 / (self.discordant_units - 1))
        shares = (
            (self.public_share / self.units, self.fresh_share / self.units) if self.units else (None, None)
        )
        return Shift(self.units, self.public_only, self.fresh_only, overdispersion, *shares)


def usual(units: Mapping[str, Pairs]) -> dict[str, Pairs]:
    """The units that may say what is normal: without those that differ from the others.

    The one that differs most from the rest is left out as long as it does at level :data:`ODD_ALPHA` over
    all, two-sided, and more than half of the units stay; of many units a twentieth at once. Else whoever
    knows the public questions would make the same look normal in others; and one that answers them wrongly
    would make others look as if they did.
    """
    left, sums = dict(units), _Sums.of(units.values())
    while len(left) > 2 and 2 * (len(left) - 1) > len(units):
        found = []
        for name, pairs in left.items():
            rest = sums.without(pairs)
            found.append((2 * min(tails(pairs, rest.log_odds, rest.error)), name))
        most = min(max(1, len(left) // 20), len(left) - len(units) // 2 - 1)
        odd = [name for p, name in sorted(found)[:most] if p <= ODD_ALPHA / len(left)]
        if not odd:
            break
        for name in odd:
            sums.add(left.pop(name), -1)
    return left


def tails(own: Pairs, shift: float, error: float) -> tuple[float, float]:
    """Mid-p values of so many pairs with the public half right alone, or more; and so many, or fewer.

    Of a binomial count whose log odds are normal with mean ``shift`` and standard error ``error``.
    """
    import numpy as np

    n, x = own.discordant, own.public_only
    if n == 0:
        return 0.5, 0.5
    nodes, weights = _normal()
    odds = shift + error * nodes
    successes = np.arange(n + 1)
    logs = _log_choose(n) + successes * -np.logaddexp(0, -odds)[:, None]
    logs += (n - successes) * -np.logaddexp(0, odds)[:, None]
    probability = weights @ np.exp(logs)
    upper = float(probability[x + 1 :].sum() + probability[x] / 2)
    return min(1.0, upper), min(1.0, float(probability.sum()) - upper)


@cache
def _normal() -> tuple[Any, Any]:
    import numpy as np

    nodes = np.linspace(-4, 4, _NODES)
    weights = np.exp(-nodes * nodes / 2)
    return nodes, weights / weights.sum()


@cache
def _log_choose(n: int) -> Any:
    import numpy as np

    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    return logs[n] - logs - logs[::-1]


def p_value(own: Pairs, peers: Shift) -> float:
    """How likely so many public halves right alone, or more, are of who is no better on them than its peers.

    One-sided mid-p: being better on fresh questions is nothing to be told of. For the same reason peers whose
    log odds are below :data:`MOST_SHIFT`, by more than their standard error, count as if they were there.
    """
    return tails(own, max(peers.log_odds, -MOST_SHIFT - peers.error), peers.error)[0]


@dataclass(frozen=True, slots=True)
class Excess:
    """By how much a supplier's log odds exceed its peers', with the ends of an interval; None for no end."""

    excess: float
    low: float | None
    high: float | None


def excess_of(own: Pairs, peers: Shift, alpha: float = 0.05) -> Excess:
    """The excess, and the values of it that the test does not refute at level ``alpha``, two-sided."""
    shift, error = peers.log_odds, peers.error

    def bound(of_upper: bool) -> float | None:
        low, high = -_FAR, _FAR
        place = 0 if of_upper else 1
        if own.discordant == 0 or (own.fresh_only if not of_upper else own.public_only) == 0:
            return None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            refuted = tails(own, shift + middle, error)[place] < alpha / 2
            if refuted is of_upper:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    return Excess(own.log_odds - shift, bound(True), bound(False))


@dataclass(frozen=True, slots=True)
class Judged:
    """What an epoch says of a supplier.

    ``shift`` is that of its peers in the epoch, ``known`` that in this and earlier ones. ``p`` is adjusted
    over the suppliers of its service with a verdict; None without one. ``why`` says why there is none.
    """

    verdict: Verdict
    shift: Shift
    known: Shift
    p: float | None = None
    why: str | None = None


def judge(
    own: Mapping[str, Pairs],
    units: Mapping[str, str],
    families: Mapping[str, str],
    earlier: Mapping[str, Sequence[Shift]] | None = None,
    *,
    candidates: Collection[str] | None = None,
    alpha: float = ALPHA,
) -> dict[str, Judged]:
    """Judge the suppliers of a task in an epoch against each other.

    Args:
        own: their pairs.
        units: what each is one with, such as its identity group; by default it is one by itself. Of a unit
            the supplier with most pairs stands for all, and nobody is compared with its own unit.
        families: over which suppliers p values are adjusted together, such as their service.
        earlier: the shifts of their peers in earlier epochs.
        candidates: who may be judged; by default everybody. The others are peers alone.
        alpha: level over a family.
    """
    of_unit: dict[str, str] = {}
    for name in sorted(own, key=lambda name: (-own[name].n, name)):
        of_unit.setdefault(units.get(name, name), name)
    normal = usual({unit: own[name] for unit, name in of_unit.items() if own[name].n >= LEAST_PEER_PAIRS})
    everybody, found = _Sums.of(normal.values()), {}
    p_values: dict[str, dict[str, float]] = {}
    for name in own if candidates is None else candidates:
        unit = units.get(name, name)
        peers = everybody.without(normal[unit]) if unit in normal else everybody.shift
        known = _together([peers, *(earlier or {}).get(name, ())])
        why = _no_verdict(own[name], peers, known)
        found[name] = Judged(Verdict.NONE, peers, known, why=why)
        if why is None:
            p_values.setdefault(families.get(name, ""), {})[name] = p_value(own[name], peers)
    for family in p_values.values():
        for name, p in holm(family).items():
            verdict = Verdict.BETTER if p <= alpha else Verdict.NOT_BETTER
            found[name] = Judged(verdict, found[name].shift, found[name].known, p)
    return found


def _together(shifts: Sequence[Shift]) -> Shift:
    """The shift over several epochs, of which the first is the one that is judged."""
    return Shift(
        shifts[0].units,
        sum(shift.public_only for shift in shifts),
        sum(shift.fresh_only for shift in shifts),
        max(shift.overdispersion for shift in shifts),
    )


def _no_verdict(own: Pairs, peers: Shift, known: Shift) -> str | None:
    """Why nothing can be said; None where something can."""
    if own.discordant < LEAST_DISCORDANT:
        return f"{own.discordant} of {counted(own.n, 'pair')} are half right; it takes {LEAST_DISCORDANT}"
    if peers.units < LEAST_PEERS:
        return f"{counted(peers.units, 'peer')} of other groups answered pairs; it takes {LEAST_PEERS}"
    if known.error > MOST_SHIFT_ERROR:
        return (
            f"how much better its peers are on public questions is known to {known.error:.2f} logits only; "
            f"it takes {MOST_SHIFT_ERROR}: more pairs, peers or epochs"
        )
    if abs(known.log_odds) > MOST_SHIFT:
        harder = "fresh" if known.log_odds > 0 else "public"
        return (
            f"for its peers {harder} ones are harder too, by {abs(known.log_odds):.2f} logits "
            f"(standard error {known.error:.2f}); above {MOST_SHIFT} honest suppliers may differ in that"
        )
    if peers.log_odds < -MOST_SHIFT - _LYING * peers.error:
        # The mean over epochs is no measure of that: those that answer public questions wrongly in one epoch
        # and fresh ones in the other would have a mean of 0, and make all others look better in the first.
        return (
            f"in this epoch public ones are harder for its peers, by {-peers.log_odds:.2f} logits (standard "
            f"error {peers.error:.2f}); beside them honest suppliers would look better on public ones"
        )
    return None


def is_flagged(verdicts: Iterable[Verdict]) -> bool:
    """Whether a supplier is flagged by its verdicts, from the newest epoch back.

    Those of the last :data:`FLAG_AMONG` epochs with a verdict have to hold :data:`FLAG_EPOCHS` of "better".
    """
    last = [verdict for verdict in verdicts if verdict is not Verdict.NONE][:FLAG_AMONG]
    return sum(verdict is Verdict.BETTER for verdict in last) >= FLAG_EPOCHS
