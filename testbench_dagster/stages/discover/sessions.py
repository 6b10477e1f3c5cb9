"""What the chain of a service tells, kept in the store: its height, and the sessions of its applications."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from testbench_dagster.core.records.chains import HeightRecord, SessionApp, SessionRecord
from testbench_dagster.stages.discover.heights import record_height
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.transports.discovery import ChainReading

if TYPE_CHECKING:
    from testbench_dagster.transports.pocket.chain.types import Session

#: Blocks, and time, by which readings of one chain by several nodes and processes may differ at most.
_LAG_BLOCKS, _LAG = 20, timedelta(minutes=2)


def record_chain(workspace: Workspace, reading: ChainReading, now: datetime | None = None) -> int:
    """Note sessions and height of a service; what another process knows of a later session stays.

    Sessions of applications that are no longer configured go.

    Returns:
        The newest known height.
    """
    now = now or datetime.now(UTC)
    documents, service, height = workspace.documents, reading.service, reading.height
    _forget_another_chain(documents, service, height, now)
    for session in reading.sessions:
        _record_session(documents, service, session, height, now)
    configured = workspace.config.settings.services.get(service)
    apps = () if configured is None else configured.session_apps
    for row in list(typed.find(documents, SessionApp, {"service": service})):
        if row.app not in apps:
            typed.purge(documents, SessionRecord, {"_id": row.id})
    return record_height(documents, service, height, now, reading.blocks_per_session)


def _forget_another_chain(documents: DocumentStore, service: str, height: int, now: datetime) -> None:
    """Forget height and sessions of a service if they were another chain's: a test network began anew.

    Heights of one chain never go down, however the readings of several nodes and processes mix: what is well
    below one that was known for a while is no reading of the same chain.
    """
    known = typed.get(documents, HeightRecord, service)
    if known is None or known.height - height <= _LAG_BLOCKS or now - known.at <= _LAG:
        return
    same = {"_id": service, "height": known.height}
    if typed.claim(documents, HeightRecord, same, height=height, at=now):
        typed.purge(documents, SessionRecord, {"service": service})


def _record_session(
    documents: DocumentStore, service: str, session: Session, height: int, now: datetime
) -> None:
    header = session.header
    content: dict[str, Any] = {
        "service": service,
        "app": header.application,
        "session_id": header.session_id,
        "start_height": header.start_height,
        "end_height": header.end_height,
        "suppliers": [supplier.operator for supplier in session.suppliers],
        "height": height,
        "at": now,
    }
    key = f"{service}/{header.application}"
    if not typed.put_new(documents, SessionRecord, [SessionRecord(id=key, **content)]):
        earlier = {"_id": key, "start_height": {"lte": header.start_height}}
        typed.claim(documents, SessionRecord, earlier, **content)
