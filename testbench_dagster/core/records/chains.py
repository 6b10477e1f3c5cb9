"""What is known of the chains of services: their heights, and the sessions of our applications."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.records.declaring import ROSTER, Record, content, key, queryable, record, view


@record("heights", one_per="service", kind=ROSTER)
class HeightRecord(Record):
    """The newest block height that the chain or a supplier source told of a service."""

    id: str = key("the service")
    height: int = queryable("the block height")
    at: datetime = queryable("when it was first heard of")
    blocks_per_session: int | None = queryable(
        "how many blocks a session has, null where the chain did not tell", default=None
    )


@record("sessions", one_per="service and application", kind=ROSTER, indexes=(("service",),))
class SessionRecord(Record):
    """The newest known session of an application."""

    id: str = key("`service/application`")
    service: str = queryable("the service")
    app: str = queryable("address of the application")
    session_id: str = queryable("id of the session")
    start_height: int = queryable("its first block")
    end_height: int = queryable("its last block")
    height: int = queryable("as of which block it was read")
    at: datetime = queryable("when it was read")
    suppliers: list[str] = content("operators of the suppliers in it")


@view(SessionRecord)
class SessionApp(NamedTuple):
    """Which application a session is of."""

    id: str
    app: str


@view(SessionRecord)
class SessionSpan(NamedTuple):
    """A session without its suppliers."""

    service: str
    app: str
    session_id: str
    start_height: int
    end_height: int
    height: int
