"""How a run went for each supplier: who answered, who failed, who could not be asked; for its next plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from testbench_dagster.core.faults import Pause
from testbench_dagster.core.wording import counted
from testbench_dagster.relays.report import Counts
from testbench_dagster.stages.plan.plan_cache import record_progress
from testbench_dagster.stages.relay.requests import PlannedTask
from testbench_dagster.stages.relay.targets import Target, Targets
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.transports.plug import TransportFactory
from testbench_dagster.transports.registry import transport


def record_outcome(
    workspace: Workspace,
    targets: Targets,
    planned: Iterable[PlannedTask],
    counts: Mapping[str, Counts],
    transports: TransportFactory,
    left: Mapping[str, str],
    money: Mapping[str, int],
    *,
    capped: bool,
) -> dict[str, str]:
    """Remember in the suppliers' plans who answered, who answered nothing, who was not asked, who was left.

    Returns who answered nothing although asked, each with what became of its relays. ``left``: why the run
    went on without a supplier. ``capped``: it had a cap of its own, or was told to stop, which is no reason
    to wait with the next one.
    """
    kinds: dict[str, set[str]] = {}  # of answers, by supplier that was due
    for task in planned:
        kinds.setdefault(task.supplier, set()).add(task.registration.flags.output_type)
    used_up = {
        target.key: until for target in targets if (until := transports.used_up(target.endpoint)) is not None
    }
    not_asked = {t.key for t in targets if t.key in kinds and _no_session_allowed(t, counts[t.key])}
    asked = [t.key for t in targets if t.key in counts and t.key not in not_asked]
    failed = {
        key: _what_failed(counts[key])
        for key in asked
        if counts[key].sent
        and not counts[key].reached
        # nor that its session grants us no more: it is asked at once in the next one
        and not (key in used_up and all(f.row.pause is Pause.PROBE for f in counts[key].faults))
        # that it serves no such page says nothing about how it is
        and not (kinds[key] == {"get"} and all(fault.row.denies_page for fault in counts[key].faults))
    }
    record_progress(
        workspace,
        [key for key in asked if counts[key].reached],
        {**failed, **targets.unreachable},
        used_up,
        set() if capped else not_asked - used_up.keys(),
        {key: why for key, why in left.items() if key not in used_up},
        money,
    )
    return failed


def _no_session_allowed(target: Target, counts: Counts) -> bool:
    """Whether no session allowed a relay to a supplier that was due: no node answers, say.

    It says nothing about a supplier that is sent signed relays. Of one behind a gateway it may mean that the
    gateway never has it in a session: that one is asked ever more rarely.
    """
    return (
        transport(target.endpoint.transport).sends_only_in_sessions
        and not counts.reached
        and all(fault.row.kept_by_session for fault in counts.faults)
    )


def _what_failed(counts: Counts) -> str:
    faults = ", ".join(f"{fault.value} x {n}" for fault, n in counts.faults.most_common(3))
    return f"none of {counted(counts.sent, 'relay')} was answered ({faults})"
