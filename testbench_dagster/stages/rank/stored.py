"""Rankings as they are stored: a document each, and further ones where it would be too large.

MongoDB takes documents of 16 MB: a ranking of 50,000 suppliers has 18. A ranking and its parts say when they
were made. The parts are written before the document that counts them, and those of before are removed after
it; who reads in between finds parts missing, and reads again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.rankings import GroupScoresRecord, LeaderboardRecord, RankingPartRecord
from testbench_dagster.stores.documents import DocumentStore, document_id, typed

R = TypeVar("R", LeaderboardRecord, GroupScoresRecord)
#: Suppliers in a document: some 750 KB.
MOST = 2_000
_LOOKS, _PAUSE_S = 50, 0.1


def write_rankings(documents: DocumentStore, kind: type[R], rankings: Sequence[R]) -> None:
    """Store rankings, whose ``entries`` are all, replacing the last ones of the same ids.

    Raises:
        StoreError: the store failed.
    """
    for ranking in rankings:
        rest = [ranking.entries[i : i + MOST] for i in range(MOST, len(ranking.entries), MOST)]
        for number, entries in enumerate(rest, start=1):  # one at a time: together they may be too large
            part = RankingPartRecord(
                id=document_id("ranking part", ranking.id, str(ranking.made_at), number),
                ranking=ranking.id,
                made_at=ranking.made_at,
                number=number,
                entries=entries,
            )
            typed.upsert(documents, RankingPartRecord, [part])
        head = replace(ranking, entries=ranking.entries[:MOST], parts=len(rest))
        typed.upsert(documents, kind, [head])
        before = {"ranking": ranking.id, "made_at": {"lt": ranking.made_at}}
        typed.purge(documents, RankingPartRecord, before)


def all_entries(documents: DocumentStore, ranking: R) -> list[dict[str, Any]] | None:
    """The entries of a stored ranking, those of its parts too; None where it is being replaced.

    Raises:
        StoreError: the store failed.
    """
    if not ranking.parts:
        return ranking.entries
    where = {"ranking": ranking.id, "made_at": ranking.made_at}
    others: list[RankingPartRecord] = list(
        typed.find(documents, RankingPartRecord, where, sort=[("number", 1)])
    )
    if len(others) != ranking.parts:
        return None
    return [*ranking.entries, *(entry for part in others for entry in part.entries)]


def read_ranking(documents: DocumentStore, kind: type[R], id_: str) -> R | None:
    """A ranking with all its entries, as it stands now; None where there is none.

    Raises:
        StoreError: the store failed, or the ranking's parts are lost.
    """
    for _ in range(_LOOKS):
        ranking = typed.get(documents, kind, id_)
        if ranking is None:
            return None
        entries = all_entries(documents, ranking)
        if entries is not None:
            return replace(ranking, entries=entries)
        time.sleep(_PAUSE_S)
    raise StoreError(
        f"{kind.collection.name} {id_}: some of its parts are lost; the next `testbench run` makes it anew"
    )
