"""Runs over a simulated Pocket network: who is reached in which session, and how much is sent in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.quota import FixedQuota
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.defs.network.assets import roster_metadata
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.preconditions import who_waits
from testbench_dagster.stages.relay.history import transports_to
from testbench_dagster.stages.relay.relay import RelayReport, relay_due
from testbench_dagster.stages.relay.writer import fenced_out
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Document, typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, LANE_ENDS, PLANS
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster.transports.pocket import replays
from testbench_dagster_tests.pocketnet import APP, SERVICE, Network, people, pocket_network

TASK, DOCS = "starter_units", 12
NAMES = ("a", "b", "c")


class Stage:
    """An installation over a network of three suppliers, with twelve prompts for each."""

    def __init__(
        self,
        folder: Path,
        net: Network,
        worker: FrameworkWorker,
        planning: dict[str, Any] | None = None,
        **service: Any,
    ) -> None:
        self.net, self.worker = net, worker
        path = folder / "testbench.yaml"
        settings = {
            "simulation": True,
            "services": {SERVICE: net.service(**service)},
            "tasks": [{"name": TASK, "samples": DOCS, "planning": planning or {}}],
            "relays": {"connect_s": 2, "first_byte_s": 5, "total_s": 5, "retries": 1},
            # a minute becomes half a second
            "planning": {"occasions_minutes": [0, 0.125, 1, 6, 12, 24, 36]},
        }
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.workspace = Workspace(load_config(path))
        self.workspace.worker = worker
        for spec in self.workspace.specs:
            refresh_dataset(self.workspace, spec)
            refresh_prompts(self.workspace, spec)
        self.keys = {name: f"{net.operator(name)}@{SERVICE}" for name in NAMES}

    def close(self) -> None:
        """Close the stores; the worker is shared."""
        self.workspace.documents.close()
        self.workspace.datasets.close()

    def reconfigure(self, **service: Any) -> None:
        """Another process, with another block of the service."""
        path = self.workspace.config.path
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings["services"][SERVICE].update(service)
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self.close()
        self.workspace = Workspace(load_config(path))
        self.workspace.worker = self.worker

    def list_everyone(self) -> None:
        """Read the roster until it has all: who is in no session is missing where a busy machine is late."""
        for _ in range(20):
            refresh_roster(self.workspace)
            if {s.key for s in active_suppliers(self.workspace)} == set(self.keys.values()):
                return
        raise AssertionError("the list of who staked was never read")

    def collect(self) -> RelayReport:
        """What an evaluation does: refresh the roster, relay what is due, keep the plans."""
        refresh_roster(self.workspace)
        report = relay_due(self.workspace, list(self.keys.values()))
        planner = Planner(self.workspace)
        suppliers = [s for s in active_suppliers(self.workspace) if s.key in self.keys.values()]
        refresh_plans(self.workspace, suppliers, planner.now)
        return report

    def attempts(self) -> list[Document]:
        return list(self.workspace.documents.find(ATTEMPTS))

    def answered(self) -> dict[str, int]:
        """Docs answered, by the suppliers' names."""
        names = {key: name for name, key in self.keys.items()}
        answers = (a for a in self.attempts() if a["fault"] == "ok" and not a["canary"])
        return dict(Counter(names[a["supplier"]] for a in answers))

    def asked(self) -> Counter[str]:
        """Attempts made, by the suppliers' names."""
        names = {key: name for name, key in self.keys.items()}
        return Counter(names[a["supplier"]] for a in self.attempts())

    def wanted(self) -> set[str]:
        names = {key: name for name, key in self.keys.items()}
        return {names[w.key] for w in due_suppliers(self.workspace)}


#: Tests of what the store remembers from run to run.
on_both_stores = pytest.mark.parametrize("begin", ["sqlite", "mongo"], indirect=True)


