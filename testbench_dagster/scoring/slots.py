"""Which docs a score rests on: as many slots as everybody is asked docs, each with its last outcome.

No order here looks at values: a supplier cannot choose by its answers which docs count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from testbench_dagster.core.window import Sample


def fill_slots(
    docs: Iterable[Sample], most: int, since: datetime, asked_again: Collection[int] = ()
) -> list[Sample]:
    """Of what counts of each doc that which fills ``most`` slots, and the docs that are open besides.

    Outcomes later than ``since`` come first, the newest of them; one that is older keeps its slot until
    another closes, that of the same doc where it is ``asked_again``. Docs without an outcome, asked since,
    have the slots that are empty, and count beyond them where no older outcome stands for them.
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
    young = newest_docs(young, most)
    older.sort(key=lambda s: (s.doc_id in asked_again, s.at, s.doc_id), reverse=True)
    kept = older[: most - len(young)]
    empty = most - len(young) - len(kept)
    without.sort(key=lambda s: (s.epoch, s.position, s.doc_id))
    return [*young, *kept, *without[: max(empty, len(without) - len(kept))]]


def newest_docs(samples: Iterable[Sample], most: int) -> list[Sample]:
    """Of samples of different docs so many at most, the newest ones, the newest first."""
    return sorted(samples, key=lambda s: (s.at, s.doc_id), reverse=True)[:most]
