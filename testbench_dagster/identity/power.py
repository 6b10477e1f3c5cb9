"""How many common prompts it takes to say of every pair of so many suppliers whether they answer alike.

The more suppliers, the more pairs, and the more evidence each needs for all of them together: m (m - 1) / 2
comparisons take ln(m (m - 1) / 2 / alpha) nats. So the number grows with the logarithm of the roster.
"""

from __future__ import annotations

import math
from functools import lru_cache

from testbench_dagster.core.task import MOST_PROBES
from testbench_dagster.identity.settings import IdentitySettings
from testbench_dagster.statistics.evalues import log_e_at_least, log_e_at_most
from testbench_dagster.statistics.multiplicity import family_wise_threshold

_LEAST_PROMPTS = 20
#: How often two that are alike give the same beginning: measured .95 to .9965 at temperature 0.
_TWINS = 0.97
#: Nine of ten pairs are to be decided.
_POWER = 0.9


@lru_cache(maxsize=256)
def needed_prompts(suppliers: int, settings: IdentitySettings | None = None) -> int:
    """Common prompts after which nine of ten pairs among so many suppliers of a service are decided.

    Twins that agree on .97 of the prompts, as alike; suppliers that agree on as many as one lineage may, as
    different. Habits that all models share are taken to be as common as
    :class:`~testbench_dagster.identity.settings.IdentitySettings` assumes before anything is known. From 20
    to :data:`~testbench_dagster.core.task.MOST_PROBES`. Raises ValueError for a negative number.
    """
    if suppliers < 0:
        raise ValueError(f"suppliers must be 0 or more, got {suppliers}")
    chosen = settings or IdentitySettings()
    pairs = max(1, suppliers * (suppliers - 1) // 2)
    alike = family_wise_threshold(pairs, chosen.merge_alpha)
    apart = family_wise_threshold(pairs, chosen.split_alpha)
    others = max(0, suppliers - 2)
    habit = chosen.prior_groups * chosen.prior_collision / (others + chosen.prior_groups)
    null = chosen.null_floor + (1 - chosen.null_floor) * habit
    for n in range(_LEAST_PROMPTS, MOST_PROBES):
        twins = _quantile(n, _TWINS, 1 - _POWER)
        strangers = _quantile(n, chosen.lineage_agreement, _POWER)
        if (
            float(log_e_at_most(twins, n - twins, null, chosen.merge_shares)) >= alike
            and float(log_e_at_least(strangers, n - strangers, chosen.split_agreement, chosen.split_ratios))
            >= apart
        ):
            return n
    return MOST_PROBES


def _quantile(n: int, share: float, level: float) -> int:
    """The smallest number of n that a binomial count of this share does not exceed with ``level``."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * share**k * (1 - share) ** (n - k)
        if total >= level:
            return k
    return n
