"""The newest known block height of a service, for schedules that count blocks and sessions."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.stores.documents import Document, DocumentStore
from testbench_dagster.stores.documents.collections import HEIGHTS


def note_height(
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
    changes: Document = {"height": height, "at": now}
    if blocks_per_session is not None:
        changes["blocks_per_session"] = blocks_per_session
    if documents.put_new(HEIGHTS, [{"_id": service, **changes}]):
        return height
    documents.claim(HEIGHTS, {"_id": service, "height": {"lt": height}}, changes)
    stored = documents.get(HEIGHTS, service)
    if stored is None:
        return height
    known = stored.get("blocks_per_session")
    if blocks_per_session is not None and known != blocks_per_session and stored["height"] <= height:
        documents.claim(HEIGHTS, {"_id": service}, {"blocks_per_session": blocks_per_session})
    return int(stored["height"])
