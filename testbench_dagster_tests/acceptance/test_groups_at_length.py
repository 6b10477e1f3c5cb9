"""Who pretends to serve another's model, or comes in great numbers, moves nobody's score or place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.localnet.personas import Backend, Persona, Route
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.acceptance.counting import TASK, key, playing

pytestmark = pytest.mark.slow

LOGIC = "starter_logic"
DOCS = {TASK: 50, LOGIC: 50}
#: Both installations draw the same docs.
DRAWN = {"sampling": {"epoch_seed": 7}}
PROBES = {"tasks": [{"name": "identity", "framework": "signatures"}], "taxonomies": ["builtin:starter"]}
GOOD = Backend("good", 0.9, style="reasoned", latency_ms=1.0)
PLAIN = Backend("plain", 0.7, style="sentence", latency_ms=1.0)
CHEAP = Backend("cheap", 0.3, style="terse", latency_ms=1.0)
HONEST = [
    Persona("honest-1", GOOD),
    Persona("honest-2", GOOD),
    Persona("plain-1", PLAIN),
    Persona("cheap", CHEAP),
]
GUESTS = [
    Persona("saboteur", GOOD, mangles="opening"),
    Persona("truncator", GOOD, mangles="half"),
    Persona("router", GOOD, route=Route(CHEAP, 0.5)),
    *(Persona(f"sybil-{number}", PLAIN) for number in range(8)),
]


def board(folder: Path, personas: list[Persona], worker: FrameworkWorker) -> Mapping[str, dict[str, Any]]:
    """What a run publishes of some suppliers, by name: places, rows of single tasks, and who is grouped."""
    folder.mkdir()
    with playing(folder, personas, DOCS, worker=worker, **PROBES, **DRAWN) as played:
        played.run()
        rows = played.rows()
        placed = {row["supplier"]: row for row in played.testbench.leaderboard("starter").rows}
        alike = {row["supplier"]: row for row in played.testbench.identity().rows}
        return {
            one.address: {
                **placed[key(one.address)],
                "members": sorted(alike[key(one.address)]["members"] or []),
                "rows": {task: (rows[one.address, task].score, rows[one.address, task].n) for task in DOCS},
                "truth": {task: played.truth(one.address, task) for task in DOCS},
            }
            for one in personas
        }


def test_impostors_and_crowds_move_nobody(tmp_path: Path, worker: FrameworkWorker) -> None:
    alone = board(tmp_path / "alone", HONEST, worker)
    among = board(tmp_path / "among", HONEST + GUESTS, worker)
    assert among["saboteur"]["score"] == pytest.approx(0.0, abs=0.02)
    assert among["truncator"]["score"] < 0.1
    for name in ("saboteur", "truncator", "router"):
        assert among[name]["members"] in ([], [key(name)]), f"{name} answers like nobody"
    own = among["router"]["truth"]
    for task, (score, n) in among["router"]["rows"].items():
        assert n == DOCS[task] and 0.3 < score < own[task], "its own docs, of both models"
    for name, found in alone.items():
        now = among[name]
        assert now["rows"] == found["rows"], name
        assert all(now["rows"][task][0] == pytest.approx(now["truth"][task]) for task in DOCS)
        assert now["score"] == pytest.approx(found["score"]), name
        # three impostors are three units more; a crowd of nine that answers alike is the one it copies
        assert now["rank_high"] - found["rank_high"] <= 3, name
    crowd = [key("plain-1"), *(key(f"sybil-{number}") for number in range(8))]
    assert among["plain-1"]["members"] == sorted(crowd)
    assert among["honest-1"]["members"] == [key("honest-1"), key("honest-2")]
    places = {
        (among[name.partition("@")[0]]["rank_low"], among[name.partition("@")[0]]["rank_high"])
        for name in crowd
    }
    assert len(places) == 1, "one place"
    assert among["cheap"]["rank_low"] <= alone["cheap"]["rank_low"] + 1
