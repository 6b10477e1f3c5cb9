"""What ``testbench check`` looks at: configuration, stores, tasks, taxonomies, services, suppliers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from testbench_dagster.config import SERVICE_SOURCE, Config
from testbench_dagster.core.errors import BodyUnavailable, StoreError, TestbenchError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.prompt import Registered
from testbench_dagster.core.records.attempts import AnswerBytes, PlacedBody
from testbench_dagster.core.records.bodies import BodyPlaceRecord
from testbench_dagster.core.records.prompts import EpochStart
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MEAN, TaskFlags
from testbench_dagster.core.wording import agreeing, counted
from testbench_dagster.sandbox.choice import CODE
from testbench_dagster.sandbox.surroundings import python_version
from testbench_dagster.scoring.bounds import bounds_by_definition
from testbench_dagster.stages.ahead import dated_ahead
from testbench_dagster.stages.discover.roster import active_suppliers, no_suppliers_text, refresh_roster
from testbench_dagster.stages.disk_space import low_space
from testbench_dagster.stages.plan.money import money_findings
from testbench_dagster.stages.plan.plan_cache import evaluation_problems
from testbench_dagster.stages.plan.schedules import schedule_findings
from testbench_dagster.stages.sample.catalogue import built_prompts, check_ids
from testbench_dagster.stages.sample.set_aside import tasks_set_aside, void_docs
from testbench_dagster.stages.service.outlook import probe_findings
from testbench_dagster.stages.statements import statement_findings
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.who_is_asked import asked_findings
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.disk import full_disk, nothing_left
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.files import ANOTHER_DISK
from testbench_dagster.stores.places import Place
from testbench_dagster.taxonomies.model import is_placeholder
from testbench_dagster.transports.registry import check_service

_TOLD = 3  # tasks named
_BODIES_READ = 5  # of these from each place, the newest among them, to see that they are there
_BODIES = 1_000  # newest attempts that are looked at for where their bodies stand
_DOCS_TRIED = 3  # of which prompts are built, to see whether the templates work


def findings(
    workspace: Workspace,
    *,
    suppliers: bool = True,
    of_dagster: Callable[[Config], Iterator[Finding]] | None = None,
) -> Iterator[Finding]:
    """Look at one thing after the other, and say how to mend what is wrong.

    Args:
        workspace: the installation.
        suppliers: whether to read the supplier sources and to send each supplier a short question, in two
            forms.
        of_dagster: looks at Dagster's own storage, of which nothing is known here.

    Raises:
        ConfigError: the configuration names no task that there is; everything else is a finding.
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
    for told in low_space(config):
        yield Finding("disk", told, ok=False, warning=True)
    yield from _clock_findings(workspace)
    yield from statement_findings(workspace)
    if of_dagster is not None:
        yield from of_dagster(config)
    yield from _shared_findings(workspace)
    yield from _body_findings(workspace)
    if config.settings.publish is not None:
        yield _place_finding(config.settings.publish)
    known: dict[str, TaskFlags] = {}
    echo: dict[str, bool | None] = {}
    if config.settings.allow_code_execution:
        yield _code_finding()
    yield from _task_findings(workspace, known)
    for framework in dict.fromkeys(spec.framework for spec in workspace.specs):
        if remark := framework_plug(framework).remark():
            yield Finding(f"framework {framework}", remark, ok=False, warning=True)
    for group in workspace.groups:
        if group.problem is not None:
            yield Finding(f"group {group.name}", group.problem, ok=False, warning=True)
    if config.settings.taxonomies:
        yield from _taxonomy_findings(workspace)
    for name in config.settings.services:
        yield from check_service(config, name)
    if suppliers:
        yield from _supplier_findings(workspace, echo)
    yield from _money_findings(workspace)
    yield from _asked_findings(workspace, known, echo)
    yield from _reference_findings(workspace)
    yield from _probe_findings(workspace)
    yield from _answer_findings(workspace)


def _store_finding(
    workspace: Workspace, what: str, read: Callable[[], object], server: str | None
) -> Finding:
    try:
        read()
    except TestbenchError as error:
        return Finding(what, str(error), ok=False)
    home = workspace.config.home
    if server is None and not os.access(home, os.W_OK):
        told = f"SQLite in {home}, which this user may only read: what shows works, `run` and `up` do not"
        return Finding(what, told, ok=False, warning=True)
    if server is None and nothing_left(home / what):  # what shows works
        return Finding(what, str(full_disk(home, ANOTHER_DISK)), ok=False)
    return Finding(what, server or f"SQLite in {home}")


def _clock_findings(workspace: Workspace) -> Iterator[Finding]:
    try:
        told = dated_ahead(workspace, datetime.now(UTC))
    except StoreError:  # said before
        return
    if told is not None:
        yield Finding("clock", told, ok=False, warning=True)