@pytest.fixture
def begin(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: FrameworkWorker
) -> Iterator[Callable[..., Stage]]:
    """Stages on SQLite, or on the store the test is parametrized with."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    if getattr(request, "param", "sqlite") == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    with ExitStack() as stack:

        def build(service: dict[str, Any] | None = None, **options: Any) -> Stage:
            net = stack.enter_context(pocket_network(people(*NAMES), **options))
            monkeypatch.setenv("TB_APP_KEY", net.key_of(APP))
            stage = Stage(tmp_path, net, worker, **(service or {}))
            stack.callback(stage.close)
            return stage

        yield build


def test_everyone_in_the_session_is_asked_everything(begin: Callable[..., Stage]) -> None:
    stage = begin()
    report = stage.collect()
    assert report.problems == {}
    assert stage.answered() == dict.fromkeys(NAMES, DOCS)
    session = stage.net.describe()["session"]
    for attempt in stage.attempts():
        assert (attempt["app"], attempt["session_start"], attempt["session_end"]) == (
            stage.net.app,
            session["start"],
            session["end"],
        )
        assert session["start"] <= attempt["height"] <= session["end"]
        assert len(attempt["session"]) == 64


def test_the_roster_shows_sessions_stakes_and_what_is_amiss(begin: Callable[..., Stage]) -> None:
    stage = begin(delegated=False)
    shown = roster_metadata(stage.workspace, refresh_roster(stage.workspace))
    session = stage.net.describe()["session"]
    assert f"| {SERVICE} | {stage.net.app} |" in shown["sessions"].md_str
    assert f"| {session['start']} | {session['end']} | 3 |" in shown["sessions"].md_str
    assert "| shannon | chat | simulated |" in shown["roster"].md_str
    assert stage.net.app in shown["warnings"].md_str, "anyone can sign for an application without delegation"


@on_both_stores
def test_who_is_in_no_session_waits_for_one(begin: Callable[..., Stage]) -> None:
    """One of three is in each session: it alone is asked, the others are left alone until theirs comes.

    Attempts are counted, not answers: on a busy machine some come too late, and are asked for again.
    """
    stage = begin({"discover": "staked"}, suppliers_per_session=1)
    stage.list_everyone()
    rounds, whole = 0, dict.fromkeys(NAMES, DOCS)
    while stage.answered() != whole:
        operators = stage.net.in_session()
        here = {name for name in NAMES if stage.net.operator(name) in operators}
        before = stage.asked()
        stage.collect()
        assert len(here) == 1 and set(stage.asked() - before) <= here
        lacking = set(Counter(whole) - Counter(stage.answered()))
        plans = {p["_id"]: p["tasks"][TASK] for p in stage.workspace.documents.find(PLANS)}
        for name in set(NAMES) - here - set(stage.asked()):
            plan = plans[stage.keys[name]]
            assert plan["state"] == "waiting", plan
            assert plan["reason"].startswith("in no session of our applications; the next begins at block")
        assert stage.wanted() <= lacking & here
        stage.net.post("roll")
        refresh_roster(stage.workspace)
        assert stage.wanted() <= lacking
        rounds += 1
        assert rounds < 60, "the chain lets each have its turn"


@on_both_stores
def test_what_a_supplier_grants_per_session_ends_its_session_not_its_docs(
    begin: Callable[..., Stage],
) -> None:
    """The miner's own word (rate limited) counts: nothing more is sent in this session, all of it is due."""
    stage = begin()
    stage.net.post("budget", supplier="a", relays=5)
    stage.collect()
    assert stage.answered() == {"a": 5, "b": DOCS, "c": DOCS}
    refused = [a for a in stage.attempts() if a["fault"] != "ok"]
    assert {(a["supplier"], a["fault"], a["owner"]) for a in refused} == {
        (stage.keys["a"], "quota", "client")
    }
    assert stage.wanted() == set()
    sent = len(stage.attempts())
    stage.collect()
    assert len(stage.attempts()) == sent, "the plan knows that the session is used up"
    plan = stage.workspace.documents.get(PLANS, stage.keys["a"])
    assert plan is not None
    assert plan["tasks"][TASK]["reason"].startswith("its relays of this session are used up")
    stage.net.post("roll")
    refresh_roster(stage.workspace)
    assert stage.wanted() == {"a"}
    stage.collect()
    assert 7 <= stage.answered()["a"] <= 10, "of five relays up to three are canaries: docs are asked again"


