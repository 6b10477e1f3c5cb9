"""Commands that reach out: ``check`` and ``run``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from testbench_dagster.cli.output import note
from testbench_dagster.config import SERVICE_SOURCE, Config
from testbench_dagster.core.errors import ConfigError, TestbenchError
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import active_suppliers, no_suppliers_text, refresh_roster
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.transports.endpoints import supplier_endpoint

_MAX_PASSES = 4  # of evaluating towards a wanted interval width; the next run goes on


@click.command()
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
@click.option(
    "--max-relays", type=click.IntRange(min=0), metavar="N", help="Send at most N relays, retries included."
)
@click.option("--retry-errors", is_flag=True, help="Ask docs again that failed by the supplier's fault.")
@click.option("--force", is_flag=True, help="Ask again what is fresh: relay everything in the windows anew.")
@click.pass_obj
def run(
    config: str | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    max_relays: int | None,
    retry_errors: bool,
    force: bool,
) -> None:
    """Evaluate now: refresh the catalog where stale, relay what is due, score, summarize, rank.

    The same Dagster assets as in the UI, recorded in the instance. Safe to interrupt and to start again: what
    has a stored answer is not asked twice.
    """
    with Workspace.open(config) as workspace:
        evaluate(workspace, suppliers, tasks, max_relays, retry_errors, force)
        if not _anything_scored(workspace, suppliers, tasks):
            raise TestbenchError(
                f"nothing was scored{_what_failed(workspace, suppliers)}; "
                "`testbench check` says what stands in the way"
            )


def evaluate(
    workspace: Workspace,
    suppliers: tuple[str, ...] = (),
    tasks: tuple[str, ...] = (),
    max_relays: int | None = None,
    retry_errors: bool = False,
    force: bool = False,
) -> None:
    """Run the whole path in this process, telling the terminal what happens."""
    specs = workspace.chosen_specs(tasks or None)
    missing_files(workspace)
    if workspace.config.settings.discovers:
        report = refresh_roster(workspace)
        for problem in [*report.problems.values(), *report.warnings.values()]:
            note(f"warning: {problem}")
    roster = chosen_suppliers(workspace, suppliers)
    missing_keys(workspace, roster)
    chosen = [supplier.key for supplier in roster]

    from testbench_dagster.defs.local_runs import LocalRuns
    from testbench_dagster.stages.sample.catalogue import stale_tasks

    with LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
        stale = stale_tasks(workspace, specs)
        if stale:
            note(f"catalog: preparing {len(stale)} of {len(specs)} tasks")
            runs.refresh_catalog(stale)
        note(f"evaluation: {len(chosen)} suppliers, {len(specs)} tasks")
        sent = 0
        with _progress(workspace):
            # a wanted interval width shows only after scoring what its number of docs still is
            for number in range(_MAX_PASSES if any(s.samples and s.samples.half_width for s in specs) else 1):
                left = None if max_relays is None else max_relays - sent
                more = runs.evaluate(
                    chosen,
                    tasks=tasks or None,
                    max_relays=left,
                    retry_errors=retry_errors and number == 0,
                    force=force and number == 0,
                )
                sent += more.sent
                if more.settled == 0 or left == more.sent:
                    break  # also when nobody could be reached: another pass would only ask again
        runs.refresh_summaries()
        note(f"evaluation: {sent} relays sent")
        waiting = who_waits(workspace, suppliers)
        if waiting:
            note(f"evaluation: {waiting}")


def who_waits(workspace: Workspace, keys: Sequence[str] = ()) -> str:
    """Tell how many of the suppliers, by default all, cannot be asked now for want of a session, and why."""
    from testbench_dagster.stages.plan.due_suppliers import waiting_suppliers

    active = [s for s in active_suppliers(workspace) if not keys or s.key in keys]
    waiting = waiting_suppliers(workspace, active)
    if not waiting:
        return ""
    reasons = Counter(waiting.values()).most_common(1)
    return f"{len(waiting)} of {len(active)} suppliers wait: {reasons[0][0]}"


def missing_files(workspace: Workspace) -> None:
    """Refuse to start when a data file is not there, before anything is written.

    Raises:
        ConfigError: names the task, the split and the file.
    """
    for spec in workspace.specs:
        for split, path in (spec.data or {}).items():
            if not Path(path).is_file():
                raise ConfigError(
                    f"{workspace.config.path}: task {spec.name!r}, data.{split}: no file {path}; "
                    "correct the path (it is relative to the configuration file)"
                )


def chosen_suppliers(workspace: Workspace, keys: Sequence[str]) -> list[Supplier]:
    """The active suppliers with these keys, or all of them.

    Raises:
        ConfigError: a key is not that of an active supplier, or the configuration names none at all.
        TestbenchError: the supplier sources list none that can be used.
    """
    active = active_suppliers(workspace)
    if not active:
        text = no_suppliers_text(workspace)
        raise TestbenchError(text) if workspace.config.settings.discovers else ConfigError(text)
    known = [supplier.key for supplier in active]
    for key in keys:
        if key not in known:
            raise ConfigError(f"supplier {key!r} is not active; active are: {', '.join(known[:20])}")
    return [supplier for supplier in active if not keys or supplier.key in keys]


def missing_keys(workspace: Workspace, suppliers: Sequence[Supplier]) -> None:
    """Say which suppliers cannot be asked because a key is not set; refuse to start when none can.

    Raises:
        ConfigError: names the supplier or service, and the variable or file.
    """
    of_services = _service_key_problems(workspace.config, suppliers)
    problems = []
    for supplier in suppliers:
        try:
            supplier_endpoint(workspace.config, supplier)
        except ConfigError as error:
            problems.append(str(error))
        else:
            if supplier.transport == "shannon" and supplier.service in of_services:
                problems.append(of_services[supplier.service])
    if problems and len(problems) == len(suppliers):
        more = f" (and {len(problems) - 1} more suppliers likewise)" if len(problems) > 1 else ""
        first = problems[0].removeprefix(f"{workspace.config.path}: ")
        raise ConfigError(f"{workspace.config.path}: {first}{more}")
    for problem in dict.fromkeys(problems):
        note(f"warning: left out: {problem}")


def _service_key_problems(config: Config, suppliers: Sequence[Supplier]) -> dict[str, str]:
    """Why the relays of a service cannot be signed, by service."""
    from testbench_dagster.transports.pocket.access import service_keys

    problems = {}
    for service in {supplier.service for supplier in suppliers if supplier.transport == "shannon"}:
        try:
            service_keys(config, service)
        except ConfigError as error:
            problems[service] = str(error)
    return problems


def _anything_scored(workspace: Workspace, suppliers: tuple[str, ...], tasks: tuple[str, ...]) -> bool:
    from testbench_dagster.core.records.scores import ScoredId
    from testbench_dagster.stores.documents import typed

    keys = list(suppliers) or [s.key for s in active_suppliers(workspace)]
    names = [spec.name for spec in workspace.chosen_specs(tasks or None)]
    where = {"supplier": {"in": keys}, "task": {"in": names}}
    return next(typed.find(workspace.documents, ScoredId, where, limit=1), None) is not None


def _what_failed(workspace: Workspace, suppliers: tuple[str, ...]) -> str:
    """How the stored attempts of the suppliers ended, for an error message."""
    from testbench_dagster.core.records.attempts import FaultCount
    from testbench_dagster.stores.documents import typed

    keys = list(suppliers) or [s.key for s in active_suppliers(workspace)]
    where = {"supplier": {"in": keys}, "fault": {"ne": "ok"}}
    rows = typed.group(workspace.documents, FaultCount, where)
    rows.sort(key=lambda row: -row.n)
    shown = [f"{row.supplier} {row.fault} x {row.n}" for row in rows[:5]]
    if not shown:
        waiting = who_waits(workspace, suppliers)
        return f" ({waiting})" if waiting else ""
    return f" ({', '.join(shown)}{', ...' if len(rows) > 5 else ''})"


@contextmanager
def _progress(workspace: Workspace) -> Iterator[None]:
    """Show a bar on stderr while relays run."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from testbench_dagster.relays.report import Progress as RelayProgress

    console = Console(stderr=True)
    columns = (
        TextColumn("relays"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("relays", total=None, rate="")

        def planned(n: int) -> None:
            bar.reset(task, total=n, rate="")

        def progressed(progress: RelayProgress) -> None:
            rate = progress.sent / progress.seconds if progress.seconds else 0.0
            bar.update(task, completed=progress.settled, rate=f"{rate:.0f}/s, {progress.in_flight} in flight")

        workspace.on_planned, workspace.on_progress = planned, progressed
        try:
            yield
        finally:
            workspace.on_planned = workspace.on_progress = None


@dataclass(frozen=True)
class Finding:
    """One line of ``testbench check``; a ``warning`` is no problem that keeps it from working."""

    ok: bool
    what: str
    detail: str
    warning: bool = False

    @property
    def mark(self) -> str:
        """How the line begins."""
        return "ok   " if self.ok else "warn " if self.warning else "FAIL "


@click.command()
@click.option("--no-suppliers", is_flag=True, help="Do not send anything to the suppliers.")
@click.pass_obj
def check(config: str | None, no_suppliers: bool) -> None:
    """Validate configuration, stores, tasks and suppliers, and say how to fix what is wrong."""
    failed = 0
    with Workspace.open(config) as workspace:
        click.echo(f"ok    configuration: {workspace.config.path}, {len(workspace.specs)} tasks")
        for finding in _findings(workspace, with_suppliers=not no_suppliers):
            failed += not finding.ok and not finding.warning
            click.echo(f"{finding.mark} {finding.what}: {finding.detail}")
    if failed:
        raise TestbenchError(f"{failed} problems found")


def _findings(workspace: Workspace, with_suppliers: bool) -> Iterator[Finding]:
    from testbench_dagster.core.records.suppliers import SupplierRecord
    from testbench_dagster.stores.documents import typed

    config = workspace.config
    for name, opener, kind in (
        (
            "document store",
            lambda: typed.count(workspace.documents, SupplierRecord),
            "MongoDB" if config.mongo_uri else "SQLite",
        ),
        (
            "dataset store",
            lambda: workspace.datasets.tasks(),
            "PostgreSQL" if config.postgres_uri else "SQLite",
        ),
    ):
        try:
            opener()
            yield Finding(True, name, kind if kind != "SQLite" else f"SQLite in {config.home}")
        except TestbenchError as error:
            yield Finding(False, name, str(error))
    yield from _task_findings(workspace)
    if config.settings.taxonomies:
        yield from _taxonomy_findings(workspace)
    for name in config.settings.services:
        yield from _service_findings(config, name)
    if with_suppliers:
        yield from _supplier_findings(workspace)


def _task_findings(workspace: Workspace) -> Iterator[Finding]:
    for spec in workspace.specs:
        try:
            registered = workspace.framework(spec).register(spec)
        except TestbenchError as error:
            yield Finding(False, f"task {spec.name}", str(error))
            continue
        flags = registered.data.flags
        docs, shots = len(registered.data.docs), flags.num_fewshot
        yield Finding(True, f"task {spec.name}", f"{docs} docs, {shots}-shot, {flags.output_type}")


def _taxonomy_findings(workspace: Workspace) -> Iterator[Finding]:
    from testbench_dagster.stages.summarize.refresh import configured_taxonomies
    from testbench_dagster.taxonomies.model import is_placeholder

    try:
        taxonomies = configured_taxonomies(workspace)
    except TestbenchError as error:
        yield Finding(False, "taxonomies", str(error))
        return
    known = {spec.name for spec in workspace.specs}
    for taxonomy in taxonomies:
        tasks = {task for task in taxonomy.leaves() if not is_placeholder(task)}
        covered = len(tasks & known)
        yield Finding(
            covered > 0, f"taxonomy {taxonomy.name}", f"{covered} of its {len(tasks)} tasks configured"
        )


def _service_findings(config: Config, name: str) -> Iterator[Finding]:
    from testbench_dagster.transports.pocket.checks import check_service

    for found in check_service(config, name):
        yield Finding(found.ok, found.what, found.detail, found.warning)


def _supplier_findings(workspace: Workspace) -> Iterator[Finding]:
    from testbench_dagster.stages.relay.probe import probe_suppliers

    try:
        report = refresh_roster(workspace)
        suppliers = active_suppliers(workspace)
    except TestbenchError as error:  # the store: said before
        yield Finding(False, "suppliers", str(error))
        return
    for what, problem in report.problems.items():
        if not _told_with_its_service(what):
            yield Finding(False, f"roster {what}", problem)
    for what, warning in report.warnings.items():
        if not _told_with_its_service(what):
            yield Finding(False, f"roster {what}", warning, warning=True)
    if not suppliers:
        yield Finding(False, "suppliers", no_suppliers_text(workspace))
    for result in asyncio.run(probe_suppliers(workspace, suppliers)):
        yield Finding(result.ok, f"supplier {result.supplier}", result.detail)


def _told_with_its_service(what: str) -> bool:
    """Whether a problem of the roster is of a service as a whole, or of one of its applications."""
    return what.startswith(SERVICE_SOURCE) and (": app " in what or ": " not in what)
