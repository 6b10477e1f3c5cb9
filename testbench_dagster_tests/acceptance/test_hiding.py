"""Who hides behind others or a store of answers on the simulated network: they are told of, nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from testbench_dagster.localnet.personas import Backend, Persona, Route
from testbench_dagster.stages.identify import suspicions
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.acceptance.counting import PATIENT, Played, key, playing
from testbench_dagster_tests.tasks.signatures.simulated import evaluated

pytestmark = pytest.mark.slow

READING = "starter_reading"


def model(name: str, latency_ms: float = 20.0) -> Backend:
    return Backend(name, 0.7, style="reasoned", latency_ms=latency_ms)


def told(played: Played) -> list[dict[str, Any]]:
    """The suspicions after groups were made anew."""
    played.testbench.refresh_identity()
    return list(played.testbench.suspicions().rows)


# --- a part from elsewhere, and repeats from a store -----------------------------------------------------

ONYX, MARBLE = model("onyx"), model("marble")
GROUPED = [Persona(f"{one.name}-{n}", one) for one in (ONYX, MARBLE) for n in range(3)]
ALONE = [Persona(f"alone-{n}", model(f"model-{n}", 60.0)) for n in range(3)]
PART = Persona("part", ONYX, route=Route(MARBLE, 0.3, "question"))
REPEATS = Persona("repeats", model("own", 120.0), caches=True)


def test_a_part_from_elsewhere_and_answers_from_a_store_are_seen(
    tmp_path: Path, worker: FrameworkWorker
) -> None:
    blocks: dict[str, Any] = {
        "tasks": [{"name": "identity", "framework": "signatures"}],
        "identity": {"probes": 150},
        "sampling": {"epoch_seed": 5},
        "planning": PATIENT,
    }
    people = [*GROUPED, *ALONE, PART, REPEATS]
    with playing(tmp_path, people, {READING: 40}, worker=worker, **blocks) as played:
        evaluated(played.workspace)
        assert not [one for one in told(played) if one["kind"] == "cached"], "nobody was asked again"
        evaluated(played.workspace, force_since=datetime.now(UTC))
        found = {one["kind"]: one for one in told(played)}
        assert len(found) == len(told(played)), "one of each kind"
        assert {kind: one["supplier"] for kind, one in found.items()} == {
            "mixture": key("part"),
            "cached": key("repeats"),
        }
        sent = {one.digest: one.backend == "marble" for one in played.net.suppliers["part"].log}
        drawn = sum(sent.values()) / len(sent)
        assert found["mixture"]["share_low"] <= drawn <= found["mixture"]["share_high"]
        groups = {row["supplier"]: row["group"] for row in played.testbench.identity().rows}
        assert found["mixture"]["other"] == groups[key("marble-1")]


# --- another's outages and delays ------------------------------------------------------------------------

#: Rounds with outages, and rounds without.
OUTAGES, CALM = 70, 55
#: What a round is stretched to: two and a half slots of two minutes.
STRETCHED = timedelta(minutes=5)
TOWN = [Persona(f"honest-{n}", model(f"model-{n}")) for n in range(9)]
#: Two have minutes in which they are slow; the others' delays are those of this machine, which all share.
BUSY, SLOW_MS = TOWN[:2], (0.0, 100.0, 600.0)
COPYCAT = Persona("copycat", model("claimed"), copies="honest-0", latency_ms=3)


class Lens:
    """Reads stored calls as if each round had been five minutes after the one before."""

    def __init__(self) -> None:
        self.rounds: list[datetime] = []
        self._read = suspicions.read_calls

    def __call__(
        self, workspace: Any, service: str, suppliers: Any, since: datetime, now: datetime
    ) -> Iterator[Any]:
        for call in self._read(workspace, service, suppliers, since, now):
            number = sum(began <= call.at for began in self.rounds)
            into = min(call.at - self.rounds[max(0, number - 1)], timedelta(seconds=50))
            yield replace(call, at=now - (len(self.rounds) - number + 1) * STRETCHED + into)


@pytest.mark.slow(minutes=4)
def test_a_copycats_outages_and_delays_are_another_suppliers(
    tmp_path: Path, worker: FrameworkWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens = Lens()
    monkeypatch.setattr(suspicions, "read_calls", lens)
    blocks: dict[str, Any] = {"sampling": {"epoch_seed": 5}, "planning": {"occasions_minutes": [0.0, 0.001]}}
    blocks["relays"] = {"retries": 0, "connect_s": 20, "first_byte_s": 20, "idle_s": 20, "total_s": 20}
    chance, slow = Random(4), {one.address: 0.0 for one in TOWN}
    with playing(tmp_path, [*TOWN, COPYCAT], {READING: 6}, worker=worker, **blocks) as played:
        played.prepare()
        everybody = [key(one.address) for one in (*TOWN, COPYCAT)]
        for number in range(OUTAGES + CALM):
            for one in TOWN:
                often = 0.2 if one in BUSY else 0.05
                out = {"503": 1.0} if number < OUTAGES and chance.random() < often else {}
                if one in BUSY:
                    slow[one.address] = chance.choice([ms for ms in SLOW_MS if ms != slow[one.address]])
                late = slow[one.address]
                played.net.suppliers[one.address].persona = replace(one, failures=out, latency_ms=late)
            lens.rounds.append(datetime.now(UTC))
            relay_due(played.workspace, everybody, force_since=lens.rounds[-1])
        found = told(played)
    pairs = {(one["supplier"], one["other"]) for one in found}
    assert pairs <= {(key("copycat"), key("honest-0")), (key("honest-0"), key("copycat"))} and found
    assert {one["kind"] for one in found} == {"outages", "latency"}
    (latency,) = [one for one in found if one["kind"] == "latency"]
    assert latency["supplier"] == key("copycat") and latency["share"] > 0.7
