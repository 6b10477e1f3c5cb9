"""An evaluation in this process, from the catalog to the leaderboard: what ``testbench run`` does.

Drives the jobs of :mod:`.local_runs`, the same that sensors and the UI start.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Window
from testbench_dagster.core.wording import are, counted
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.defs.metadata import counts
from testbench_dagster.relays.report import Progress
from testbench_dagster.stages.ahead import dated_ahead
from testbench_dagster.stages.discover.roster import named_suppliers, refresh_roster
from testbench_dagster.stages.disk_space import low_space
from testbench_dagster.stages.migrate import migrate_if_safe
from testbench_dagster.stages.plan.money import out_of_money
from testbench_dagster.stages.plan.open_docs import (
    OpenDocs,
    next_attempt,
    open_docs,
    what_they_count_as,
    who_is_open,
    who_refuses_all,
)
from testbench_dagster.stages.plan.paces import used_up
from testbench_dagster.stages.preconditions import (
    chosen_suppliers,
    require_data_files,
    require_keys,
    require_something_to_ask,
    who_waits,
    why_nothing_is_scored,
)
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.sample.set_aside import tasks_set_aside, void_docs
from testbench_dagster.stages.score.outages import who_waits_for_scorers
from testbench_dagster.stages.score.remarks import empty_answers, who_has_failed, who_is_cut_short
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.service.due import due_probes
from testbench_dagster.stages.service.probing import Probed
from testbench_dagster.stages.snapshot import take_snapshots
from testbench_dagster.stages.statements import refuse_beside_others
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.tally import Tally, Tallying
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import Waiting

_MAX_PASSES = 4  # of evaluating what gates let be asked; the next run goes on
_LOOK_S = 15.0  # waiting for an occasion, the clock is looked at so often


@dataclass(frozen=True)
class RunReport:
    """What an evaluation came to.

    ``suppliers`` and ``tasks`` are those evaluated, ``sent`` the relays (retries and canaries included),
    ``final`` the calls that were answered. ``waiting`` says how many suppliers wait for a session and why,
    ``problem`` why there is no score at all, or nothing new although relays were sent; both are empty where
    there is nothing to say. ``left`` says why suppliers were left before they were asked all, by key.
    ``interrupted``: it was told to stop. ``open`` are the docs that wait for an answer, by supplier, and
    ``next_at`` is when the first of them is asked again. ``nothing_allowed``: it was to send nothing at all.
    ``set_aside`` says why tasks could not be prepared and were not evaluated, by name, ``unscored`` of which
    tasks answers wait for the service that their metric asks. ``tally`` counts what came of it in the stores,
    ``warnings`` and ``errors`` say what asset checks found wrong, by name, and ``seconds`` how long it took.
    ``probed`` is what came of service probes, None where none was due.
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
    nothing_allowed: bool = False
    set_aside: Mapping[str, str] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    warnings: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    probed: Probed | None = None


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
    on_stage: Callable[[str], None] | None = None,
    on_wait: Callable[[Waiting | None], None] | None = None,
    stop: threading.Event | None = None,
    clock: WallClock | None = None,
) -> RunReport:
    """Refresh the catalog where stale, relay what is due, score, probe the service, summarize, rank.

    Safe to interrupt and to start again: what has a stored answer is not asked twice. A task that cannot be
    prepared is set aside with its reason, and the others are evaluated.

    Args:
        workspace: the installation.
        suppliers: keys; by default all active ones.
        tasks: names of tasks or groups; by default all.
        max_relays: send at most so many relays, retries included, and no service probe.
        retry_errors: ask open docs again now instead of at their next occasion.
        force: ask again what is fresh.
        wait: stay for the later occasions of docs that are open, until none is or for so long.
        on_planned: called with the number of due calls before each pass relays.
        on_progress: called a few times a second while relaying.
        on_note: called with what a person should know, in a line each.
        on_scored: called with how many docs of a task are scored, and of how many, while more follow.
        on_stage: called with what begins, in words; with an empty text where it only waits, and at the end.
        on_wait: called several times a second with the task whose framework is waited for, with None once it
            is no more.
        stop: once it is set nothing is sent any more; what is stored is scored, and the report returned. A
            task that is being prepared then, or not scored within ten seconds, is ended.
        clock: the time; the machine's by default.

    Raises:
        ConfigError: a supplier or key is missing, all tasks or their data files are, a taxonomy makes no
            sense, or none of the tasks is asked of one of the suppliers.
        DriftError: a code server, or an evaluation elsewhere, goes by another configuration.
        TaskInputError: no task can be prepared.
        Interrupted: ``stop`` was set before anything was planned; nothing was sent.
        TestbenchError: a stage failed, or no supplier can be found.
    """
    began = time.monotonic()
    note = on_note or (lambda text: None)
    stage = on_stage or (lambda text: None)
    clock = clock or WallClock()
    specs = workspace.chosen_specs(tasks)
    require_data_files(workspace, specs)
    configured_taxonomies(workspace)  # wrong ones are told before a relay is spent
    migrate_if_safe(workspace.config, note)
    refuse_beside_others(workspace)  # before the roster is touched
    if workspace.config.settings.discovers:
        report = refresh_roster(workspace)
        for problem in [*report.problems.values(), *report.warnings.values()]:
            note(f"warning: {problem}")
    for little in low_space(workspace.config):
        note(f"warning: {little}")
    if (ahead := dated_ahead(workspace, clock.now())) is not None:
        note(f"warning: {ahead}")
    roster = chosen_suppliers(workspace, suppliers)
    asked = require_something_to_ask(workspace, roster, specs)
    for problem in require_keys(workspace.config, asked):
        note(f"warning: left out: {problem}")
    keys = [supplier.key for supplier in roster]
    names = [spec.name for spec in specs]
    stop = stop or threading.Event()
    with LocalRuns(workspace) as runs, _watched(workspace, on_planned, on_progress, on_scored, on_wait, stop):
        runs.refresh_suppliers()
        stale = stale_tasks(workspace, specs)
        if stale:
            note(f"catalog: preparing {len(stale)} of {counted(len(specs), 'task')}")
            stage("catalog: preparing")
            runs.refresh_catalog(stale)
        aside = tasks_set_aside(workspace, specs)
        for name, why in aside.items():
            note(f"catalog: task {name} is set aside: {why}")
        for name, why in void_docs(workspace, specs).items():
            note(f"catalog: task {name}: {why}")
        if len(aside) == len(specs):
            raise TaskInputError(_all_set_aside(aside))
        names = [name for name in names if name not in aside]
        prepared = [spec for spec in specs if spec.name not in aside]
        note(f"evaluation: {counted(len(keys), 'supplier')}, {_of_tasks(prepared, roster)}")
        tallying = Tallying(workspace, keys, names)
        passes = _Passes(runs, _most_passes(specs), tasks, max_relays, stop, stage)
        passes.go(keys, retry_errors=retry_errors, force=force)
        probed = None
        if max_relays is None and not stop.is_set():  # a cap is on all that is sent
            probed = _probe_what_is_due(workspace, runs, keys, clock.now(), stage)
        passes.refresh_summaries()
        if wait:
            until = None if wait is True else clock.now() + wait
            _stay(workspace, passes, keys, names, until, note, clock, stage)
        stage("evaluation: looking at what came of it")
        checks = {name: verdict for name, verdict in runs.checks.items() if not verdict.passed}
        # of who runs no daemon this is all the history there is
        runs.record_snapshots(
            clock.now().date(), take_snapshots(workspace, clock.now().date(), keys, now=clock.now())
        )
    note(f"evaluation: {passes.what_was_sent}")
    if probed is not None:
        note(f"service: {probed.words}")
    for name, why in (passes.problems | workspace.unaggregated).items():
        note(f"evaluation: task {name} could not be scored: {why}")
    if passes.not_published is not None:
        note(f"warning: not published: {passes.not_published}")
    for name, verdict in checks.items():
        note(f"{'error' if verdict.error else 'warning'}: check {name}: {verdict.problem or 'failed'}")
    unscored = who_waits_for_scorers(workspace.documents, keys, names)
    for name, why in unscored.items():
        note(f"evaluation: task {name}: {why}")
    nothing_scored = ""
    tally = tallying.end()
    if unscored and not tally.scored:
        nothing_scored = "nothing was scored: the service that a metric asks is gone, see above"
    for key, why in passes.left_behind.items():
        note(f"evaluation: {key} was left: {why}")
    waiting = who_waits(workspace, suppliers)
    if waiting:
        note(f"evaluation: {waiting}")
    for text in used_up(workspace, roster, clock.now()):
        note(f"evaluation: {text}")
    for text in out_of_money(workspace, roster, clock.now(), passes.out_of_money):
        note(f"evaluation: {text}")
    # rows as the evaluation has cached them; where nothing was asked nothing is new
    rows = list(_primary_rows(workspace, keys, names)) if passes.sent else []
    failed = who_has_failed(rows)
    if failed:
        note(f"evaluation: {failed}")
    for line in who_is_cut_short(empty_answers(workspace, rows)):
        note(f"evaluation: {line}")
    opened = open_docs(workspace, keys, names)
    refusing = who_refuses_all(workspace, [row for row in opened if row.supplier not in passes.left_behind])
    if refusing:
        note(f"evaluation: {refusing}")
    if opened:
        note(_what_follows(opened, clock.now()))
    if aside:
        note(_what_was_set_aside(aside, len(specs)))
    stage("")
    return RunReport(
        tuple(keys),
        tuple(names),
        passes.made,
        passes.sent,
        passes.final,
        waiting,
        nothing_scored
        or _problem(why_nothing_is_scored(workspace, suppliers, tasks), max_relays)
        or passes.nothing_learned,
        passes.left_behind,
        passes.stop.is_set(),
        {row.supplier: row.docs for row in opened},
        next_attempt(opened),
        max_relays == 0,
        aside,
        unscored,
        tally,
        {name: verdict.problem for name, verdict in checks.items() if not verdict.error},
        {name: verdict.problem for name, verdict in checks.items() if verdict.error},
        time.monotonic() - began,
        probed,
    )


