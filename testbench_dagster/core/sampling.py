"""How many docs a supplier answers: the sampling rule, and what is measured so far."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from statistics import NormalDist, median
from typing import Annotated, Any

from pydantic import Field, model_serializer, model_validator

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.pairs import paired_order
from testbench_dagster.core.rules import Strict
from testbench_dagster.core.wording import counted

#: Below so many groups of suppliers, those of one stake owner being one, an epoch begins with
#: ``samples.start`` docs.
LEAST_GROUPS = 5
#: For how many times the maximum age of a score a task's number of docs stays as it was measured. Set anew
#: from week to week it would follow the docs that it was set from: each time they were right by chance it
#: would fall, each time they were wrong others would be added, and scores would be too high.
STAYS = 4
#: The round of docs that are asked for a gate alone: no score rests on them.
GATE_ROUND = 0
#: Most docs that a rule may name.
MOST_IDS = 100_000
_Z = NormalDist().inv_cdf(0.975)  # of two-sided 95 %


class SampleRule(Strict):
    """How many docs of a task each supplier answers: the same number for all in an epoch.

    From ``min`` to ``max``: as many as a 95 % interval of at most ``2 * half_width`` needs, by what rows said
    of how scores vary when the number was set, and ``start`` before they do. With ``half_width: null`` always
    ``max``. With ``ids`` exactly these docs, rows of the task's data from 0, as lm-eval's ``--samples`` has
    them; the other four then follow.
    """

    min: int = Field(default=25, ge=1)
    start: int = Field(default=50, ge=1)
    max: int = Field(default=100, ge=1)
    half_width: float | None = Field(default=0.1, gt=0, lt=0.5)
    ids: tuple[Annotated[int, Field(ge=0, strict=True)], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_ids(cls, value: Any) -> Any:
        ids = value.get("ids") if isinstance(value, dict) else None
        if ids is not None and not isinstance(ids, (list, tuple)):
            raise ValueError(f"ids: {ids!r} is no list of rows of the task's data; write e.g. ids: [0, 7]")
        if not ids:
            return value
        follows = {"min": len(ids), "start": len(ids), "max": len(ids), "half_width": None}
        for name, number in follows.items():
            if name in value and value[name] != number:
                raise ValueError(
                    f"ids says which docs are asked, so {name} means nothing (it is {value[name]!r}); remove "
                    "one of them"
                )
        return {**value, **follows}

    @model_serializer(mode="wrap")
    def _without_none(self, written: Callable[[SampleRule], dict[str, Any]]) -> dict[str, Any]:
        """As earlier versions wrote it, where it names no docs."""
        return {name: value for name, value in written(self).items() if name != "ids" or value is not None}

    @model_validator(mode="after")
    def _each_once(self) -> SampleRule:
        if self.ids is not None and not 1 <= len(self.ids) <= MOST_IDS:
            raise ValueError(
                f"ids names {counted(len(self.ids), 'doc')}; name from 1 to {MOST_IDS:,}, or leave it out"
            )
        twice = next((i for i, n in Counter(self.ids or ()).items() if n > 1), None)
        if twice is not None:
            raise ValueError(f"ids names the doc {twice} twice; name each once")
        return self

    @model_validator(mode="after")
    def _ordered(self) -> SampleRule:
        if self.min > self.max:
            raise ValueError(f"min {self.min} exceeds max {self.max}; lower min or raise max")
        return self


def named_docs(rule: SampleRule | None) -> frozenset[int] | None:
    """The docs that a rule names, None where it names none and all may be asked."""
    return None if rule is None or rule.ids is None else frozenset(rule.ids)


@dataclass(frozen=True)
class Measured:
    """What the current window says.

    ``n`` scored docs with the ``mean`` of their primary metric (None where it is no mean of values in
    [0, 1]). ``values`` are the scores themselves in the order they were answered, for sequential gates; empty
    where there is no such mean.
    """

    n: int = 0
    mean: float | None = None
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class CompleteRow:
    """A supplier's complete row of a task in an epoch: the ``variance`` of its values.

    Of right and wrong docs that is ``mean * (1 - mean)``, of other values from 0 to 1 at most as much.
    ``unit``: what is counted once, an identity group or the suppliers of one stake owner.
    """

    supplier: str
    unit: str
    variance: float


@dataclass(frozen=True, slots=True)
class Spread:
    """How the docs of a task vary: the median ``variance`` over ``groups`` of suppliers.

    One stake owner's are one group here. None where too few have a complete row to say.
    """

    groups: int = 0
    variance: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """When the variance was measured that sets a task's number of docs: ``at`` the start of an ``epoch``.

    ``draw`` draws which of the docs asked before that keep their slots, see :func:`kept_docs`.
    """

    epoch: int
    at: datetime
    draw: str


@dataclass(frozen=True, slots=True)
class Slots:
    """On how many ``docs`` of a task everybody's score rests in an epoch.

    ``since``: the epoch that set the number by what had been answered before it, None where nothing that was
    answered did. ``draw`` is its measurement's.
    """

    docs: int
    since: int | None = None
    draw: str = ""


def still_holds(measurement: Measurement | None, now: datetime, max_age: timedelta) -> bool:
    """Whether a number of docs stays: until :data:`STAYS` times the maximum age after it was measured.

    One whose date is ahead of ``now``, by a clock that was set back since, does not.
    """
    if measurement is None or is_ahead(measurement.at, now):
        return False
    return now < measurement.at + STAYS * max_age


def kept_docs(draw: str, older: Collection[int], most: int) -> set[int]:
    """The docs asked before a number was measured that keep a slot, at most ``most``, the same for everybody.

    The number follows from what they were answered. Were all of them kept, they would be a larger part of a
    small number than of a large one: of a score most where they were right by chance. With ``n`` docs before,
    of which ``m`` were right, and ``n2`` after, ``E[(m - p) n / n2] > 0`` above one half. If they are half of
    however many, ``E[(m - p) / 2] = 0``. Which ones has to follow from nothing that was answered either: it
    is drawn by what is first published with the number.
    """
    if len(older) <= most:
        return set(older)
    return set(sorted(older, key=partial(_drawn, draw))[:most])


@lru_cache(maxsize=1 << 15)  # every supplier's older docs are the same
def _drawn(draw: str, doc_id: int) -> bytes:
    return hashlib.sha256(f"{draw}:kept:{doc_id}".encode()).digest()


def common_spread(rows: Iterable[CompleteRow]) -> Spread:
    """The median variance of the complete rows of an epoch, of each unit the first supplier's by key.

    Below five units there is none: no supplier may set its own number of docs.
    """
    of_unit: dict[str, CompleteRow] = {}
    for row in rows:
        known = of_unit.get(row.unit)
        if known is None or row.supplier < known.supplier:
            of_unit[row.unit] = row
    if len(of_unit) < LEAST_GROUPS:
        return Spread(len(of_unit))
    return Spread(len(of_unit), median(row.variance for row in of_unit.values()))


def common_docs(rule: SampleRule | None, available: int, variance: float | None) -> int:
    """How many docs of a task every supplier is asked in an epoch, whatever it answers there.

    All for no rule, ``max`` for one without a half width. Else the smallest number from ``min`` to ``max`` at
    which Wilson's 95 % interval is at most twice the half width for a share with that variance of its docs;
    ``start`` while no variance is known. Never more than are ``available``. It depends on nothing that is
    answered in the epoch, for stopping at a width is stopping while ahead.

    Args:
        rule: the task's sampling rule.
        available: docs of its split.
        variance: that of the epoch's :class:`Spread`.
    """
    if rule is None:
        return available
    top = min(rule.max, available)
    low = min(rule.min, top)
    if rule.half_width is None:
        return top
    if variance is None:
        return max(low, min(top, rule.start))
    share, wanted = 0.5 + math.sqrt(0.25 - min(0.25, variance)), rule.half_width
    sizes = range(low, top)  # beyond them the bound decides
    return low + bisect_left(sizes, True, key=lambda n: _wilson_half_width(share, n, _Z) <= wanted)


def predicted_half_width(measured: Measured, more: int) -> float | None:
    """Half width of the 95 % Wilson interval if ``more`` docs were scored besides, at the present mean.

    The mean is taken as 0.5, the widest, while it is unknown. None when there would be no doc at all.
    """
    n = measured.n + more
    if n <= 0:
        return None
    return _wilson_half_width(0.5 if measured.mean is None else measured.mean, n, _Z)


def _wilson_half_width(mean: float, n: int, z: float) -> float:
    return z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))


def sequence(seed: str, n_docs: int) -> list[int]:
    """Order the docs 0 … n_docs-1 by the SHA-256 of seed and doc id: the permutation of an epoch.

    Anyone can recompute it from the published seed, in any language.
    """
    return sorted(range(n_docs), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def asked_order(seed: str, n_docs: int, doc_ids: Collection[int] | None, *, pairs: bool = False) -> list[int]:
    """The docs of an epoch in the order they are asked: all, or those that it names, in the same order.

    ``pairs``: the task's docs are pairs, of which both halves are asked, though not one after the other.
    """
    order = paired_order(seed, n_docs) if pairs else sequence(seed, n_docs)
    if doc_ids is None:
        return order
    named = frozenset(doc_ids)
    return [doc for doc in order if doc in named]


def asks_again(seed: str, doc_id: int) -> bool:
    """Whether a slot of a score that falls due in an epoch asks its doc again, or takes a new one.

    Half of the docs do, drawn by the epoch's secret seed: the same ones for every supplier, and nobody knows
    beforehand which.
    """
    return hashlib.sha256(f"{seed}:again:{doc_id}".encode()).digest()[0] % 2 == 0
