"""What service probes come to in a day, and what check says of how they are configured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.service.outlook import probe_findings, probes_a_day, probes_line
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.transports.endpoints import asking_of

Open = Callable[..., Workspace]
A, B = {"address": "a"}, {"address": "b", "service": "other"}
PRICE = {"prompt": 2.0, "completion": 10.0}


def probes(**settings: Any) -> dict[str, Any]:
    return {"service_probes": {"enabled": True, **settings}}


def told(workspace: Workspace) -> list[str]:
    found = list(probe_findings(workspace))
    assert all(one.what == "service probes" and not one.failed for one in found)
    return [one.detail for one in found if one.warning]


def test_what_a_day_comes_to(open_installation: Open) -> None:
    workspace = open_installation({**A, "price": PRICE}, B, **probes(answer_tokens=200))
    day = probes_a_day(workspace, active_suppliers(workspace))
    assert day is not None
    assert (day.suppliers, day.relays) == (2, 2 * 16)
    assert day.prompt_tokens == 2 * 8 * (100 + 1_000)
    assert day.completion_tokens == 2 * 16 * 200
    # of the one with a price: 8 x 1,100 tokens of prompts at 2, 16 x 200 of answers at 10 a million
    assert (day.priced, day.cost) == (1, pytest.approx((8_800 * 2 + 3_200 * 10) / 1e6))
    assert told(workspace) == []
    assert [one.detail for one in probe_findings(workspace)] == ["2 suppliers, 32 relays a day"]


def test_of_chosen_suppliers_within_the_budget_of_all(open_installation: Open) -> None:
    workspace = open_installation(A, {"address": "c"}, **probes(relays_per_day=16))
    first = probes_a_day(workspace, active_suppliers(workspace)[:1])
    assert first is not None and (first.suppliers, first.relays, first.cost) == (1, 8, None)


def test_a_line_says_what_how_often_and_for_how_much(open_installation: Open) -> None:
    workspace = open_installation({**A, "price": PRICE}, B, **probes(answer_tokens=200, relays_per_day=8))
    assert probes_line(workspace) == (
        "service probes: short 8, 1k 8 times a day each, of which relays_per_day allows 50%; "
        "about 16 relays a day to 2 suppliers, up to 0.0248 a day for the 1 with a price"
    )
    assert probes_line(open_installation(A, **probes(workloads=["1k"], per_day=24))) == (
        "service probes: 1k 24 times a day each; about 24 relays a day to 1 supplier"
    )
    off = open_installation(A, **probes(), automation={"service_probes": {"enabled": False}})
    said = "service probes: none by itself, for automation.service_probes.enabled is false"
    assert probes_line(off) == said
    assert probes_line(open_installation(A)) is None


def test_nothing_where_probes_are_off(open_installation: Open) -> None:
    workspace = open_installation(A, service_probes={"workloads": ["context"], "relays_per_day": 0})
    assert probes_a_day(workspace, active_suppliers(workspace)) is None
    assert list(probe_findings(workspace)) == []


def test_a_context_is_as_long_as_somebody_says(open_installation: Open) -> None:
    workspace = open_installation(
        {**A, "context_tokens": 8_192}, B, **probes(workloads=["context"], context_per_day=0.5)
    )
    a, b = active_suppliers(workspace)
    assert asking_of(workspace.config, a).context_tokens == 8_192
    day, unknown = probes_a_day(workspace, [a]), probes_a_day(workspace, [b])
    assert day is not None and unknown is not None
    assert (day.relays, day.prompt_tokens) == (0.5, 4_096)
    assert unknown.relays == 0
    (warning,) = told(workspace)
    assert "workload context: nobody wrote how long a context b@other takes" in warning
    assert "Give context_tokens to suppliers or services" in warning


def test_a_budget_too_small_for_all_is_told(open_installation: Open) -> None:
    workspace = open_installation(A, {"address": "c"}, B, **probes(relays_per_day=16))
    (warning,) = told(workspace)
    assert "relays_per_day 16 is less than the 32 relays that 2 suppliers of service external take a day" in (
        warning
    )
    assert "50% as often" in warning


def test_politeness_and_paces_that_probes_would_use_up_are_told(open_installation: Open) -> None:
    workspace = open_installation(
        {**A, "pace": {"requests_per_day": 30}},
        {**B, "pace": {"requests_per_day": 1_000}},
        budget={"relays_per_supplier_hour": 1},
        **probes(),
    )
    hourly, daily = told(workspace)
    assert "0.7 times an hour, more than half of budget.relays_per_supplier_hour 1" in hourly
    assert "16 relays a day is more than half of the 30 requests that the pace of a@external allows" in daily
    workspace = open_installation(A, budget={"relays_per_supplier_hour": 100}, **probes())
    assert told(workspace) == []


def test_nobody_left_and_a_sensor_switched_off_are_told(open_installation: Open) -> None:
    workspace = open_installation(A, **probes(suppliers=["!a@*"]))
    (warning,) = told(workspace)
    assert "nobody is probed" in warning
    workspace = open_installation(A, automation={"service_probes": {"enabled": False}}, **probes())
    (warning,) = told(workspace)
    assert "only `testbench run` and `testbench probe` probe" in warning
