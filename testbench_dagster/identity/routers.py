"""Partial routers: suppliers a part of whose answers is another group's, while the rest is their own.

Where a supplier departs from its *baseline*, the departure is looked at: does it say what another group says?
The baseline is what the other members of its group answer, or, of one that stands alone, the group it is most
like; or else its own answer to the same prompt at another time. An honest supplier departs by a token that
could have gone either way, and a related model may have gone the other way there: in up to three of ten
departures (:attr:`RouterSettings.null`, more where others say so too) that is no evidence. A router departs
where the request went elsewhere, and says what is said there nearly always. Each prompt counts once, with the
first departure from it, so that a habit is not taken for many.

Groups that answer much like the baseline are not looked at: there a departure is theirs by
kinship. Reported with the estimated share and its interval; nothing follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.answers import AnswerTable
from testbench_dagster.identity.counts import agreements
from testbench_dagster.identity.evidence import NONE, Evidence
from testbench_dagster.identity.groups import Grouping
from testbench_dagster.identity.kernel import Answer, kernel
from testbench_dagster.identity.pairs import Collisions, majorities
from testbench_dagster.identity.settings import IdentityError
from testbench_dagster.statistics.evalues import gain_of_agreement, log_mean_exp
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.statistics.multiplicity import family_wise_threshold

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """The constants of partial routers. IdentityError when out of range."""

    #: Probability that any supplier of a service that routes nothing is named at one look.
    alpha: float = 0.001
    #: Share of departures that may be another group's by kinship, and the alternatives between it and 1.
    #: Measured on the AlpacaEval answers of 13 models: where a model differs from another that it is most
    #: like, it begins as a third one does in .23 of the prompts at most (three Llamas), the first .13 else.
    null: float = 0.3
    shares: tuple[float, ...] = (0.3, 0.6, 0.9)
    #: From such a rate of agreement with the baseline another group is its kin, and not looked at.
    kin: float = 0.45
    #: Least rate of agreement of one that stands alone with the group that is its baseline.
    like: float = 0.4
    #: From such a rate of agreement with a group one that stands alone is taken to be of it, if noisier: what
    #: varies of its answers is that group's then, and no departure.
    itself: float = 0.6
    #: Groups, by departures in common, that are looked at of a supplier.
    nearest: int = 8

    def __post_init__(self) -> None:
        for name in ("alpha", "null", "kin", "like", "itself"):
            if not 0 < getattr(self, name) < 1:
                raise IdentityError(
                    f"{name} must lie between 0 and 1, both excluded; got {getattr(self, name)}"
                )


@dataclass(frozen=True, slots=True)
class Router:
    """That a supplier's departures are the answers of ``group``.

    ``share`` of its answers on ``prompts`` prompts were that group's where that differs from the baseline;
    ``low`` and ``high`` are its 95 % interval. ``baseline`` is the group, or None for its own other answers.
    """

    supplier: str
    group: str
    baseline: str | None
    share: float
    low: float
    high: float
    prompts: int
    departures: int
    hits: int
    log_e: float
    threshold: float
    since: datetime
    until: datetime
    wording: str


def find_routers(
    evidence: Evidence, grouping: Grouping, answers: Iterable[Answer], settings: RouterSettings | None = None
) -> list[Router]:
    """Suppliers whose departures from what they answer otherwise are another group's, by name.

    ``answers`` are those that the evidence was made of: of a prompt asked again all count, not the newest.
    """
    import numpy as np

    settings = settings or RouterSettings()
    groups = grouping.groups
    if len(groups) < 2:
        return []
    place = {member: g for g, group in enumerate(groups) for member in group.members}
    labels = np.array([place[name] for name in evidence.suppliers], dtype=np.int64)
    majority = majorities(evidence.cells, labels, len(groups))
    collisions = Collisions(majority, evidence.settings)
    kin: dict[int, np.ndarray] = {}
    histories = _Histories(evidence, AnswerTable.of(answers))
    sizes = np.bincount(labels, minlength=len(groups))
    looks = len(labels) + int((sizes[labels] == 1).sum())  # who stands alone has two baselines
    threshold = family_wise_threshold(looks * (len(groups) - 1), settings.alpha)
    found = []
    for s in range(len(evidence.suppliers)):
        own, history = int(labels[s]), histories.of(s)
        best: Router | None = None
        for baseline, base in _baselines(evidence, labels, majority, sizes, s, settings):
            cells, first = _departures(history, base)
            # of what it was asked again, its own answer that most others do not give is the departure
            differ = (cells != NONE) & (base >= 0)
            rows = np.flatnonzero(differ)
            if len(rows) < 5:
                continue
            matches = majority[:, rows] == cells[rows]
            matches[own] = False
            if baseline is not None:
                matches[baseline] = False
                if baseline not in kin:
                    kin[baseline] = _kin(majority, baseline, evidence, settings)
                matches[kin[baseline]] = False
            else:
                matches[_alike(evidence, majority, s) >= settings.itself] = False
            for x in np.argsort(-matches.sum(axis=1), kind="stable")[: settings.nearest]:
                there = majority[x, rows]
                telling = (there != NONE) & (there != base[rows])
                hit = matches[x] & telling
                n, k = int(telling.sum()), int(hit.sum())
                if k < 5:
                    break
                t = rows[hit]
                second = np.full(len(t), own if baseline is None else baseline)
                habit = collisions.shares(cells[t], t, np.full(len(t), x), second)
                null = settings.null + (1 - settings.null) * np.minimum(habit, 1.0)
                log_e = float(
                    log_mean_exp(
                        [
                            float(gain_of_agreement(null, share).sum()) + (n - k) * math.log1p(-share)
                            for share in settings.shares
                        ]
                    )
                )
                if log_e < threshold or (best is not None and log_e <= best.log_e):
                    continue
                best = _router(
                    evidence, groups[int(x)].id, None if baseline is None else groups[baseline].id, s,
                    history, base, majority[x], n, k, log_e, threshold, first[t],
                )  # fmt: skip
        if best is not None:
            found.append(best)
    return sorted(found, key=lambda router: router.supplier)


def _kin(majority: np.ndarray, group: int, evidence: Evidence, settings: RouterSettings) -> np.ndarray:
    """Which groups answer almost as one does."""
    common, agree = agreements(majority[group : group + 1], majority)
    kin: np.ndarray = (common[0] >= evidence.settings.least_common) & (agree[0] >= settings.kin * common[0])
    return kin


class _Histories:
    """Of each supplier by prompt: when it answered, and what, numbered as in the evidence."""

    def __init__(self, evidence: Evidence, answers: AnswerTable) -> None:
        import numpy as np

        self._evidence, self._answers = evidence, answers.since(evidence.cut_at)
        self._prompts = {prompt: t for t, prompt in enumerate(evidence.prompts)}
        cells, first = np.unique(evidence.cells, return_index=True)
        self._number: dict[tuple[int, str], int] = {}
        for cell, place in zip(cells.tolist(), first.tolist(), strict=True):
            if cell != NONE:
                s, t = divmod(place, len(evidence.prompts))
                text = evidence.texts[int(evidence.answer_prefix[s, t])]
                self._number[t, self._key(text) or ""] = cell
        self._fresh = int(evidence.cells.max(initial=0)) + 1

    def _key(self, text: str) -> str | None:
        return kernel(text, self._evidence.settings.prefix_chars)

    def of(self, s: int) -> dict[int, list[tuple[float, int]]]:
        """Those of a supplier, by its row."""
        found: dict[int, list[tuple[float, int]]] = {}
        for answer in self._answers.of_supplier(self._evidence.suppliers[s]):
            key, prompt = self._key(answer.answer_prefix), self._prompts.get(answer.prompt)
            if key is None or prompt is None:
                continue
            # said by nobody lately
            cell = self._number.setdefault((prompt, key), self._fresh + len(self._number))
            found.setdefault(prompt, []).append((answer.at.timestamp(), cell))
        for said in found.values():
            said.sort()
        return found


def _baselines(
    evidence: Evidence,
    labels: np.ndarray,
    majority: np.ndarray,
    sizes: np.ndarray,
    s: int,
    settings: RouterSettings,
) -> list[tuple[int | None, np.ndarray]]:
    """What a supplier is expected to answer to each prompt: as its group, or as the group it is most like.

    And, of one that is asked again, as it answered itself: the answer that it gave most often.
    """
    import numpy as np

    own = int(labels[s])
    if sizes[own] > 1:
        mates = np.flatnonzero((labels == own) & (np.arange(len(labels)) != s))
        # the majority of many hardly depends on one: what all say is then taken for what the others say
        base = (
            majorities(evidence.cells[mates], np.zeros(len(mates), dtype=np.int64), 1)[0]
            if len(mates) < 6
            else majority[own]
        )
        return [(own, base)]
    row = evidence.cells[s]
    rate = _alike(evidence, majority, s)
    rate[own] = 0.0
    nearest = int(rate.argmax())
    found: list[tuple[int | None, np.ndarray]] = []
    if rate[nearest] >= settings.like:
        found.append((nearest, majority[nearest]))
    return [*found, (None, np.full(len(row), NONE - 1, dtype=row.dtype))]


def _alike(evidence: Evidence, majority: np.ndarray, s: int) -> np.ndarray:
    """By group the share of common prompts that a supplier answers as it does; 0 where these are few."""
    import numpy as np

    row = evidence.cells[s]
    both = (majority != NONE) & (row != NONE)
    common = both.sum(axis=1)
    agree = (both & (majority == row)).sum(axis=1)
    rate: np.ndarray = np.where(common >= evidence.settings.least_common, agree / np.maximum(common, 1), 0.0)
    return rate


def _departures(
    history: dict[int, list[tuple[float, int]]], base: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """By prompt the first answer that is not the baseline's, NONE where there is none, and when it came.

    Where ``base`` is its own answer (``NONE - 1``), that is filled in: the one it gave most often, the first
    of several; prompts answered in one way only, or once, tell nothing.
    """
    import numpy as np

    cells = np.full(len(base), NONE, dtype=np.int64)
    first = np.full(len(base), np.nan)
    for t, said in history.items():
        if base[t] == NONE - 1 and len(said) > 1:
            given = [cell for _, cell in said]
            base[t] = max(dict.fromkeys(given), key=given.count)
        if base[t] < 0:
            continue
        for at, cell in said:
            if cell != base[t]:
                cells[t], first[t] = cell, at
                break
    return cells, first


def _router(
    evidence: Evidence,
    group: str,
    baseline: str | None,
    s: int,
    history: dict[int, list[tuple[float, int]]],
    base: np.ndarray,
    theirs: np.ndarray,
    departures: int,
    hits: int,
    log_e: float,
    threshold: float,
    times: np.ndarray,
) -> Router:
    """What is told of a router, its share over all answers to prompts that tell the two apart."""
    asked = matched = 0
    prompts = 0
    lengths = []
    for t, said in history.items():
        if theirs[t] == NONE:
            continue
        if baseline is None:
            # prompts that it always answers as the group does may be those on which the two agree
            if len(said) < 2 or all(cell == theirs[t] for _, cell in said):
                continue
            lengths.append(len(said))
        elif base[t] < 0 or theirs[t] == base[t]:
            continue
        prompts += 1
        asked += len(said)
        matched += sum(cell == theirs[t] for _, cell in said)
    share = matched / max(asked, 1)
    low, high = wilson(matched, asked) if asked else (0.0, 1.0)
    share, low, high = (_of_all(float(part), lengths) for part in (share, low, high))
    name = evidence.suppliers[s]
    rest = "as it answers itself at other times" if baseline is None else f"as group {baseline}"
    return Router(
        name, group, baseline, share, low, high, prompts, departures, hits, log_e, threshold,
        datetime.fromtimestamp(float(times.min()), UTC), datetime.fromtimestamp(float(times.max()), UTC),
        f"on {hits} of {counted(departures, 'prompt')} where it does not answer {rest}, it answers as group "
        f"{group} does: {share:.0%} of its answers ({low:.0%} to {high:.0%}) on "
        f"{counted(prompts, 'prompt')} that tell the two apart. It may send a part of its requests there, or "
        "have been tuned on its answers",
    )  # fmt: skip


def _of_all(share: float, lengths: list[int]) -> float:
    """The share of all answers, from that on prompts of which not all answers were the group's.

    ``lengths`` are how often those prompts were answered; without any the share is that of all already. A
    prompt answered n times is left out with a chance of f^n, which leaves (f - f^n) / (1 - f^n) of the rest.
    """
    if not lengths:
        return share
    low, high = 0.0, 1.0
    for _ in range(40):
        f = (low + high) / 2
        left = sum(n * (f - f**n) for n in lengths) / sum(n * (1 - f**n) for n in lengths)
        low, high = (f, high) if left < share else (low, f)
    return (low + high) / 2
