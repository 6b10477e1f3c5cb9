"""The Python face: everything the command line does and prints.

>>> from testbench_dagster import Testbench
>>> with Testbench.open() as testbench:          # doctest: +SKIP
...     testbench.run(max_relays=1000)
...     frame = testbench.scores().to_pandas()
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbench_dagster.core import arguments
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.rankings import SupplierAbilities
from testbench_dagster.core.window import Window
from testbench_dagster.stages.compare import compare
from testbench_dagster.stages.discover.roster import active_suppliers, known_suppliers
from testbench_dagster.stages.identify.identify import IdentityReport, refresh_identity
from testbench_dagster.stages.identify.views import change_rows, identity_rows, pair_rows
from testbench_dagster.stages.rank import leaderboard
from testbench_dagster.stages.rank.items import items
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

if TYPE_CHECKING:
    import pandas as pd

    from testbench_dagster.defs.backfills import RequestedBackfill
    from testbench_dagster.defs.local_evaluation import RunReport
    from testbench_dagster.relays.report import Progress
    from testbench_dagster.stages.dispute.bundle import Exported


@dataclass(frozen=True)
class Table:
    """Rows as plain dicts; :meth:`to_pandas` makes a frame of them."""

    rows: list[dict[str, Any]]

    def to_pandas(self) -> pd.DataFrame:
        """One frame row per row; nested values stay Python objects."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Plan(Table):
    """The rows of a plan, the relays they come to, and what is left of the day's budgets, by service."""

    calls: int = 0
    left: Mapping[str, int] = field(default_factory=dict)


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
        return cls(Workspace.open(config))

    def close(self) -> None:
        """Release the stores."""
        self._workspace.close()

    def __enter__(self) -> Testbench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- doing --------------------------------------------------------------------------------------------

    def check(
        self, *, suppliers: bool = True, on_finding: Callable[[Finding], None] | None = None
    ) -> list[Finding]:
        """Look at configuration, stores, tasks and, unless left out, suppliers; what is wrong has a remedy.

        ``on_finding`` is called with each finding as it is made: suppliers may take a while to answer.

        Raises:
            ConfigError: the configuration names tasks that there are not, or an argument is of a wrong kind.
        """
        arguments.flag("suppliers", suppliers)
        arguments.callback("on_finding", on_finding)
        # with the transports: 0.07 s
        from testbench_dagster.stages.check import findings

        found = []
        for finding in findings(self._workspace, suppliers=suppliers):
            if on_finding is not None:
                on_finding(finding)
            found.append(finding)
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
        }
        for name, function in told.items():
            arguments.callback(name, function)
        from testbench_dagster.defs.local_evaluation import evaluate  # with Dagster: 1 s only this needs

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
            stop=stop,
        )

    def plan(
        self,
        suppliers: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        *,
        budget: int | None = None,
    ) -> Plan:
        """Return what would be relayed now and why each other task is not due; sends nothing.

        One row per supplier and task (see docs/reference.md). ``budget`` shares so many relays fairly, by
        default what is left of the day's.

        Raises:
            ConfigError: a supplier is not active, a task is not configured, a taxonomy makes no sense, a
                selection is empty, or an argument is of a wrong kind.
        """
        suppliers = arguments.selection("suppliers", suppliers)
        tasks = arguments.selection("tasks", tasks)
        budget = arguments.count_or_none("budget", budget)
        # with the planner: 0.1 s
        from testbench_dagster.stages.plan.rows import plan_rows
        from testbench_dagster.stages.preconditions import chosen_suppliers

        configured_taxonomies(self._workspace)  # wrong ones would be told only by the evaluation
        chosen = chosen_suppliers(self._workspace, suppliers)
        planned = plan_rows(self._workspace, chosen, tasks=tasks, budget=budget)
        return Plan(planned.rows, planned.calls, planned.left)

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

    def scores(self, suppliers: Sequence[str] | None = None, tasks: Sequence[str] | None = None) -> Table:
        """Return the windows: one row per supplier × task × metric × filter (see docs/reference.md).

        By default of the active suppliers; of those that left only where named.

        Raises:
            ConfigError: a supplier is not on the roster, a task is not configured, or a selection is empty.
        """
        suppliers = self._known(suppliers)
        tasks = arguments.selection("tasks", tasks)
        return Table([row.to_json() for row in windows(self._workspace, suppliers=suppliers, tasks=tasks)])

    def taxonomies(self, suppliers: Sequence[str] | None = None, taxonomy: str | None = None) -> Table:
        """Return the stored taxonomy summaries: one row per supplier × taxonomy × node.

        By default of the active suppliers; of those that left only where named.

        Raises:
            ConfigError: a supplier is not on the roster, none is named, or the taxonomy is not configured.
        """
        suppliers = self._known(suppliers)
        if arguments.text_or_none("taxonomy", taxonomy) is not None:
            names = [t.name for t in configured_taxonomies(self._workspace)]
            if taxonomy not in names:
                known = ", ".join(names) or "none"
                raise ConfigError(f"taxonomy {taxonomy!r} is not configured; configured are: {known}")
        active = active_suppliers(self._workspace) if suppliers is None else []
        wanted = {*(suppliers or ()), *(s.key for s in active)}
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
                        "taxonomy": summary.taxonomy,
                        "node": name,
                        "root": name == summary.root,
                        "summarized_at": summary.summarized_at.isoformat(),
                    }
                    rows.append({**head, **node.to_document()})
        return Table(rows)

    def leaderboard(self, taxonomy: str | None = None) -> Table:
        """Return the ranking by each configured taxonomy, or by the named one.

        Raises:
            ConfigError: the taxonomy is not configured.
        """
        taxonomy = arguments.text_or_none("taxonomy", taxonomy)
        return Table([entry.to_json() for entry in leaderboard(self._workspace, taxonomy)])

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
        return Table([row.to_json() for row in compare(self._workspace, a, b, tasks=tasks, margin=margin)])

    def identity(self, suppliers: Sequence[str] | None = None) -> Table:
        """Return who answers like whom as last compared: one row per supplier (see docs/reference.md).

        By default of the active suppliers.

        Raises:
            ConfigError: a supplier is not on the roster, or none is named.
        """
        suppliers = self._known(suppliers)
        if suppliers is None:
            suppliers = [s.key for s in active_suppliers(self._workspace)]
        return Table(identity_rows(self._workspace, suppliers))

    def identity_pairs(self, suppliers: Sequence[str] | None = None) -> Table:
        """Compare the stored answers of suppliers pair by pair now, those that agree most first.

        By default all active ones; suppliers of different services are not compared.

        Raises:
            ConfigError: a supplier is not on the roster, or none is named.
        """
        return Table(pair_rows(self._workspace, self._known(suppliers)))

    def changes(self, suppliers: Sequence[str] | None = None) -> Table:
        """Return the detected changes of suppliers, newest first.

        Raises:
            ConfigError: a supplier is not on the roster, or none is named.
        """
        return Table(change_rows(self._workspace, self._known(suppliers)))

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
        return Table(rows)

    def item_matrix(self) -> Table:
        """Return one row per supplier × doc of the current windows, with the primary value.

        See :mod:`testbench_dagster.stages.rank.items` for the wide form.
        """
        return Table(list(items(self._workspace)))

    def export(self, out: Path | str) -> dict[Path, int]:
        """Write everything as parquet, one file each; return the rows per file.

        ``prompts``, ``attempts``, ``scores``, ``windows``, ``item_matrix`` and ``leaderboard``. Each file
        appears whole or not at all.

        Raises:
            StoreError: a file cannot be written.
        """
        out = arguments.path("out", out)
        # with pyarrow: 0.2 s
        from testbench_dagster.stages.publish.export import export_parquet, write_item_matrix, write_ranking

        written = export_parquet(self._workspace.documents, out, {"windows": (Window, self.scores().rows)})
        written[out / "item_matrix.parquet"] = write_item_matrix(self._workspace, out / "item_matrix.parquet")
        written[out / "leaderboard.parquet"] = write_ranking(
            out / "leaderboard.parquet", leaderboard(self._workspace)
        )
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
