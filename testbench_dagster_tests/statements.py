"""What processes of other machines state, made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.coordination.statements import CODE_SERVER, Statement
from testbench_dagster.core.records.coordination import StatementRecord


def elsewhere(
    own: Statement, host: str = "first", role: str = CODE_SERVER, **changes: Any
) -> StatementRecord:
    """What a process of another machine states, that goes by this."""
    now = datetime.now(UTC)
    record = StatementRecord(
        id=f"{role} on {host}",
        role=role,
        since=now,
        config=own.config,
        packages=own.packages,
        settings=own.settings,
        versions=own.versions,
        path=own.path,
        expires_at=now + timedelta(seconds=60),
        boot_deadline=None,
        ttl_s=30,
        host=f"{host}/boot/pid",
        pid=7,
        started=1,
    )
    return replace(record, **changes)
