"""Rankings that do not fit into one document: written whole, read whole, also while they are replaced."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.rankings import GroupScoresRecord, LeaderboardRecord, RankingPartRecord
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.stages.rank import stored
from testbench_dagster.stages.rank.stored import MOST, all_entries, read_ranking, write_rankings
from testbench_dagster.stores.documents import DocumentStore, open_documents, typed

MADE = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "mongo"])
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    uri = request.getfixturevalue("mongo_database_uri") if request.param == "mongo" else None
    with contextlib.closing(open_documents(tmp_path, uri)) as made:
        yield made


def ranking(n: int, made_at: datetime = MADE, *, wide: bool = False) -> LeaderboardRecord:
    """Of so many suppliers; ``wide``: with all columns that entries have, and long names."""
    plain: dict[str, Any] = Entry("t", "", 0.5, 0.4, 0.6, 3, 3, 50, 0).to_json() if wide else {}
    entries = [{**plain, "supplier": f"pokt1{'q' * 38 * wide}{i:06}@service"} for i in range(n)]
    return LeaderboardRecord(id="r", taxonomy="t", made_at=made_at, rests_on=None, entries=entries)


@pytest.mark.parametrize("n", [0, 1, 5, 6, 10, 11])
def test_all_rows_come_back_in_their_order(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setattr(stored, "MOST", 5)
    write_rankings(documents, LeaderboardRecord, [ranking(17, MADE - timedelta(hours=1))])
    write_rankings(documents, LeaderboardRecord, [ranking(n)])
    found = read_ranking(documents, LeaderboardRecord, "r")
    assert found is not None and found.made_at == MADE
    assert found.entries == ranking(n).entries
    assert typed.count(documents, RankingPartRecord) == max(0, -(-n // 5) - 1), "those of before are gone"
    assert read_ranking(documents, LeaderboardRecord, "another") is None


@pytest.mark.slow(minutes=0.1)
def test_a_ranking_of_fifty_thousand_is_stored(documents: DocumentStore) -> None:
    """As one document it has more than MongoDB's 16 MB."""
    whole = ranking(50_000, wide=True)
    write_rankings(documents, LeaderboardRecord, [whole])
    found = read_ranking(documents, LeaderboardRecord, "r")
    assert found is not None and found.entries == whole.entries
    assert found.parts == 50_000 // MOST - 1


def test_scores_on_groups_are_stored_likewise(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MOST", 2)
    rows = [{"supplier": f"s{i}"} for i in range(5)]
    write_rankings(
        documents,
        GroupScoresRecord,
        [GroupScoresRecord(id=g, group=g, made_at=MADE, entries=rows) for g in "ab"],
    )
    for g in "ab":
        found = read_ranking(documents, GroupScoresRecord, g)
        assert found is not None and found.entries == rows


def test_who_reads_while_it_is_replaced_gets_one_of_both(
    documents: DocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MOST", 3)
    sizes = {MADE + timedelta(minutes=minute): 10 + minute % 7 for minute in range(60)}
    write_rankings(documents, LeaderboardRecord, [ranking(10)])

    def replace_it() -> None:
        for made_at, n in sizes.items():
            write_rankings(documents, LeaderboardRecord, [ranking(n, made_at)])

    writer = threading.Thread(target=replace_it)
    writer.start()
    looks = 0
    while writer.is_alive() or looks < 20:
        found = read_ranking(documents, LeaderboardRecord, "r")
        assert found is not None
        assert len(found.entries) == sizes[found.made_at]
        looks += 1
    writer.join()


def test_lost_parts_are_told(documents: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST", 2)
    monkeypatch.setattr(stored, "_PAUSE_S", 0.0)
    write_rankings(documents, LeaderboardRecord, [ranking(7)])
    typed.purge(documents, RankingPartRecord, {"number": 2})
    head = typed.get(documents, LeaderboardRecord, "r")
    assert head is not None and all_entries(documents, head) is None
    with pytest.raises(StoreError, match="some of its parts are lost; the next `testbench run`"):
        read_ranking(documents, LeaderboardRecord, "r")
