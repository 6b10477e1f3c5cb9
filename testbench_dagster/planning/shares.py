"""Sharing a number of relays fairly."""

from __future__ import annotations

from collections.abc import Mapping


def fair_shares(total: int, demands: Mapping[str, int]) -> dict[str, int]:
    """Share ``total`` among ``demands``: max-min fair, in whole numbers.

    Nobody gets more than demanded. Whoever gets less gets as much as anybody, or, where it does not divide,
    one less: the remainder goes to the first of those by key. All of ``total`` is given away unless all
    demands are met. Raises ValueError when a number is negative.
    """
    if total < 0 or any(demand < 0 for demand in demands.values()):
        raise ValueError(f"want no negative numbers, got {total} to share among {dict(demands)}")
    left, waiting = total, len(demands)
    level, remainder = max(demands.values(), default=0), 0
    for demand in sorted(demands.values()):  # fill up the small ones first
        if demand * waiting > left:
            level, remainder = divmod(left, waiting)
            break
        left -= demand
        waiting -= 1
    shares = {}
    for key in sorted(demands):
        share = min(demands[key], level)
        if remainder and demands[key] > level:
            share += 1
            remainder -= 1
        shares[key] = share
    return {key: shares[key] for key in demands}
