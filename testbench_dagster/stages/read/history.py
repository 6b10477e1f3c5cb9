"""History: what was known of suppliers, day by day."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from testbench_dagster.core.history import DAILY_MEAN, SNAPSHOT, HistoryPoint
from testbench_dagster.core.records.rankings import SupplierSnapshotRecord
from testbench_dagster.core.records.scores import DayScore
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.snapshot_rows import Series, SnapshotRow, unpack_rows
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.scoring.failures import is_mean, is_proportion
from testbench_dagster.scoring.rows import is_finite, primary_pair
from testbench_dagster.stages.discover.roster import cuts_of, models_of
from testbench_dagster.stages.snapshot import node_rows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.intervals import bounded_n, wilson
from testbench_dagster.statistics.quantiles import nearest_rank
from testbench_dagster.stores.documents import typed

_DAY = timedelta(days=1)
_TASKS = 50  # whose scores are read with one query


def history(
    workspace: Workspace,
    supplier: str,
    *,
    tasks: Sequence[str] | None = None,
    series: Collection[Series] | None = None,
    since: date | None = None,
    until: date | None = None,
    fill: bool = True,
) -> list[HistoryPoint]:
    """Return a supplier's points, ascending by day; with ``fill`` daily means of days without a snapshot.

    Args:
        workspace: the installation.
        supplier: its key; of one that nothing is known of there are no points.
        tasks: names of tasks or groups; None for all, and then for the nodes of taxonomies too. A group is
            there with its tasks.
        series: the wanted scores, as task, taxonomy and node, in place of ``tasks``: no others are unpacked.
        since: the first day, in UTC; None for the beginning.
        until: the last day; None for today.
        fill: days without a snapshot have the mean of the scores that were answered on them, of tasks whose
            score is a mean. They say nothing of docs that were left unanswered. Groups have none: few days
            have answers to all of their tasks.

    Raises:
        ConfigError: a task is not configured.
    """
    until = until or datetime.now(UTC).date()
    if series is None and tasks is not None:
        names = [spec.name for spec in workspace.chosen_specs(tasks)]
        names += [group.name for group in workspace.chosen_groups(tasks)]
        series = {(name, None, None) for name in names}
    wanted = None if series is None else frozenset(series)
    snapshots = _snapshots(workspace, supplier, since, until)
    points = [
        _of_row(supplier, snapshot.day, row)
        for snapshot in snapshots
        for row in _rows(snapshot, wanted)
        if wanted is None or (row.task, row.taxonomy, row.node) in wanted
    ]
    if fill:
        known = {snapshot.day for snapshot in snapshots}
        points += _daily_means(workspace, supplier, wanted, since, until, known)
    points.sort(key=lambda p: (p.day, p.task is None, p.taxonomy or "", p.task or "", p.node or ""))
    points = _with_cuts(points, _cuts(workspace, supplier, snapshots))
    return _with_models(points, models_of(workspace, supplier))


# -- snapshots --------------------------------------------------------------------------------------------


def _snapshots(
    workspace: Workspace, supplier: str, since: date | None, until: date
) -> list[SupplierSnapshotRecord]:
    day = {"lte": until.isoformat()} | ({} if since is None else {"gte": since.isoformat()})
    where = {"supplier": supplier, "day": day}
    return list(typed.find(workspace.documents, SupplierSnapshotRecord, where, sort=[("day", 1)]))


def _rows(snapshot: SupplierSnapshotRecord, wanted: Collection[Series] | None) -> Iterator[SnapshotRow]:
    """The rows of a snapshot of whatever version, of the wanted scores at least."""
    if snapshot.rows is not None:
        yield from unpack_rows(snapshot.rows, wanted)
        return
    for window in snapshot.windows or ():
        if window.get("score") is not None:
            latencies = window.get("latency_ms") or {}
            yield SnapshotRow(
                task=window["task"],
                taxonomy=None,
                node=None,
                metric=window.get("metric"),
                filter=window.get("filter"),
                score=window["score"],
                ci_low=window.get("ci_low"),
                ci_high=window.get("ci_high"),
                n=int(window.get("n") or 0),
                n_failed=int(window.get("n_failed") or 0),
                p50_ms=latencies.get("p50"),
                p95_ms=latencies.get("p95"),
            )
    for summary in snapshot.summaries or ():
        yield from node_rows(summary.taxonomy, summary.nodes)


def _of_row(supplier: str, day: str, row: SnapshotRow) -> HistoryPoint:
    return HistoryPoint(
        day=day,
        supplier=supplier,
        task=row.task,
        taxonomy=row.taxonomy,
        node=row.node,
        metric=row.metric,
        filter=row.filter,
        score=row.score,
        ci_low=row.ci_low,
        ci_high=row.ci_high,
        n=row.n,
        n_failed=row.n_failed,
        p50_ms=row.p50_ms,
        p95_ms=row.p95_ms,
        source=SNAPSHOT,
        cut=False,
    )


# -- daily means ------------------------------------------------------------------------------------------


def _daily_means(
    workspace: Workspace,
    supplier: str,
    wanted: Collection[Series] | None,
    since: date | None,
    until: date,
    known: set[str],
) -> Iterator[HistoryPoint]:
    """Points of the days that are not ``known``, of what was answered on each."""
    current = {registration.task: registration for registration in workspace.datasets.tasks()}
    registered = {
        (spec.name, registration.task_hash): (spec, registration)
        for spec in workspace.specs
        if not spec.signs
        and (wanted is None or (spec.name, None, None) in wanted)
        and (registration := current.get(spec.name)) is not None
    }
    watched = {
        key: (spec, registration)
        for key, (spec, registration) in registered.items()
        if is_mean(registration, primary_pair(spec, registration)[0])
    }
    for first, after in _gaps(since, until, known):
        keys = list(watched)
        for start in range(0, len(keys), _TASKS):
            some = {key: watched[key] for key in keys[start : start + _TASKS]}
            yield from _means(workspace, supplier, some, first, after, known)


def _gaps(since: date | None, until: date, known: set[str]) -> Iterator[tuple[datetime | None, datetime]]:
    """Stretches of days that hold every day without a snapshot: from an instant (None: ever) to another."""
    days = sorted(date.fromisoformat(day) for day in known)
    start = since
    for day in (*days, until + _DAY):
        if start is None or start < day:
            yield (None if start is None else _midnight(start)), _midnight(day)
        start = day + _DAY


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _means(
    workspace: Workspace,
    supplier: str,
    tasks: Mapping[tuple[str, str], tuple[TaskSpec, Registration]],
    first: datetime | None,
    after: datetime,
    known: set[str],
) -> Iterator[HistoryPoint]:
    pairs = {key: primary_pair(spec, registration) for key, (spec, registration) in tasks.items()}
    answered = {"lt": after} | ({} if first is None else {"gte": first})
    where = {
        "supplier": supplier,
        "task": {"in": sorted({task for task, _ in tasks})},
        "task_hash": {"in": sorted({task_hash for _, task_hash in tasks})},
        "filter": {"in": sorted({name for _, name in pairs.values()})},
        "answered_at": answered,
    }
    found: dict[tuple[str, tuple[str, str]], list[DayScore]] = defaultdict(list)
    for score in typed.find(workspace.documents, DayScore, where):
        key = score.task, score.task_hash
        if key not in tasks or score.filter != pairs[key][1] or score.error is not None or score.round == 0:
            continue
        if score.scorer_version == scorer_version(tasks[key][1]):
            found[score.answered_at.date().isoformat(), key].append(score)
    for (day, key), scores in found.items():
        metric, name = pairs[key]
        made = [(s, v) for s in scores if is_finite(v := s.metrics.get(metric))]
        values = [float(value) for _, value in made]
        if day in known or not values:
            continue
        mean = math.fsum(values) / len(values)
        low = high = None
        if is_proportion(values, tasks[key][1], metric):
            alike = bounded_n(values)
            low, high = wilson(min(mean, 1.0) * alike, alike)
        latencies = sorted(s.latency_ms / max(s.calls, 1) for s, _ in made)
        yield HistoryPoint(
            day=day,
            supplier=supplier,
            task=key[0],
            taxonomy=None,
            node=None,
            metric=metric,
            filter=name,
            score=mean,
            ci_low=low,
            ci_high=high,
            n=len(values),
            n_failed=None,
            p50_ms=latencies[nearest_rank(len(latencies), 0.5) - 1],
            p95_ms=latencies[nearest_rank(len(latencies), 0.95) - 1],
            source=DAILY_MEAN,
            cut=False,
        )


# -- changes ----------------------------------------------------------------------------------------------


def _cuts(workspace: Workspace, supplier: str, snapshots: Iterable[SupplierSnapshotRecord]) -> list[datetime]:
    """When the supplier's earlier answers became void, as far as anything stored says it; ascending."""
    found = {*cuts_of(workspace, supplier), *(s.cut_at for s in snapshots if s.cut_at is not None)}
    for snapshot in snapshots:
        found |= {at for window in snapshot.windows or () if (at := window.get("cut_at")) is not None}
    return sorted(found)


def _with_cuts(points: Sequence[HistoryPoint], cuts: Sequence[datetime]) -> list[HistoryPoint]:
    """The points, with a mark on the first of each score after each cut."""
    if not cuts:
        return list(points)
    ends: dict[Series, datetime] = {}
    marked = []
    for point in points:
        day = _midnight(date.fromisoformat(point.day))
        series = point.task, point.taxonomy, point.node
        # of the first point that there is only the day itself is known
        begin, end = ends.get(series, day), day + _DAY
        ends[series] = end
        cut = any(begin <= at < end for at in cuts)
        marked.append(replace(point, cut=True) if cut else point)
    return marked


def _with_models(
    points: Sequence[HistoryPoint], claims: Sequence[tuple[datetime, str]]
) -> list[HistoryPoint]:
    """The points, each with the model that the supplier claimed when its day ended."""
    since = [at for at, _ in claims]
    found = []
    for point in points:
        n = bisect_left(since, _midnight(date.fromisoformat(point.day)) + _DAY)
        found.append(replace(point, model=claims[n - 1][1]) if n else point)
    return found
