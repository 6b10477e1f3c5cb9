"""Suppliers that deceive, evaluated by the product on the simulated network: who is told of, who is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.localnet.personas import Backend, Persona, quantised
from testbench_dagster.stages.sample.catalogue import refresh_prompts
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.acceptance.counting import LIMITS, Played, key, playing

pytestmark = pytest.mark.slow

TWINS = "twins_starter"
PAIRS = 150
#: Of three abilities, each a model of its own; two serve one, one serves less of another's, one often fails.
ABILITIES = (0.5, 0.65, 0.8)
MODELS = [Backend(f"model-{n}", ABILITIES[n % 3], latency_ms=2) for n in range(7)]
HONEST = [
    *(Persona(f"honest-{n}", model) for n, model in enumerate(MODELS)),
    Persona("sibling", MODELS[2]),
    Persona("quantised", quantised(MODELS[1])),
    Persona(
        "flaky", Backend("flaky", 0.65, latency_ms=2), failures={"500": 0.08, "empty": 0.02, "reset": 0.03}
    ),
]
ROUTER = Persona(
    "router", Backend("cheap", 0.45, latency_ms=2), for_public=Backend("dear", 0.9, latency_ms=2)
)
MEMORISER = Persona("memoriser", Backend("small", 0.5, latency_ms=2), memorises=0.6)
BY_HEART = [ROUTER, MEMORISER]


def of_pairs(n_pairs: int) -> dict[str, Any]:
    docs = 2 * n_pairs
    samples = {"min": docs, "max": docs, "half_width": None}
    return {"name": TWINS, "framework": "twins", "samples": samples, "cluster": "template"}


def next_epoch(played: Played) -> None:
    """What a catalog refresh with another instant to roll before does: fresh questions for everybody."""
    for spec in played.workspace.specs:
        refresh_prompts(played.workspace, spec, roll_before=datetime.now(UTC))


@pytest.fixture
def town(tmp_path: Path, worker: FrameworkWorker) -> Iterator[Played]:
    sampling = {"window": 2 * PAIRS, "epoch_seed": 11}
    with playing(
        tmp_path,
        HONEST + BY_HEART,
        {},
        worker=worker,
        tasks=[of_pairs(PAIRS)],
        sampling=sampling,
        relays=LIMITS,
    ) as played:
        yield played


def test_who_knows_public_questions_alone_is_flagged_in_two_epochs_and_nobody_else(town: Played) -> None:
    deceivers = {key(one.address) for one in BY_HEART}
    for epoch in (1, 2):
        if epoch == 2:
            next_epoch(town)
        report = town.run()
        assert ("public_not_special" in report.warnings) is (epoch == 2)
        rows = {row["supplier"]: row for row in town.testbench.twins().rows}
        assert len(rows) == len(HONEST + BY_HEART)
        assert {row["epoch"] for row in rows.values()} == {epoch}
        better = {name for name, row in rows.items() if row["verdict"] == "better"}
        assert better == deceivers
        assert {name for name, row in rows.items() if row["flagged"]} == (deceivers if epoch == 2 else set())
        told = [row for name, row in rows.items() if name not in deceivers]
        assert sum(row["verdict"] == "not better" for row in told) >= len(told) / 2, (
            "honest ones are judged, too"
        )
        for persona in HONEST:
            model = persona.backend.base or persona.backend
            fresh = rows[key(persona.address)]["fresh_share"]
            assert abs(fresh - model.accuracy) < 0.14, "what nobody knew is answered as well as all else"
