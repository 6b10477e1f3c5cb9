"""Whatever a transport makes of an exchange in these tests, its stored evidence shows the same again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.path.transport import PathTransport
from testbench_dagster.transports.pocket.transport import ShannonTransport
from testbench_dagster.transports.registry import shown

Send = Callable[[Any, Endpoint, Relay], Awaitable[Attempt]]


@pytest.fixture(autouse=True)
def _evidence_shows_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """An honest attempt is never accused by a check of its evidence."""

    def checked(send: Send) -> Send:
        async def both(transport: Any, endpoint: Endpoint, relay: Relay) -> Attempt:
            attempt = await send(transport, endpoint, relay)
            record = attempt_record(relay, 1, attempt)
            found = shown(record, relay.request, endpoint.api, record.error)
            assert attempt.fault in found.faults, (attempt.fault, found, record)
            same = found.answer is not None and found.answer.fault is attempt.fault
            if same and attempt.fault is not Fault.SUPPLIER_PROTOCOL and "redacted" not in attempt.evidence:
                assert found.answer.error == attempt.error
            return attempt

        return both

    for transport in (DirectTransport, PathTransport, ShannonTransport):
        monkeypatch.setattr(transport, "send", checked(transport.send))
