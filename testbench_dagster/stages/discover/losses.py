"""Sudden losses: a source that leaves out many suppliers at once is not believed at the first look.

An empty list, the first page of several, a list that was cut short: all look as if suppliers had left. The
rule: where a source leaves out all that are known of it, or more than ``roster.loss_share`` of them within
``roster.loss_minutes`` (ten may always leave), its suppliers stay until ``roster.loss_looks`` looks in a row
over at least that time missed the same ones. Fewer leave at once. A share of 1 believes every loss at once.

Looks are apart: by default three over an hour, a quarter of an hour or more after one another. What a command
looks at twice within seconds is one look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from testbench_dagster.config.settings import RosterSettings
from testbench_dagster.core.records.sources import SourceLossRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.stores.documents import DocumentStore, typed

#: So many may leave a source at once, whatever its size, unless they are all it has: in a small network
#: suppliers come and go, and a list that was cut short leaves out more.
FEW = 10
_MARK = 16  # characters: a document holds those of nine hundred thousand suppliers


@dataclass(frozen=True)
class Look:
    """What a source was seen to have: active suppliers known of it, whom of them it leaves out now.

    ``gone`` is how many left it within ``roster.loss_minutes`` before.
    """

    known: int
    missing: Collection[str]
    gone: int = 0


@dataclass(frozen=True)
class Losses:
    """Whom sources leave out and who stays all the same, by source; why, in words, by source."""

    kept: Mapping[str, frozenset[str]]
    told: Mapping[str, str]


def is_sudden(look: Look, share: float) -> bool:
    """Whether a source leaves out so many that it is more likely at fault than right."""
    if not look.missing or share >= 1:
        return False
    missing = len(look.missing)
    return missing >= look.known or missing + look.gone > max(FEW, share * (look.known + look.gone))


def judge_losses(
    documents: DocumentStore, settings: RosterSettings, looks: Mapping[str, Look], now: datetime
) -> Losses:
    """Say of whom sources leave out who stays, and remember what was seen for the next look.

    Args:
        documents: the store.
        settings: how much is believed, and when.
        looks: by name what the sources that could be read have.
        now: the instant of the look.

    Raises:
        StoreError: the store failed.
    """
    before = {loss.id: loss for loss in typed.find(documents, SourceLossRecord)}
    kept: dict[str, frozenset[str]] = {}
    told: dict[str, str] = {}
    over = set(before) & set(looks)
    for label, look in looks.items():
        if not is_sudden(look, settings.loss_share):
            continue
        loss = _seen_again(before.get(label), label, look, now, settings)
        marks = {loss.marks[i : i + _MARK] for i in range(0, len(loss.marks), _MARK)}
        lasted = now - loss.since >= timedelta(minutes=settings.loss_minutes)
        believed = lasted and loss.looks >= settings.loss_looks
        stay = frozenset(key for key in look.missing if not believed or _mark(key) not in marks)
        if not believed:
            typed.upsert(documents, SourceLossRecord, [loss])
            over.discard(label)
        if stay:
            kept[label], told[label] = stay, _words(label, loss, settings)
    for label in over:
        typed.purge(documents, SourceLossRecord, {"_id": label})
    return Losses(kept, told)


def _seen_again(
    before: SourceLossRecord | None, label: str, look: Look, now: datetime, settings: RosterSettings
) -> SourceLossRecord:
    marks = {_mark(key) for key in look.missing}
    since, looked_at, looks = now, now, 1
    if before is not None and before.since <= before.looked_at <= now:  # else a clock was set back since
        marks &= {before.marks[i : i + _MARK] for i in range(0, len(before.marks), _MARK)}
        since, looked_at, looks = before.since, before.looked_at, before.looks
        # one more than have to agree fit into the time that they have to agree for
        if now - looked_at >= timedelta(minutes=settings.loss_minutes / (settings.loss_looks + 1)):
            looked_at, looks = now, looks + 1
    return SourceLossRecord(
        id=label,
        since=since,
        looked_at=looked_at,
        looks=looks,
        known=look.known,
        missing=len(look.missing),
        marks="".join(sorted(marks)),
    )


def _mark(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=_MARK // 2).hexdigest()


def _words(label: str, loss: SourceLossRecord, settings: RosterSettings) -> str:
    lists = "lists none of" if loss.missing >= loss.known else f"leaves out {loss.missing} of"
    agree = (
        f"{counted(settings.loss_looks, 'look')} over {counted(settings.loss_minutes, 'minute', 'g')} agree "
        f"({loss.looks} so far, since {loss.since:%Y-%m-%d %H:%M} UTC)"
    )
    return (
        f"{label}: {lists} the {counted(loss.known, 'supplier')} known of it, which is not believed yet: "
        f"they stay until {agree}; correct the source, or set roster.loss_share: 1 to believe it at once"
    )
