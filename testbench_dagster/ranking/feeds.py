"""What gateways read: quality per supplier as JSON and as Prometheus text; both made from one board.

docs/gateways.md says how to choose by them; docs/reference.md documents every field and metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from testbench_dagster.core.columns import Cell, Gauge, Shape, Unit, columns_of, reader_of
from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.window import SCORED_STATUSES, WINDOW_VIEWS, Window
from testbench_dagster.ranking.cells import age_seconds
from testbench_dagster.ranking.entry import ENTRY_VIEWS, Board, Entry

#: Version of the JSON feed; it grows when a field changes its meaning or goes.
SCHEMA = 2
#: Suppliers × tasks up to which the JSON feed has the tasks: some 30 MB.
MAX_TASK_ROWS = 200_000
#: Series a Prometheus feed holds at most; families that no longer fit are left out whole.
MAX_SERIES = 200_000
PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Labels of the parts of a latency, which is in milliseconds.
_QUANTILES = {"p50": "0.5", "p95": "0.95"}

_Sample = tuple[Mapping[str, str], float]


# -------------------------------------------------------------------------------------------------- JSON


def feed(board: Board, max_task_rows: int = MAX_TASK_ROWS) -> dict[str, Any]:
    """The feed as plain JSON values: suppliers in the order of the first ranking, best first.

    Those that are asked none of its tasks follow in the order of the next one, with its numbers.

    With more than ``max_task_rows`` windows ``tasks`` of the suppliers is null and ``omitted`` says so; so of
    the rows of groups ``task_groups``.
    """
    with_tasks = sum(map(len, board.windows.values())) <= max_task_rows
    with_groups = sum(map(len, board.group_windows.values())) <= max_task_rows
    tasks = {
        row.task: {"metric": row.metric, "filter": row.filter, "higher_is_better": row.higher_is_better}
        for rows in board.windows.values()
        for row in rows
    }
    rankings: dict[str, dict[str, Entry]] = {
        name: {entry.supplier: entry for entry in entries} for name, entries in board.rankings.items()
    }
    first: dict[str, Entry] = {}
    for entries in rankings.values():
        first |= {key: entry for key, entry in entries.items() if key not in first}
    suppliers = {supplier.key: supplier for supplier in board.suppliers}
    of_entry = feed_writer(ENTRY_VIEWS.feed, board.made_at)
    of_window = feed_writer(WINDOW_VIEWS.feed, board.made_at)
    return {
        "schema": SCHEMA,
        "made_at": board.made_at.isoformat(),
        "simulation": board.simulation,
        "omitted": [
            *([] if with_tasks else ["tasks"]),
            *([] if with_groups else ["task_groups"]),
        ],
        "set_aside": [{"task": task, "reason": reason} for task, reason in board.published_set_aside.items()],
        "taxonomies": {
            name: {"root": board.roots.get(name), "set_aside": list(board.lacking.get(name, ()))}
            for name in rankings
        },
        "tasks": tasks,
        "task_groups": _task_groups(board),
        "suppliers": [
            {
                "supplier": key,
                "address": suppliers[key].address,
                "service": suppliers[key].service,
                **of_entry(entry),
                "taxonomies": {
                    name: _abilities(board, key, name, rankings[name].get(key)) for name in rankings
                },
                "tasks": {row.task: of_window(_with_bound(row)) for row in board.windows.get(key, ())}
                if with_tasks
                else None,
                "task_groups": {
                    row.task: of_window(_with_bound(row)) | {"missing": row.missing}
                    for row in board.group_windows.get(key, ())
                }
                if with_groups
                else None,
            }
            for key, entry in first.items()
        ],
    }


def _task_groups(board: Board) -> dict[str, Any]:
    """What the groups that have rows are made of."""
    rows = {row.task: row for of_supplier in board.group_windows.values() for row in of_supplier}
    return {
        group.name: {
            "metric": rows[group.name].metric,
            "filter": rows[group.name].filter,
            "higher_is_better": rows[group.name].higher_is_better,
            "root": group.root,
            "tasks": list(group.tasks),
        }
        for group in board.groups
        if group.name in rows
    }


def _with_bound(row: Window) -> Window:
    """A window without a lower bound where lower is better: who chooses by it would choose who fails most."""
    return row if row.higher_is_better else replace(row, ci_low=None)


def render_json(board: Board) -> str:
    """The JSON feed as text; no NaN or infinity, which JSON has no word for."""
    return json.dumps(feed(board), allow_nan=False, separators=(",", ":"), ensure_ascii=False) + "\n"


def _abilities(board: Board, supplier: str, taxonomy: str, entry: Entry | None) -> dict[str, Any]:
    """A supplier by a taxonomy; unknown numbers where it is asked none of its tasks."""
    newest = {row.task: row.last_sample_at for row in board.windows.get(supplier, ())}
    nodes = {
        name: {
            "score": node.score,
            "lower_bound": node.ci_low,
            "upper_bound": node.ci_high,
            "own_score": node.own_score,
            "n_own": node.n_own,
            "shared": node.shared,
            "n": node.n,
            "n_failed": node.errors,
            "n_open": node.n_open,
            "status": node.status,
            "coverage": node.weight_coverage,
            "age_seconds": age_seconds(
                board.made_at,
                max((at for task in node.weights if (at := newest.get(task))), default=None),
            ),
        }
        for name, node in board.nodes.get((supplier, taxonomy), {}).items()
    }
    return {
        "score": entry and entry.score,
        "lower_bound": entry and entry.ci_low,
        "upper_bound": entry and entry.ci_high,
        "rank_low": entry and entry.rank_low,
        "rank_high": entry and entry.rank_high,
        "nodes": nodes,
    }


def feed_writer(cells: Iterable[Cell], made_at: datetime) -> Callable[[object], dict[str, Any]]:
    """Returns what makes a record the object of a feed: plain JSON values by the titles of the cells."""
    readers = [(cell.title, cell.shape is Shape.AGE, read) for cell in cells for read in cell.readers]

    def write(record: object) -> dict[str, Any]:
        return {title: _plain(read(record), made_at, age=age) for title, age, read in readers}

    return write


def _plain(value: Any, made_at: datetime, *, age: bool) -> Any:
    if age:
        return age_seconds(made_at, value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return dict(value) if isinstance(value, Mapping) else value


# -------------------------------------------------------------------------------------------- Prometheus


def render_prometheus(board: Board, max_series: int = MAX_SERIES) -> str:
    """The feed in Prometheus' text exposition format 0.0.4, all metrics gauges.

    Unknown numbers have no series. Times are instants, not ages, so that a stale scrape does not look fresh.
    At most ``max_series`` series: the families stand in order of importance, and one that no longer fits is
    left out whole and counted in ``testbench_feed_omitted_series``.
    """
    lines: list[str] = []
    space = max_series
    omitted: list[_Sample] = []
    for name, explanation, samples in _families(board):
        found = [(labels, value) for labels, value in samples if math.isfinite(value)]
        if len(found) > space:
            omitted.append(({"metric": name}, float(len(found))))
            continue
        space -= len(found)
        lines += _family(name, explanation, found)
    lines += _family(
        "testbench_feed_omitted_series", "Series left out to bound the size, by metric.", omitted
    )
    return "".join(f"{line}\n" for line in lines)


def _families(board: Board) -> Iterator[tuple[str, str, Iterable[_Sample]]]:
    """Name, help text and samples, the most important first."""
    entries = board.entries
    yield (
        "testbench_feed_made_timestamp_seconds",
        "When this feed was made.",
        [({}, board.made_at.timestamp())],
    )
    yield "testbench_feed_simulation", "1 if the suppliers are simulated.", [({}, float(board.simulation))]
    yield "testbench_feed_suppliers", "Active suppliers.", [({}, float(len(board.suppliers)))]
    yield (
        "testbench_supplier_info",
        "1 for each supplier, with its identity group and who represents it.",
        _info(board),
    )
    for gauge in ENTRY_VIEWS.gauges:
        yield gauge.name, gauge.explanation, _samples(gauge, ((_labels(e), e) for e in entries))
    node = "of an ability (a node of a taxonomy)"
    yield (
        "testbench_ability_score_lower_bound",
        f"Lower 95 % confidence bound of the score {node}.",
        _by_node(board, attrgetter("ci_low")),
    )
    yield "testbench_ability_score", f"Score {node}.", _by_node(board, attrgetter("score"))
    for gauge in WINDOW_VIEWS.gauges:
        yield (
            gauge.name.replace("_task_", "_task_group_"),
            gauge.explanation.replace("a task", "a group of tasks"),
            _samples(gauge, _by_row(board.group_windows, "task_group", gauge)),
        )
    for gauge in WINDOW_VIEWS.gauges:
        yield gauge.name, gauge.explanation, _samples(gauge, _by_row(board.windows, "task", gauge))


def _info(board: Board) -> Iterator[_Sample]:
    entries: dict[str, Entry] = {}
    for entry in board.entries:
        entries.setdefault(entry.supplier, entry)
    for supplier in board.suppliers:
        placed = entries.get(supplier.key)
        yield (
            {
                "supplier": supplier.key,
                "address": supplier.address,
                "service": supplier.service,
                "group": (placed.group if placed else None) or "",
                "proxy": (placed.proxy if placed else None) or "",
            },
            1.0,
        )


def _labels(entry: Entry) -> dict[str, str]:
    return {"supplier": entry.supplier, "taxonomy": entry.taxonomy}


def _samples(gauge: Gauge, records: Iterable[tuple[Mapping[str, str], object]]) -> Iterator[_Sample]:
    """The series of a gauge, from labels and records; unknown values have none, milliseconds are seconds."""
    read = reader_of(gauge.path)
    in_ms = gauge.path.endswith("_ms")
    for labels, record in records:
        value = read(record)
        if isinstance(value, Mapping):
            for part, quantile in _QUANTILES.items():
                if (number := value.get(part)) is not None:
                    yield {**labels, "quantile": quantile}, number / 1000
        elif isinstance(value, datetime):
            yield labels, value.timestamp()
        elif value is not None:
            yield labels, float(value) / 1000 if in_ms else float(value)


def _by_node(board: Board, read: Callable[[Ability], float | None]) -> Iterator[_Sample]:
    for (supplier, taxonomy), nodes in board.nodes.items():
        for name, node in nodes.items():
            value = read(node)
            if value is not None:
                yield {"supplier": supplier, "taxonomy": taxonomy, "node": name}, float(value)


def _by_row(
    windows: Mapping[str, Sequence[Window]], label: str, gauge: Gauge
) -> Iterator[tuple[Mapping[str, str], Window]]:
    """The windows with their labels; of a score those that have one."""
    scored = columns_of(Window)[gauge.path].column.unit is Unit.SCORE
    for key, rows in windows.items():
        for row in rows:
            if row.status in SCORED_STATUSES or not scored:
                yield {"supplier": key, label: row.task}, _with_bound(row)


def _family(name: str, explanation: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {name} {explanation}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        inner = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        # 17 digits: enough for any double
        yield f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}"


def _escape(text: str) -> str:
    """A label's value by the format's rules; lone surrogates, which UTF-8 has no bytes for, are replaced."""
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return valid.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