@on_both_stores
def test_a_cap_per_session_holds_over_runs(begin: Callable[..., Stage]) -> None:
    stage = begin({"max_relays_per_session": 7})
    for _ in range(2):  # the second one knows of the first one's relays from the store
        stage.collect()
        stage.workspace.documents.purge(PLANS, {"service": SERVICE})
        assert stage.answered() == dict.fromkeys(NAMES, 7)
    stage.net.post("roll")
    stage.collect()
    assert stage.answered() == dict.fromkeys(NAMES, DOCS)
    by_session = Counter((a["supplier"], a["session"]) for a in stage.attempts())
    assert max(by_session.values()) == 7


def test_schedules_count_the_blocks_of_the_chain(begin: Callable[..., Stage]) -> None:
    """`every: 1, unit: session` asks two docs anew one session's blocks after the last sample, not before."""
    rule = {"schedule": {"every": 1, "unit": "session"}, "trigger_minimum": 2}
    stage = begin({"planning": rule})
    stage.collect()
    assert stage.answered() == dict.fromkeys(NAMES, DOCS)
    first = max(a["height"] for a in stage.attempts())
    plan = stage.workspace.documents.get(PLANS, stage.keys["a"])
    assert plan is not None
    assert (plan["tasks"][TASK]["state"], plan["due_height"]) == ("scheduled", first + 10)
    stage.net.post("advance", blocks=9)
    stage.collect()
    assert stage.wanted() == set() and stage.answered() == dict.fromkeys(NAMES, DOCS)
    stage.net.post("advance", blocks=1)
    refresh_roster(stage.workspace)
    assert stage.wanted() == set(NAMES)
    stage.collect()
    assert stage.answered() == dict.fromkeys(NAMES, DOCS + 2)
    assert min(a["height"] for a in stage.attempts()[-6:]) >= first + 10


