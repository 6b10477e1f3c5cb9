"""Places of a leaderboard: one for each unit, its members inside, and shares of "best" that add up to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbench_dagster.ranking.entry import Entry


@dataclass(frozen=True)
class Place:
    """One place: who stands for it, all entries in it, and the share of chance that it is the best.

    ``share`` adds up to 1 over the places that are ranked together; None for who is not ranked.
    """

    first: Entry
    rows: Sequence[Entry]
    share: float | None


def places(rows: Sequence[Entry]) -> list[Place]:
    """Bring the entries of one ranking, best first, together by unit, in the order of the best of each.

    Its proxy stands for an identity group, the best of them for any other unit. ``p_best`` counts a tie for
    each who is in it; its parts of the whole are what is shown.
    """
    together: dict[tuple[str, str], list[Entry]] = {}
    for row in rows:
        key = ("supplier", row.supplier) if row.unit is None else ("unit", row.unit)
        together.setdefault(key, []).append(row)
    units = [_proxy_first(members) for members in together.values()]
    totals: dict[str | None, float] = {}
    for members in units:
        among = members[0].ranked_among
        totals[among] = totals.get(among, 0.0) + (_chance(members) or 0.0)
    return [
        Place(members[0], members, _share(_chance(members), totals[members[0].ranked_among]))
        for members in units
    ]


def shares_of_best(found: Sequence[Place]) -> dict[str, float | None]:
    """By supplier the share of "best" of its place, so rounded that those ranked together add up to 1."""
    together: dict[str | None, list[Place]] = {}
    for place in found:
        together.setdefault(place.first.ranked_among, []).append(place)
    return {
        row.supplier: share
        for among in together.values()
        for place, share in zip(among, rounded_shares([p.share for p in among]), strict=True)
        for row in place.rows
    }


def _proxy_first(members: Sequence[Entry]) -> list[Entry]:
    return sorted(members, key=lambda row: row.supplier != row.proxy)


def _chance(members: Sequence[Entry]) -> float | None:
    """The chance of a place: members of a unit have it together."""
    known = [row.p_best for row in members if row.p_best is not None]
    return max(known, default=None)


def _share(chance: float | None, total: float) -> float | None:
    return None if chance is None else chance / total if total else 0.0


def rounded_shares(shares: Sequence[float | None], steps: int = 1000) -> list[float | None]:
    """Shares in whole steps that add up to what the shares add up to: the largest remainders are rounded up.

    Rounded one by one, the percentages of a table would add up to 99 or 101.
    """
    known = [(place, share * steps) for place, share in enumerate(shares) if share is not None]
    found: list[float | None] = [None] * len(shares)
    for place, share in known:
        found[place] = int(share) / steps
    missing = round(sum(share for _, share in known)) - sum(int(share) for _, share in known)
    by_remainder = sorted(known, key=lambda one: -(one[1] - int(one[1])))
    for place, share in by_remainder[:missing]:
        found[place] = (int(share) + 1) / steps
    return found
