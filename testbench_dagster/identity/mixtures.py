"""Suppliers whose answers are those of two groups: routers and mixtures, or a change not yet noticed.

On prompts where the majorities of two groups differ, a third model says something else most of the time. A
supplier that nearly always gives the answer of one or the other, each in a sizeable share, probably sends its
traffic to both. That it is explained that well is tested like a merge (an e-value against ``null_floor``,
corrected for all suppliers and pairs of groups); that it is nearly always by a lower bound; that both take
part by lower bounds corrected likewise. Such suppliers are reported, and never grouped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.evidence import NONE, Evidence
from testbench_dagster.identity.nearest import Nearest
from testbench_dagster.statistics.evalues import log_e_at_most
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.statistics.multiplicity import family_wise_threshold

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Suspect:
    """A supplier that answers like two groups in turn.

    On ``prompts`` where these differ, ``shares`` of its answers are those of the first and second group, in
    all ``explained``; the ``low`` are lower bounds. ``kind`` is "change" where the answers of one group come
    first and those of the other after: probably a change of its model that was not detected yet.
    """

    supplier: str
    groups: tuple[str, str]
    shares: tuple[float, float]
    shares_low: tuple[float, float]
    explained: float
    explained_low: float
    prompts: int
    kind: Literal["mixture", "change"]
    wording: str
    log_e: float
    threshold: float
    since: datetime
    until: datetime


def find_suspects(
    evidence: Evidence, majority: np.ndarray, labels: np.ndarray, names: tuple[str, ...], nearest: Nearest
) -> tuple[Suspect, ...]:
    """Suspects among the suppliers that stand alone, by name.

    ``majority[g]`` holds the answer prefixes of group g, ``labels[s]`` the group of supplier s. Of each the
    pairs of the groups are looked at that have most of its answers.
    """
    import numpy as np

    settings = evidence.settings
    groups = len(names)
    alone = np.flatnonzero(np.bincount(labels, minlength=groups)[labels] == 1)
    tests = max(len(alone) * (groups - 1) * (groups - 2) // 2, 1)
    threshold = family_wise_threshold(tests, settings.mixture_alpha)
    corrected = 1 - 2 * settings.mixture_alpha / (2 * tests)  # one-sided, two shares each
    found = []
    for s in alone:
        row = evidence.cells[s]
        asked = np.flatnonzero(row != NONE)
        if len(asked) < settings.least_common:
            continue
        mixed = nearest.alike[int(s)]
        mixed = mixed[mixed != labels[s]]
        others = majority[np.ix_(mixed, asked)]
        hits = others == row[asked]
        enough = hits.sum(axis=1) >= settings.mixture_share * len(asked) / 2
        mixed, others, hits = mixed[enough], others[enough], hits[enough]
        # by pair of these groups: on how many prompts they differ, and answered like the first, the second
        apart = (others[:, None] != NONE) & (others[None] != NONE) & (others[:, None] != others[None])
        prompts, like = apart.sum(axis=2), (apart & hits[:, None]).sum(axis=2)
        explained = like + like.T >= settings.mixture_explained * prompts
        explained &= prompts >= settings.least_common
        best: tuple[float, Suspect] | None = None
        for a in range(len(mixed)):
            for b in np.flatnonzero(explained[a, a + 1 :]) + a + 1:
                differ, n = apart[a, b], int(prompts[a, b])
                ka, kb = int(like[a, b]), int(like[b, a])
                e = float(log_e_at_most(ka + kb, n - ka - kb, settings.null_floor, settings.merge_shares))
                explained_low = wilson(ka + kb, n, 0.9)[0]
                lows = wilson(ka, n, corrected)[0], wilson(kb, n, corrected)[0]
                if (
                    e < threshold
                    or explained_low < settings.mixture_explained
                    or min(lows) < settings.mixture_share
                ):
                    continue
                times = evidence.at[s, asked]
                ordered = _one_sided(hits[a][differ], hits[b][differ], times[differ])
                kind: Literal["mixture", "change"] = (
                    "change" if ordered >= settings.mixture_ordered else "mixture"
                )
                suspect = Suspect(
                    supplier=evidence.suppliers[s],
                    groups=(names[mixed[a]], names[mixed[b]]),
                    shares=(ka / n, kb / n),
                    shares_low=lows,
                    explained=(ka + kb) / n,
                    explained_low=explained_low,
                    prompts=n,
                    kind=kind,
                    wording=_wording(names[mixed[a]], names[mixed[b]], ka / n, kb / n, n, kind),
                    log_e=e,
                    threshold=threshold,
                    since=datetime.fromtimestamp(float(times[differ].min()), UTC),
                    until=datetime.fromtimestamp(float(times[differ].max()), UTC),
                )
                if best is None or e > best[0]:
                    best = (e, suspect)
        if best:
            found.append(best[1])
    return tuple(found)


def _one_sided(first: np.ndarray, second: np.ndarray, times: np.ndarray) -> float:
    """Share of answers explained by "all of one group before a date, all of the other after", at best."""
    import numpy as np

    order = np.argsort(times, kind="stable")
    a, b = first[order].astype(int), second[order].astype(int)
    total = int((a | b).sum())
    before_a, before_b = np.append(0, a.cumsum()), np.append(0, b.cumsum())
    a_then_b = before_a + (b.sum() - before_b)
    b_then_a = before_b + (a.sum() - before_a)
    return float(max(a_then_b.max(), b_then_a.max()) / max(total, 1))


def _wording(a: str, b: str, share_a: float, share_b: float, n: int, kind: str) -> str:
    of = f"of {counted(n, 'prompt')}"
    text = f"answers like group {a} on {share_a:.0%} and like group {b} on {share_b:.0%} {of}"
    if kind == "change":
        return f"{text}, one after the other: its model may have changed"
    return f"{text}, in no order of time: it may be a router or mixture"
