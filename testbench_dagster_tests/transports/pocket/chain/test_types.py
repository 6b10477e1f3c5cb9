"""What follows from what the chain says: rings, ends of sessions, costs and budgets."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from testbench_dagster.transports.pocket.chain import (
    UNLIMITED,
    Application,
    ServiceInfo,
    SharedParams,
    relay_cost,
    session_budget_relays,
    session_budget_upokt,
)

#: Bulk parameters of the main network, as of the reference.
MAIN = SharedParams(
    num_blocks_per_session=20,
    grace_period_end_offset_blocks=10,
    claim_window_open_offset_blocks=10,
    claim_window_close_offset_blocks=4,
    proof_window_open_offset_blocks=0,
    proof_window_close_offset_blocks=14,
    compute_units_to_tokens_multiplier=145_990,
    compute_unit_cost_granularity=1_000_000,
)
SERVICE = ServiceInfo("llm", "Language models", 1500)


def test_the_ring_has_delegated_gateways_and_those_that_leave_later() -> None:
    app = Application(
        address="app",
        stake_upokt=1,
        gateways=("g1", "g2"),
        pending_undelegations={140: ("g5", "g2"), 100: ("g3",), 120: ("g4", "app")},
    )
    assert app.ring_addresses(120) == ("g1", "g2", "g4", "g5")
    assert app.ring_addresses(121) == ("g1", "g2", "g5")
    assert app.ring_addresses(60) == ("g1", "g2", "g3", "g4", "g5")
    assert Application("app", 1).ring_addresses(5) == ()


@pytest.mark.parametrize(
    ("anchor", "height", "end"),
    [
        (0, 1, 20),  # no anchor: sessions begin at block 1
        (0, 20, 20),
        (0, 21, 40),
        (41, 41, 60),
        (41, 103, 120),
        (45, 64, 64),
        (45, 65, 84),
        (45, 44, 60),  # parameters that hold only later: the grid from block 1
        (0, 0, 20),
    ],
)
def test_where_sessions_end(anchor: int, height: int, end: int) -> None:
    assert replace(MAIN, session_grid_anchor_height=anchor).session_end(height) == end


def test_sessions_that_draw_on_a_stake_at_once() -> None:
    assert MAIN.pending_sessions == 3  # 28 blocks are two sessions, and the current one
    assert replace(MAIN, proof_window_close_offset_blocks=6).pending_sessions == 2  # 20 blocks exactly
    assert replace(MAIN, proof_window_close_offset_blocks=7).pending_sessions == 3


def test_cost_and_budget_of_the_main_network() -> None:
    assert relay_cost(SERVICE, MAIN) == Fraction(1500 * 14599, 100_000)
    # 1000 POKT among 50 suppliers and 3 sessions; 218.985 uPOKT a relay
    assert session_budget_upokt(1_000_000_000, MAIN, 50) == 6_666_666
    assert session_budget_relays(1_000_000_000, SERVICE, MAIN, 50) == 30_443
    assert session_budget_relays(1_000_000_000, SERVICE, MAIN, 50, spend_limit_upokt=50_000_000) == 4_566
    assert session_budget_relays(1_000, SERVICE, MAIN, 50) == 0


def test_a_budget_is_exact_where_floats_are_not() -> None:
    unit = replace(MAIN, compute_units_to_tokens_multiplier=1, compute_unit_cost_granularity=10)
    service = ServiceInfo("s", "", 3)  # 0.3 uPOKT a relay
    assert session_budget_relays(3 * 50 * 3, service, unit, 50) == 10
    assert session_budget_relays(10**30 * 50 * 3, ServiceInfo("s", "", 1), unit, 50) == UNLIMITED


def test_relays_that_cost_nothing_have_no_limit() -> None:
    assert session_budget_relays(1, ServiceInfo("s", "", 0), MAIN, 50) == UNLIMITED
    assert relay_cost(ServiceInfo("s", "", 0), MAIN) == 0


@pytest.mark.parametrize(("stake", "suppliers", "limit"), [(-1, 50, None), (1, 0, None), (1, 50, -1)])
def test_budgets_of_nonsense_are_refused(stake: int, suppliers: int, limit: int | None) -> None:
    with pytest.raises(ValueError, match="may not be negative, and a session has one supplier at least"):
        session_budget_upokt(stake, MAIN, suppliers, spend_limit_upokt=limit)
