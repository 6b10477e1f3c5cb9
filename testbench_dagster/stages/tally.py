"""What an evaluation came to, counted in the stores: docs by state, calls due, changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from testbench_dagster.core.clock import SKEW, is_ahead
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptedDoc
from testbench_dagster.core.records.identity import ToldChange
from testbench_dagster.core.records.plans import PlannedTasks
from testbench_dagster.core.records.scores import ScoredAnswers
from testbench_dagster.stages.discover.roster import named_suppliers
from testbench_dagster.stages.plan.open_docs import open_docs
from testbench_dagster.stages.score.samples import samples_by_task
from testbench_dagster.stages.score.undecided import is_undecided
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


@dataclass(frozen=True)
class Tally:
    """What came of an evaluation since it began.

    ``scored`` docs were given a score, ``failed`` ones were left unanswered for good: how many, by who
    answers for it, and ``failed_of`` by supplier and task. ``open`` docs wait for an answer, those of earlier
    evaluations among them, ``void`` ones closed as nobody's fault, and ``still_due`` calls could be made at
    once. ``changes`` of suppliers were detected.
    """

    scored: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    failed_of: Mapping[tuple[str, str], int] = field(default_factory=dict)
    open: int = 0
    void: int = 0
    still_due: int = 0
    changes: int = 0

    @property
    def n_failed(self) -> int:
        """Docs that were left unanswered for good."""
        return sum(self.failed.values())


class Tallying:
    """Counts what suppliers and tasks come to from now on; begin it before the evaluation."""

    def __init__(self, workspace: Workspace, suppliers: Sequence[str], tasks: Sequence[str]) -> None:
        self._workspace, self._suppliers, self._tasks = workspace, suppliers, tasks
        self._began = datetime.now(UTC)
        days = workspace.config.settings.sampling.max_age_days
        #: No answer that is older is scored.
        self._oldest = self._began - max(
            (spec.max_age(days) for spec in workspace.specs), default=timedelta(0)
        )
        self._before = self._scored()

    def scored(self) -> int:
        """Docs that were given a score since, counted again where another version of a scorer gave one."""
        before = self._before
        return sum(n - before.get(of, 0) for of, n in self._scored().items() if n > before.get(of, 0))

    def end(self) -> Tally:
        """Count what it came to."""
        documents = self._workspace.documents
        failed, failed_of, void = self._closed_without_answer()
        plans = typed.by_id(documents, PlannedTasks, self._suppliers).values()
        tasks = set(self._tasks)
        states = [state for plan in plans for name, state in (plan.tasks or {}).items() if name in tasks]
        since = {"supplier": {"in": list(self._suppliers)}, "detected_at": self._since()}
        return Tally(
            scored=self.scored(),
            failed=dict(failed.most_common()),
            failed_of=dict(failed_of.most_common()),
            void=void,
            open=sum(row.docs for row in open_docs(self._workspace, self._suppliers, self._tasks)),
            still_due=sum(state.calls for state in states if state.state == "due"),
            changes=sum(1 for _ in typed.find(documents, ToldChange, since)),
        )

    def _since(self) -> dict[str, datetime]:
        """The dates of what happened since; what is ahead was there before, by a clock that was set back."""
        return {"gte": self._began, "lte": datetime.now(UTC) + SKEW}

    def _scored(self) -> dict[tuple[str, str, str], int]:
        """Answers with a score, by task, its hash and what scored them."""
        where = {
            "supplier": {"in": list(self._suppliers)},
            "task": {"in": list(self._tasks)},
            "answered_at": {"gt": self._oldest},
        }
        found: dict[tuple[str, str, str], int] = {}
        for row in typed.group(self._workspace.documents, ScoredAnswers, where):
            if not is_undecided(row.scorer_version):
                of = (row.task, row.task_hash, row.scorer_version)
                found[of] = max(found.get(of, 0), row.n)  # there is one score per answer and filter
        return found

    def _closed_without_answer(self) -> tuple[Counter[str], Counter[tuple[str, str]], int]:
        """Docs that closed as failed since, by owner of the fault, and by supplier and task; and void ones.

        Only docs that were asked in vain since can be among them: without such there is nothing to read.
        """
        suppliers = named_suppliers(self._workspace, self._suppliers)
        unanswered = [fault.value for fault in Fault if not fault.answered]
        asked: dict[str, dict[str, set[int]]] = {}
        where = {
            "finished_at": self._since(),
            "supplier": {"in": list(self._suppliers)},
            "task": {"in": list(self._tasks)},
            "fault": {"in": unanswered},
        }
        for attempt in typed.find(self._workspace.documents, AttemptedDoc, where):
            asked.setdefault(attempt.supplier, {}).setdefault(attempt.task, set()).add(attempt.doc_id)
        registrations = {r.task: r for r in self._workspace.datasets.tasks() if r.task in self._tasks}
        owners: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        void = 0
        now = datetime.now(UTC)
        for supplier in suppliers:
            docs = asked.get(supplier.key, {})
            tasks = [
                (spec, registrations[spec.name])
                for spec in self._workspace.specs
                if spec.name in docs and spec.name in registrations
            ]
            for task, window in samples_by_task(self._workspace, supplier, tasks, now) if tasks else ():
                for sample in window.samples:
                    if sample.at < self._began or is_ahead(sample.at, now) or sample.doc_id not in docs[task]:
                        continue
                    void += sample.void
                    if sample.failed:
                        owners[sample.fault.owner.value] += 1
                        pairs[supplier.key, task] += 1
        return owners, pairs, void
