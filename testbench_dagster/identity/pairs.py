"""Evidence between two suppliers, or two groups: counts for all pairs, the merge and the split e-value.

What an agreement is worth depends on the prefix. Its null rate is

    q0 = floor + (1 - floor) b,

b being the largest of: the share of other, distinct groups that began the same way on this prompt (with
caution for how few there are), and how common such answer prefixes are among either supplier's own answers to
the prompt's family. Read: two distinct models agree by the habits all models share at rate b, and where not,
by kinship at up to ``floor``. Boilerplate (b = 1) weighs nothing; a disagreement weighs the same everywhere.
The null that the merge e-value tests is thus, per prompt, sum over answer prefixes of P(both begin so) / q0
<= 1, which holds for any pair that agrees at a rate of at most ``floor``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.evidence import NONE, Evidence
from testbench_dagster.identity.settings import IdentitySettings
from testbench_dagster.statistics.evalues import gain_of_agreement, log_e_at_least, log_mean_exp
from testbench_dagster.statistics.intervals import wilson

if TYPE_CHECKING:
    import numpy as np

#: Answers whose majorities are looked for at a time.
_AT_ONCE = 1_000_000

Relation = Literal["same stack", "same lineage", "different", "too little evidence"]


@dataclass(frozen=True, slots=True)
class PairFinding:
    """What common prompts say of two suppliers.

    ``low`` to ``high`` is a 95 % Wilson interval of ``agreement``.

    ``distance`` is half the sum of both self-agreements less the agreement: 0 for two that answer like one.
    ``log_merge`` and ``log_split`` are e-values in nats, ``split`` whether the latter counts against grouping
    or telling apart after control for all pairs. ``certain``: whether the relation is more than a lack of
    evidence; ``wording`` says what is known, and what is not yet.
    """

    a: str
    b: str
    common: int
    agree: int
    agreement: float | None
    low: float
    high: float
    distance: float | None
    distance_low: float | None
    distance_high: float | None
    log_merge: float
    log_split: float
    split: bool
    relation: Relation
    wording: str

    @property
    def certain(self) -> bool:
        """Whether the two are told apart, or taken for alike."""
        return self.relation != "too little evidence"


def worded(relation: Relation, common: int, agree: int, *, together: bool, apart: bool, least: int) -> str:
    """What is known of two suppliers, and what is not.

    ``together``: they are in one group; ``apart``: they are told apart, at the rate of errors that is allowed
    for among all pairs; ``least``: common prompts below which nothing is said of a relation.
    """
    if not common:
        seen = "no common prompts yet"
    elif agree == common:
        seen = f"the same beginning on all {counted(common, 'common prompt')}"
    else:
        seen = f"the same beginning on {agree} of {counted(common, 'common prompt')}"
    if together:
        return f"{seen}: in one group"
    if relation == "same stack":
        return f"{seen}: alike beyond doubt; grouped once whole answers are, and all of both groups"
    if apart and common < least:
        return f"{seen}: told apart; how much they have in common takes {counted(least, 'prompt')}"
    if apart:
        kind = "of one lineage perhaps, and not one" if relation == "same lineage" else "certainly two"
        return f"{seen}: {kind}"
    if common < least:
        return f"{seen}: nothing is certain before {least}"
    return f"{seen}: neither that they are alike nor that they differ is certain yet"


def majorities(cells: np.ndarray, labels: np.ndarray, groups: int) -> np.ndarray:
    """The answer prefix that more than half of each group's answers to a prompt share; -1 where none does.

    ``labels[s]`` is the group of row s, from 0.
    """
    import numpy as np

    prompts = cells.shape[1]
    profile: np.ndarray = np.full((groups, prompts), NONE, dtype=cells.dtype)
    width = int(cells.max(initial=0)) + 1
    some = max(1, _AT_ONCE // max(1, len(cells)))
    for start in range(0, prompts, some):
        part = cells[:, start : start + some]
        s, t = np.nonzero(part != NONE)
        place = labels[s].astype(np.int64) * part.shape[1] + t
        votes, count = np.unique(place * width + part[s, t], return_counts=True)
        voters = np.bincount(place, minlength=groups * part.shape[1])
        at, cell = votes // width, votes % width
        won = 2 * count > voters[at]
        group, prompt = np.divmod(at[won], part.shape[1])
        profile[group, start + prompt] = cell[won]
    return profile


class Collisions:
    """How many distinct groups open a prompt in the same way."""

    def __init__(self, profiles: np.ndarray, settings: IdentitySettings) -> None:
        import numpy as np

        self._profiles = profiles
        self._settings = settings
        present = profiles[profiles != NONE]
        self._with = np.bincount(present, minlength=1)
        self._answered = (profiles != NONE).sum(axis=0)

    def shares(self, cells: np.ndarray, t: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Share of groups other than ``first`` and ``second`` that began at prompts ``t`` with ``cells``."""
        import numpy as np

        same = np.zeros(len(cells))
        known = cells < len(self._with)
        same[known] = self._with[cells[known]]
        answered = self._answered[t].astype(float)
        theirs = self._profiles[first, t]
        same -= theirs == cells
        answered -= theirs != NONE
        theirs = self._profiles[second, t]
        other = first != second
        same -= (theirs == cells) & other
        answered -= (theirs != NONE) & other
        settings = self._settings
        share: np.ndarray = (same + settings.prior_groups * settings.prior_collision) / (
            answered + settings.prior_groups
        )
        return share


