"""Sharing a number of relays fairly."""

from __future__ import annotations

from collections.abc import Mapping

_NOTHING: Mapping[str, int] = {}


def fair_shares(total: int, demands: Mapping[str, int], had: Mapping[str, int] = _NOTHING) -> dict[str, int]:
    """Share ``total`` among ``demands``: max-min fair, in whole numbers, what each has had before included.

    Nobody gets more than demanded. Together with what it ``had`` (0 where it is not named), whoever gets less
    than demanded ends as high as anybody who gets something, or, where it does not divide, one lower: the
    remainder goes to the first of those by key. Who had more than that already gets nothing. All of ``total``
    is given away unless all demands are met. Raises ValueError when a number is negative.
    """
    if total < 0 or any(number < 0 for number in (*demands.values(), *had.values())):
        raise ValueError(f"want no negative numbers, got {total} to share among {dict(demands)} with {had}")

    def raised_to(level: int) -> dict[str, int]:
        return {key: min(demand, max(0, level - had.get(key, 0))) for key, demand in demands.items()}

    # the highest level to which all can be raised
    low, high = 0, max((demand + had.get(key, 0) for key, demand in demands.items()), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(raised_to(middle).values()) <= total:
            low = middle
        else:
            high = middle - 1
    shares = raised_to(low)
    remainder = total - sum(shares.values())
    above = raised_to(low + 1)
    for key in sorted(key for key in demands if above[key] > shares[key])[:remainder]:
        shares[key] += 1
    return shares