def _probe_what_is_due(
    workspace: Workspace, runs: LocalRuns, keys: Sequence[str], now: datetime, stage: Callable[[str], None]
) -> Probed | None:
    """Probe how fast suppliers answer, where that is switched on and due; when all else has been asked."""
    if not workspace.config.settings.service_probes.enabled:
        return None
    due = {one.supplier for one in due_probes(workspace, keys, now)}
    if not due:
        return None
    stage("service: probing how fast suppliers answer")
    return runs.probe([key for key in keys if key in due])


def _problem(unscored: str | None, max_relays: int | None) -> str | None:
    """Why there is no score, where there is none: what stood in the way before is not asked for then."""
    if unscored and max_relays == 0:
        return "nothing was scored: a cap of 0 relays allows none to be sent"
    return unscored


def _of_tasks(specs: Sequence[TaskSpec], suppliers: Sequence[Supplier]) -> str:
    """How many tasks, and where not all suppliers are asked all of them, in how many cases they are not."""
    told = counted(len(specs), "task")
    not_asked = sum(not spec.asked_of(supplier) for spec in specs for supplier in suppliers)
    if not not_asked:
        return told
    pairs = counted(len(specs) * len(suppliers), "pair")
    return f"{told}; {not_asked} of {pairs} of them {are(not_asked)} not asked"


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
        stage: Callable[[str], None],
    ) -> None:
        self._runs = runs
        self._stage = stage
        self._most = most
        self._tasks = tasks
        self._max_relays = max_relays
        self.stop = stop
        self.made = self.sent = self.final = 0
        self.left_behind: dict[str, str] = {}
        self.outcomes: Counter[str] = Counter()
        self.failed = False
        self.problems: dict[str, str] = {}
        self.out_of_money: Mapping[str, int] = {}
        self.not_published: str | None = None

    @property
    def left(self) -> int | None:
        """Relays that may still be sent; None for any number."""
        return None if self._max_relays is None else self._max_relays - self.sent

    @property
    def what_was_sent(self) -> str:
        """How many relays were sent, and what the unanswered ones ended in: attempts, which fail no doc."""
        unanswered = {name: n for name, n in self.outcomes.items() if not Fault(name).answered}
        sent = f"{counted(self.sent, 'relay')} sent"
        if not unanswered:
            return sent
        told = f"{sent}, {sum(unanswered.values())} of them unanswered ({counts(unanswered)})"
        return f"{told}; an attempt without an answer fails no doc by itself, it is asked again"

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
            self._stage("evaluation: planning")
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
            self.problems |= relayed.problems
            self.out_of_money = relayed.out_of_money
            keys = [key for key in keys if key not in relayed.left]
            if relayed.final == 0 or left == relayed.sent or not keys or self.stop.is_set():
                break  # also when nobody could be reached: another pass would only ask again

    def refresh_summaries(self) -> None:
        """Bring groups and rankings up to date."""
        self._stage("summaries: groups and ranking")
        self.not_published = self._runs.refresh_summaries()