@on_both_stores
def test_answers_of_an_earlier_run_are_recognised_when_they_come_again(
    begin: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed in the session they were signed for, when the process that saw them first is gone."""
    monkeypatch.setattr(replays, "DATED_S", 0.0)  # nothing is waited for here
    stage = begin({"max_relays_per_session": 7})
    stage.collect()
    assert stage.answered() == dict.fromkeys(NAMES, 7)
    stage.net.post("fault", supplier="a", kind="replay")
    stage.workspace.documents.purge(PLANS, {"service": SERVICE})
    stage.reconfigure(max_relays_per_session=100)
    stage.collect()
    assert stage.answered() == {"a": 7, "b": DOCS, "c": DOCS}
    # of canaries, which repeat earlier questions, a replay may even be the answer
    caught = [a for a in stage.attempts() if a["fault"] != "ok" and not a["canary"]]
    assert {(a["supplier"], a["fault"]) for a in caught} == {(stage.keys["a"], "supplier_signature")}
    assert all("replayed" in a["error"] for a in caught)
    # five in a row open its circuit: what it was not asked any more was left behind
    ends = stage.workspace.documents.find(LANE_ENDS, {"supplier": stage.keys["a"]})
    left = {doc for end in ends for part in end["left"] for doc in part["doc_ids"]}
    assert len({a["doc_id"] for a in caught} | left) == DOCS - 7


@on_both_stores
def test_what_a_backend_refused_is_part_of_what_a_session_grants(begin: Callable[..., Stage]) -> None:
    """The miner signed it and charges for it, whoever's fault it was: also runs later."""
    stage = begin({"max_relays_per_session": 7})
    stage.net.post("fault", supplier="a", kind="backend_4xx")
    for _ in range(2):
        stage.collect()
        stage.workspace.documents.purge(PLANS, {"service": SERVICE})
    faults = Counter(a["fault"] for a in stage.attempts() if a["supplier"] == stage.keys["a"])
    assert faults == {"credentials": 7}


def test_a_budget_that_others_used_up_is_no_failure(begin: Callable[..., Stage]) -> None:
    """Nothing is wrong with a supplier that refuses us for that: it is not asked more rarely from then on."""
    stage = begin()
    stage.net.post("budget", supplier="a", relays=0)
    stage.collect()
    plan = stage.workspace.documents.get(PLANS, stage.keys["a"])
    assert plan is not None
    assert (plan["failures"], plan["problem"], plan["put_off_until"]) == (0, None, None)
    assert stage.wanted() == set()
    stage.net.post("budget", supplier="a")
    stage.net.post("roll")
    refresh_roster(stage.workspace)
    assert stage.wanted() == {"a"}, "at once, in its next session"


def test_an_application_that_cannot_sign_leaves_the_relays_to_the_others(
    begin: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = begin()
    second = stage.net.post("app", name="second")
    monkeypatch.setenv("TB_GATEWAY_KEY", stage.net.key_of("gateway"))
    by_gateway = {"address": second["address"], "gateway": stage.net.gateway, "key_env": "TB_GATEWAY_KEY"}
    own = {"address": stage.net.app, "key_env": "TB_APP_KEY"}
    stage.reconfigure(apps=[by_gateway, own])
    stage.net.post("undelegate", app="second")
    stage.net.post("roll")
    stage.net.post("roll", offset=1)
    stage.collect()
    assert stage.answered() == dict.fromkeys(NAMES, DOCS)
    assert {(a["fault"], a["app"]) for a in stage.attempts()} == {("ok", stage.net.app)}


def test_where_nobody_can_sign_a_run_ends_soon_and_the_next_is_not_at_once(
    begin: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one attempt per doc, again and again: our delegation is missing, and that does not change."""
    stage = begin()
    monkeypatch.setenv("TB_GATEWAY_KEY", stage.net.key_of("gateway"))
    by_gateway = {"address": stage.net.app, "gateway": stage.net.gateway, "key_env": "TB_GATEWAY_KEY"}
    stage.reconfigure(apps=[by_gateway])
    stage.net.post("undelegate", app=APP)
    stage.net.post("roll")
    stage.net.post("roll", offset=1)
    stage.collect()
    told = stage.attempts()
    assert {a["fault"] for a in told} == {"internal"} and len(told) < DOCS
    assert all("does not delegate to gateway" in a["error"] for a in told)
    assert stage.wanted() == set()


def test_without_a_key_the_service_is_named_once_and_nothing_is_sent(
    begin: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = begin()
    refresh_roster(stage.workspace)
    monkeypatch.delenv("TB_APP_KEY")
    report = relay_due(stage.workspace, list(stage.keys.values()))
    assert report.problems.keys() == set(stage.keys.values())
    assert all("TB_APP_KEY" in problem for problem in report.problems.values())
    assert stage.attempts() == []


def test_while_no_node_answers_nothing_is_asked_and_everything_stays_due(
    begin: Callable[..., Stage],
) -> None:
    stage = begin()
    refresh_roster(stage.workspace)
    stage.net.post("roll")  # what the store knows is over
    stage.net.post("node", node=0, status=503)
    report = relay_due(stage.workspace, list(stage.keys.values()))
    assert f"service:{SERVICE}" in report.problems
    assert all(a["owner"] == "node" for a in stage.attempts())
    stage.net.post("node", node=0)
    stage.collect()
    assert stage.answered() == dict.fromkeys(NAMES, DOCS)


@on_both_stores
def test_runs_that_could_ask_nobody_do_not_follow_each_other(begin: Callable[..., Stage]) -> None:
    """The store says that everyone is in a session, no node says so: nothing is sent, nothing requested."""
    stage = begin()
    refresh_roster(stage.workspace)
    assert stage.wanted() == set(NAMES)
    stage.net.post("node", node=0, status=503)
    stage.collect()
    assert stage.attempts() == []
    assert stage.wanted() == set()
    plans = list(stage.workspace.documents.find(PLANS))
    assert [plan["failures"] for plan in plans] == [0, 0, 0], "nothing is wrong with the suppliers"
    later = datetime.now(UTC) + timedelta(minutes=6)
    assert len(due_suppliers(stage.workspace, later)) == 3, "planning.retry_minutes later"
    assert due_suppliers(stage.workspace, later + timedelta(minutes=5)) == [], "no block came: it waits"
    stage.net.post("node", node=0)
    stage.collect()
    assert stage.answered() == dict.fromkeys(NAMES, DOCS)


def test_through_a_gateway_attempts_carry_their_session_where_the_chain_is_known(
    begin: Callable[..., Stage],
) -> None:
    stage = begin()
    gateway = {"url": stage.net.gateway_url, "app_address": stage.net.app}
    through = Stage(
        stage.workspace.config.path.parent,
        stage.net,
        stage.worker,
        transport="path",
        apps=None,
        gateway=gateway,
    )
    through.collect()
    assert through.answered() == dict.fromkeys(NAMES, DOCS)
    session = stage.net.describe()["session"]
    assert {(a["app"], a["session_start"]) for a in through.attempts()} == {(stage.net.app, session["start"])}
    through.close()


@pytest.mark.slow
def test_whom_a_gateway_has_in_no_session_is_asked_ever_more_rarely(begin: Callable[..., Stage]) -> None:
    """Which sessions it has is not known here; its word is that it has none with the supplier."""
    stage = begin(suppliers_per_session=1)
    folder, gateway = stage.workspace.config.path.parent, {"url": stage.net.gateway_url}
    blind: dict[str, Any] = {"transport": "path", "apps": None, "discover": "staked", "gateway": gateway}
    through = Stage(folder, stage.net, stage.worker, **blind)
    through.collect()
    (reached,) = through.answered()
    rest = set(NAMES) - {reached}
    for failures in (1, 2):
        plans = [through.workspace.documents.get(PLANS, through.keys[name]) for name in rest]
        assert all(plan is not None and plan["failures"] == failures for plan in plans)
        assert through.wanted() == set()
        through.collect()
    assert {a["fault"] for a in through.attempts() if a["supplier"] != through.keys[reached]} == {"rollover"}
    through.close()


@on_both_stores
def test_what_was_stored_under_a_lost_lease_is_part_of_what_a_session_grants(
    begin: Callable[..., Stage],
) -> None:
    """Ours by name, and sent all the same."""
    stage = begin({"max_relays_per_session": 7})
    stage.collect()
    documents, told = stage.workspace.documents, stage.attempts()
    documents.purge(ATTEMPTS, {"service": SERVICE})
    lost = [fenced_out(AttemptRecord.from_document(attempt)) for attempt in told]
    typed.put_new(documents, AttemptRecord, lost)
    documents.purge(PLANS, {"service": SERVICE})
    stage.collect()
    assert len(stage.attempts()) == len(told)
    # a connection that broke on a busy machine is tried again, and takes nothing of what is granted
    assert sum(attempt["fault"] == "ok" for attempt in told) == 7 * len(NAMES)


def test_the_terminal_is_told_who_waits(begin: Callable[..., Stage]) -> None:
    stage = begin({"discover": "staked"}, suppliers_per_session=1)
    stage.list_everyone()
    stage.collect()
    (asked,) = stage.answered()
    why = "in no session of our applications; the next begins at block 1011"
    assert who_waits(stage.workspace) == f"2 of 3 suppliers wait: {why}"
    assert who_waits(stage.workspace, [stage.keys[asked]]) == ""
    stage.net.post("budget", supplier=asked, relays=0)
    stage.workspace.documents.purge(ATTEMPTS, {"service": SERVICE})
    stage.collect()
    spent = "its relays of this session are used up; the next begins at block 1011"
    assert who_waits(stage.workspace, [stage.keys[asked]]) == f"1 of 1 supplier waits: {spent}"


def test_nothing_is_prepared_for_nobody(begin: Callable[..., Stage]) -> None:
    stage = begin()
    transports = transports_to(stage.workspace, [])
    bound = FixedQuota({})
    assert transports.unread == {} and transports.quota(bound) is bound
