"""Which probes are due by what is stored: schedule, patterns, budgets, politeness, paces, who is gone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.probe_seeds import ProbeSeedRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.workloads import DueProbe
from testbench_dagster.relays.quotas import supplier_account
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.service.budget import probe_account, probe_quota
from testbench_dagster.stages.service.due import due_probes, probe_rates, schedule_seed
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.registry import supplier_endpoint
from testbench_dagster_tests.stages.service.probes import stored_probe

Open = Callable[..., Workspace]
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
A, B = {"address": "a"}, {"address": "b", "service": "other"}
KEY_A, KEY_B = "a@external", "b@other"


def keys(due: list[DueProbe]) -> list[str]:
    return list(dict.fromkeys(one.supplier for one in due))


def test_who_was_never_probed_is_due_at_once_and_who_just_was_is_not(open_installation: Open) -> None:
    workspace = open_installation(A, B, service_probes={"workloads": ["1k", "short"]})
    assert due_probes(workspace, None, NOW) == [
        DueProbe(KEY_A, "short"),
        DueProbe(KEY_A, "1k"),
        DueProbe(KEY_B, "short"),
        DueProbe(KEY_B, "1k"),
    ]
    assert keys(due_probes(workspace, [KEY_B], NOW)) == [KEY_B]
    stored_probe(workspace.documents, KEY_A, NOW, "short")
    assert due_probes(workspace, [KEY_A], NOW) == [DueProbe(KEY_A, "1k")]
    # an older probe says nothing of a cell that began after it
    stored_probe(workspace.documents, KEY_A, NOW - timedelta(days=2), "1k")
    assert DueProbe(KEY_A, "1k") in due_probes(workspace, [KEY_A], NOW)


def test_two_days_of_looking_every_half_hour(open_installation: Open) -> None:
    """As many probes as configured of everybody, however many instants a look finds passed."""
    workspace = open_installation(A, B, service_probes={"per_day": 6}, sampling={"epoch_seed": 7})
    per_look, found = Counter[int](), Counter[tuple[str, str]]()
    now = NOW
    for one in due_probes(workspace, None, now):
        stored_probe(workspace.documents, one.supplier, now, one.workload)
    for _ in range(48 * 2):
        now += timedelta(minutes=30)
        due = due_probes(workspace, None, now)
        per_look[len(due)] += 1
        for one in due:
            found[one.supplier, one.workload] += 1
            stored_probe(workspace.documents, one.supplier, now, one.workload)
    assert set(found) == {(key, load) for key in (KEY_A, KEY_B) for load in ("short", "1k")}
    assert all(abs(n - 12) <= 1 for n in found.values()), found
    assert per_look[0] > 50, "spread over the day"


def test_patterns_say_who_is_probed(open_installation: Open) -> None:
    workspace = open_installation(A, B, service_probes={"services": ["oth*"]})
    assert keys(due_probes(workspace, None, NOW)) == [KEY_B]
    workspace = open_installation(A, B, service_probes={"suppliers": ["!b@*"]})
    assert keys(due_probes(workspace, None, NOW)) == [KEY_A]
    assert due_probes(workspace, [KEY_B], NOW) == []


def test_who_left_is_not_probed(open_installation: Open) -> None:
    workspace = open_installation(A, B)
    refresh_roster(workspace)
    workspace = open_installation(A)
    refresh_roster(workspace)
    assert {row.id: row.status for row in typed.find(workspace.documents, SupplierRecord)}[KEY_B] == "left"
    assert keys(due_probes(workspace, None, NOW)) == [KEY_A]
    assert due_probes(workspace, [KEY_B], NOW) == []


def test_who_lacks_a_key_is_not_due_again_and_again(open_installation: Open) -> None:
    workspace = open_installation({**A, "api_key_env": "TESTBENCH_TEST_NO_SUCH_KEY"}, B)
    assert keys(due_probes(workspace, None, NOW)) == [KEY_B]


def test_who_is_relayed_to_is_due_when_that_is_over(open_installation: Open) -> None:
    """So is whoever shares its host: both would be slower."""
    workspace = open_installation(
        A, {"address": "c"}, {**B, "base_url": "http://127.0.0.1:10/v1"}, service_probes={}
    )
    documents = workspace.documents
    with (
        Heartbeat(documents, "an evaluation") as heartbeat,
        SupplierLeases(documents, heartbeat) as leases,
    ):
        leases.acquire(["c@external"])
        assert keys(due_probes(workspace, None, NOW)) == [KEY_B]
    assert keys(due_probes(workspace, None, NOW)) == [KEY_A, "c@external", KEY_B]


def test_who_cannot_be_reached_is_asked_the_shortest_workload_an_hour_later(open_installation: Open) -> None:
    workspace = open_installation(A, service_probes={"per_day": 288})
    stored_probe(workspace.documents, KEY_A, NOW - timedelta(minutes=70), "1k")
    stored_probe(workspace.documents, KEY_A, NOW - timedelta(minutes=59), "short", Fault.TRANSPORT)
    assert due_probes(workspace, None, NOW) == []
    assert due_probes(workspace, None, NOW + timedelta(minutes=1)) == [DueProbe(KEY_A, "short")]
    # a server that answers with an error was reached
    stored_probe(workspace.documents, KEY_A, NOW - timedelta(minutes=20), "short", Fault.SUPPLIER_HTTP)
    assert [one.workload for one in due_probes(workspace, None, NOW)] == ["short", "1k"]


def test_probes_dated_ahead_keep_nothing_waiting_and_repeat_nothing(open_installation: Open) -> None:
    """A clock was 30 days ahead for a while: what is due then is due once, then by the schedule."""
    workspace = open_installation(A)
    ahead = NOW + timedelta(days=30)
    for workload in ("short", "1k"):
        stored_probe(workspace.documents, KEY_A, ahead, workload)
    stored_probe(workspace.documents, KEY_A, ahead, "short", Fault.TRANSPORT)
    due = due_probes(workspace, None, NOW)
    assert due == [DueProbe(KEY_A, "short"), DueProbe(KEY_A, "1k")]
    for one in due:
        stored_probe(workspace.documents, KEY_A, NOW, one.workload)
    assert due_probes(workspace, None, NOW + timedelta(minutes=1)) == []
    # and who cannot be reached now is left alone for an hour, whatever came of it in the future
    stored_probe(workspace.documents, KEY_A, NOW + timedelta(days=1), "short", Fault.TRANSPORT)
    later = NOW + timedelta(days=1, minutes=59)
    assert due_probes(workspace, None, later) == []
    assert len(due_probes(workspace, None, later + timedelta(minutes=2))) == 1


def test_a_used_up_budget_ends_the_day(open_installation: Open) -> None:
    workspace = open_installation(A, B, service_probes={"relays_per_day": 4})
    BudgetLedger(workspace.documents).grant(probe_account("external"), period_start("day", NOW), 4, 4)
    assert keys(due_probes(workspace, None, NOW)) == [KEY_B]
    assert keys(due_probes(workspace, None, NOW + timedelta(days=1))) == [KEY_A, KEY_B]
    workspace = open_installation(A, B, service_probes={"relays_per_day": 0})
    assert due_probes(workspace, None, NOW) == []


def test_a_budget_that_is_too_small_is_spread_over_the_day(open_installation: Open) -> None:
    workspace = open_installation(A, B, service_probes={"relays_per_day": 4, "per_day": 8})
    probed = active_suppliers(workspace)
    settings = workspace.config.settings
    assert probe_rates(settings, probed)["external"] == {"short": 2.0, "1k": 2.0}
    assert probe_rates(settings, probed[:1]).keys() == {"external"}
    found = []
    for look in range(192):  # sixteen days: each installation draws its times by a secret of its own
        now = NOW + timedelta(hours=2 * look)
        for one in due_probes(workspace, [KEY_A], now):
            found.append(now)
            stored_probe(workspace.documents, KEY_A, now, one.workload)
    assert abs(len(found) - 64) <= 10
    halves = Counter(at.hour // 12 for at in found)
    assert min(halves.values()) >= 16, "evenings are seen as well as mornings"  # 4 standard deviations


def test_politeness_and_paces_keep_who_was_asked_enough(open_installation: Open) -> None:
    workspace = open_installation(A, budget={"relays_per_supplier_hour": 3})
    ledger, hour = BudgetLedger(workspace.documents), period_start("hour", NOW)
    ledger.grant(supplier_account(KEY_A), hour, 3, 2)
    assert keys(due_probes(workspace, None, NOW)) == [KEY_A]
    ledger.grant(supplier_account(KEY_A), hour, 3, 1)
    assert due_probes(workspace, None, NOW) == []
    assert keys(due_probes(workspace, None, NOW + timedelta(hours=1))) == [KEY_A]
    workspace = open_installation({**A, "pace": {"requests_per_day": 5}})
    assert keys(due_probes(workspace, None, NOW)) == [KEY_A]
    ledger.grant(f"pace:supplier:{KEY_A}", hour, 5, 5)
    assert due_probes(workspace, None, NOW) == []


def test_the_budget_is_the_probes_own_and_politeness_is_shared(open_installation: Open) -> None:
    workspace = open_installation(
        A,
        service_probes={"relays_per_day": 3},
        budget={"relays_per_day": 1, "relays_per_supplier_hour": 50},
    )
    (supplier,) = active_suppliers(workspace)
    endpoint = supplier_endpoint(workspace.config, supplier)
    quota = probe_quota(workspace)
    sent = 0
    while not quota.refused(endpoint):
        quota.refill(endpoint)
        sent += quota.take(endpoint).value in ("granted", "low")
    quota.close()
    assert sent == 3
    ledger, now = BudgetLedger(workspace.documents), datetime.fromtimestamp(time.time(), UTC)
    assert ledger.spent(probe_account("external"), period_start("day", now)) == 3
    assert ledger.spent("service:external", period_start("day", now)) is None
    assert ledger.spent(supplier_account(KEY_A), period_start("hour", now)) == 3
    again = probe_quota(workspace)
    again.refill(endpoint)
    assert again.take(endpoint).value == "refused"
    again.close()


def test_the_seed_is_drawn_once_for_all_processes(open_installation: Open) -> None:
    workspace = open_installation(A)
    seed = schedule_seed(workspace, NOW)
    assert len(seed) == 32
    assert schedule_seed(workspace, NOW + timedelta(days=9)) == seed
    (stored,) = typed.find(workspace.documents, ProbeSeedRecord)
    assert stored.seed == seed
    workspace = open_installation(A, sampling={"epoch_seed": 5})
    assert schedule_seed(workspace, NOW) != seed
