"""What everything about a service of Pocket Network begins with: its chain client, its keys, its sessions.

All of it blocks; in an event loop it belongs into a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from testbench_dagster.core.records.chains import HeightRecord, SessionApp, SessionRecord
from testbench_dagster.stages.discover.heights import note_height
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.transports.pocket.access import chain_client, service_config

if TYPE_CHECKING:
    from testbench_dagster.transports.pocket.chain.types import Session

#: Blocks, and time, by which readings of one chain by several nodes and processes may differ at most.
_LAG_BLOCKS, _LAG = 20, timedelta(minutes=2)


# ------------------------------------------------------------------------------------------------- keys


# --------------------------------------------------------------------------------------------- sessions


def refresh_sessions(workspace: Workspace, service: str, *, fresh: bool = False) -> list[Session]:
    """Read the current sessions of a service's applications and note them, and the height, in the store.

    An application without a session (not staked, no suppliers) is left out; ``testbench check`` says why. So
    is one whose session cannot be read, as long as another's can.

    Args:
        workspace: the installation.
        service: id of a configured service with nodes.
        fresh: whether to ask the node although what it told before should still hold.

    Raises:
        ConfigError: the service is not configured, or without nodes.
        ChainError: no node could be read.
    """
    # a code location asks no chain
    from testbench_dagster.transports.pocket.chain.errors import ChainError, NotFound, SessionUnavailable

    client = chain_client(workspace.config, service)
    client.height(fresh=fresh)
    sessions, failed = [], None
    for app in service_config(workspace.config, service).session_apps:
        try:
            sessions.append(client.session(app, service, fresh=fresh))
        except (SessionUnavailable, NotFound):
            continue
        except ChainError as error:
            failed = error
    if failed is not None and not sessions:
        raise failed
    note_sessions(
        workspace, service, sessions, client.height(), client.shared_params().num_blocks_per_session
    )
    return sessions


def note_sessions(
    workspace: Workspace,
    service: str,
    sessions: Iterable[Session],
    height: int,
    blocks_per_session: int | None,
    now: datetime | None = None,
) -> int:
    """Note sessions and height of a service; what another process knows of a later session stays.

    Sessions of applications that are no longer configured go.

    Returns:
        The newest known height.
    """
    now = now or datetime.now(UTC)
    documents = workspace.documents
    _forget_another_chain(documents, service, height, now)
    for session in sessions:
        _note_session(documents, service, session, height, now)
    apps = service_config(workspace.config, service).session_apps
    for row in list(typed.find(documents, SessionApp, {"service": service})):
        if row.app not in apps:
            typed.purge(documents, SessionRecord, {"_id": row.id})
    return note_height(documents, service, height, now, blocks_per_session)


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


def _note_session(
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