def _stay(
    workspace: Workspace,
    passes: _Passes,
    keys: Sequence[str],
    tasks: Sequence[str],
    until: datetime | None,
    note: Callable[[str], None],
    clock: WallClock,
    stage: Callable[[str], None] = lambda text: None,
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
        stage("")
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
    return (
        f"evaluation: {who_is_open(opened)}; {what_they_count_as(opened)}. Run again {at}, "
        "stay with `testbench run --wait`, or leave it to `testbench up`"
    )


def _all_set_aside(aside: Mapping[str, str]) -> str:
    first = next(iter(aside.values()))
    return first if len(aside) == 1 else f"{first} (and {counted(len(aside) - 1, 'more task')} set aside)"


def _what_was_set_aside(aside: Mapping[str, str], tasks: int) -> str:
    """The end of a run that could not ask all tasks: which, and what becomes of them."""
    named = ", ".join(list(aside)[:5]) + (", …" if len(aside) > 5 else "")
    of = f"{len(aside)} of {counted(tasks, 'task')} {are(len(aside))}"
    return f"evaluation: {of} set aside ({named}), see above; the next run tries again"


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
    on_wait: Callable[[Waiting | None], None] | None,
    stop: threading.Event,
) -> Iterator[None]:
    """Let a caller of this process watch what its runs do, and stop them; a new run tries every task."""
    workspace.on_planned, workspace.on_progress = on_planned, on_progress
    workspace.on_scored, workspace.stop = on_scored, stop
    workspace.worker.on_wait, workspace.worker.stop = on_wait, stop
    workspace.given_up.clear()
    workspace.unaggregated.clear()
    try:
        yield
    finally:
        workspace.on_planned = workspace.on_progress = workspace.on_scored = workspace.stop = None
        workspace.worker.on_wait = workspace.worker.stop = None
