"""What service probes come to in a day, and what stands in their way: for ``plan`` and ``check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbench_dagster.core.finding import Finding
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.wording import counted, money
from testbench_dagster.core.workloads import WORKLOADS
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.service.due import (
    claimed_context,
    configured_rates,
    is_probed,
    probe_rates,
)
from testbench_dagster.stages.workspace import Workspace

_WHAT = "service probes"
_TOLD = 3  # suppliers named in a line
_HOURS = 24


@dataclass(frozen=True)
class ProbesADay:
    """What the service probes of a day come to.

    ``relays`` and tokens are means: what is asked less than daily counts as its part of a day. Answers may
    end earlier than ``completion_tokens`` say, and thoughts come on top. ``cost`` is that of ``priced`` of
    the suppliers, None where none has a price.
    """

    suppliers: int
    relays: float
    prompt_tokens: float
    completion_tokens: float
    priced: int
    cost: float | None


def probes_a_day(workspace: Workspace, suppliers: Sequence[Supplier]) -> ProbesADay | None:
    """What the probes of some suppliers come to; None where probes are switched off."""
    settings = workspace.config.settings
    if not settings.service_probes.enabled:
        return None
    rates = probe_rates(settings, [one for one in active_suppliers(workspace) if is_probed(settings, one)])
    relays = prompt = completion = cost = 0.0
    priced = n = 0
    for supplier in suppliers:
        if not is_probed(settings, supplier):
            continue
        n += 1
        priced += supplier.price is not None
        for workload, rate in rates[supplier.service].items():
            length = WORKLOADS[workload].prompt_tokens or claimed_context(workspace.config, supplier)
            if length is None:
                continue
            answer = settings.service_probes.answer_tokens
            relays, prompt, completion = relays + rate, prompt + rate * length, completion + rate * answer
            if supplier.price is not None:
                cost += supplier.price.of(rate * length, rate * answer)
    return ProbesADay(n, relays, prompt, completion, priced, cost if priced else None)


def probes_line(workspace: Workspace) -> str | None:
    """What is probed by itself, how often and for how much, in a line; None where probes are off.

    Raises:
        StoreError: the store failed.
    """
    settings = workspace.config.settings
    active = active_suppliers(workspace)
    day = probes_a_day(workspace, active)
    if day is None:
        return None
    if not settings.automation.service_probes.enabled:
        return f"{_WHAT}: none by itself, for automation.service_probes.enabled is false"
    configured = configured_rates(settings)
    often = ", ".join(f"{name} {rate:g}" for name, rate in configured.items())
    probed = [one for one in active if is_probed(settings, one)]
    rates = probe_rates(settings, probed)
    wanted = len(probed) * sum(configured.values())
    granted = sum(sum(rates[one.service].values()) for one in probed)
    less = f", of which relays_per_day allows {granted / wanted:.0%}" if granted < 0.995 * wanted else ""
    told = (
        f"{_WHAT}: {often} times a day each{less}; about {counted(round(day.relays), 'relay', ',')} a day to "
        f"{counted(day.suppliers, 'supplier', ',')}"
    )
    if day.cost is None:
        return told
    whose = "" if day.priced == day.suppliers else f" for the {day.priced} with a price"
    return f"{told}, up to {money(day.cost)} a day{whose}"


def probe_findings(workspace: Workspace) -> Iterator[Finding]:
    """What is wrong with how probes are configured, and what they come to; nothing where they are off.

    Raises:
        StoreError: the store failed.
    """
    settings = workspace.config.settings
    if not settings.service_probes.enabled:
        return
    active = active_suppliers(workspace)
    probed = [one for one in active if is_probed(settings, one)]
    if not probed:
        if active:
            told = "nobody is probed: service_probes.services and .suppliers leave everybody out; widen them"
            yield Finding(_WHAT, told, ok=False, warning=True)
        return
    day = probes_a_day(workspace, probed)
    if day is not None:
        yield Finding(
            _WHAT, f"{counted(len(probed), 'supplier')}, {counted(round(day.relays), 'relay')} a day"
        )
    yield from _budget_findings(workspace, probed)
    yield from _context_findings(workspace, probed)
    yield from _bound_findings(workspace, probed)
    if not settings.automation.service_probes.enabled:
        told = (
            "the sensor is switched off (automation.service_probes), so that only `testbench run` and "
            "`testbench probe` probe; switch it on, or set service_probes.enabled: false"
        )
        yield Finding(_WHAT, told, ok=False, warning=True)


def _budget_findings(workspace: Workspace, probed: Sequence[Supplier]) -> Iterator[Finding]:
    settings = workspace.config.settings
    cap, each = settings.service_probes.relays_per_day, sum(configured_rates(settings).values())
    if cap is None:
        return
    for service, n in Counter(one.service for one in probed).items():
        wanted = n * each
        if cap < wanted:
            told = (
                f"relays_per_day {cap} is less than the {counted(round(wanted), 'relay')} that "
                f"{counted(n, 'supplier')} of service {service} {'takes' if n == 1 else 'take'} a day: "
                f"everybody is probed {cap / wanted:.0%} as often as per_day says; raise it, or lower per_day"
            )
            yield Finding(_WHAT, told, ok=False, warning=True)


def _context_findings(workspace: Workspace, probed: Sequence[Supplier]) -> Iterator[Finding]:
    asked = [WORKLOADS[name] for name in workspace.config.settings.service_probes.workloads]
    if not any(one.prompt_tokens is None for one in asked):
        return
    unknown = [one.key for one in probed if claimed_context(workspace.config, one) is None]
    if unknown:
        more = f" and {len(unknown) - _TOLD} more" if len(unknown) > _TOLD else ""
        told = (
            f"workload context: nobody wrote how long a context {', '.join(unknown[:_TOLD])}{more} "
            f"{'takes' if len(unknown) == 1 else 'take'}; only who lists it, as vLLM does, is asked for it. "
            "Give context_tokens to suppliers or services, or remove context from service_probes.workloads"
        )
        yield Finding(_WHAT, told, ok=False, warning=True)


def _bound_findings(workspace: Workspace, probed: Sequence[Supplier]) -> Iterator[Finding]:
    """Who may be asked so little that probes would take half of it."""
    settings = workspace.config.settings
    each = sum(configured_rates(settings).values())
    hourly = settings.budget.relays_per_supplier_hour
    if hourly is not None and 2 * each / _HOURS > hourly:
        told = (
            f"probes ask each supplier {each / _HOURS:.1f} times an hour, more than half of "
            f"budget.relays_per_supplier_hour {hourly}; lower per_day, or raise the other"
        )
        yield Finding(_WHAT, told, ok=False, warning=True)
    taken: Counter[str] = Counter()
    caps: dict[str, int] = {}
    for supplier in probed:
        pace = settings.pace_of(supplier)
        if pace is not None and pace.requests_per_day is not None:
            taken[pace.account] += 1
            caps[pace.account] = pace.requests_per_day
    greedy = [name for name, n in taken.items() if 2 * n * each > caps[name]]
    if greedy:
        name = greedy[0]
        more = f" (and {counted(len(greedy) - 1, 'other')} likewise)" if len(greedy) > 1 else ""
        told = (
            f"{counted(round(taken[name] * each), 'relay')} a day is more than half of the "
            f"{counted(caps[name], 'request')} that the pace of {name.partition(':')[2] or name} allows"
            f"{more}; lower per_day, or leave it out with service_probes.suppliers"
        )
        yield Finding(_WHAT, told, ok=False, warning=True)
