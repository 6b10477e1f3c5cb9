"""What a stored answer of a gateway shows of its fault: it is judged again with what its headers said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.transports.path.transport import GatewayHeaders, judge
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.readings import reading_of
from testbench_dagster.transports.stored import Shown, broken_fault, too_large_fault


def shown_by_gateway(
    attempt: AttemptRecord, status: int, request: Mapping[str, Any], api: Api, error: str | None
) -> Shown:
    """What an attempt shows that has an HTTP ``status``; ``error`` is the text it was given."""
    said = attempt.evidence["gateway"]
    said = said if isinstance(said, Mapping) else {}
    told = GatewayHeaders.from_evidence(said)
    address = str(said.get("requested", ""))
    endpoint = Endpoint(attempt.supplier, attempt.service, "", api, "", address=address)
    answer = judge(told, endpoint, request, status, attempt.body, reading_of(attempt))
    faults = {answer.fault}
    if attempt.body_truncated:
        return Shown(frozenset({Fault.GATEWAY, too_large_fault(request)}))
    if broken_fault(error) is not None and not answer.fault.answered:
        faults.add(Fault.GATEWAY)
    return Shown(frozenset(faults), answer)
