"""The chain's state: blocks, sessions by the chain's rule, heights of changes, parameters, budgets."""

import hashlib
from dataclasses import replace
from fractions import Fraction

import pytest

from testbench_dagster.localnet.pocket.chain import App, Chain, Endpoint, History, Params, QueryError, Service
from testbench_dagster.localnet.pocket.clock import BlockClock
from testbench_dagster.localnet.pocket.names import private_key, private_key_hex
from testbench_dagster.transports.pocket.messages import RpcType

HERE = (Endpoint("http://here"),)
PARAMS = Params(num_blocks_per_session=10, grace_period_end_offset_blocks=3, num_suppliers_per_session=3)


def chain_with(suppliers=5, params=PARAMS, seed=0, height=1):
    chain = Chain(seed, params, BlockClock(1))
    chain.add_service(Service("text", "text"))
    chain.add_account("app", b"\2" * 33)
    chain.stake_app(App("app", 1000, "text"))
    for number in range(suppliers):
        chain.stake_supplier(f"s{number}", "owner", 100, {"text": HERE}, at_once=True)
    chain.clock.reach(height)
    return chain


def operators(session):
    return [supplier.stake.operator for supplier in session.suppliers]


def test_a_clock_held_by_hand_and_one_that_runs():
    clock = BlockClock(5)
    assert (clock.height, clock.advance(3), clock.reach(20)) == (5, 8, 20)
    now = 100.0
    running = BlockClock(1, 2.0, lambda: now)
    now = 103.9
    assert running.height == 2
    assert running.advance(10) == 12
    now = 104.0
    assert running.height == 13
    running.reach(50)
    now = 105.9
    assert running.height == 50
    now = 106.1
    assert running.height == 51
    for wrong in (lambda: running.reach(50), lambda: running.advance(-1)):
        with pytest.raises(ValueError, match="does not go back"):
            wrong()
    with pytest.raises(ValueError, match="more than 0"):
        BlockClock(1, 0)
    with pytest.raises(ValueError, match="begins at"):
        BlockClock(0)


def test_histories():
    history = History(5, "a")
    history.set(10, "b")
    assert [history.at(height) for height in (4, 5, 9, 10, 99)] == [None, "a", "a", "b", "b"]
    history.set(20, "later")
    history.set(10, "c")  # what was set for later is forgotten
    assert [history.at(height) for height in (9, 10, 20)] == ["a", "c", "c"]
    assert history.newest == "c"


def test_keys_are_those_anyone_can_derive():
    assert private_key_hex(7, "x") == hashlib.sha256(b"sim:7:x").hexdigest()
    assert private_key(7, "x").address.startswith("pokt1")
    assert private_key(7, "x").address != private_key(8, "x").address


def test_the_session_follows_the_rule_of_the_chain():
    chain = chain_with(seed=4, height=17)
    session = chain.session("app", "text", 17)
    assert (session.header.start_height, session.header.end_height, session.number) == (11, 20, 2)
    preimage = b".".join((chain.block_hash(11), b"text", b"app", (11).to_bytes(8, "little")))
    assert session.header.session_id == hashlib.sha3_256(preimage).hexdigest()

    def weight(operator):
        digest = hashlib.sha3_256(preimage + b"." + operator.encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)

    assert operators(session) == sorted((f"s{n}" for n in range(5)), key=weight)[:3]
    assert any(weight(f"s{n}") < 0 for n in range(5))
    chain.clock.reach(20)
    assert chain.session("app", "text", 20).header == session.header
    chain.clock.reach(21)
    later = chain.session("app", "text", 21)
    assert later.header.session_id != session.header.session_id
    assert chain.session("app", "text", 17) == session
    memberships = set()
    for number in range(20):
        chain.clock.reach(31 + 10 * number)
        memberships.add(tuple(sorted(operators(chain.session("app", "text", chain.height)))))
    assert len(memberships) > 3


def test_all_are_members_where_fewer_are_staked():
    assert len(operators(chain_with(2).session("app", "text", 1))) == 2


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (("nobody", "text", 5), 'could not find app with address "nobody" at height 1'),
        (("app", "other", 5), 'application "app" not staked for service ID "other"'),
        (("app", "text", 6), "block height 6 is ahead of the last committed block height 5"),
    ],
)
def test_sessions_that_cannot_be(ask, text):
    with pytest.raises(QueryError, match=text) as error:
        chain_with(height=5).session(*ask)
    assert error.value.code == 13


def test_sessions_without_suppliers_and_of_apps_that_left():
    with pytest.raises(QueryError, match="could not find suppliers for service text"):
        chain_with(0).session("app", "text", 1)
    chain = chain_with()
    assert chain.unstake_app("app") == 10
    chain.clock.reach(10)
    assert chain.session("app", "text", 10).app.unstake_session_end_height == 10
    chain.clock.reach(11)
    with pytest.raises(QueryError, match="is not active for session"):
        chain.session("app", "text", 11)


def test_joining_counts_from_the_next_session():
    chain = chain_with(1, height=5)
    assert chain.stake_supplier("new", "owner", 7, {"text": HERE}) == 11
    assert operators(chain.session("app", "text", 5)) == ["s0"]
    assert chain.supplier("new", 5).offers == ()
    chain.clock.reach(11)
    assert set(operators(chain.session("app", "text", 11))) == {"s0", "new"}
    assert operators(chain.session("app", "text", 10)) == ["s0"]


