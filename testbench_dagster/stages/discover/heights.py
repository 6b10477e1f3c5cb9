"""The newest known block height of a service, for schedules that count blocks and sessions."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.records.chains import HeightRecord
from testbench_dagster.stores.documents import DocumentStore, typed


def record_height(
    documents: DocumentStore,
    service: str,
    height: int,
    now: datetime,
    blocks_per_session: int | None = None,
) -> int:
    """Note a block height that is higher than the known one, and the length of a session where it is known.

    Returns:
        The newest height. It never goes down, whatever the order in which processes note theirs.
    """
    told = HeightRecord(id=service, height=height, at=now, blocks_per_session=blocks_per_session)
    if typed.put_new(documents, HeightRecord, [told]):
        return height
    session = {} if blocks_per_session is None else {"blocks_per_session": blocks_per_session}
    lower = {"_id": service, "height": {"lt": height}}
    typed.claim(documents, HeightRecord, lower, height=height, at=now, **session)
    stored = typed.get(documents, HeightRecord, service)
    if stored is None:
        return height
    if session and stored.blocks_per_session != blocks_per_session and stored.height <= height:
        typed.claim(documents, HeightRecord, {"_id": service}, **session)
    return stored.height