def log_merge(
    left: np.ndarray,
    right: np.ndarray,
    commonness: np.ndarray,
    shares: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    settings: IdentitySettings,
) -> np.ndarray:
    """Merge e-values (nats) of pairs of rows of answer prefixes, ``left[p]`` with ``right[p]``.

    ``commonness`` is the larger of both rows' own; ``shares(p, t, cells)`` gives other groups' collisions.
    """
    import numpy as np

    both = (left != NONE) & (right != NONE)
    alike = both & (left == right)
    p, t = np.nonzero(alike)
    habit = np.maximum(commonness[p, t], shares(p, t, left[p, t]))
    null = settings.null_floor + (1 - settings.null_floor) * np.minimum(habit, 1.0)
    disagreements = both.sum(axis=1) - alike.sum(axis=1)
    return log_mean_exp(
        [
            np.bincount(p, weights=gain_of_agreement(null, k), minlength=len(left))
            + disagreements * np.log1p(-k)
            for k in settings.merge_shares
        ]
    )


def lean(common: np.ndarray, agree: np.ndarray, settings: IdentitySettings) -> np.ndarray:
    """Nats by which a pair's plain counts lean to one model (positive) or two (negative)."""
    import numpy as np

    q, q0 = settings.lean_agreement, settings.null_floor
    agreed = agree.astype(np.float64)
    leaning: np.ndarray = agreed * np.log(q / q0) + (common - agreed) * np.log((1 - q) / (1 - q0))
    return leaning


def agreements_from(
    prompts: int, least: float, settings: IdentitySettings, *, above: bool = False
) -> np.ndarray:
    """By common prompts the fewest agreements that lean by ``least`` nats, or ``above`` it.

    Of 0 to ``prompts`` common prompts; one more than all where not even all are enough. A table, since of
    many pairs the lean takes longer than the counts.
    """
    import numpy as np

    common = np.arange(prompts + 1)
    q, q0 = settings.lean_agreement, settings.null_floor
    agreed, differed = np.log(q / q0), np.log((1 - q) / (1 - q0))
    guess = np.floor((least - common * differed) / (agreed - differed)).astype(np.int64)
    fewest: np.ndarray = common.astype(np.int64) + 1
    for agree in (guess + 2, guess + 1, guess, guess - 1):  # rounding: the lean itself decides
        leaning = lean(common, agree, settings)
        enough = (agree >= 0) & (agree <= common) & ((leaning > least) if above else (leaning >= least))
        fewest[enough] = agree[enough]
    return fewest


def log_split(
    common: np.ndarray, agree: np.ndarray, rate: np.ndarray, settings: IdentitySettings
) -> np.ndarray:
    """Split e-values (nats): against agreeing at ``rate`` or more."""
    agreed = agree.astype(float)
    return log_e_at_least(agreed, common - agreed, rate, settings.split_ratios)


@dataclass(frozen=True, eq=False)
class SelfAgreement:
    """How reliably suppliers repeat themselves at temperature 0; arrays by supplier.

    ``low`` and ``high``: 95 % interval of a Beta posterior whose prior is worth ``self_prior`` repeats at
    ``split_agreement``; ``tested``: its ``self_quantile``, what a split is tested against; ``noisy``: the
    repeats alone put the rate below ``noisy_below`` (Clopper-Pearson, 97.5 %).
    """

    rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    tested: np.ndarray
    noisy: np.ndarray

    @classmethod
    def of(cls, evidence: Evidence) -> SelfAgreement:
        """Of the repeats in the evidence; ``rate`` is nan where there are none."""
        import numpy as np
        from scipy.special import betaincinv

        settings = evidence.settings
        n, k = evidence.repeats.astype(float), evidence.repeated.astype(float)
        a = settings.self_prior * settings.split_agreement + k
        b = settings.self_prior * (1 - settings.split_agreement) + n - k
        with np.errstate(invalid="ignore"):
            rate = np.where(n > 0, k / np.maximum(n, 1), np.nan)
        upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1e-9), 0.975), 1.0)
        return cls(
            rate=rate,
            low=betaincinv(a, b, 0.025),
            high=betaincinv(a, b, 0.975),
            tested=betaincinv(a, b, settings.self_quantile),
            noisy=upper < settings.noisy_below,
        )


def distance(
    agree: int, common: int, rates: tuple[float, float], lows: tuple[float, float], highs: tuple[float, float]
) -> tuple[float, float, float]:
    """Identity distance and its 95 % interval, 0 to 1.

    Half the sum of the self-agreements less the agreement: half the squared maximum mean discrepancy of the
    equality kernel (Gao, Liang and Guestrin, arXiv 2410.20247). Interval: MOVER, the method of variance
    estimates recovery (Zou and Donner, Statistics in Medicine 27 (2008)), from the three intervals.
    """
    low, high = wilson(agree, common)
    rate = agree / common
    value = (rates[0] + rates[1]) / 2 - rate
    down = sum(((r - lo) / 2) ** 2 for r, lo in zip(rates, lows, strict=True)) + (high - rate) ** 2
    up = sum(((hi - r) / 2) ** 2 for r, hi in zip(rates, highs, strict=True)) + (rate - low) ** 2
    return (
        min(max(value, 0.0), 1.0),
        min(max(value - down**0.5, 0.0), 1.0),
        min(max(value + up**0.5, 0.0), 1.0),
    )
