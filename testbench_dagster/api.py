"""The Python face: everything the command line does and prints.

>>> from testbench_dagster import Testbench
>>> with Testbench.open() as testbench:          # doctest: +SKIP
...     testbench.run(max_relays=1000)
...     frame = testbench.scores().to_pandas()
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from testbench_dagster.core import arguments
from testbench_dagster.core.applicability import is_chosen
from testbench_dagster.core.doc_answer import DocAnswer
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.history import HistoryPoint
from testbench_dagster.core.period import Period
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.rankings import Ability, SupplierAbilities
from testbench_dagster.core.service_quality import ServiceQuality
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.text import escaped
from testbench_dagster.core.window import Window
from testbench_dagster.ranking.entry import ORDERS, Entry, ordered
from testbench_dagster.stages.compare import COMPARISON_COLUMNS, compare
from testbench_dagster.stages.discover.roster import active_suppliers, known_suppliers, named_suppliers
from testbench_dagster.stages.identify.identify import IdentityReport, refresh_identity
from testbench_dagster.stages.identify.public_gaps import refresh_public_gaps
from testbench_dagster.stages.identify.suspicions import SUSPICION_COLUMNS, SUSPICION_KINDS, suspicion_rows
from testbench_dagster.stages.identify.views import (
    CHANGE_COLUMNS,
    IDENTITY_COLUMNS,
    PAIR_COLUMNS,
    PUBLIC_GAP_COLUMNS,
    REFERENCE_COLUMNS,
    change_rows,
    cut_rows,
    identity_rows,
    pair_rows,
    public_gap_rows,
    reference_rows,
)
from testbench_dagster.stages.publish.inspect_log import write_inspect_logs
from testbench_dagster.stages.publish.lm_eval_log import write_lm_eval_logs
from testbench_dagster.stages.rank import leaderboard, make_board, stored_entries, task_board
from testbench_dagster.stages.rank.items import ITEM_COLUMNS, items
from testbench_dagster.stages.read.answers import answers, attempts, doc, every_answer, one_answer
from testbench_dagster.stages.read.history import history
from testbench_dagster.stages.read.service import daily_service, recent_service
from testbench_dagster.stages.read.supplier import SupplierPage, supplier_page
from testbench_dagster.stages.sample.set_aside import tasks_set_aside
from testbench_dagster.stages.score.task_groups import with_groups
from testbench_dagster.stages.score.windows import windows, windows_as_of
from testbench_dagster.stages.service.outlook import ProbesADay, probes_a_day
from testbench_dagster.stages.service.probing import PROBE_COLUMNS
from testbench_dagster.stages.statements import problem_beside_others
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tables import Table, kinds_of

if TYPE_CHECKING:
    from testbench_dagster.defs.backfills import RequestedBackfill
    from testbench_dagster.defs.local_evaluation import RunReport
    from testbench_dagster.relays.report import Progress
    from testbench_dagster.stages.dispute.bundle import Exported
    from testbench_dagster.stages.plan.money import MoneyOfService
    from testbench_dagster.stages.publish.by_day import ExportedByDay
    from testbench_dagster.tasks.worker import Waiting
    from testbench_dagster.taxonomies.model import Taxonomy


#: What :meth:`Testbench.export` writes.
PARQUET, INSPECT, LM_EVAL_LOGS = "parquet", "inspect", "lm-eval"
EXPORT_FORMATS = (PARQUET, INSPECT, LM_EVAL_LOGS)
#: Columns of the rows of :meth:`Testbench.attempts`, with their types.
ATTEMPT_COLUMNS: dict[str, type] = {
    one.name: one.scalar or str for one in AttemptRecord.fields if one.queryable
}
#: Columns of the rows of :meth:`Testbench.taxonomies`, with their types.
ABILITY_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("supplier", "model", "taxonomy", "node"), str),
    "root": bool,
    "summarized_at": datetime,
    **{one.name: one.scalar or (list if list in one.types else dict) for one in Ability.fields},
}


@dataclass(frozen=True)
class Plan(Table):
    """The rows of a plan, the relays they come to, and what is left of the day's budgets, by service.

    ``paces`` says who is asked at a pace, and about how long the relays take then, by account. ``estimated``
    of the relays are of tasks that are not prepared yet: known by their rules, or guessed. ``cost`` is about
    what the relays cost of which that is known, None where it is of none; ``uncosted`` are the others.
    ``schedules`` says by name whom each configured schedule evaluates, on what and when, or what keeps it
    from that. ``money`` is that of the day, by service with a budget of it.
    ``probes`` is what service probes of these suppliers come to in a day, beside all that; None where they
    are switched off. ``drift``: why none of it would be relayed: another process goes by another
    configuration or other packages.
    """

    calls: int = 0
    left: Mapping[str, int] = field(default_factory=dict)
    paces: Mapping[str, str] = field(default_factory=dict)
    estimated: int = 0
    cost: float | None = None
    uncosted: int = 0
    schedules: Mapping[str, str] = field(default_factory=dict)
    money: Mapping[str, MoneyOfService] = field(default_factory=dict)
    probes: ProbesADay | None = None
    drift: str | None = None


@dataclass(frozen=True)
class Probes(Table):
    """Attempts at service probes, ``answered`` of which brought an answer; ``words`` say what came of them.

    ``interrupted``: it was told to stop before the end.
    """

    words: str = ""
    answered: int = 0
    interrupted: bool = False


@dataclass(frozen=True)
class Ranking(Table):
    """Rows of abilities or of a leaderboard, and why tasks that they would rest on are set aside, by task."""

    set_aside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers(Table):
    """A page of answers; ``counts`` are the docs of the whole window by kind.

    ``after`` is what to ask the next page with, None at the end.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    after: int | None = None


