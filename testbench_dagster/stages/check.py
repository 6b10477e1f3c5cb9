"""What ``testbench check`` looks at: configuration, stores, tasks, taxonomies, services, suppliers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from testbench_dagster.config import SERVICE_SOURCE
from testbench_dagster.core.errors import StoreError, TestbenchError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.discover.roster import active_suppliers, no_suppliers_text, refresh_roster
from testbench_dagster.stages.plan.plan_cache import evaluation_problems
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.taxonomies.model import is_placeholder
from testbench_dagster.transports.registry import check_service


def findings(workspace: Workspace, *, suppliers: bool = True) -> Iterator[Finding]:
    """Look at one thing after the other, and say how to mend what is wrong.

    Args:
        workspace: the installation.
        suppliers: whether to read the supplier sources and to send each supplier a short question.

    Raises:
        ConfigError: the configuration names tasks that there are not; everything else is a finding.
    """
    config = workspace.config
    yield Finding("configuration", f"{config.path}, {counted(len(workspace.specs), 'task')}")
    yield _store_finding(
        workspace,
        "document store",
        lambda: typed.count(workspace.documents, SupplierRecord),
        "MongoDB" if config.mongo_uri else None,
    )
    yield _store_finding(
        workspace,
        "dataset store",
        lambda: workspace.datasets.tasks(),
        "PostgreSQL" if config.postgres_uri else None,
    )
    yield from _task_findings(workspace)
    if config.settings.taxonomies:
        yield from _taxonomy_findings(workspace)
    for name in config.settings.services:
        yield from check_service(config, name)
    if suppliers:
        yield from _supplier_findings(workspace)
    yield from _answer_findings(workspace)


def _store_finding(
    workspace: Workspace, what: str, read: Callable[[], object], server: str | None
) -> Finding:
    try:
        read()
    except TestbenchError as error:
        return Finding(what, str(error), ok=False)
    return Finding(what, server or f"SQLite in {workspace.config.home}")


def _task_findings(workspace: Workspace) -> Iterator[Finding]:
    for spec in workspace.specs:
        try:
            registered = workspace.framework(spec).register(spec)
        except TestbenchError as error:
            yield Finding(f"task {spec.name}", _without_subject("task", spec.name, str(error)), ok=False)
            continue
        flags = registered.data.flags
        docs, shots = len(registered.data.docs), flags.num_fewshot
        yield Finding(f"task {spec.name}", f"{counted(docs, 'doc')}, {shots}-shot, {flags.output_type}")


def _taxonomy_findings(workspace: Workspace) -> Iterator[Finding]:
    try:
        taxonomies = configured_taxonomies(workspace)
    except TestbenchError as error:
        yield Finding("taxonomies", str(error), ok=False)
        return
    known = {spec.name for spec in workspace.specs}
    for taxonomy in taxonomies:
        tasks = {task for task in taxonomy.leaves() if not is_placeholder(task)}
        covered = len(tasks & known)
        detail = f"{covered} of its {counted(len(tasks), 'task')} configured"
        yield Finding(f"taxonomy {taxonomy.name}", detail, ok=covered > 0)


def _supplier_findings(workspace: Workspace) -> Iterator[Finding]:
    # with httpx: 50 ms
    from testbench_dagster.stages.relay.probe import probe_suppliers

    try:
        report = refresh_roster(workspace)
        suppliers = active_suppliers(workspace)
    except TestbenchError as error:  # the store: said before
        yield Finding("suppliers", str(error), ok=False)
        return
    for what, problem in report.problems.items():
        if not _told_with_its_service(what):
            yield Finding(f"roster {what}", problem, ok=False)
    for what, warning in report.warnings.items():
        if not _told_with_its_service(what):
            yield Finding(f"roster {what}", warning, ok=False, warning=True)
    if not suppliers:
        yield Finding("suppliers", no_suppliers_text(workspace), ok=False)
    for result in asyncio.run(probe_suppliers(workspace, suppliers)):
        detail = _without_subject("supplier", result.supplier, result.detail)
        yield Finding(f"supplier {result.supplier}", detail, ok=result.ok)
    for key, problem in evaluation_problems(workspace, [supplier.key for supplier in suppliers]).items():
        yield Finding(f"last evaluation of {key}", problem, ok=False, warning=True)


def _answer_findings(workspace: Workspace) -> Iterator[Finding]:
    """What there is to tell of the answers so far; nothing is sent for it."""
    # with lm_eval's adapters: only where there is something to look at
    from testbench_dagster.stages.identify.views import many_cuts
    from testbench_dagster.stages.score.remarks import empty_answers, late_answers, refused_parameters
    from testbench_dagster.stages.score.windows import windows

    try:
        rows = [row for row in windows(workspace) if row.primary]
        found = [
            *refused_parameters(workspace, rows).items(),
            *empty_answers(workspace, rows).items(),
            *late_answers(rows).items(),
        ]
        cuts = many_cuts(workspace)
    except StoreError:  # said before
        return
    for (supplier, task), remark in found:
        yield Finding(f"answers of {supplier} to {task}", remark, ok=False, warning=True)
    for supplier, remark in cuts.items():
        yield Finding(f"changes of {supplier}", remark, ok=False, warning=True)


def _without_subject(kind: str, name: str, text: str) -> str:
    """A text that begins with whom it is about, without that: the finding says it."""
    for subject in (f"{kind} {name!r}", f"{kind} {name}"):
        if text.startswith((f"{subject}: ", f"{subject}, ", f"{subject} ")):
            return text.removeprefix(subject).lstrip(":, ")
    return text


def _told_with_its_service(what: str) -> bool:
    """Whether a problem of the roster is of a service as a whole, or of one of its applications."""
    return what.startswith(SERVICE_SOURCE) and (": app " in what or ": " not in what)
