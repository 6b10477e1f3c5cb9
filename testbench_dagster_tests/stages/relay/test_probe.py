"""What an answer to the probe says of a supplier: whether it echoes log-probabilities."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint
from testbench_dagster.stages.relay.probe import ECHO_REQUEST, echo_verdict, probe_relay
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests import echoing


def probed(mode: str) -> Attempt:
    async def send(url: str) -> Attempt:
        transport = DirectTransport()
        target = Endpoint("a@test", "test", url, "completions", "m")
        try:
            return await transport.send(target, probe_relay(target, ECHO_REQUEST))
        finally:
            await transport.close()

    with echoing.echoing() as (root, _):
        return asyncio.run(send(f"{root}/{mode}/v1"))


@pytest.mark.parametrize(
    ("mode", "fault", "echoes"),
    [
        ("plain", Fault.OK, True),
        ("tops_null", Fault.OK, True),
        ("ends", Fault.OK, True),
        # a server that gives log-probabilities of what it generates alone
        ("all_null", Fault.OK, False),
        ("no_echo", Fault.SUPPLIER_PROTOCOL, False),
        ("no_logprobs", Fault.SUPPLIER_PROTOCOL, False),
        ("token_ids", Fault.SUPPLIER_PROTOCOL, False),
    ],
)
def test_verdicts(mode: str, fault: Fault, echoes: bool) -> None:
    attempt = probed(mode)
    assert (attempt.fault, echo_verdict(attempt)) == (fault, echoes)


@pytest.mark.parametrize(
    ("fault", "changes", "echoes"),
    [
        (Fault.UNSUPPORTED, {}, None),  # its tokenizer cuts this prompt otherwise: other prompts may do
        (Fault.UNAVAILABLE, {"status": 503}, None),
        (Fault.CREDENTIALS, {"status": 401}, None),
        (Fault.CREDENTIALS, {"status": 404}, False),
        (Fault.CLIENT_REQUEST, {"status": 400}, False),
    ],
)
def test_what_says_nothing_of_it(fault: Fault, changes: dict[str, Any], echoes: bool | None) -> None:
    now = datetime.now(UTC)
    assert echo_verdict(Attempt(fault, now, now, 1.0, **changes)) is echoes
