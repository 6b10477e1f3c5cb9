"""Whether two sources of answers draw from one distribution, by several draws of each at the same prompts.

For suppliers that ignore the temperature: two answers of one supplier to one prompt differ then, and so may
those of two that are alike. The statistic is, per prompt, how often two draws of one source are equal less
how often draws of both are: the squared maximum mean discrepancy of the equality kernel (Gao, Liang and
Guestrin, arXiv 2410.20247), averaged over prompts. Under the null the labels of a prompt's draws are
exchangeable, so permuting them within prompts gives an exact test.

That a test sees no difference does not make two alike. :func:`surely_alike` is the test the other way round:
that they differ by a stated margin or more is what has to be refuted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Draws of one source, and of the other, to one prompt; texts or anything else that can be equal.
Draws = tuple[Sequence[Hashable], Sequence[Hashable]]


#: Permutations that discrepancies as large as the one seen end: then it is plain how likely they are.
_ENOUGH = 10
#: Permutations drawn at once.
_BATCH = 256


def permutation_p(prompts: Sequence[Draws], *, permutations: int = 1999, seed: int = 0) -> float:
    """The p-value of both drawing alike: small where they do not.

    Prompts without two draws of each source say nothing and are left out; 1 where none is left. The same
    seed gives the same p-value. Exact: at most alpha of honest pairs are below alpha (Besag and Clifford,
    Biometrika 78 (1991), end at a number of permutations as extreme; Phipson and Smyth, Statistical
    Applications in Genetics and Molecular Biology 9 (2010), count the observed one).
    """
    import numpy as np

    chosen = [(a, b) for a, b in prompts if len(a) >= 2 and len(b) >= 2]
    if not chosen:
        return 1.0
    rng = np.random.default_rng(seed)
    coded = [_codes(a, b) for a, b in chosen]
    seen = sum(float(_discrepancy(codes, first[None, :])[0]) for codes, first in coded)
    done = extreme = 0
    while done < permutations:
        size = min(_BATCH, permutations - done)
        drawn = np.zeros(size)
        for codes, first in coded:
            places = np.argsort(rng.random((size, len(codes))), axis=1)
            drawn += _discrepancy(codes, first[places])
        as_large = np.flatnonzero(drawn >= seen - 1e-12)
        if extreme + len(as_large) >= _ENOUGH:
            return _ENOUGH / (done + int(as_large[_ENOUGH - extreme - 1]) + 1)
        extreme += len(as_large)
        done += size
    return (1 + extreme) / (1 + permutations)


def surely_alike(prompts: Sequence[Draws], share: float, alpha: float) -> bool:
    """Whether draws of both are certainly equal at least ``share`` as often as two draws of either alone.

    Whoever sends a part of what it is asked elsewhere, where other answers are drawn, agrees with the other
    source by that part less often than that does with itself. It is told alike while the part is 1 -
    ``share`` or more with a probability of at most ``alpha``, however often one looks: the mean over prompts
    of ``share`` times equality within one source less equality across has a betting bound
    (:mod:`~testbench_dagster.statistics.sequences`) that must lie below 0, for each of the two. Prompts are
    taken for drawn at random, and come in the order in which they were complete. Never of answers of which no
    two are equal: these say nothing.
    """
    from testbench_dagster.statistics.sequences import mean_bounds  # with numpy: 0.1 s

    excess = [_excess(a, b, share) for a, b in prompts if len(a) >= 2 and len(b) >= 2]
    if not excess:
        return False
    none = 1 / (1 + share)  # 0 on the scale of the bets
    # one-sided: the bounds give each side half of what they are given
    return all(
        mean_bounds([(one + 1) / (1 + share) for one in side], 2 * alpha)[1] < none
        for side in zip(*excess, strict=True)
    )


def _excess(a: Sequence[Hashable], b: Sequence[Hashable], share: float) -> tuple[float, float]:
    """``share`` times equality within each source, less equality across: from -1 to ``share``."""
    ours, theirs = Counter(a), Counter(b)
    across = sum(n * theirs[one] for one, n in ours.items()) / (len(a) * len(b))
    return share * _within(ours) - across, share * _within(theirs) - across


def _within(counts: Counter[Hashable]) -> float:
    n = counts.total()
    return sum(k * (k - 1) for k in counts.values()) / (n * (n - 1))


def _codes(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """The answers to a prompt as numbers, and which of them the first source gave."""
    import numpy as np

    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(one, len(numbers)) for one in (*a, *b)])
    first = np.zeros(len(codes), dtype=bool)
    first[: len(a)] = True
    return codes, first


def _discrepancy(codes: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Equality within less equality across, unbiased, for each row of labels (True: the first source)."""
    import numpy as np

    width = int(codes.max()) + 1
    ones = np.eye(width)[codes]
    ours, theirs = first.astype(float) @ ones, (~first).astype(float) @ ones
    n, m = ours.sum(axis=1), theirs.sum(axis=1)
    within = (((ours**2).sum(axis=1) - n) / (n * (n - 1)) + ((theirs**2).sum(axis=1) - m) / (m * (m - 1))) / 2
    found: np.ndarray = within - (ours * theirs).sum(axis=1) / (n * m)
    return found
