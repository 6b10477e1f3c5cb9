"""Suspicions on both stores: found in stored attempts, told, and nothing follows from them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import testbench_dagster
from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.records.suspicions import SuspicionRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.identify.identify import refresh_identity
from testbench_dagster.stages.identify.suspicions import TOLD_FOR, suspicion_rows
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, IDENTITY_GROUPS, SUSPICIONS
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, answer_prefix, key

TASK = "starter_reading"
NAMES = ("a1", "a2", "b1", "c1", "d1")
TASKS = [
    {"name": TASK, "samples": {"min": 5, "max": 50, "half_width": None}},
    {"name": "identity", "framework": "signatures"},
]
SECOND = timedelta(seconds=1)


@pytest.fixture
def workspace(open_installation: Callable[..., Workspace]) -> Workspace:
    workspace = open_installation(*({"address": name} for name in NAMES), tasks=TASKS)
    refresh_roster(workspace)
    return workspace


def attempts(rows: Iterator[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stored attempts: of each what the row says, else that of an answer of some seconds."""
    found = []
    for number, row in enumerate(rows):
        plain = {
            "_id": document_id("attempt", "suspicions", number, row["supplier"], row["prompt_id"]),
            "service": "external",
            "task": TASK,
            "task_hash": "h",
            "epoch": 1,
            "round": 1,
            "position": 0,
            "doc_id": 0,
            "idx": 0,
            "repeat": 0,
            "attempt": 1,
            "fault": "ok",
            "owner": "none",
            "latency_ms": 2000.0,
            "prompt_tokens": 100,
            "completion_tokens": 40,
            "own_in_flight": 1,
        }
        found.append({**plain, **row})
    return found


