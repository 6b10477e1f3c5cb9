"""Which service probes are due now, from what is stored of earlier ones, the schedule and the budget."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from testbench_dagster.config import Config, Settings
from testbench_dagster.coordination.leases import held_suppliers
from testbench_dagster.core.applicability import is_chosen
from testbench_dagster.core.clock import SKEW
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.plans import SpentSession
from testbench_dagster.core.records.probe_seeds import ProbeSeedRecord
from testbench_dagster.core.records.service_probes import NewestProbe
from testbench_dagster.core.supplier import CONFIG_SOURCE, Supplier
from testbench_dagster.core.workloads import WORKLOADS, DueProbe
from testbench_dagster.planning.probing import due_workloads
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.paces import renews_at
from testbench_dagster.stages.plan.sessions import Sessions
from testbench_dagster.stages.service.budget import asked_enough, probes_left
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.transports.addresses import host_of
from testbench_dagster.transports.registry import supplier_endpoint

_SEED = "service_probes"
#: Two cells of a schedule, and something for the clocks of machines: older probes decide nothing.
_CELLS, _MOST_DAYS, _SLACK = 2.0, 400.0, timedelta(hours=1)


def due_probes(workspace: Workspace, suppliers: Sequence[str] | None, now: datetime) -> list[DueProbe]:
    """The probes that are due, those of a supplier together, in the order of the roster.

    Nothing is due of who left, is left out by the configuration, waits for a session, lacks its key, or may
    be asked nothing more within this hour or its pace; nor while a process relays to the supplier, or to
    another behind the same host: both would be slower, and its probes are due when that is over. A supplier
    that could not be reached is probed once an hour at most, by its shortest workload. Where the day's budget
    is used up nothing is due until the next day; where it is too small for all, everybody is probed less
    often, so that the whole day is seen.

    Args:
        workspace: the installation.
        suppliers: keys, None for all active ones.
        now: the present.

    Raises:
        StoreError: the store failed.
    """
    documents, settings = workspace.documents, workspace.config.settings
    active = active_suppliers(workspace)
    probed = [one for one in active if is_probed(settings, one)]
    rates = probe_rates(settings, probed)
    keys = None if suppliers is None else frozenset(suppliers)
    chosen = [one for one in probed if keys is None or one.key in keys]
    if not chosen:
        return []
    left = {name: probes_left(documents, settings, name, now) for name in {one.service for one in chosen}}
    seed, newest = schedule_seed(workspace, now), _newest(documents, rates, keys, now)
    due: dict[str, list[str]] = {}
    for supplier in chosen:
        if left[supplier.service] == 0:
            continue
        rows = newest.get(supplier.key, ())
        workloads = due_workloads(
            seed, supplier.key, rates[supplier.service], _last_at(rows), now, _unreached_at(rows)
        )
        if workloads:
            due[supplier.key] = workloads
    held = held_suppliers(documents) if due else set()
    busy = {_host(one) for one in active if one.key in held}
    kept = _kept_from(workspace, [one for one in chosen if one.key in due], now)
    kept |= {one.key for one in chosen if _host(one) in busy}
    return [DueProbe(key, one) for key, workloads in due.items() if key not in kept for one in workloads]


def is_probed(settings: Settings, supplier: Supplier) -> bool:
    """Whether the configuration has a supplier probed, were probes switched on."""
    probes = settings.service_probes
    return is_chosen(probes.services, (supplier.service,)) and is_chosen(probes.suppliers, (supplier.key,))


def claimed_context(config: Config, supplier: Supplier) -> int | None:
    """How many tokens a supplier is said to take, prompt and answer together; None where nobody wrote it."""
    own = config.supplier(supplier.key) if supplier.source == CONFIG_SOURCE else None
    return config.settings.asking(supplier.service, supplier.transport, own).context_tokens


def configured_rates(settings: Settings) -> dict[str, float]:
    """By workload, the shortest first, how often a day each supplier is to be probed with it."""
    probes = settings.service_probes
    wanted = [WORKLOADS[name] for name in probes.workloads]
    wanted.sort(key=lambda one: float("inf") if one.prompt_tokens is None else one.prompt_tokens)
    return {
        one.name: probes.context_per_day if one.prompt_tokens is None else float(probes.per_day)
        for one in wanted
    }


def probe_rates(settings: Settings, probed: Sequence[Supplier]) -> dict[str, dict[str, float]]:
    """By service the probes a day of each supplier, by workload: as configured, or what the budget has of it.

    ``probed`` are all that the configuration has probed: they share it.
    """
    configured, cap = configured_rates(settings), settings.service_probes.relays_per_day
    suppliers: defaultdict[str, int] = defaultdict(int)
    for one in probed:
        suppliers[one.service] += 1
    found = {}
    for service, n in suppliers.items():
        wanted = n * sum(configured.values())
        share = 1.0 if cap is None else min(1.0, cap / wanted)
        found[service] = {name: rate * share for name, rate in configured.items()} if share else {}
    return found


def schedule_seed(workspace: Workspace, now: datetime) -> str:
    """The secret that all instants follow from, drawn at first use; with ``sampling.epoch_seed`` a fixed one.

    It is kept for good: another would move the instants of the cells that are under way.
    """
    fixed = workspace.config.settings.sampling.epoch_seed
    if fixed is not None:
        return f"{fixed}:{_SEED}"
    documents = workspace.documents
    known = typed.get(documents, ProbeSeedRecord, _SEED)
    if known is None:
        drawn = ProbeSeedRecord(id=_SEED, seed=secrets.token_hex(16), drawn_at=now)
        typed.put_new(documents, ProbeSeedRecord, [drawn])
        known = typed.get(documents, ProbeSeedRecord, _SEED) or drawn  # another process may have been quicker
    return known.seed


def _has_endpoint(config: Config, supplier: Supplier) -> bool:
    """Whether it can be asked at all: `testbench check` says what it lacks, such as its key."""
    try:
        supplier_endpoint(config, supplier)
    except ConfigError:
        return False
    return True


def _host(supplier: Supplier) -> str:
    """The machine behind a supplier, as far as we know it: what is sent to one slows others on it."""
    return supplier.host or host_of(supplier.base_url)


def _newest(
    documents: DocumentStore,
    rates: Mapping[str, Mapping[str, float]],
    keys: frozenset[str] | None,
    now: datetime,
) -> dict[str, list[NewestProbe]]:
    """By supplier when each workload last ended in each fault, as far back as that decides anything.

    Probes dated ahead of now, by a clock that was set back since, are as if there were none: beside one of
    now they would be the newest until their date is reached, and every look would find the workload due.
    """
    slowest: dict[str, float] = {}
    for of_service in rates.values():
        for workload, rate in of_service.items():
            slowest[workload] = min(rate, slowest.get(workload, rate))
    found: defaultdict[str, list[NewestProbe]] = defaultdict(list)
    for workload, rate in slowest.items():
        since = now - timedelta(days=min(_CELLS / rate, _MOST_DAYS)) - _SLACK
        where = {"workload": workload, "finished_at": {"gte": since, "lte": now + SKEW}}
        if keys is not None:
            where["supplier"] = {"in": sorted(keys)}
        for row in typed.group(documents, NewestProbe, where):
            found[row.supplier].append(row)
    return found


def _last_at(rows: Sequence[NewestProbe]) -> dict[str, datetime]:
    last: dict[str, datetime] = {}
    for row in rows:
        last[row.workload] = max(row.max_finished_at, last.get(row.workload, row.max_finished_at))
    return last


def _unreached_at(rows: Sequence[NewestProbe]) -> datetime | None:
    """When a supplier was last probed, where that did not reach it; None where it did."""
    newest = max(rows, key=lambda row: row.max_finished_at, default=None)
    if newest is None or Fault(newest.fault).row.reached:
        return None
    return newest.max_finished_at


def _kept_from(workspace: Workspace, suppliers: Sequence[Supplier], now: datetime) -> set[str]:
    """Keys of those that something keeps from being asked now: session, politeness, pace, want of a key."""
    if not suppliers:
        return set()
    documents, keys = workspace.documents, [one.key for one in suppliers]
    sessions = Sessions.read(workspace, now)
    spent = {plan.id: plan.session_spent_until for plan in typed.find(documents, SpentSession)}
    waiting = {one.key for one in suppliers if sessions.waiting(one, spent.get(one.key)) is not None}
    used_up = {one.key for one in suppliers if renews_at(workspace, one, now) is not None}
    lacking = {one.key for one in suppliers if not _has_endpoint(workspace.config, one)}
    return waiting | used_up | lacking | asked_enough(documents, workspace.config.settings, keys, now)