def test_leaving_at_the_end_and_at_once():
    chain = chain_with(3, height=5)
    assert chain.unstake_supplier("s0") == 10
    assert len(operators(chain.session("app", "text", 5))) == 3
    assert chain.supplier("s0", 5).stake.unstake_session_end_height == 10
    assert chain.unstake_supplier("s1", at_once=True) == 4
    assert set(operators(chain.session("app", "text", 5))) == {"s0", "s2"}
    assert len(operators(chain.session("app", "text", 4))) == 3
    with pytest.raises(QueryError, match="not found"):
        chain.supplier("s1", 5)
    with pytest.raises(QueryError, match="not found"):
        chain.unstake_supplier("s1")
    chain.clock.reach(11)
    assert operators(chain.session("app", "text", 11)) == ["s2"]
    assert chain.stake("s0", 11) is None
    assert chain.stake_supplier("s0", "owner", 9, {"text": HERE}) == 21
    chain.clock.reach(21)
    assert set(operators(chain.session("app", "text", 21))) == {"s0", "s2"}


def test_who_leaves_is_not_replaced_within_the_session():
    chain = chain_with(5, height=5)
    before = operators(chain.session("app", "text", 5))
    chain.unstake_supplier(before[0], at_once=True)
    assert operators(chain.session("app", "text", 5)) == before[1:]


def test_new_endpoints_hold_from_the_next_session_and_stakes_at_once():
    chain = chain_with(1, height=5)
    there = (Endpoint("http://there", RpcType.JSON_RPC),)
    assert chain.stake_supplier("s0", "owner", 50, {"text": there}) == 11
    chain.clock.reach(12)
    shown = [chain.session("app", "text", height).suppliers[0] for height in (4, 5, 10, 11)]
    assert [s.stake.amount for s in shown] == [100, 50, 50, 50]
    assert [s.offers[0].endpoints[0].url for s in shown] == ["http://here"] * 3 + ["http://there"]
    chain.restake("s0", 70)
    assert chain.supplier("s0", 12).stake.amount == 70
    assert len([o for o in chain.offers() if o.active(12)]) == 2  # named twice, as on the chain
    assert len(chain.supplier("s0", 12).offers) == 1


def test_delegations_and_who_may_sign():
    chain = chain_with(height=5)
    keys = {name: bytes([n]) * 33 for n, name in enumerate(("g1", "g2", "ghost"), start=3)}
    for name, key in keys.items():
        chain.add_account(name, None if name == "ghost" else key)
        chain.stake_gateway(name, 1)
    app_key = b"\2" * 33

    def signers(height, end):
        return chain.signer_keys(chain.app("app", height), end, height, b"placeholder")

    assert signers(5, 10) == {app_key, b"placeholder"}
    for name in keys:
        chain.delegate("app", name)
    chain.delegate("app", "g1")
    assert chain.app("app", 5).gateways == ("g1", "g2", "ghost")
    assert signers(5, 10) == {app_key, keys["g1"], keys["g2"]}
    assert chain.undelegate("app", "g1") == 10
    assert signers(5, 10) == {app_key, keys["g1"], keys["g2"]}
    chain.clock.reach(11)
    assert signers(11, 20) == {app_key, keys["g2"]}
    assert chain.app("app", 11).pending_undelegations == {10: ("g1",)}
    for name in ("g2", "ghost"):
        chain.undelegate("app", name)
    assert signers(11, 30) == {app_key, b"placeholder"}
    with pytest.raises(QueryError, match="does not delegate"):
        chain.undelegate("app", "g2")
    with pytest.raises(QueryError, match="gateway not found"):
        chain.delegate("app", "nobody")


def test_parameters_change_with_the_next_session_and_anchor_the_grid():
    chain = chain_with(height=15)
    assert chain.change_params(num_blocks_per_session=4, num_suppliers_per_session=1) == 21
    assert chain.session_at(20) == (11, 20, 2)
    assert [chain.session_at(height) for height in (21, 24, 25)] == [(21, 24, 3), (21, 24, 3), (25, 28, 4)]
    chain.clock.reach(25)
    assert chain.params(20).num_blocks_per_session == 10
    assert len(operators(chain.session("app", "text", 25))) == 1
    assert len(operators(chain.session("app", "text", 20))) == 3
    assert chain.session("app", "text", 25).num_blocks == 4


def test_costs_and_budgets():
    params = replace(
        PARAMS,
        claim_window_open_offset_blocks=3,
        claim_window_close_offset_blocks=10,
        proof_window_close_offset_blocks=8,
        num_suppliers_per_session=50,
    )
    assert params.relay_cost(1000) == Fraction(14599, 100)
    assert params.session_budget(1000) == Fraction(1000, 50 * 4)  # ceil(21 / 10) + 1
    main = replace(params, num_blocks_per_session=20)
    assert main.session_budget(3000) == 20  # ceil(21 / 20) + 1 = 3, as on the main network
    with pytest.raises(ValueError, match="num_blocks_per_session is 0"):
        replace(params, num_blocks_per_session=0)
    with pytest.raises(ValueError, match="grace"):
        replace(params, grace_period_end_offset_blocks=-1)
