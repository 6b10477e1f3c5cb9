"""The scoring stage: every answered doc that has no score yet gets one document per filter.

Answers are read from the stored evidence and parsed by the same function that classified them on arrival;
docs come from the dataset store as registered. Both make a score reproducible from evidence alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from testbench_dagster.coordination.heartbeats import Heartbeat, beating
from testbench_dagster.coordination.writing import FactWriter, writing_facts
from testbench_dagster.core.errors import Interrupted, TaskError
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.text import escaped
from testbench_dagster.stages.sample.data import definition_changed
from testbench_dagster.stages.score.answered import unscored
from testbench_dagster.stages.score.batch import score_answers, storable
from testbench_dagster.stages.score.empty import score_empty
from testbench_dagster.stages.score.outages import end_outages, note_outage, waiting_tasks
from testbench_dagster.stages.score.pending import to_be_scored
from testbench_dagster.stages.score.signatures import remember_signatures
from testbench_dagster.stages.score.undecided import decided
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.worker import WorkerStopped, WorkerTimeout

BATCH = 500  # docs per call to the framework
PAGES = 8  # the same of pages, which may have megabytes each


@dataclass
class ScoreReport:
    """How many answers were scored, how many the scorer could not digest or were put off, per task.

    ``waiting`` are those put off for the service that a metric asks, ``unread`` those whose answers cannot be
    read where they are kept, with ``why_unread``. ``problems`` says why a task's answers could not be scored
    at all, ``stopped`` is set where that ended the scorer's process.
    """

    scored: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    put_off: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    why_unread: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    stopped: WorkerStopped | None = None

    @property
    def n_scored(self) -> int:
        """Docs scored by this call."""
        return sum(self.scored.values())

    @property
    def n_failed(self) -> int:
        """Docs the scorer could not digest."""
        return sum(self.failed.values())

    @property
    def n_put_off(self) -> int:
        """Docs left to a later run: others of their supplier kept the scorer busy for too long, the service
        that a metric asks is gone, the task's definition was edited and is not registered yet, or an answer
        cannot be read where it is kept.
        """
        return sum(self.put_off.values())


def score_new(
    workspace: Workspace,
    suppliers: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    now: datetime | None = None,
    heartbeat: Heartbeat | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    unless_waiting_since: datetime | None = None,
) -> ScoreReport:
    """Score what is answered, can still count in a window and has no score of the current scorer; idempotent.

    That covers answers of earlier epochs and rounds, and answers that an earlier scorer scored: when a task's
    filters or metrics change, they are scored anew from the stored evidence.

    The docs of a task are scored together over all given suppliers, because some filters cost 150 ms per
    call whatever its size. ``heartbeat`` is what this process's writing lives by, by default the
    workspace's. ``on_progress`` is told how many docs were looked at, and of how many, while more follow.

    Answers whose metric asks a service that is gone stay as they are and due for scoring; who waits is stored
    (:mod:`.outages`). ``unless_waiting_since``: leave tasks alone for which that was seen since this instant.
    What is wrong with one task stops no other. One whose scorer came to no end is left alone for the rest of
    the run that the workspace serves.
    """
    report = ScoreReport()
    now = now or datetime.now(UTC)
    specs = {spec.name: spec for spec in workspace.chosen_specs(tasks)}
    registrations = {r.task: r for r in workspace.datasets.tasks() if r.task in specs}
    for name, why in workspace.given_up.items():
        if registrations.pop(name, None) is not None:
            report.problems[name] = why
    if unless_waiting_since is not None:
        for name in waiting_tasks(workspace.documents, registrations, unless_waiting_since):
            del registrations[name]
    for name, registration in registrations.items():
        oldest = now - specs[name].max_age(workspace.config.settings.sampling.max_age_days)
        with _alone(workspace, report, name):
            score_empty(workspace, suppliers, specs[name], registration, oldest, now)
    to_score = to_be_scored(workspace, suppliers, specs, registrations, now)
    documents = workspace.documents
    if not to_score:
        end_outages(documents, registrations, suppliers, {})
        return report
    waits: dict[str, Counter[str]] = {}
    with (
        beating(documents, heartbeat or workspace.heartbeat) as own,
        writing_facts(documents, own) as writer,
    ):
        writer.enter(_by_supplier(to_score))
        for name, since in to_score.items():
            with _alone(workspace, report, name):
                waits[name] = _score_task(
                    workspace, specs[name], registrations[name], since, writer, report, on_progress
                )
    tried = [name for name in registrations if name in waits or name not in to_score]
    end_outages(documents, tried, suppliers, waits)
    if report.stopped and not waits:
        raise report.stopped  # the worker does not even start
    return report


@contextmanager
def _alone(workspace: Workspace, report: ScoreReport, task: str) -> Iterator[None]:
    """What is wrong with a task is noted, and the others go on; one that hangs is not tried again."""
    try:
        yield
    except Interrupted as error:
        report.problems.setdefault(task, escaped(f"{error}; the next run scores it"))
    except TaskError as error:
        report.problems.setdefault(task, escaped(str(error)))
        if isinstance(error, WorkerStopped):
            report.stopped = error
        if isinstance(error, WorkerTimeout):
            workspace.given_up.setdefault(task, report.problems[task])


def _by_supplier(tasks: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task, suppliers in tasks.items():
        for supplier in suppliers:
            found.setdefault(supplier, []).append(task)
    return found


def _score_task(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    since: Mapping[str, datetime],
    writer: FactWriter,
    report: ScoreReport,
    on_progress: Callable[[int, int], None] | None,
) -> Counter[str]:
    """Score and store what the given suppliers answered after their instants, and count it.

    Returns how many docs of each supplier wait: for the service that a metric asks, or to be readable.
    """
    calls: dict[str, int] = {}
    waiting = [
        doc
        for supplier, oldest in since.items()
        for doc in unscored(workspace.documents, supplier, spec, registration, calls, oldest)
    ]
    strikes: Counter[str] = Counter()
    waits: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    reason, gone, hangs = "", False, None
    size = PAGES if registration.flags.output_type == "get" else BATCH
    for start in range(0, len(waiting), size):
        batch = waiting[start : start + size]
        # scores by an edited definition would claim to be the registered scorer's; the catalog comes first
        scores: list[ScoreRecord] = []
        if gone:
            waits.update(doc.supplier for doc in batch)
        elif not definition_changed(spec, registration):
            try:
                made = score_answers(workspace, spec, registration, batch, strikes)
            except TaskError as error:
                # the service that a metric asks may have been missed before: one reason, the newest
                left = waits + Counter(doc.supplier for doc in waiting[start:])
                note_outage(workspace.documents, spec.name, left, str(error), of_scorer=True)
                raise
            waits.update(doc.supplier for doc in made.waiting)
            unread.update(doc.supplier for doc in made.unread)
            if made.why_unread is not None:
                report.why_unread[spec.name] = escaped(made.why_unread)
            reason, gone, hangs = made.reason or reason, made.gone, made.hangs
            scores = [] if definition_changed(spec, registration) else storable(made.records)
        if spec.signs:
            remember_signatures(workspace.documents, spec, scores)
        writer.check({doc.supplier for doc in batch})
        typed.put_new(workspace.documents, ScoreRecord, scores)
        covered = {score.answer_id for score in decided(scores)}
        if hangs is not None and not gone:
            waits.update(doc.supplier for doc in waiting[start:] if doc.answer_id not in covered)
        failed = {score.answer_id for score in decided(scores) if score.error is not None}
        for counts, count in (
            (report.scored, len(covered) - len(failed)),
            (report.failed, len(failed)),
            (report.put_off, len(batch) - len(covered)),
        ):
            if count:
                counts[spec.name] = counts.get(spec.name, 0) + count
        if on_progress is not None:
            on_progress(start + len(batch), len(waiting))
        if hangs is not None:
            workspace.given_up[spec.name] = report.problems[spec.name] = escaped(hangs)
            if not gone:
                break
    if hangs is not None and not gone:
        note_outage(workspace.documents, spec.name, waits, hangs, of_scorer=True)
        return waits + unread
    if unread:
        report.unread[spec.name] = unread.total()
        note_outage(workspace.documents, spec.name, unread, report.why_unread[spec.name], unread=True)
    if waits:
        report.waiting[spec.name] = waits.total()
    note_outage(workspace.documents, spec.name, waits, reason)
    return waits + unread