@dataclass(frozen=True)
class Doc(Table):
    """What everybody said to a doc; ``requests`` are those of its prompt, ``target`` is what is expected.

    ``after`` is what to ask the next page of suppliers with, None at the end.
    """

    requests: Sequence[Mapping[str, Any]] = ()
    target: str | None = None
    after: str | None = None


class Testbench:
    """An opened installation. Use as a context manager, or call :meth:`close`."""

    __test__ = False  # pytest: the name starts with "Test", but this is no test class

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @classmethod
    def open(cls, config: Path | str | None = None) -> Testbench:
        """Open the installation of a configuration file (default as on the command line).

        Raises:
            ConfigError: the configuration is missing or wrong.
        """
        if config is not None:
            config = arguments.path("config", config)
        return cls(Workspace.open(config, hurried=True))

    def close(self) -> None:
        """Release the stores."""
        self._workspace.close()

    def __enter__(self) -> Testbench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- doing --------------------------------------------------------------------------------------------

    def check(
        self,
        *,
        suppliers: bool = True,
        on_finding: Callable[[Finding], None] | None = None,
        on_wait: Callable[[Waiting | None], None] | None = None,
    ) -> list[Finding]:
        """Look at configuration, stores, tasks and, unless left out, suppliers; what is wrong has a remedy.

        ``on_finding`` is called with each finding as it is made: suppliers may take a while to answer.
        ``on_wait`` is told several times a second which task's framework is waited for.

        Raises:
            ConfigError: the configuration names tasks that there are not, or an argument is of a wrong kind.
        """
        arguments.flag("suppliers", suppliers)
        arguments.callback("on_finding", on_finding)
        arguments.callback("on_wait", on_wait)
        # with the transports: 0.07 s; with Dagster: 0.8 s
        from testbench_dagster.defs.storage_findings import storage_findings
        from testbench_dagster.stages.check import findings

        found = []
        self._workspace.worker.on_wait = on_wait
        try:
            for finding in findings(self._workspace, suppliers=suppliers, of_dagster=storage_findings):
                if on_finding is not None:
                    on_finding(finding)
                found.append(finding)
        finally:
            self._workspace.worker.on_wait = None
        return found

    def run(
        self,
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
    ) -> RunReport:
        """Evaluate now, by default everything: what ``testbench run`` does, recorded in Dagster likewise.

        Refreshes the catalog where stale, relays what is due, scores, summarizes and ranks. Safe to
        interrupt and to start again. With ``wait`` it stays for the later occasions of docs that are open,
        until none is (True) or for so long. See :func:`.defs.local_evaluation.evaluate` for the arguments.

        Raises:
            ConfigError: a supplier, task, data file or key is missing, a taxonomy makes no sense, a selection
                is empty, or an argument is of a wrong kind.
            TestbenchError: a stage failed, or no supplier can be found.
        """
        suppliers = arguments.selection("suppliers", suppliers)
        tasks = arguments.selection("tasks", tasks)
        max_relays = arguments.count_or_none("max_relays", max_relays)
        arguments.flag("retry_errors", retry_errors)
        arguments.flag("force", force)
        wait, stop = arguments.wait("wait", wait), arguments.event("stop", stop)
        told = {
            "on_planned": on_planned,
            "on_progress": on_progress,
            "on_note": on_note,
            "on_scored": on_scored,
            "on_stage": on_stage,
            "on_wait": on_wait,
        }
        for name, function in told.items():
            arguments.callback(name, function)
        from testbench_dagster.defs.local_evaluation import evaluate  # with Dagster: 1 s only this needs

        self._workspace.take_time()
        return evaluate(
            self._workspace,
            suppliers,
            tasks,
            max_relays=max_relays,
            retry_errors=retry_errors,
            force=force,
            wait=wait,
            on_planned=on_planned,
            on_progress=on_progress,
            on_note=on_note,
            on_scored=on_scored,
            on_stage=on_stage,
            on_wait=on_wait,
            stop=stop,
        )

    def probe(
        self,
        suppliers: Sequence[str] | None = None,
        *,
        on_stage: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Probes:
        """Probe now how fast suppliers answer, with every configured workload, due or not; nothing is scored.

        One row per attempt (see docs/service-quality.md). The budgets hold; whether ``service_probes`` is
        enabled says only whether this happens by itself.

        Args:
            suppliers: keys; by default all active ones that the configuration has probed.
            on_stage: called with what begins, in words; with an empty text at the end.
            stop: ends it within about a second once it is set.

        Raises:
            ConfigError: a supplier is not active, nobody is to be probed, or an argument is of a wrong kind.
            TestbenchError: a stage failed, or no supplier can be found.
        """
        suppliers = arguments.selection("suppliers", suppliers)
        arguments.callback("on_stage", on_stage)
        stop = arguments.event("stop", stop)
        from testbench_dagster.defs.local_probing import probe_now  # with Dagster: 1 s only this needs

        self._workspace.take_time()
        probed = probe_now(self._workspace, suppliers, on_stage=on_stage, stop=stop)
        return Probes(
            probed.rows(), PROBE_COLUMNS, probed.words, probed.report.answered, probed.report.interrupted
        )

    def plan(
        self,
        suppliers: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        *,
        models: Sequence[str] | None = None,
        budget: int | None = None,
    ) -> Plan:
        """Return what would be relayed now and why each other task is not due; sends nothing.

        One row per supplier and task (see docs/reference.md). ``models`` are patterns: only of suppliers that
        claim such a model. ``budget`` shares so many relays fairly, by default what is left of the day's.

        Raises:
            ConfigError: a supplier is not active, a task is not configured, nobody claims such a model, a
                taxonomy makes no sense, a selection is empty, or an argument is of a wrong kind.
        """
        suppliers = arguments.selection("suppliers", suppliers)
        tasks = arguments.selection("tasks", tasks)
        budget = arguments.count_or_none("budget", budget)
        # with the planner: 0.1 s
        from testbench_dagster.stages.plan.rows import PLAN_COLUMNS, plan_rows
        from testbench_dagster.stages.plan.schedules import schedule_texts
        from testbench_dagster.stages.preconditions import chosen_suppliers

        configured_taxonomies(self._workspace)  # wrong ones would be told only by the evaluation
        chosen = _of_models(chosen_suppliers(self._workspace, suppliers), models)
        planned = plan_rows(self._workspace, chosen, tasks=tasks, budget=budget)
        return Plan(
            planned.rows,
            PLAN_COLUMNS,
            planned.calls,
            planned.left,
            planned.paces,
            planned.estimated,
            planned.cost,
            planned.uncosted,
            schedule_texts(self._workspace),
            planned.money,
            probes_a_day(self._workspace, chosen),
            problem_beside_others(self._workspace),
        )

    def backfill(
        self, suppliers: Sequence[str] | None = None, *, rescore: bool = False, force: bool = False
    ) -> RequestedBackfill:
        """Have the daemon evaluate suppliers, by default all active ones, as a Dagster backfill.

        Args:
            suppliers: keys.
            rescore: only score the stored answers anew.
            force: ask again what is fresh.

        Raises:
            ConfigError: a supplier is not active, none is named, ``rescore`` and ``force`` are both given, a
                taxonomy makes no sense, or an argument is of a wrong kind.
            TestbenchError: a supplier has no partition yet.
        """
        suppliers = arguments.selection("suppliers", suppliers)
        arguments.flag("rescore", rescore)
        arguments.flag("force", force)
        if rescore and force:
            raise ConfigError("force relays and rescore does not; choose one")
        configured_taxonomies(self._workspace)  # the daemon would find it only after it has relayed
        from testbench_dagster.defs.backfills import RequestedBackfill  # with Dagster
        from testbench_dagster.stages.preconditions import chosen_suppliers

        keys = [s.key for s in chosen_suppliers(self._workspace, suppliers)]
        return RequestedBackfill.request(self._workspace, keys, rescore=rescore, force=force)

    # -- reading ------------------------------------------------------------------------------------------

    def scores(
        self,
        suppliers: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        *,
        models: Sequence[str] | None = None,
        as_of: datetime | date | None = None,
    ) -> Table:
        """Return the windows: one row per supplier × task × metric × filter (see docs/reference.md).

        After a supplier's tasks come the groups of which lm-eval makes a score (``kind`` is "group").
        By default of the active suppliers; of those that left only where named. ``models``: patterns, for
        those alone that claim such a model. ``as_of``: as they were at an instant, or at the end of a day
        (UTC), by what is stored of then; by default now.

        Raises:
            ConfigError: a supplier is not on the roster, a task is not configured, nobody claims such a
                model, a selection is empty, or ``as_of`` is no time, has no time zone or lies ahead.
        """
        suppliers = self._chosen(suppliers, models)
        tasks = arguments.selection("tasks", tasks)
        now = arguments.instant_or_none("as_of", as_of, datetime.now(UTC))
        if now is None:
            rows = windows(self._workspace, suppliers=suppliers, tasks=tasks)
        else:
            rows = windows_as_of(self._workspace, now, suppliers=suppliers, tasks=tasks)
        rows = with_groups(rows, self._workspace.chosen_groups(tasks))
        return Table([row.to_json() for row in rows], kinds_of(Window))

    def answers(
        self,
        supplier: str,
        task: str,
        kind: str | None = None,
        *,
        search: str | None = None,
        after: int | None = None,
        limit: int = 50,
    ) -> Answers:
        """Return what a supplier said to the docs of its window, a page of them (see docs/reference.md).

        Args:
            supplier: its key.
            task: a leaf task.
            kind: ``right``, ``wrong``, ``graded``, ``failed``, ``open``, ``void``, ``unscored``,
                ``truncated`` or ``different`` (from most peers); None for all.
            search: a text in question, answer or target, in whatever case.
            after: the doc after which the page begins: ``after`` of the page before.
            limit: docs on the page.

        Raises:
            ConfigError: the supplier is not on the roster, the task is not configured, or an argument is of
                a wrong kind.
        """
        supplier, task = arguments.text("supplier", supplier), arguments.text("task", task)
        page = answers(
            self._workspace,
            supplier,
            task,
            kind=arguments.text_or_none("kind", kind),
            search=arguments.text_or_none("search", search),
            after=None if after is None else arguments.count("after", after, "a doc"),
            limit=arguments.count("limit", limit, "docs", 1),
        )
        return Answers([row.to_json() for row in page.rows], kinds_of(DocAnswer), page.counts, page.after)

    def answer(self, supplier: str, task: str, doc_id: int) -> dict[str, Any] | None:
        """Return what a supplier made of one doc, with all its attempts; None where its window lacks the doc.

        The columns of :meth:`answers`, and ``sent``: the attempts, oldest first, with what was sent.

        Raises:
            ConfigError: the supplier is not on the roster, the task is not configured, or an argument is of
                a wrong kind.
        """
        supplier, task = arguments.text("supplier", supplier), arguments.text("task", task)
        doc_id = arguments.count("doc_id", doc_id, "a doc")
        found = one_answer(self._workspace, supplier, task, doc_id)
        if found is None:
            return None
        made = attempts(self._workspace, supplier, task, doc_id)
        return {**found.to_json(), "sent": [attempt.to_json() for attempt in made]}

    def supplier(self, supplier: str) -> SupplierPage:
        """Return one supplier at a glance: its windows, places, group, faults of the week and last change.

        Raises:
            ConfigError: it is not on the roster.
        """
        return supplier_page(self._workspace, arguments.text("supplier", supplier))

    def doc(self, task: str, doc_id: int, *, after: str | None = None, limit: int = 50) -> Doc:
        """Return a doc as it is asked, and what everybody whose window holds it said, a page of suppliers.

        Args:
            task: a leaf task.
            doc_id: row of the doc in the task's data.
            after: the supplier after whose key the page begins: ``after`` of the page before.
            limit: suppliers looked at.

        Raises:
            ConfigError: the task is not configured, or an argument is of a wrong kind.
        """
        page = doc(
            self._workspace,
            arguments.text("task", task),
            arguments.count("doc_id", doc_id, "a doc"),
            after=arguments.text_or_none("after", after),
            limit=arguments.count("limit", limit, "suppliers", 1),
        )
        rows = [row.to_json() for row in page.answers]
        return Doc(rows, kinds_of(DocAnswer), list(page.requests), page.target, page.after)

    def history(
        self,
        supplier: str,
        tasks: Sequence[str] | None = None,
        *,
        since: date | timedelta | None = None,
        until: date | None = None,
        fill: bool = True,
    ) -> Table:
        """Return a supplier's scores day by day (see docs/reference.md).

        Args:
            supplier: its key.
            tasks: names of tasks or groups; None for all, and the nodes of taxonomies.
            since: the first day (UTC), or how long ago it is; None for the beginning.
            until: the last day; None for today.
            fill: show the means of days without a snapshot.

        Raises:
            ConfigError: the supplier is not on the roster, a task is not configured, a selection is empty, or
                an argument is of a wrong kind.
        """
        self._known([arguments.text("supplier", supplier)])
        tasks = arguments.selection("tasks", tasks)
        arguments.flag("fill", fill)
        first = arguments.day_or_none("since", since, datetime.now(UTC))
        last = arguments.day_or_none("until", until, datetime.now(UTC))
        found = history(self._workspace, supplier, tasks=tasks, since=first, until=last, fill=fill)
        return Table([point.to_json() for point in found], kinds_of(HistoryPoint))

    def service_quality(
        self,
        suppliers: Sequence[str] | None = None,
        *,
        models: Sequence[str] | None = None,
        by_day: bool = False,
        since: date | timedelta | None = None,
    ) -> Table:
        """Return how fast and how reliably suppliers answered service probes (see docs/service-quality.md).

        One row per supplier and workload, of the last 72 hours; `all` is what rests on all workloads. By
        default of the active suppliers; of those that left only where named.

        Args:
            suppliers: keys.
            models: patterns, for those alone that claim such a model.
            by_day: one row per day (UTC) instead.
            since: the first of these days, or how long ago it is; None for all.

        Raises:
            ConfigError: a supplier is not on the roster, nobody claims such a model, a selection is empty,
                an argument is of a wrong kind, or ``since`` is given without ``by_day``.
        """
        now = datetime.now(UTC)
        chosen = self._chosen(suppliers, models)
        arguments.flag("by_day", by_day)
        first = arguments.day_or_none("since", since, now)
        if first is not None and not by_day:
            raise ConfigError("since chooses days; give by_day too, or leave it out for the last 72 hours")
        asked = {one.key: one.model for one in named_suppliers(self._workspace, chosen)}
        keys = None if chosen is None else list(asked)
        if by_day:
            rows = daily_service(self._workspace, keys, since=first)
        else:
            rows = recent_service(self._workspace, now, keys)
        found = [replace(row, model=asked[row.supplier]) for row in rows if row.supplier in asked]
        return Table([row.to_json() for row in found], kinds_of(ServiceQuality))

    def taxonomies(
        self,
        suppliers: Sequence[str] | None = None,
        taxonomy: str | None = None,
        *,
        models: Sequence[str] | None = None,
    ) -> Ranking:
        """Return the stored taxonomy summaries: one row per supplier × taxonomy × node.

        By default of the active suppliers; of those that left only where named. ``models``: patterns, for
        those alone that claim such a model. Which tasks are set aside is as of now.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, nobody claims such a model, or the
                taxonomy is not configured.
        """
        suppliers = self._chosen(suppliers, models)
        taxonomy = arguments.text_or_none("taxonomy", taxonomy)
        aside = tasks_set_aside(self._workspace, self._workspace.specs)
        chosen: list[Taxonomy] = []
        if taxonomy is not None or aside:
            configured = configured_taxonomies(self._workspace)
            chosen = [t for t in configured if taxonomy in (None, t.name)]
            if taxonomy is not None and not chosen:
                known = ", ".join(t.name for t in configured) or "none"
                raise ConfigError(f"taxonomy {taxonomy!r} is not configured; configured are: {known}")
        used = {task for t in chosen for node in t.nodes for task in t.rests_on(node)}
        wanted = {s.key: s.model for s in named_suppliers(self._workspace, suppliers)}
        rows = []
        for summary in typed.find(
            self._workspace.documents,
            SupplierAbilities,
            {} if taxonomy is None else {"taxonomy": taxonomy},
            sort=[("taxonomy", 1), ("supplier", 1)],
        ):
            if summary.supplier in wanted:
                for name, node in summary.nodes.items():
                    head = {
                        "supplier": summary.supplier,
                        "model": wanted[summary.supplier],
                        "taxonomy": summary.taxonomy,
                        "node": name,
                        "root": name == summary.root,
                        "summarized_at": summary.summarized_at.isoformat(),
                    }
                    lacking = [task for task in (*node.weights, *node.missing) if task in aside]
                    rows.append({**head, **node.to_document(), "set_aside": lacking})
        return Ranking(
            rows,
            {**ABILITY_COLUMNS, "set_aside": list},
            {task: reason for task, reason in aside.items() if task in used},
        )

    def leaderboard(
        self,
        taxonomy: str | None = None,
        *,
        task: str | None = None,
        models: Sequence[str] | None = None,
        by: str = "score",
    ) -> Ranking:
        """Return the ranking by each configured taxonomy, or by the named one.

        ``task``: the ranking by one task instead, or by a group of which lm-eval makes a score. ``models``:
        patterns, for the rows of those alone that claim such a model; places are among all. ``by``: the order
        of the rows of each ranking: ``score``, or the best first by ``first-token``, ``speed`` or ``uptime``,
        those of which that is unknown last; ranks stay those of the score.

        Raises:
            ConfigError: the taxonomy or task is not configured, both are given, the task has no score,
                nobody claims such a model, or there is no such order.
        """
        by = arguments.one_of("by", by, ORDERS)
        chosen = self._chosen(None, models)
        taxonomy, task = arguments.text_or_none("taxonomy", taxonomy), arguments.text_or_none("task", task)
        if taxonomy is not None and task is not None:
            raise ConfigError("taxonomy and task are both given; a ranking is by one of them")
        board = make_board(self._workspace, taxonomy) if task is None else task_board(self._workspace, task)
        lacking = {task for tasks in board.lacking.values() for task in tasks}
        aside = {task: reason for task, reason in board.set_aside.items() if task in lacking}
        shown = [e for e in board.entries if chosen is None or e.supplier in chosen]
        return Ranking([entry.to_json() for entry in ordered(shown, by)], kinds_of(Entry), aside)

    def compare(
        self, a: str, b: str, tasks: Sequence[str] | None = None, margin: float | None = None
    ) -> Table:
        """Return the paired differences of two suppliers, A less B: a row per task and one over all tasks.

        Raises:
            ConfigError: a supplier is not on the roster or given twice, a task is not configured, none is
                named, or the margin does not lie between 0 and 1.
        """
        a, b = arguments.text("a", a), arguments.text("b", b)
        tasks = arguments.selection("tasks", tasks)
        margin = arguments.share("margin", margin)
        found = compare(self._workspace, a, b, tasks=tasks, margin=margin)
        return Table([row.to_json() for row in found], COMPARISON_COLUMNS)

    def identity(
        self, suppliers: Sequence[str] | None = None, *, models: Sequence[str] | None = None
    ) -> Table:
        """Return who answers like whom as last compared: one row per supplier (see docs/reference.md).

        By default of the active suppliers. ``models``: patterns, for those alone that claim such a model.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, or nobody claims such a model.
        """
        suppliers = self._chosen(suppliers, models)
        if suppliers is None:
            suppliers = [s.key for s in active_suppliers(self._workspace)]
        return Table(identity_rows(self._workspace, suppliers), IDENTITY_COLUMNS)

    def identity_pairs(
        self, suppliers: Sequence[str] | None = None, *, models: Sequence[str] | None = None
    ) -> Table:
        """Compare the stored answers of suppliers pair by pair now, those that agree most first.

        By default all active ones; suppliers of different services are not compared. ``models``: patterns,
        for those alone that claim such a model.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, or nobody claims such a model.
        """
        return Table(pair_rows(self._workspace, self._chosen(suppliers, models)), PAIR_COLUMNS)

    def references(
        self, suppliers: Sequence[str] | None = None, *, models: Sequence[str] | None = None
    ) -> Table:
        """Return who is as the reference of its model, as last compared: one row per supplier that has one.

        ``models``: patterns, for active suppliers alone that claim such a model.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, or nobody claims such a model.
        """
        return Table(reference_rows(self._workspace, self._chosen(suppliers, models)), REFERENCE_COLUMNS)

    def twins(
        self,
        suppliers: Sequence[str] | None = None,
        *,
        models: Sequence[str] | None = None,
        refresh: bool = False,
        every_epoch: bool = False,
    ) -> Table:
        """Return who is better on public questions than on fresh ones of the kind (see docs/twins.md).

        One row per active supplier and task of framework ``twins``, of the newest epoch, as last compared.
        ``models``: patterns, for those alone that claim such a model. ``refresh``: compare the stored answers
        anew before. ``every_epoch``: a row for each epoch.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, or nobody claims such a model.
        """
        refresh = arguments.flag("refresh", refresh)
        every_epoch = arguments.flag("every_epoch", every_epoch)
        suppliers = self._chosen(suppliers, models)
        if refresh:
            refresh_public_gaps(self._workspace)
        return Table(public_gap_rows(self._workspace, suppliers, every=every_epoch), PUBLIC_GAP_COLUMNS)

    def suspicions(
        self,
        suppliers: Sequence[str] | None = None,
        *,
        models: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
    ) -> Table:
        """Return what looks as if it hid something, as last looked for: one row per suspicion, newest first.

        Of a supplier also those that name it as the other. ``models``: patterns, for active suppliers alone
        that claim such a model. ``kinds``: only these (see docs/hiding.md). Nothing follows from a suspicion.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, nobody claims such a model, or there
                is no such kind.
        """
        kinds = arguments.selection("kinds", kinds)
        unknown = sorted(set(kinds or ()) - set(SUSPICION_KINDS))
        if unknown:
            raise ConfigError(f"kinds: {unknown[0]!r} is none of {', '.join(SUSPICION_KINDS)}")
        return Table(
            suspicion_rows(self._workspace, self._chosen(suppliers, models), kinds), SUSPICION_COLUMNS
        )

    def changes(
        self, suppliers: Sequence[str] | None = None, *, models: Sequence[str] | None = None
    ) -> Table:
        """Return the detected changes of suppliers, newest first.

        ``models``: patterns, for active suppliers alone that claim such a model now.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, or nobody claims such a model.
        """
        return Table(change_rows(self._workspace, self._chosen(suppliers, models)), CHANGE_COLUMNS)

    def cuts(self, suppliers: Sequence[str] | None = None) -> Table:
        """Return up to when what suppliers answered does not count, and why: one row per cut supplier.

        By default of the active suppliers; the columns are ``supplier``, ``cut_at`` and ``reason``.

        Raises:
            ConfigError: a supplier is not on the roster, or none is named.
        """
        return Table(
            cut_rows(self._workspace, self._known(suppliers)),
            {"supplier": str, "cut_at": datetime, "reason": str},
        )

    def refresh_identity(self) -> IdentityReport:
        """Compare all active suppliers by their stored answers; store groups, proxies and changes."""
        return refresh_identity(self._workspace)

    def attempts(self, supplier: str | None = None, task: str | None = None) -> Table:
        """Return the declared fields of the stored attempts (bodies stay in the store).

        Raises:
            ConfigError: nothing is stored, and the supplier is not on the roster or the task not configured.
        """
        supplier = arguments.text_or_none("supplier", supplier)
        task = arguments.text_or_none("task", task)
        where = {k: v for k, v in (("supplier", supplier), ("task", task)) if v is not None}
        rows = list(typed.declared(self._workspace.documents, AttemptRecord, where))
        if not rows:  # what was configured once has attempts still
            self._known(None if supplier is None else [supplier])
            self._workspace.chosen_specs(None if task is None else [task])
        return Table(rows, ATTEMPT_COLUMNS)

    def item_matrix(self) -> Table:
        """Return one row per supplier × doc of the current windows, with the primary value.

        See :mod:`testbench_dagster.stages.rank.items` for the wide form.
        """
        return Table(list(items(self._workspace)), ITEM_COLUMNS)

    def export(
        self,
        out: Path | str,
        suppliers: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        *,
        format: str = "parquet",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> dict[Path, int]:
        """Write what is stored to files for analysts or for another tool; return the rows per file.

        ``parquet``: ``prompts``, ``attempts``, ``scores``, ``windows``, ``answers``, ``item_matrix``,
        ``leaderboard``, ``references``, ``public_gaps``, ``groups``, ``service_probes`` and
        ``service_quality``, one file each. ``inspect``: a log per supplier and task that Inspect reads.
        ``lm-eval``: results and samples as lm-eval writes them. By default of all that is stored, or of the
        named suppliers and tasks. ``since`` and ``until``: answers from then on and before, docs without one
        by when they were last asked; tables of what is known now are not cut by time. Each file appears whole
        or not at all.

        Raises:
            ConfigError: a supplier is not on the roster, a task is not configured, a selection is empty, the
                format is none, or a time has no zone.
            StoreError: a file cannot be written.
        """
        out = arguments.path("out", out)
        format = arguments.one_of("format", format, EXPORT_FORMATS)
        period = arguments.period(since, until)
        suppliers = self._known(suppliers)
        tasks = arguments.selection("tasks", tasks)
        specs = self._workspace.chosen_specs(tasks)
        known = named_suppliers(self._workspace, suppliers)
        if format == INSPECT:
            return write_inspect_logs(self._workspace, out, known, specs, period)
        if format == LM_EVAL_LOGS:
            return write_lm_eval_logs(self._workspace, out, known, specs, period)
        return self._parquet(out, suppliers, tasks, specs, known, period)

    def export_by_day(
        self, out: Path | str, *, since: datetime | date | Literal["last"] | None = None
    ) -> ExportedByDay:
        """Write the facts to a file for each collection and day (UTC), or bring such files up to date.

        ``attempts/day=2026-12-01/attempts.parquet`` and so on, likewise ``scores``, ``prompts``,
        ``service_probes`` and ``changes``, as DuckDB and Polars read them: see
        :mod:`testbench_dagster.stages.publish.by_day`.

        Args:
            out: a folder, or a URL that fsspec knows, such as ``s3://bucket/prefix``.
            since: the first day; ``"last"`` to go on from the last export to the same place (a first one
                writes everything): what it lacks, the days that were not over and those of facts that came
                late are written anew; None for everything.

        Raises:
            ConfigError: an argument is of a wrong kind, or the URL holds a password.
            StoreError: the place cannot be read or written.
            TestbenchError: another process of this machine writes there.
        """
        # with pyarrow: 0.2 s
        from testbench_dagster.stages.publish.by_day import LAST, export_by_day

        now = datetime.now(UTC)
        first = LAST if since == LAST else arguments.day_or_none("since", since, now)
        return export_by_day(self._workspace.documents, arguments.place("out", out), first, now=now)

    def _parquet(
        self,
        out: Path,
        suppliers: Sequence[str] | None,
        tasks: Sequence[str] | None,
        specs: Sequence[TaskSpec],
        known: Sequence[Supplier],
        period: Period,
    ) -> dict[Path, int]:
        # with pyarrow: 0.2 s
        from testbench_dagster.stages.publish.export import (
            export_parquet,
            write_answers,
            write_groups,
            write_item_matrix,
            write_public_gaps,
            write_ranking,
            write_references,
            write_service_quality,
        )

        written = export_parquet(
            self._workspace.documents,
            out,
            {"windows": (Window, self.scores(suppliers, tasks).rows)},
            suppliers=suppliers,
            tasks=None if tasks is None else [spec.name for spec in specs],
            period=period,
        )
        path = out / "answers.parquet"
        written[path] = write_answers(path, every_answer(self._workspace, known, specs, period=period))
        path = out / "item_matrix.parquet"
        written[path] = write_item_matrix(self._workspace, path, suppliers=known, tasks=tasks, period=period)
        path = out / "leaderboard.parquet"
        keys = {supplier.key for supplier in known}
        entries = stored_entries(self._workspace)
        entries = leaderboard(self._workspace) if entries is None else entries
        written[path] = write_ranking(path, [entry for entry in entries if entry.supplier in keys])
        path = out / "references.parquet"
        written[path] = write_references(path, self._workspace, suppliers)
        path = out / "public_gaps.parquet"
        written[path] = write_public_gaps(path, self._workspace, suppliers)
        path = out / "groups.parquet"
        written[path] = write_groups(path, self._workspace.chosen_groups(tasks))
        path = out / "service_quality.parquet"
        written[path] = write_service_quality(path, self._workspace, known, period)
        return written

    def evidence(
        self,
        supplier: str,
        out: Path | str,
        *,
        tasks: Sequence[str] | None = None,
        docs: Sequence[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Exported:
        """Write an evidence bundle of a supplier; see :func:`.stages.dispute.bundle.write_bundle`.

        It is checked by :func:`testbench_dagster.rescore`, on any machine.

        Raises:
            ConfigError: the supplier is not on the roster, a task is not configured, there is no evidence of
                what is named, or an argument is of a wrong kind.
            StoreError: the file cannot be written.
        """
        supplier, out = arguments.text("supplier", supplier), arguments.file("out", out)
        tasks, docs = arguments.selection("tasks", tasks), arguments.numbers("docs", docs)
        arguments.callback("on_progress", on_progress)
        # with the codecs of evidence: 0.1 s
        from testbench_dagster.stages.dispute.bundle import write_bundle

        return write_bundle(self._workspace, supplier, out, tasks=tasks, docs=docs, on_progress=on_progress)

    def _known(self, suppliers: Sequence[str] | None) -> tuple[str, ...] | None:
        """The keys of a selection, all of them on the roster; None for None."""
        chosen = arguments.selection("suppliers", suppliers)
        if chosen is None:
            return None
        known = [s.key for s in known_suppliers(self._workspace)]
        for key in chosen:
            if key not in known:
                raise ConfigError(
                    f"supplier {key!r} is not on the roster; on it are: {', '.join(known[:20]) or 'none'}"
                )
        return chosen

    def _chosen(
        self, suppliers: Sequence[str] | None, models: Sequence[str] | None
    ) -> tuple[str, ...] | None:
        """The keys of a selection by keys and by patterns of models; None where neither is given.

        Raises:
            ConfigError: a supplier is not on the roster, a selection is empty, or nobody claims such a model.
        """
        known = self._known(suppliers)
        if models is None:
            return known
        return tuple(s.key for s in _of_models(named_suppliers(self._workspace, known), models))


def _of_models(suppliers: Sequence[Supplier], models: Sequence[str] | None) -> list[Supplier]:
    """Those of some suppliers that claim a model which the patterns choose; None chooses all.

    Raises:
        ConfigError: nobody is left, or the patterns are no texts.
    """
    patterns = arguments.selection("models", models)
    found = [supplier for supplier in suppliers if is_chosen(patterns, (supplier.model,))]
    if patterns is not None and not found:
        claimed = sorted({escaped(supplier.model, 80) for supplier in suppliers})
        more = f" and {len(claimed) - 20} more" if len(claimed) > 20 else ""
        raise ConfigError(
            f"no supplier claims a model like {' '.join(map(repr, patterns))}; models are: "
            f"{', '.join(claimed[:20]) or 'none'}{more}; patterns are those of a shell, and case matters"
        )
    return found
