"""An evaluation in this process, from the catalog to the leaderboard: what ``testbench run`` does.

Drives the jobs of :mod:`.local_runs`, the same that sensors and the UI start.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Window
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.defs.metadata import counts
from testbench_dagster.relays.report import Progress
from testbench_dagster.stages.discover.roster import named_suppliers, refresh_roster
from testbench_dagster.stages.migrate import migrate_if_safe
from testbench_dagster.stages.plan.open_docs import OpenDocs, next_attempt, open_docs, who_is_open
from testbench_dagster.stages.preconditions import (
    chosen_suppliers,
    require_data_files,
    require_keys,
    who_waits,
    why_nothing_is_scored,
)
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.score.remarks import who_has_failed
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.workspace import Workspace

_MAX_PASSES = 4  # of evaluating what gates let be asked; the next run goes on
_LOOK_S = 15.0  # waiting for an occasion, the clock is looked at so often


@dataclass(frozen=True)
class RunReport:
    """What an evaluation came to.

    ``suppliers`` and ``tasks`` are those evaluated, ``sent`` the relays (retries and canaries included),
    ``final`` the calls that were answered. ``waiting`` says how many suppliers wait for a session and why,
    ``problem`` why there is no score at all, or nothing new although relays were
    sent; both are empty where there is nothing to say. ``left`` says why
    suppliers were left before they were asked all, by key. ``interrupted``: it was told to stop. ``open`` are
    the docs that wait for an answer, by supplier, and ``next_at`` is when the first of them is asked again.
    """

    suppliers: tuple[str, ...]
    tasks: tuple[str, ...]
    passes: int
    sent: int
    final: int
    waiting: str = ""
    problem: str = ""
    left: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False
    open: Mapping[str, int] = field(default_factory=dict)
    next_at: datetime | None = None


class WallClock:
    """The time, and waiting for it."""

    def now(self) -> datetime:
        """The present."""
        return datetime.now(UTC)

    def sleep_until(self, at: datetime, stop: threading.Event) -> None:
        """Wait for an instant, or to be told to stop.

        Looks at the clock again and again: machines sleep, clocks are set.
        """
        while (left := (at - self.now()).total_seconds()) > 0 and not stop.wait(min(left, _LOOK_S)):
            pass


def evaluate(
    workspace: Workspace,
    suppliers: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    *,
    max_relays: int | None = None,
    retry_errors: bool = False,
    force: bool = False,
    wait: bool | timedelta = False,
    on_planned: Callable[[int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_scored: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
    clock: WallClock | None = None,
) -> RunReport:
    """Refresh the catalog where stale, relay what is due, score, summarize, rank.

    Safe to interrupt and to start again: what has a stored answer is not asked twice.

    Args:
        workspace: the installation.
        suppliers: keys; by default all active ones.
        tasks: names of tasks or groups; by default all.
        max_relays: send at most so many relays, retries included.
        retry_errors: ask open docs again now instead of at their next occasion.
        force: ask again what is fresh.
        wait: stay for the later occasions of docs that are open, until none is or for so long.
        on_planned: called with the number of due calls before each pass relays.
        on_progress: called a few times a second while relaying.
        on_note: called with what a person should know, in a line each.
        on_scored: called with how many docs of a task are scored, and of how many, while more follow.
        stop: once it is set nothing is sent any more; what is stored is scored, and the report returned.
        clock: the time; the machine's by default.

    Raises:
        ConfigError: a supplier, task, data file or key is missing, or a taxonomy makes no sense.
        TestbenchError: a stage failed, or no supplier can be found.
    """
    note = on_note or (lambda text: None)
    clock = clock or WallClock()
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
    names = [spec.name for spec in specs]
    with LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
        stale = stale_tasks(workspace, specs)
        if stale:
            note(f"catalog: preparing {len(stale)} of {counted(len(specs), 'task')}")
            runs.refresh_catalog(stale)
        note(f"evaluation: {counted(len(keys), 'supplier')}, {counted(len(specs), 'task')}")
        passes = _Passes(runs, _most_passes(specs), tasks, max_relays, stop or threading.Event())
        with _watched(workspace, on_planned, on_progress, on_scored, stop):
            passes.go(keys, retry_errors=retry_errors, force=force)
            passes.refresh_summaries()
            if wait:
                until = None if wait is True else clock.now() + wait
                _stay(workspace, passes, keys, names, until, note, clock)
    note(f"evaluation: {passes.what_was_sent}")
    for key, why in passes.left_behind.items():
        note(f"evaluation: {key} was left: {why}")
    waiting = who_waits(workspace, suppliers)
    if waiting:
        note(f"evaluation: {waiting}")
    # rows as the evaluation has cached them; where nothing was asked nothing is new
    failed = who_has_failed(_primary_rows(workspace, keys, names)) if passes.sent else ""
    if failed:
        note(f"evaluation: {failed}")
    opened = open_docs(workspace, keys, names)
    if opened:
        note(_what_follows(opened, clock.now()))
    return RunReport(
        tuple(keys),
        tuple(names),
        passes.made,
        passes.sent,
        passes.final,
        waiting,
        why_nothing_is_scored(workspace, suppliers, tasks) or passes.nothing_learned,
        passes.left_behind,
        passes.stop.is_set(),
        {row.supplier: row.docs for row in opened},
        next_attempt(opened),
    )


def _primary_rows(workspace: Workspace, keys: Sequence[str], tasks: Sequence[str]) -> Iterator[Window]:
    suppliers = named_suppliers(workspace, keys)
    for _, rows in primary_windows(workspace, suppliers):
        yield from (row for row in rows if row.task in tasks)


class _Passes:
    """Evaluations of suppliers, one after the other, within one cap of relays."""

    def __init__(
        self,
        runs: LocalRuns,
        most: int,
        tasks: Sequence[str] | None,
        max_relays: int | None,
        stop: threading.Event,
    ) -> None:
        self._runs = runs
        self._most = most
        self._tasks = tasks
        self._max_relays = max_relays
        self.stop = stop
        self.made = self.sent = self.final = 0
        self.left_behind: dict[str, str] = {}
        self.outcomes: Counter[str] = Counter()
        self.failed = False

    @property
    def left(self) -> int | None:
        """Relays that may still be sent; None for any number."""
        return None if self._max_relays is None else self._max_relays - self.sent

    @property
    def what_was_sent(self) -> str:
        """How many relays were sent, and what the unanswered ones ended in."""
        unanswered = {name: n for name, n in self.outcomes.items() if not Fault(name).answered}
        sent = f"{counted(self.sent, 'relay')} sent"
        return f"{sent}, {sum(unanswered.values())} unanswered ({counts(unanswered)})" if unanswered else sent

    @property
    def nothing_learned(self) -> str:
        """What to tell where suppliers that could have answered were asked, and none did; else empty."""
        if not self.failed or self.final:
            return ""
        sent = counted(self.sent, "relay")
        return f"{sent} sent, none answered ({counts(self.outcomes)}): nothing new was learned"

    def go(self, keys: Sequence[str], *, retry_errors: bool = False, force: bool = False) -> None:
        """Evaluate until nothing more comes of it, or as often as gates may open.

        Who was left in one of them is not asked in the next: it has its turn at the next occasion.
        """
        self.left_behind = {key: why for key, why in self.left_behind.items() if key not in keys}
        for number in range(self._most):
            left = self.left
            relayed = self._runs.evaluate(
                keys,
                tasks=self._tasks,
                max_relays=left,
                retry_errors=retry_errors and number == 0,
                force=force and number == 0,
            )
            self.made += 1
            self.sent += relayed.sent
            self.final += relayed.final
            self.left_behind |= relayed.left
            self.outcomes += relayed.outcomes
            self.failed = self.failed or relayed.failed
            keys = [key for key in keys if key not in relayed.left]
            if relayed.final == 0 or left == relayed.sent or not keys or self.stop.is_set():
                break  # also when nobody could be reached: another pass would only ask again

    def refresh_summaries(self) -> None:
        """Bring groups and rankings up to date."""
        self._runs.refresh_summaries()


def _stay(
    workspace: Workspace,
    passes: _Passes,
    keys: Sequence[str],
    tasks: Sequence[str],
    until: datetime | None,
    note: Callable[[str], None],
    clock: WallClock,
) -> None:
    """Evaluate again whenever an open doc is due, until none is open, or the next would be too late."""
    gap = DocClock.from_minutes(workspace.config.settings.planning.occasions_minutes).gap
    patience = min(gap, timedelta(minutes=workspace.config.settings.planning.retry_minutes))
    while opened := open_docs(workspace, keys, tasks):
        next_at = next_attempt(opened)
        if next_at is None or passes.left == 0 or passes.stop.is_set():
            return
        now = clock.now()
        if next_at <= now:
            next_at = now + patience  # something stood in the way: another process holds it, say
        if until is not None and next_at > until:
            return
        note(f"waiting until {_clock_time(next_at, now)}: {who_is_open(opened)} (Ctrl-C ends the wait)")
        clock.sleep_until(next_at, passes.stop)
        if passes.stop.is_set():
            return
        due = [row.supplier for row in opened if row.next_at is not None and row.next_at <= next_at]
        passes.go(due)
        passes.refresh_summaries()


def _what_follows(opened: Sequence[OpenDocs], now: datetime) -> str:
    """The last line of a run that leaves docs open: of whom, why, what it means, and the ways on."""
    next_at = next_attempt(opened)
    at = "later" if next_at is None else "now" if next_at <= now else f"at {_clock_time(next_at, now)}"
    counts = "they count as wrong until they close"
    if sum(row.docs for row in opened) == 1:
        counts = "it counts as wrong until it closes"
    return (
        f"evaluation: {who_is_open(opened)}; {counts}. Run again {at}, stay with `testbench run --wait`, "
        "or leave it to `testbench up`"
    )


def _clock_time(at: datetime, now: datetime) -> str:
    """An instant as a person reads it, in local time, never too early; with the day where it is another."""
    local, today = (at + timedelta(seconds=59)).astimezone(), now.astimezone()
    if at - now < timedelta(minutes=5):
        local = (at + timedelta(microseconds=999_999)).astimezone()
        return f"{local:%H:%M:%S}"
    return f"{local:%H:%M}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M}"


def _most_passes(specs: Sequence[TaskSpec]) -> int:
    """How often to go over the suppliers: what a gate lets be asked shows after scoring."""
    return _MAX_PASSES if any(s.planning.gates for s in specs) else 1


@contextmanager
def _watched(
    workspace: Workspace,
    on_planned: Callable[[int], None] | None,
    on_progress: Callable[[Progress], None] | None,
    on_scored: Callable[[int, int], None] | None,
    stop: threading.Event | None,
) -> Iterator[None]:
    """Let a caller of this process watch the relays of its runs, and stop them."""
    workspace.on_planned, workspace.on_progress = on_planned, on_progress
    workspace.on_scored, workspace.stop = on_scored, stop
    try:
        yield
    finally:
        workspace.on_planned = workspace.on_progress = workspace.on_scored = workspace.stop = None
