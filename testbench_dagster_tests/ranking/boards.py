"""Boards of made-up suppliers: hostile names, and as large as a whole network."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task_group import GroupMetric, TaskGroup
from testbench_dagster.core.window import Window
from testbench_dagster.ranking.entry import Board, Entry
from testbench_dagster.ranking.ranking import ranked

MADE_AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOSTILE = (
    "<script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "' onmouseover='document.title=1",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    'a\\b\nc"d\tx\u2028\x00\ud800',
    "</style></details></table><h1>mine</h1>",
    "&lt;b&gt;&amp;",
)
ABILITIES = ("reasoning", "mathematics", "knowledge", "following")


def board(
    names: Sequence[str],
    tasks: Sequence[str],
    taxonomies: Sequence[str],
    *,
    simulation: bool = True,
    seed: int = 0,
    groups: Sequence[str] = (),
) -> Board:
    """A board of these suppliers; the last one was never measured. ``groups`` are of all tasks each."""
    chance = random.Random(seed)
    suppliers = [_supplier(name) for name in names]
    keys = [s.key for s in suppliers]
    nodes: dict[tuple[str, str], dict[str, Ability]] = {}
    rankings = {}
    for taxonomy in taxonomies:
        entries = []
        for key in keys:
            unknown = key == keys[-1]
            summary = {
                node: _node(node, None if unknown else chance.random() ** 0.5, tasks)
                for node in (taxonomy, *ABILITIES)
            }
            nodes[key, taxonomy] = summary
            root = summary[taxonomy]
            entries.append(
                Entry(
                    taxonomy=taxonomy,
                    supplier=key,
                    score=root.score,
                    ci_low=root.ci_low,
                    ci_high=root.ci_high,
                    tasks_measured=0 if unknown else len(tasks),
                    tasks_total=len(tasks),
                    n=0 if unknown else 75 * len(tasks),
                    errors=0,
                    simulation=simulation,
                    error_rate=None if unknown else chance.random() / 10,
                    availability=None if unknown else 1 - chance.random() / 10,
                    first_attempt_success=None if unknown else 1 - chance.random() / 5,
                    latency_ms={"p50": None, "p95": None} if unknown else {"p50": 812.5, "p95": 4096.0},
                    last_sample_at=None if unknown else MADE_AT - timedelta(hours=chance.randrange(1, 200)),
                    ttft_p50_ms=None if unknown else 312.5,
                    tokens_per_s_p50=None if unknown else 48.25,
                    uptime=None if unknown else 1.0,
                    uptime_low=None if unknown else 0.86,
                )
            )
        rankings[taxonomy] = ranked(entries)
    rows = {key: [_window(key, task, chance, key == keys[-1]) for task in tasks] for key in keys}
    made = [TaskGroup(name, name, tuple(tasks), (GroupMetric("exact_match"),)) for name in groups]
    of_groups = {key: [_group(key, name, tasks, chance, key == keys[-1]) for name in groups] for key in keys}
    return Board(
        MADE_AT,
        simulation,
        suppliers,
        rankings,
        nodes,
        {t: t for t in taxonomies},
        rows,
        groups=made,
        group_windows=of_groups,
    )


def _group(supplier: str, name: str, tasks: Sequence[str], chance: random.Random, unknown: bool) -> Window:
    row = _window(supplier, name, chance, unknown)
    missing = dict.fromkeys(tasks, "no_data") if unknown else None
    return replace(row, kind="group", latency_ms={"p50": None, "p95": None}, missing=missing)


def _supplier(name: str) -> Supplier:
    """Also with a name that the configuration refuses: what shows names does not rely on it."""
    return Supplier(name, "external", "http://127.0.0.1:9/v1", "chat", "m")


def _node(name: str, score: float | None, tasks: Sequence[str]) -> Ability:
    unknown = score is None
    return Ability(
        node=name,
        status="no_data" if unknown else "ok",
        score=score,
        se=None if unknown else 0.03,
        ci_low=None if score is None else max(0.0, score - 0.06),
        ci_high=None if score is None else min(1.0, score + 0.05),
        weights={} if unknown else {task: 1 / len(tasks) for task in tasks},
        n_tasks=len(tasks),
        n_measured=0 if unknown else len(tasks),
        coverage=0.0 if unknown else 1.0,
        weight_coverage=0.0 if unknown else 0.75,
        min_n=None if unknown else 75,
        missing=list(tasks) if unknown else [],
        n=0 if unknown else 75,
        errors=0,
    )


def _window(supplier: str, task: str, chance: random.Random, unknown: bool) -> Window:
    score = None if unknown else chance.random()
    values: dict[str, Any] = {
        "supplier": supplier,
        "service": "external",
        "address": supplier,
        "task": task,
        "framework": "lm_eval",
        "metric": "exact_match",
        "filter": "none",
        "primary": True,
        "status": "no_data" if unknown else "ok",
        "n": 0 if unknown else 75,
        "n_planned": 75,
        "score": score,
        "ci_low": None if score is None else max(0.0, score - 0.1),
        "ci_high": None if score is None else min(1.0, score + 0.1),
        "errors": {} if unknown else {"empty": 1, "transport": 2},
        "truncated": 0,
        "latency_ms": {"p50": None, "p95": None} if unknown else {"p50": 812.5, "p95": 4096.0},
        "tokens": {},
        "last_sample_at": None if unknown else MADE_AT - timedelta(hours=3),
        "higher_is_better": True,
        "score_answered": score,
        "failures": "as_worst",
        **dict.fromkeys(("n_failed", "n_open", "n_void", "n_late"), 0),
    }
    return Window(**{**{f.name: None for f in fields(Window)}, **values})
