"""Which docs a score rests on: as many slots as everybody is asked docs, each with its last outcome.

No order here looks at values, nor at when an answer came: a supplier cannot choose which docs count, neither
by its answers nor by how long it takes for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from testbench_dagster.core.sampling import Slots, kept_docs
from testbench_dagster.core.window import Sample


def fill_slots(
    docs: Iterable[Sample], slots: Slots, since: datetime, asked_again: Collection[int] = ()
) -> list[Sample]:
    """Of what counts of each doc that which fills the ``slots``, and the docs that are open besides.

    Outcomes later than ``since`` come first, those of the newest epoch of them, there those of the latest
    round, there the first of the sequence: all that is fixed before they are asked. Docs of epochs before
    the one that set the number have at most half of the slots, see
    :func:`testbench_dagster.core.sampling.kept_docs`. Others of these, and outcomes that are older, keep
    a slot until another closes, that of the same doc where it is ``asked_again``, else in the same order.
    Docs without an outcome, asked since, have the slots that are empty, and count beyond them where no older
    outcome stands for them.
    """
    young: list[Sample] = []
    older: list[Sample] = []
    without: list[Sample] = []
    for sample in docs:
        if not sample.closed:
            if sample.at > since:
                without.append(sample)
        else:
            (young if sample.at > since else older).append(sample)
    most = slots.docs
    left = _leaving(young, [*older, *without], slots)
    young = sorted((s for s in young if s.doc_id not in left), key=_place)[:most]
    older.sort(key=lambda s: (s.doc_id not in asked_again, _place(s)))
    kept = [*left.values(), *older][: most - len(young)]
    empty = most - len(young) - len(kept)
    without.sort(key=lambda s: s.place)
    return [*young, *kept, *without[: max(empty, len(without) - len(kept))]]


def _leaving(young: Sequence[Sample], others: Sequence[Sample], slots: Slots) -> dict[int, Sample]:
    """Of the young outcomes by doc those whose slots others take, in the order in which they keep them."""
    if slots.since is None:
        return {}
    before = {s.doc_id for s in (*young, *others) if s.epoch < slots.since}
    kept = kept_docs(slots.draw, before, slots.docs // 2)
    leaving = [s for s in young if s.doc_id in before and s.doc_id not in kept]
    return {s.doc_id: s for s in sorted(leaving, key=_place)}


def _place(sample: Sample) -> tuple[int, int, int, int]:
    """Which outcomes come first where there are more than slots: by what was known before the doc was asked.

    By the time of the answer a supplier would choose: it answers slowly where it is sure.
    """
    return (-sample.epoch, -sample.round, sample.position, sample.doc_id)
