"""F1 of yes-or-no decisions against somebody else's, with an interval by bootstrap over docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

#: Draws of the bootstrap, and the chance that its interval leaves out the truth.
DRAWS = 4000
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class F1:
    """Twice the common yeses over all yeses, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def f1(decisions: Iterable[tuple[bool, bool]], seed: int = 0) -> F1 | None:
    """The F1 of what one decided at each doc against what the other did, None where neither said yes.

    Docs are drawn with replacement; what comes of it rests on four counts alone, so these are drawn. Where
    both never differed, or never agreed on a yes, every draw would say the same, and few docs would look as
    sure as many: there one end is that of the share of docs that differ, by Clopper and Pearson. The same
    seed gives the same interval.
    """
    import numpy as np

    counts = Counter((bool(ours), bool(theirs)) for ours, theirs in decisions)
    hits, apart = counts[True, True], counts[True, False] + counts[False, True]
    if hits + apart == 0:
        return None
    value = 2 * hits / (2 * hits + apart)
    bound = (ALPHA / 2) ** (1 / (hits + apart))  # of the share of what was always seen
    if not apart:
        return F1(value, 2 * bound / (1 + bound), value)
    if not hits:
        return F1(value, value, 2 * (1 - bound) / (2 - bound))
    n = hits + apart + counts[False, False]
    drawn = np.random.default_rng(seed).multinomial(n, [hits / n, apart / n, counts[False, False] / n], DRAWS)
    yeses = 2 * drawn[:, 0] + drawn[:, 1]
    found = 2 * drawn[yeses > 0, 0] / yeses[yeses > 0]
    low, high = np.quantile(found, [ALPHA / 2, 1 - ALPHA / 2])
    return F1(value, float(low), float(high))
