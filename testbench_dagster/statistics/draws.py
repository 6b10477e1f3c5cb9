"""Whether two sources of answers draw from one distribution, by several draws of each at the same prompts.

For suppliers that ignore the temperature: two answers of one supplier to one prompt differ then, and so may
those of two that are alike. The statistic is, per prompt, how often two draws of one source are equal less
how often draws of both are: the squared maximum mean discrepancy of the equality kernel (Gao, Liang and
Guestrin, arXiv 2410.20247), averaged over prompts. Under the null the labels of a prompt's draws are
exchangeable, so permuting them within prompts gives an exact test.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Draws of one source, and of the other, to one prompt; texts or anything else that can be equal.
Draws = tuple[Sequence[Hashable], Sequence[Hashable]]


def permutation_p(prompts: Sequence[Draws], *, permutations: int = 1999, seed: int = 0) -> float:
    """The p-value of both drawing alike: small where they do not.

    Prompts without two draws of each source say nothing and are left out; 1 where none is left. The same
    seed gives the same p-value. Exact: at most alpha of honest pairs are below alpha (Phipson and Smyth,
    Statistical Applications in Genetics and Molecular Biology 9 (2010), count the observed one).
    """
    import numpy as np

    chosen = [(a, b) for a, b in prompts if len(a) >= 2 and len(b) >= 2]
    if not chosen:
        return 1.0
    rng = np.random.default_rng(seed)
    seen, drawn = 0.0, np.zeros(permutations)
    for a, b in chosen:
        numbers: dict[Hashable, int] = {}
        codes = np.array([numbers.setdefault(one, len(numbers)) for one in (*a, *b)])
        first = np.zeros(len(codes), dtype=bool)
        first[: len(a)] = True
        seen += float(_discrepancy(codes, first[None, :])[0])
        places = np.argsort(rng.random((permutations, len(codes))), axis=1)
        drawn += _discrepancy(codes, first[places])
    return float((1 + np.count_nonzero(drawn >= seen - 1e-12)) / (1 + permutations))


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
