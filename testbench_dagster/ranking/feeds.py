"""What gateways read: quality per supplier as JSON and as Prometheus text; both made from one board.

docs/gateways.md says how to choose by them; docs/reference.md documents every field and metric.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from testbench_dagster.core.window import OK, Window
from testbench_dagster.ranking.entry import Board, Entry

#: Version of the JSON feed; it grows when a field changes its meaning or goes.
SCHEMA = 1
#: Suppliers × tasks up to which the JSON feed has the tasks: some 30 MB.
MAX_TASK_ROWS = 200_000
#: Series a Prometheus feed holds at most; families that no longer fit are left out whole.
MAX_SERIES = 200_000
PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[Mapping[str, str], float]


# -------------------------------------------------------------------------------------------------- JSON


def feed(board: Board, max_task_rows: int = MAX_TASK_ROWS) -> dict[str, Any]:
    """The feed as plain JSON values: suppliers in the order of the first ranking, best first.

    With more than ``max_task_rows`` windows ``tasks`` of the suppliers is null and ``omitted`` says so.
    """
    with_tasks = sum(map(len, board.windows.values())) <= max_task_rows
    tasks = {
        row.task: {"metric": row.metric, "filter": row.filter, "higher_is_better": row.higher_is_better}
        for rows in board.windows.values()
        for row in rows
    }
    rankings: dict[str, dict[str, Entry]] = {
        name: {entry.supplier: entry for entry in entries} for name, entries in board.rankings.items()
    }
    first = next(iter(rankings.values()), {})
    suppliers = {supplier.key: supplier for supplier in board.suppliers}
    return {
        "schema": SCHEMA,
        "made_at": board.made_at.isoformat(),
        "simulation": board.simulation,
        "omitted": [] if with_tasks else ["tasks"],
        "taxonomies": {name: {"root": board.roots.get(name)} for name in rankings},
        "tasks": tasks,
        "suppliers": [
            {
                "supplier": key,
                "address": suppliers[key].address,
                "service": suppliers[key].service,
                "group": entry.group,
                "proxy": entry.proxy,
                "score": entry.score,
                "lower_bound": entry.ci_low,
                "upper_bound": entry.ci_high,
                "rank_low": entry.rank_low,
                "rank_high": entry.rank_high,
                "p_best": entry.p_best,
                "last_sample_at": _iso(entry.last_sample_at),
                "age_seconds": _age(board.made_at, entry.last_sample_at),
                "error_rate": entry.error_rate,
                "availability": entry.availability,
                "latency_ms": dict(entry.latency_ms),
                "taxonomies": {name: _abilities(board, key, name, rankings[name][key]) for name in rankings},
                "tasks": {row.task: _task(board.made_at, row) for row in board.windows.get(key, ())}
                if with_tasks
                else None,
            }
            for key, entry in first.items()
        ],
    }


def render_json(board: Board) -> str:
    """The JSON feed as text; no NaN or infinity, which JSON has no word for."""
    return json.dumps(feed(board), allow_nan=False, separators=(",", ":"), ensure_ascii=False) + "\n"


def _abilities(board: Board, supplier: str, taxonomy: str, entry: Entry) -> dict[str, Any]:
    newest = {row.task: row.last_sample_at for row in board.windows.get(supplier, ())}
    nodes = {
        name: {
            "score": node.get("score"),
            "lower_bound": node.get("ci_low"),
            "upper_bound": node.get("ci_high"),
            "n": node.get("n"),
            "coverage": node.get("weight_coverage"),
            "age_seconds": _age(
                board.made_at,
                max((at for task in node.get("weights", ()) if (at := newest.get(task))), default=None),
            ),
        }
        for name, node in board.nodes.get((supplier, taxonomy), {}).items()
    }
    return {
        "score": entry.score,
        "lower_bound": entry.ci_low,
        "upper_bound": entry.ci_high,
        "rank_low": entry.rank_low,
        "rank_high": entry.rank_high,
        "nodes": nodes,
    }


def _task(made_at: datetime, row: Window) -> dict[str, Any]:
    score, low, high = task_numbers(row)
    return {
        "status": row.status,
        "n": row.n,
        "errors": row.supplier_errors,
        "score": score,
        "lower_bound": low,
        "upper_bound": high,
        "age_seconds": _age(made_at, row.last_sample_at),
    }


def task_numbers(row: Window) -> tuple[float | None, float | None, float | None]:
    """Score and interval of a window: those of its identity group where it is one of several that pool.

    What is no number is None.
    """
    pooled = getattr(row, "pooled", None)
    if pooled and pooled.get("score") is not None:
        numbers = pooled["score"], pooled.get("ci_low"), pooled.get("ci_high")
    else:
        numbers = row.score, row.ci_low, row.ci_high
    score, low, high = (v if v is not None and math.isfinite(v) else None for v in numbers)
    return score, low, high


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _age(made_at: datetime, at: datetime | None) -> float | None:
    return None if at is None else max(0.0, (made_at - at).total_seconds())


# -------------------------------------------------------------------------------------------- Prometheus


def render_prometheus(board: Board, max_series: int = MAX_SERIES) -> str:
    """The feed in Prometheus' text exposition format 0.0.4, all metrics gauges.

    Unknown numbers have no series. Times are instants, not ages, so that a stale scrape does not look fresh.
    At most ``max_series`` series: the families stand in order of importance, and one that no longer fits is
    left out whole and counted in ``testbench_feed_omitted_series``.
    """
    lines: list[str] = []
    room = max_series
    omitted: list[_Sample] = []
    for name, explanation, samples in _families(board):
        found = [(labels, value) for labels, value in samples if math.isfinite(value)]
        if len(found) > room:
            omitted.append(({"metric": name}, float(len(found))))
            continue
        room -= len(found)
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
    ability = "of a supplier by the root of a taxonomy"
    yield (
        "testbench_supplier_score_lower_bound",
        f"Lower 95 % confidence bound of the score {ability}.",
        _by(entries, "ci_low"),
    )
    yield "testbench_supplier_score", f"Score {ability}.", _by(entries, "score")
    yield (
        "testbench_supplier_score_upper_bound",
        f"Upper 95 % confidence bound of the score {ability}.",
        _by(entries, "ci_high"),
    )
    yield (
        "testbench_supplier_last_sample_timestamp_seconds",
        "When the newest sample behind the score was taken.",
        ((_labels(e), e.last_sample_at.timestamp()) for e in entries if e.last_sample_at is not None),
    )
    yield (
        "testbench_supplier_error_ratio",
        "Share of docs that ended in the supplier's own fault.",
        _by(entries, "error_rate"),
    )
    yield (
        "testbench_supplier_availability_ratio",
        "Answered docs among those answered or failed through the supplier or the network.",
        _by(entries, "availability"),
    )
    yield (
        "testbench_supplier_latency_seconds",
        "Latency of answers, median over tasks, by quantile.",
        (
            ({**_labels(e), "quantile": quantile}, value / 1000)
            for e in entries
            for quantile, key in (("0.5", "p50"), ("0.95", "p95"))
            if (value := e.latency_ms.get(key)) is not None
        ),
    )
    yield "testbench_supplier_rank_low", "Best rank it may have, 95 % confidence.", _by(entries, "rank_low")
    yield (
        "testbench_supplier_rank_high",
        "Worst rank it may have, 95 % confidence.",
        _by(entries, "rank_high"),
    )
    yield "testbench_supplier_best_probability", "Probability that nobody is better.", _by(entries, "p_best")
    node = "of an ability (a node of a taxonomy)"
    yield (
        "testbench_ability_score_lower_bound",
        f"Lower 95 % confidence bound of the score {node}.",
        _by_node(board, "ci_low"),
    )
    yield "testbench_ability_score", f"Score {node}.", _by_node(board, "score")
    yield (
        "testbench_task_score_lower_bound",
        "Lower 95 % confidence bound of the score on a task.",
        _by_task(board, 1),
    )
    yield "testbench_task_score", "Score on a task, in the unit of its metric.", _by_task(board, 0)
    yield (
        "testbench_task_last_sample_timestamp_seconds",
        "When the newest sample of a task was taken.",
        (
            ({"supplier": key, "task": row.task}, row.last_sample_at.timestamp())
            for key, rows in board.windows.items()
            for row in rows
            if row.last_sample_at is not None
        ),
    )


def _info(board: Board) -> Iterator[_Sample]:
    first = next(iter(board.rankings.values()), ())
    entries = {entry.supplier: entry for entry in first}
    for supplier in board.suppliers:
        entry = entries.get(supplier.key)
        yield (
            {
                "supplier": supplier.key,
                "address": supplier.address,
                "service": supplier.service,
                "group": (entry.group if entry else None) or "",
                "proxy": (entry.proxy if entry else None) or "",
            },
            1.0,
        )


def _labels(entry: Entry) -> dict[str, str]:
    return {"supplier": entry.supplier, "taxonomy": entry.taxonomy}


def _by(entries: Iterable[Entry], field: str) -> Iterator[_Sample]:
    for entry in entries:
        value = getattr(entry, field)
        if value is not None:
            yield _labels(entry), float(value)


def _by_node(board: Board, field: str) -> Iterator[_Sample]:
    for (supplier, taxonomy), nodes in board.nodes.items():
        for name, node in nodes.items():
            value = node.get(field)
            if value is not None:
                yield {"supplier": supplier, "taxonomy": taxonomy, "node": name}, float(value)


def _by_task(board: Board, which: int) -> Iterator[_Sample]:
    for key, rows in board.windows.items():
        for row in rows:
            value = task_numbers(row)[which] if row.status == OK else None
            if value is not None:
                yield {"supplier": key, "task": row.task}, float(value)


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
