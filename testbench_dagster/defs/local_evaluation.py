"""An evaluation in this process, from the catalog to the leaderboard: what ``testbench run`` does.

Drives the jobs of :mod:`.local_runs`, the same that sensors and the UI start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.defs.metadata import counts
from testbench_dagster.relays.report import Progress
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.migrate import migrate_if_safe
from testbench_dagster.stages.preconditions import (
    chosen_suppliers,
    require_data_files,
    require_keys,
    who_waits,
    why_nothing_is_scored,
)
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.workspace import Workspace

_MAX_PASSES = 4  # of evaluating towards a wanted interval width; the next run goes on


@dataclass(frozen=True)
class RunReport:
    """What an evaluation came to.

    ``suppliers`` and ``tasks`` are those evaluated, ``sent`` the relays (retries included), ``final`` the
    calls that were answered or failed by the supplier's fault. ``waiting`` says how many suppliers wait for a
    session and why, ``problem`` why there is no score at all, or nothing new although relays were sent; both
    are empty where there is nothing to say.
    """

    suppliers: tuple[str, ...]
    tasks: tuple[str, ...]
    passes: int
    sent: int
    final: int
    waiting: str = ""
    problem: str = ""


def evaluate(
    workspace: Workspace,
    suppliers: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    *,
    max_relays: int | None = None,
    retry_errors: bool = False,
    force: bool = False,
    on_planned: Callable[[int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> RunReport:
    """Refresh the catalog where stale, relay what is due, score, summarize, rank.

    Safe to interrupt and to start again: what has a stored answer is not asked twice.

    Args:
        workspace: the installation.
        suppliers: keys; by default all active ones.
        tasks: names of tasks or groups; by default all.
        max_relays: send at most so many relays, retries included.
        retry_errors: ask docs again that failed by the supplier's fault.
        force: ask again what is fresh.
        on_planned: called with the number of due calls before each pass relays.
        on_progress: called a few times a second while relaying.
        on_note: called with what a person should know, in a line each.

    Raises:
        ConfigError: a supplier, task, data file or key is missing, or a taxonomy makes no sense.
        TestbenchError: a stage failed, or no supplier can be found.
    """
    note = on_note or (lambda text: None)
    specs = workspace.chosen_specs(tasks)
    require_data_files(workspace)
    configured_taxonomies(workspace)  # wrong ones are told before a relay is spent
    migrate_if_safe(workspace.config, note)
    if workspace.config.settings.discovers:
        report = refresh_roster(workspace)
        for problem in [*report.problems.values(), *report.warnings.values()]:
            note(f"warning: {problem}")
    roster = chosen_suppliers(workspace, suppliers)
    for problem in require_keys(workspace.config, roster):
        note(f"warning: left out: {problem}")
    keys = [supplier.key for supplier in roster]
    with LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
        stale = stale_tasks(workspace, specs)
        if stale:
            note(f"catalog: preparing {len(stale)} of {counted(len(specs), 'task')}")
            runs.refresh_catalog(stale)
        note(f"evaluation: {counted(len(keys), 'supplier')}, {counted(len(specs), 'task')}")
        passes = sent = final = 0
        outcomes: Counter[str] = Counter()
        failed = False
        with _watched(workspace, on_planned, on_progress):
            for passes in range(1, _passes(specs) + 1):
                left = None if max_relays is None else max_relays - sent
                relayed = runs.evaluate(
                    keys,
                    tasks=tasks,
                    max_relays=left,
                    retry_errors=retry_errors and passes == 1,
                    force=force and passes == 1,
                )
                sent += relayed.sent
                final += relayed.final
                outcomes += relayed.outcomes
                failed = failed or relayed.failed
                if relayed.final == 0 or left == relayed.sent:
                    break  # also when nobody could be reached: another pass would only ask again
        runs.refresh_summaries()
    note(f"evaluation: {counted(sent, 'relay')} sent")
    waiting = who_waits(workspace, suppliers)
    if waiting:
        note(f"evaluation: {waiting}")
    return RunReport(
        tuple(keys),
        tuple(spec.name for spec in specs),
        passes,
        sent,
        final,
        waiting,
        why_nothing_is_scored(workspace, suppliers, tasks)
        or (_nothing_learned(sent, outcomes) if failed and not final else ""),
    )


def _nothing_learned(sent: int, outcomes: Mapping[str, int]) -> str:
    """What to tell where relays were sent to suppliers that could have answered, and none became final."""
    return f"{counted(sent, 'relay')} sent, none final ({counts(outcomes)}): nothing new was learned"


def _passes(specs: Sequence[TaskSpec]) -> int:
    """How often to go over the suppliers: what number of docs a wanted width needs shows after scoring."""
    return _MAX_PASSES if any(s.samples and s.samples.half_width for s in specs) else 1


@contextmanager
def _watched(
    workspace: Workspace,
    on_planned: Callable[[int], None] | None,
    on_progress: Callable[[Progress], None] | None,
) -> Iterator[None]:
    """Let a caller of this process watch the relays of its runs."""
    workspace.on_planned, workspace.on_progress = on_planned, on_progress
    try:
        yield
    finally:
        workspace.on_planned = workspace.on_progress = None