def _shared_findings(workspace: Workspace) -> Iterator[Finding]:
    """Whether all hosts share both stores, or this one shows no score of what others measured."""
    if not workspace.config.mongo_uri or workspace.config.postgres_uri:
        return
    try:
        lacking = [
            spec.name
            for spec in workspace.specs
            if workspace.datasets.current(spec.name) is None
            and next(typed.find(workspace.documents, EpochStart, {"task": spec.name}, limit=1), None)
        ]
    except StoreError:  # said before
        return
    if lacking:
        more = f" and {len(lacking) - _TOLD} more" if len(lacking) > _TOLD else ""
        yield Finding(
            "stores",
            f"MongoDB has epochs of {', '.join(lacking[:_TOLD])}{more}, whose data the datasets of this "
            "machine lack: their scores are not shown here, and would be measured by data of its own; set "
            "TESTBENCH_POSTGRES_URI to the dataset store that all hosts share",
            ok=False,
            warning=True,
        )


def _place_finding(url: str) -> Finding:
    """Whether what is published elsewhere gets there; nothing is written."""
    place = Place(url)
    try:
        place.look()
    except StoreError as error:
        return Finding("publish", str(error), ok=False)
    return Finding("publish", place.shown)


def _body_findings(workspace: Workspace) -> Iterator[Finding]:
    """Where bodies stand outside the document store, whether they can be read, and how many are there."""
    chosen = workspace.config.settings.bodies
    try:
        known = [one.id for one in typed.find(workspace.documents, BodyPlaceRecord)]
        newest = typed.find(
            workspace.documents,
            PlacedBody,
            sort=[("finished_at", -1)],
            limit=_BODIES if known or chosen else 0,
        )
        bodies = list(newest)
    except StoreError:  # said before
        return
    for url in dict.fromkeys([*([] if chosen is None else [chosen.place]), *sorted(known)]):
        place = Place(url)
        there = sum(_stands_in(one, url) for one in bodies)
        told = (
            f"{place.shown}: {there} of the newest {counted(len(bodies), 'attempt')} have their bodies there"
        )
        try:
            place.look()
        except StoreError as error:
            remedy = "what needs these bodies is put off until it can be reached, and nothing is lost"
            yield Finding("bodies", f"{told}; {error}; {remedy}", ok=False)
            continue
        if (unread := _unreadable(workspace, [one for one in bodies if _stands_in(one, url)])) is not None:
            yield Finding("bodies", f"{told}; {unread}", ok=False)
            continue
        if chosen is None or url != chosen.place:
            keep = "no more go there, but these are read there: keep it, for retention leaves it to you"
            yield Finding("bodies", f"{told}; {keep}")
            continue
        here = sum(one.body_outside is None and one.body_bytes >= chosen.min_bytes for one in bodies)
        size = counted(chosen.min_bytes, "byte", ",")
        if bodies and all(one.body_bytes < chosen.min_bytes for one in bodies):
            yield Finding("bodies", f"{told}: none has {size}, from which on they go there (`min_bytes`)")
            continue
        one, more = f"other of at least {size} stands", f"others of at least {size} stand"
        also = (
            f"; {agreeing(here, one, more)} in the document store, written before it was set or while it did "
            "not answer"
        )
        yield Finding("bodies", told + (also if here else ""))


