"""``/supplier/K`` and its history: scores with intervals over time, windows, faults by hour, identity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from testbench_dagster.board.charts import (
    DayValue,
    HistoryChart,
    IntervalMark,
    Scale,
    columns,
    history_chart,
)
from testbench_dagster.board.pages.service import shown_service
from testbench_dagster.board.site import Asked, NotFound, Page, Site
from testbench_dagster.board.tables import Table, drawn_abilities, score_scale, scored, with_values
from testbench_dagster.core.history import DAILY_MEAN, HistoryPoint
from testbench_dagster.core.records.identity import ChangeRecord
from testbench_dagster.core.records.rankings import Ability, SupplierAbilities
from testbench_dagster.core.snapshot_rows import Series
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import SIGNATURES
from testbench_dagster.core.window import NOT_APPLICABLE, UNSUPPORTED, WINDOW_VIEWS, Window
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.stages.identify.public_gaps import newest_gaps
from testbench_dagster.stages.read.activity import Hour, hours
from testbench_dagster.stages.read.history import history as read_history
from testbench_dagster.stages.read.identity import abilities, against_reference, placed
from testbench_dagster.stages.read.identity import changes as read_changes
from testbench_dagster.stages.score.task_groups import group_rows
from testbench_dagster.stages.score.windows import primary_windows

_CHARTS = 9
_WINDOWS = 100
_CHANGES = 10
_GROUPS = 100
_MEMBERS = 30
_PERIODS = {"30d": 30, "90d": 90, "1y": 365}
_HOURS = 48
_OTHERS = 150
#: Statuses of tasks that never have a score.
_NEVER = frozenset({UNSUPPORTED, NOT_APPLICABLE})


@dataclass(frozen=True)
class ScoreHistory:
    """The history of one score: what it is called, where it leads, its points and their drawing."""

    title: str
    query: Mapping[str, str]
    points: Sequence[HistoryPoint]
    chart: HistoryChart | None


def supplier(site: Site, asked: Asked, key: str) -> Page:
    """Everything that is known of a supplier, on one page."""
    one = site.supplier(key)
    windows = _windows(site, one, asked)
    first = asked.number("from") or 0
    shown = windows[first : first + _WINDOWS]
    on = score_scale(windows)
    period = _period(asked)
    found = read_changes(site.workspace, key, limit=_CHANGES)
    able = abilities(site.workspace, key)
    groups = group_rows(site.workspace, one, asked.now)
    series = _series(windows, groups, able)
    place = asked.number("charts") or 0
    histories = _histories(site, key, series[place : place + _CHARTS], asked, found)
    activity = hours(site.workspace, key, asked.now, _HOURS)
    bars, most = columns([_stack(hour) for hour in activity])
    identity = placed(site.workspace, key)
    on_groups = score_scale(groups)
    return Page(
        "supplier.html.jinja",
        {
            "supplier": one,
            "places": _places(site, key),
            "period": period,
            "periods": list(_PERIODS),
            "histories": histories,
            "charts_next": place + _CHARTS if place + _CHARTS < len(series) else None,
            "charts_from": place,
            "windows": scored(shown, on),
            "table": Table(Window, with_values(Window, WINDOW_VIEWS.page, windows), asked.now),
            "n_windows": len(windows),
            "windows_from": first,
            "windows_next": first + _WINDOWS if first + _WINDOWS < len(windows) else None,
            "scale": on,
            "groups": scored(groups[:_GROUPS], on_groups),
            "n_groups": len(groups),
            "groups_scale": on_groups,
            "states": _states(windows),
            "hours": [hour for hour in activity if hour.total],
            "bars": bars,
            "most": most,
            "n_hours": _HOURS,
            "first_hour": activity[0].at,
            "changes": found,
            "identity": identity,
            "against": against_reference(site.workspace, key),
            "gaps": newest_gaps(site.workspace, [key]),
            "members": [] if identity is None else identity.members[:_MEMBERS],
            "abilities": _abilities(able),
            "service": shown_service(site, key, asked.now),
        },
    )


def history(site: Site, asked: Asked, key: str) -> Page:
    """The history of one score: a large drawing, and its numbers as a table."""
    one = site.supplier(key)
    period = _period(asked)
    wanted = (asked.text("task"), asked.text("taxonomy"), asked.text("node"))
    groups = group_rows(site.workspace, one, asked.now)
    series = _series(_windows(site, one, asked), groups, abilities(site.workspace, key))
    if wanted not in series and wanted not in {(spec.name, None, None) for spec in site.workspace.specs}:
        raise NotFound(f"there is no history of such a score of {key!r}")
    found = read_changes(site.workspace, key, limit=50)
    [chosen] = _histories(site, key, [wanted], asked, found, width=940, height=260)
    return Page(
        "history.html.jinja",
        {
            "supplier": one,
            "history": chosen,
            "others": [(_title(what), _query(what)) for what in series[:_OTHERS]],
            "period": period,
            "periods": list(_PERIODS),
            "changes": found,
        },
    )


# ------------------------------------------------------------------------------------------------ parts


def _windows(site: Site, one: Supplier, asked: Asked) -> list[Window]:
    return [row for _, rows in primary_windows(site.workspace, [one], asked.now) for row in rows]


def _places(site: Site, key: str) -> list[Entry]:
    """Its rows in the stored rankings."""
    found = []
    for stored in site.rankings.current():
        ranking = site.rankings.read(stored)
        if key in ranking.order:
            found.append(ranking.rows[ranking.order[key]])
    return found


def _period(asked: Asked) -> str:
    return asked.choice("since", _PERIODS) or "90d"


def _series(
    windows: Sequence[Window], groups: Sequence[Window], able: Sequence[SupplierAbilities]
) -> list[Series]:
    """What there may be a history of: roots of taxonomies, groups, tasks in configured order, other nodes."""
    roots: list[Series] = [(None, one.taxonomy, one.root) for one in able]
    tasks: list[Series] = [
        (w.task, None, None)
        for w in (*groups, *windows)
        if w.framework != SIGNATURES and w.status not in _NEVER
    ]
    nodes: list[Series] = [(None, one.taxonomy, node) for one in able for node in one.nodes]
    return list(dict.fromkeys([*roots, *tasks, *nodes]))


def _histories(
    site: Site,
    key: str,
    series: Sequence[Series],
    asked: Asked,
    found: Iterable[ChangeRecord],
    *,
    width: int = 440,
    height: int = 130,
) -> list[ScoreHistory]:
    """The histories of some scores."""
    since = asked.now.date() - timedelta(days=_PERIODS[_period(asked)])
    points: dict[Series, list[HistoryPoint]] = {what: [] for what in series}
    until = asked.now.date()
    for point in read_history(site.workspace, key, series=series, since=since, until=until) if series else ():
        points[point.task, point.taxonomy, point.node].append(point)
    marks = [(change.at.date(), f"{change.at:%Y-%m-%d}: {change.reason}") for change in found]
    return [
        ScoreHistory(
            _title(what),
            _query(what),
            own,
            history_chart([_day(p) for p in own], marks, width=width, height=height),
        )
        for what, own in points.items()
    ]


def _title(what: Series) -> str:
    task, taxonomy, node = what
    return task if task is not None else f"{taxonomy}: {node}"


def _query(what: Series) -> dict[str, str]:
    names = zip(("task", "taxonomy", "node"), what, strict=True)
    return {name: value for name, value in names if value is not None}


def _day(point: HistoryPoint) -> DayValue:
    return DayValue(
        date.fromisoformat(point.day), point.score, point.ci_low, point.ci_high, point.source == DAILY_MEAN
    )


def _stack(hour: Hour) -> list[tuple[str, int]]:
    return [(kind, getattr(hour, kind)) for kind in ("answered", "supplier", "network", "ours")]


def _states(windows: Iterable[Window]) -> dict[str, int]:
    """How many docs are in which state, over all tasks."""
    names = {"scored": "n", "failed": "n_failed", "open": "n_open", "void": "n_void", "late": "n_late"}
    rows = list(windows)
    return {state: sum(getattr(row, name) for row in rows) for state, name in names.items()}


def _abilities(
    able: Iterable[SupplierAbilities],
) -> list[tuple[str, Scale, list[tuple[str, Ability, IntervalMark | None]]]]:
    """By taxonomy its nodes that have a score, and where they are drawn."""
    found = []
    for summary in able:
        found.append((summary.taxonomy, *drawn_abilities(summary.nodes)))
    return found
