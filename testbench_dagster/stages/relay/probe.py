"""Asking a supplier what it can do: a short generation, and echoed log-probabilities on completions."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import Attempt, Endpoint, Relay, Transport
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.relay.history import transports_to
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.transports.registry import supplier_endpoint, transport

if TYPE_CHECKING:
    import httpx

_AT_ONCE = 64
_QUESTION = "Reply with the single word OK."
_GENERATION = {"until": [], "max_gen_toks": 8, "temperature": 0.0}
ECHO_REQUEST = {"type": "loglikelihood", "idx": 0, "context": "The sky is", "continuation": " blue"}


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found; ``echo_logprobs`` is None where it was not asked or stayed unknown."""

    supplier: str
    ok: bool
    detail: str
    echo_logprobs: bool | None = None


#: Task name of the attempts at finding out what suppliers can do.
PROBE_TASK = "capability probe"


def probe_relay(target: Endpoint, request: dict[str, Any]) -> Relay:
    """A relay outside any task, unlike any other."""
    return Relay(
        supplier=target.supplier,
        service=target.service,
        task=PROBE_TASK,
        task_hash="",
        epoch=0,
        round=0,
        prompt_id=f"probe-{secrets.token_hex(12)}",
        position=0,
        doc_id=0,
        idx=0,
        repeat=0,
        request=request,
    )


def echo_verdict(attempt: Attempt) -> bool | None:
    """What the outcome of :data:`ECHO_REQUEST` says of the capability; None when it says nothing."""
    if attempt.fault.answered:
        return True
    # 404: it has no such endpoint; a key that it refuses says nothing
    return False if attempt.fault.row.denies_capability or attempt.status == 404 else None


async def probe_suppliers(workspace: Workspace, suppliers: Sequence[Supplier]) -> list[ProbeResult]:
    """Probe the suppliers, some dozens at a time; results in their order. Attempts are not stored."""
    import httpx

    endpoints: dict[str, Endpoint] = {}
    problems: dict[str, str] = {}
    for supplier in suppliers:
        try:
            endpoints[supplier.key] = supplier_endpoint(workspace.config, supplier)
        except ConfigError as error:
            problems[supplier.key] = str(error)
    transports = await asyncio.to_thread(transports_to, workspace, endpoints.values())
    for key, target in endpoints.items():
        problem = transports.problem(target)
        if problem is not None:
            problems[key] = problem
    opened = transports.open()
    try:
        async with httpx.AsyncClient() as client:
            turns = asyncio.Semaphore(_AT_ONCE)

            async def probe(supplier: Supplier) -> ProbeResult:
                if supplier.key in problems:
                    return ProbeResult(supplier.key, False, problems[supplier.key])
                async with turns:
                    return await _probe(supplier, endpoints[supplier.key], opened, client)

            return list(await asyncio.gather(*map(probe, suppliers)))
    finally:
        await opened.close()


async def _probe(
    supplier: Supplier, target: Endpoint, opened: Transport, client: httpx.AsyncClient
) -> ProbeResult:
    prompt: dict[str, Any] = (
        {"messages": [{"role": "user", "content": _QUESTION}]}
        if supplier.api == "chat"
        else {"prompt": _QUESTION}
    )
    request = {"type": "generate_until", "idx": 0, **prompt, "generation": dict(_GENERATION)}
    attempt = await opened.send(target, probe_relay(target, request))
    from testbench_dagster.transports.models import served_models  # with httpx: not in the code location

    listing = transport(target.transport).lists_models(target)
    reached = listing and attempt.fault.row.reached
    models = await served_models(client, target) if reached else None
    listed = _listed(target.model, models)
    if attempt.fault.row.kept_by_session:  # nothing is wrong with it, and nothing known
        return ProbeResult(supplier.key, True, f"not asked: {attempt.error}")
    if not attempt.fault.answered:
        return ProbeResult(supplier.key, False, _failure(supplier, attempt) + listed)
    detail = f"{supplier.api} at {target.base_url} answers in {attempt.latency_ms:.0f} ms{listed}"
    if supplier.api != "completions":
        return ProbeResult(supplier.key, True, detail)
    echo = echo_verdict(await opened.send(target, probe_relay(target, ECHO_REQUEST)))
    known = {True: "echoes log-probabilities", False: "does not echo log-probabilities", None: "echo unknown"}
    return ProbeResult(supplier.key, True, f"{detail}, {known[echo]}", echo)


def _listed(wanted: str, models: list[str] | None) -> str:
    """Say so when the supplier lists models, but not the one it is asked for."""
    if not models or wanted in models:
        return ""
    more = f" and {len(models) - 5} more" if len(models) > 5 else ""
    return f"; it lists {', '.join(models[:5])}{more}, not {wanted!r}"


def _failure(supplier: Supplier, attempt: Attempt) -> str:
    status = f", HTTP {attempt.status}" if attempt.status else ""
    reason = f" ({attempt.error})" if attempt.error else ""
    return f"{supplier.base_url}: {attempt.fault.value}{status}{reason}; {attempt.fault.row.remedy}"