def _unreadable(workspace: Workspace, bodies: Sequence[PlacedBody]) -> str | None:
    """Why one of some bodies cannot be read, with how many of those that were looked at."""
    step = max(1, len(bodies) // _BODIES_READ)
    looked_at, errors = bodies[::step][:_BODIES_READ], []
    for one in looked_at:
        try:
            typed.get(workspace.documents, AnswerBytes, one.id)
        except BodyUnavailable as error:
            errors.append(str(error))
    return f"{len(errors)} of {len(looked_at)} that were read: {errors[0]}" if errors else None


def _stands_in(body: PlacedBody, url: str) -> bool:
    return body.body_outside is not None and body.body_outside.place.rpartition("/")[0] == url


def _code_finding() -> Finding:
    """Where code that models wrote would run."""
    what = "model-written code"
    if (problem := CODE.problem()) is not None:
        told = f"runs nowhere: no sandbox holds on this machine ({problem}); mend that (docs/code.md)"
        return Finding(what, told, ok=False, warning=True)
    return Finding(what, f"runs in {CODE.sandbox().name} with Python {python_version()}")


def _task_findings(workspace: Workspace, known: dict[str, TaskFlags]) -> Iterator[Finding]:
    """Adds the flags of each task that can be prepared."""
    try:
        aside, void = tasks_set_aside(workspace, workspace.specs), void_docs(workspace, workspace.specs)
    except StoreError:  # said before
        aside, void = {}, {}
    for spec in workspace.specs:
        what = f"task {spec.name}"
        try:
            registered = workspace.framework(spec).register(spec)
            check_ids(spec, len(registered.data.docs), registered.eval_split)
            _try_prompts(workspace, spec, registered)
        except TestbenchError as error:
            yield Finding(what, _without_subject("task", spec.name, str(error)), ok=False)
            continue
        flags = registered.data.flags
        known[spec.name] = flags
        docs, shots = len(registered.data.docs), flags.num_fewshot
        yield Finding(what, f"{counted(docs, 'doc')}, {shots}-shot, {flags.output_type}")
        if told := _without_bounds(spec, flags):
            yield Finding(f"score of {spec.name}", told, ok=False, warning=True)
        if spec.name in aside:
            told = _without_subject("task", spec.name, aside[spec.name])
            yield Finding(what, f"set aside by the last run, the next one tries again: {told}", ok=False)
        if spec.name in void:
            yield Finding(what, void[spec.name], ok=False, warning=True)


def _without_bounds(spec: TaskSpec, flags: TaskFlags) -> str | None:
    """What to tell of a task of whose score nothing but the answers says what it may be at worst."""
    metric = spec.metric or next(iter(flags.metric_order or flags.metrics), None)
    of_metric = flags.metrics.get(metric or "")
    if spec.signs or spec.worst is not None or metric is None or of_metric is None:
        return None
    if of_metric.aggregation != MEAN or bounds_by_definition(spec.framework, flags, metric) is not None:
        return None
    worst, worse = ("0", "lower") if of_metric.higher_is_better else ("1", "higher")
    return (
        f"nothing but the answers says which values {metric!r} may have: a doc without an answer counts as "
        f"{worst} while all lie from 0 to 1, so that a supplier gains by keeping back {worse} ones, and as "
        f"nothing otherwise; say with worst: what it may be at worst (worst: {worst} where that is {worst})"
    )


def _try_prompts(workspace: Workspace, spec: TaskSpec, registered: Registered) -> None:
    """Build the first prompts of a task in both forms, as far as it has them: its templates may raise."""
    if spec.signs:
        return
    first = sorted(registered.data.docs)[:_DOCS_TRIED]
    for api in registered.data.flags.request_forms:
        built_prompts(workspace, spec, registered.data, first, api, "")


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
        for node, lost in taxonomy.unplaced.items():
            told = (
                f"node {node!r} has labels but no edge leads to it, so its {counted(len(lost), 'task')} "
                f"(such as {lost[0]!r}) are no part of it, as in pocket-ml-testbench; add an edge, or drop "
                "the labels"
            )
            yield Finding(f"taxonomy {taxonomy.name}", told, ok=False, warning=True)


def _supplier_findings(workspace: Workspace, echo: dict[str, bool | None]) -> Iterator[Finding]:
    """Adds which suppliers echo log-probabilities, None where that stays unknown."""
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
        echo[result.supplier] = result.echo_logprobs
        detail = _without_subject("supplier", result.supplier, result.detail)
        what = f"supplier {result.supplier}"
        yield Finding(what, detail, ok=result.ok, warning=result.warning, paste=result.paste)
    for key, problem in evaluation_problems(workspace, [supplier.key for supplier in suppliers]).items():
        yield Finding(f"last evaluation of {key}", problem, ok=False, warning=True)


def _money_findings(workspace: Workspace) -> Iterator[Finding]:
    try:
        yield from money_findings(workspace, active_suppliers(workspace), datetime.now(UTC))
    except StoreError:  # said before
        return


def _asked_findings(
    workspace: Workspace, known: dict[str, TaskFlags], echo: dict[str, bool | None]
) -> Iterator[Finding]:
    try:
        suppliers = active_suppliers(workspace)
    except StoreError:  # said before
        return
    yield from asked_findings(workspace, suppliers, known, echo)
    yield from schedule_findings(workspace, suppliers)


def _reference_findings(workspace: Workspace) -> Iterator[Finding]:
    """What keeps suppliers from being compared with the reference of their model."""
    if not workspace.config.settings.reference_keys:
        return
    # with the engines of identity
    from testbench_dagster.stages.identify.references import reference_remarks

    try:
        remarks = list(reference_remarks(workspace))
    except StoreError:  # said before
        return
    for supplier, remark in remarks:
        yield Finding(f"reference of {supplier}", remark, ok=False, warning=True)


def _probe_findings(workspace: Workspace) -> Iterator[Finding]:
    """What service probes come to, and what stands in their way; nothing is sent for it."""
    try:
        yield from list(probe_findings(workspace))
    except StoreError:  # said before
        return


def _answer_findings(workspace: Workspace) -> Iterator[Finding]:
    """What there is to tell of the answers so far; nothing is sent for it."""
    # with lm_eval's adapters: only where there is something to look at
    from testbench_dagster.stages.identify.views import many_cuts
    from testbench_dagster.stages.score.outages import who_waits_for_scorers
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
        keys, names = [s.key for s in active_suppliers(workspace)], [s.name for s in workspace.specs]
        unscored = who_waits_for_scorers(workspace.documents, keys, names)
    except StoreError:  # said before
        return
    for (supplier, task), remark in found:
        yield Finding(f"answers of {supplier} to {task}", remark, ok=False, warning=True)
    for task, remark in unscored.items():
        yield Finding(f"answers to {task}", remark, ok=False, warning=True)
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