def failing_together(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Six days asked every twenty minutes; c1 is down whenever d1 is, and each of the others by itself."""
    down = {name: {chance.randrange(432) for _ in range(9)} for name in NAMES}
    down["c1"] = set(down["d1"])
    for number in range(432):
        for name in NAMES:
            bad = number in down[name]
            yield {
                "supplier": key(name),
                "prompt_id": f"p{number}",
                "finished_at": NOW - timedelta(days=6) + number * timedelta(minutes=20),
                "fault": "unavailable" if bad else "ok",
                "owner": "supplier" if bad else "none",
                "answer_hash": None if bad else f"{name}{number}",
            }


def kinds(workspace: Workspace) -> dict[str, tuple[str, str | None]]:
    return {one.kind: (one.supplier, one.other) for one in typed.find(workspace.documents, SuspicionRecord)}


def test_who_fails_together_is_told_and_by_whom_they_are_named(workspace: Workspace) -> None:
    workspace.documents.put_new(ATTEMPTS, attempts(failing_together(random.Random(1))))
    report = refresh_identity(workspace, now=NOW)
    assert kinds(workspace) == {"outages": (key("c1"), key("d1"))}
    [told] = report.suspicions
    assert told.strength > told.threshold
    assert told.observations >= 6
    assert told.share == 1
    assert told.seen_at == told.found_at == NOW
    for supplier in ("c1", "d1"):
        assert [row["kind"] for row in suspicion_rows(workspace, [key(supplier)])] == ["outages"]
    assert suspicion_rows(workspace, [key("a1")]) == []
    assert suspicion_rows(workspace, None, ["cached"]) == []


def test_it_is_dated_from_when_it_was_first_found_and_told_for_a_while(workspace: Workspace) -> None:
    workspace.documents.put_new(ATTEMPTS, attempts(failing_together(random.Random(1))))
    refresh_identity(workspace, now=NOW)
    refresh_identity(workspace, now=NOW + HOUR)
    [again] = typed.find(workspace.documents, SuspicionRecord)
    assert (again.found_at, again.seen_at) == (NOW, NOW + HOUR)
    assert refresh_identity(workspace, now=NOW + TOLD_FOR).suspicions == []
    assert typed.count(workspace.documents, SuspicionRecord, {}) == 1
    refresh_identity(workspace, now=NOW + TOLD_FOR + 2 * HOUR)
    assert typed.count(workspace.documents, SuspicionRecord, {}) == 0


def varying_together(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Thirty requests asked twice; all vary, and b1 says what d1 says, each time."""
    for prompt in range(30):
        for round_ in (1, 2):
            said = {name: chance.choice("uvwxyz") for name in NAMES}
            said["b1"] = said["d1"]
            for name in NAMES:
                yield {
                    "supplier": key(name),
                    "prompt_id": f"p{prompt}",
                    "round": round_,
                    "finished_at": NOW - timedelta(days=12 - 4 * round_) + prompt * timedelta(minutes=1),
                    "answer_hash": said[name],
                }


def test_who_varies_together_is_told(workspace: Workspace) -> None:
    workspace.documents.put_new(ATTEMPTS, attempts(varying_together(random.Random(2))))
    refresh_identity(workspace, now=NOW)
    assert kinds(workspace) == {"answers": (key("b1"), key("d1"))}


def kept(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Forty docs, twelve asked again among new ones; a2 sends its own answers again at once."""
    for name in NAMES:
        for number in range(52):
            repeat = number % 4 == 3 and number < 48
            prompt = number - 3 if repeat else number
            stamp = prompt if name == "a2" else number
            quick = repeat and name == "a2"
            yield {
                "supplier": key(name),
                "prompt_id": f"p{prompt}",
                "attempt": 2 if repeat else 1,
                "canary": repeat,
                "finished_at": NOW - timedelta(days=2) + number * timedelta(minutes=7),
                "latency_ms": 40.0 if quick else chance.uniform(1500, 4000),
                "body": f'{{"id": "{stamp}"}}'.encode(),
                "answer_hash": f"{name}{prompt}{'' if not repeat or quick else chance.choice('xy')}",
            }


def test_kept_answers_are_told_with_how_others_vary(workspace: Workspace) -> None:
    workspace.documents.put_new(ATTEMPTS, attempts(kept(random.Random(3))))
    report = refresh_identity(workspace, now=NOW)
    assert kinds(workspace) == {"cached": (key("a2"), None)}
    assert report.suspicions[0].observations == 12
    assert "of 5 requests looked at 5 came twice byte for byte" in report.suspicions[0].reason
    assert "others vary on 100 % of 48 requests" in report.suspicions[0].reason.replace("%", " %")


def routed(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Two groups and a supplier that answers as the first, a quarter of the requests as the second."""
    for name in NAMES:
        for prompt in range(200):
            for round_ in (1, 2):
                backend = {"a": "a", "b": "b", "c": "b"}.get(name[0], "a")
                if name == "d1" and chance.random() < 0.25:
                    backend = "b"
                yield {
                    "supplier": key(name),
                    "task": "identity",
                    "prompt_id": f"identity-{prompt}",
                    "round": round_,
                    "finished_at": NOW - timedelta(days=14 - 5 * round_) + prompt * SECOND,
                    "opening": answer_prefix(backend, prompt),
                    "completion_tokens": 9,
                }


def test_a_partial_router_is_told_with_its_share(workspace: Workspace) -> None:
    workspace.documents.put_new(ATTEMPTS, attempts(routed(random.Random(4))))
    refresh_identity(workspace, now=NOW)
    [told] = [one for one in typed.find(workspace.documents, SuspicionRecord) if one.kind == "mixture"]
    of = {d["_id"]: d["group"] for d in workspace.documents.find(IDENTITY_GROUPS)}
    assert (told.supplier, told.other) == (key("d1"), of[key("b1")])
    assert told.share is not None and told.share_low is not None and told.share_high is not None
    assert told.share_low < 0.25 < told.share_high
    assert told.share_low > 0.15


def everything(workspace: Workspace, suppliers: list[Supplier]) -> list[Any]:
    """What suspicions must not reach: groups, windows and plans."""
    groups = list(workspace.documents.find(IDENTITY_GROUPS, sort=[("_id", 1)]))
    rows = [window.to_json() for window in windows(workspace, suppliers=[s.key for s in suppliers], now=NOW)]
    planner = Planner(workspace, now=NOW)
    return [groups, rows, [planner.facts(supplier).proxy for supplier in suppliers]]


def test_nothing_follows_from_a_suspicion(workspace: Workspace) -> None:
    """Groups, windows and plans with and without one of each kind, of every supplier, are the same."""
    workspace.documents.put_new(ATTEMPTS, attempts(routed(random.Random(4))))
    refresh_identity(workspace, now=NOW)
    suppliers = active_suppliers(workspace)
    [one] = list(workspace.documents.find(SUSPICIONS, limit=1))
    workspace.documents.upsert(
        SUSPICIONS,
        [
            {**one, "_id": f"{kind}{s.key}", "kind": kind, "supplier": s.key, "strength": 1e6}
            for kind in ("outages", "latency", "answers", "changes", "mixture", "cached")
            for s in suppliers
        ],
    )
    refresh_identity(workspace, services=["external"], now=NOW)
    accused = everything(workspace, suppliers)
    workspace.documents.purge(SUSPICIONS, {"service": "external"})
    refresh_identity(workspace, services=["external"], now=NOW)
    assert typed.count(workspace.documents, SuspicionRecord, {}) == 0, "looked for of all services only"
    plain = everything(workspace, suppliers)
    for group in [*accused[0], *plain[0]]:  # proxies are drawn by lot
        group.pop("proxy"), group.pop("role"), group.pop("rotates_at"), group.pop("agreement")
        group.pop("distance")
    assert accused[0] == plain[0]
    assert accused[1] == plain[1]


#: What may know of suspicions: who finds and stores them, and who shows them.
KNOW = {
    "api",
    "board.pages.leaderboard",
    "board.pages.supplier",
    "cli",
    "cli.suspicions",
    "core.records.every",
    "core.records.suspicions",
    "defs.summaries.identity",
    "stages.identify.identify",
    "stages.identify.suspicions",
    "stages.read.identity",
    "stores.documents.collections",
}


def test_nobody_else_knows_of_suspicions() -> None:
    root = Path(testbench_dagster.__file__).parent
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for path in root.rglob("*.py")
        if re.search(r"\bsuspicions|SuspicionRecord|SUSPICIONS", path.read_text("utf-8"))
    }
    assert found == KNOW


def test_the_command_and_python_tell_the_same(workspace: Workspace) -> None:
    workspace.documents.put_new(ATTEMPTS, attempts(failing_together(random.Random(1))))
    refresh_identity(workspace, now=NOW)
    path = str(workspace.config.path)
    with Testbench.open(path) as testbench:
        rows = testbench.suspicions().rows
        assert testbench.suspicions(kinds=["mixture"]).rows == []
        with pytest.raises(ConfigError, match=r"kinds: 'odd' is none of outages, latency"):
            testbench.suspicions(kinds=["odd"])
    assert [(row["kind"], row["supplier"], row["other"]) for row in rows] == [
        ("outages", key("c1"), key("d1"))
    ]
    done = CliRunner().invoke(cli, ["-c", path, "suspicions", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == rows
    table = CliRunner().invoke(cli, ["-c", path, "suspicions", "--kind", "outages"], catch_exceptions=False)
    assert "c1@external" in table.stdout
