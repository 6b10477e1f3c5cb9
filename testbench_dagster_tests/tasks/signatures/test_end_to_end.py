"""The three signatures over the simulated network, from the catalog to gates that look at them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from testbench_dagster.core.window import Window
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.score.answered import answered_docs
from testbench_dagster.stages.score.batch import score_batch
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import (
    ATTEMPTS,
    IDENTITY_GROUPS,
    PLANS,
    PROMPTS,
    SCORES,
    SIGNATURES,
)
from testbench_dagster.tasks.signatures import Signatures
from testbench_dagster_tests.tasks.signatures.simulated import evaluated, installed, served

ONYX, MARBLE = Backend("onyx", 0.9, latency_ms=0), Backend("marble", 0.5, latency_ms=0)
PROBES = 8
TASKS = [{"name": name, "framework": "signatures"} for name in ("tokenizer", "config", "identity")]


@pytest.fixture(scope="module")
def net() -> Iterator[Localnet]:
    people = (
        Persona("one", ONYX),
        Persona("twin", ONYX),
        Persona("other", MARBLE),
        Persona("bare", MARBLE, pages=()),
        Persona("base", ONYX, "completions"),
    )
    with served(people) as running:
        yield running


@pytest.fixture(scope="module")
def workspace(net: Localnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("signatures")
    with installed(folder, net, TASKS, identity={"probes": PROBES, "probe_tokens": 12}) as opened:
        report = evaluated(opened)
        assert report.relays is not None and report.relays.total.sent == 5 * (2 + PROBES)
        yield opened


def rows(workspace: Workspace, task: str) -> dict[str, Window]:
    return {row.address: row for row in windows(workspace, tasks=[task])}


def signatures(workspace: Workspace, task: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for score in workspace.documents.find(SCORES, {"task": task}):
        found.setdefault(score["supplier"].split("@")[0], set()).add(score["metrics"]["signature"])
    return found


@pytest.mark.parametrize("task", ["tokenizer", "config"])
def test_pages_are_signed(workspace: Workspace, task: str) -> None:
    found = signatures(workspace, task)
    assert found["one"] == found["twin"] == found["base"] != found["other"]
    assert found.keys() == {"one", "twin", "other", "base"}
    row = rows(workspace, task)["one"]
    assert (row.framework, row.metric, row.filter, row.status) == ("signatures", "signature", "none", "ok")
    assert (row.n, row.n_planned, row.score, row.ci_low, row.bound_low) == (1, 1, None, None, None)


def test_a_signature_is_the_hash_of_canonical_json(workspace: Workspace) -> None:
    page = ONYX.page("config") | {"_name_or_path": ""}
    expected = hashlib.sha256(orjson.dumps(page, option=orjson.OPT_SORT_KEYS)).hexdigest()
    assert signatures(workspace, "config")["one"] == {expected}
    kept = workspace.documents.get(SIGNATURES, f"config:{expected}")
    assert kept is not None and orjson.loads(kept["body"]) == page and kept["signature"] == expected
    assert kept["supplier"].split("@")[0] in ("one", "twin", "base")
    attempt = workspace.documents.get(ATTEMPTS, kept["attempt_id"])
    assert attempt is not None and (attempt["path"], attempt["status"]) == ("/pokt/config", 200)
    assert attempt["opening"] is None and attempt["payload_sha256"] == hashlib.sha256(b"").hexdigest()


def test_identity_asks_each_the_same_and_tells_backends_apart(workspace: Workspace) -> None:
    found = signatures(workspace, "identity")
    assert found["one"] == found["twin"] and len(found["one"]) == PROBES
    assert found["other"] == found["bare"] and not found["one"] & found["other"]
    assert rows(workspace, "identity")["one"].n == PROBES
    attempts = list(workspace.documents.find(ATTEMPTS, {"task": "identity"}))
    by_supplier = {a["supplier"]: set() for a in attempts}
    for attempt in attempts:
        by_supplier[attempt["supplier"]].add(attempt["prompt_id"])
        assert attempt["fault"] in ("ok", "truncated") and len(attempt["opening"]) > 20
    chat = [by_supplier[f"{name}@simulation"] for name in ("one", "twin", "other", "bare")]
    assert all(prompts == chat[0] for prompts in chat) and not chat[0] & by_supplier["base@simulation"]
    kept = workspace.documents.count(SIGNATURES, {"task": "identity"})
    assert kept == len({s for each in found.values() for s in each})


def test_who_serves_no_page_is_not_blamed_and_not_asked_again_soon(workspace: Workspace) -> None:
    where = {"supplier": "bare@simulation", "task": "tokenizer"}
    (attempt,) = workspace.documents.find(ATTEMPTS, where)
    assert (attempt["fault"], attempt["owner"], attempt["status"]) == ("client_request", "client", 404)
    row = rows(workspace, "tokenizer")["bare"]
    assert (row.status, row.n, row.errors) == ("unsupported", 0, {"client_request": 1})
    plan = workspace.documents.get(PLANS, "bare@simulation")
    assert plan is not None and (plan["failures"], plan["due_calls"]) == (0, 0)
    assert plan["tasks"]["tokenizer"]["state"] == "unsupported" and plan["due_at"] > datetime.now(UTC)
    assert due_suppliers(workspace) == []
    again = evaluated(workspace)
    assert again.relays is not None and again.relays.total.sent == 0
    (bare,) = [s for s in active_suppliers(workspace) if s.address == "bare"]
    later = Planner(workspace, now=datetime.now(UTC) + timedelta(hours=25)).plan(bare)
    assert {name for name, d in later.tasks.items() if d.state == "due"} == {"tokenizer", "config"}


def test_only_absent_pages_are_no_failure_of_the_supplier(net: Localnet, tmp_path: Path) -> None:
    with installed(tmp_path, net, TASKS[:1]) as opened:
        evaluated(opened)
        plan = opened.documents.get(PLANS, "bare@simulation")
        assert plan is not None and (plan["failures"], plan["problem"]) == (0, None)


def test_probes_are_asked_again_after_their_days_and_members_too(workspace: Workspace) -> None:
    suppliers = {s.address: s for s in active_suppliers(workspace)}
    workspace.documents.upsert(
        IDENTITY_GROUPS, [{"_id": suppliers["twin"].key, "group": "g", "proxy": suppliers["one"].key}]
    )
    try:
        for days, due in ((9, 0), (11, PROBES)):
            plan = Planner(workspace, now=datetime.now(UTC) + timedelta(days=days)).plan(suppliers["twin"])
            assert plan.tasks["identity"].plan.n_calls == due
        assert plan.tasks["identity"].plan.round == 2
    finally:
        workspace.documents.purge(IDENTITY_GROUPS, {"_id": suppliers["twin"].key})


def test_stored_answers_sign_the_same_again(workspace: Workspace) -> None:
    for spec in workspace.specs:
        registration = workspace.datasets.current(spec.name)
        assert registration is not None
        docs = list(answered_docs(workspace.documents, "one@simulation", spec, registration))
        again = {s.id: s.metrics for s in score_batch(workspace, spec, registration, docs)}
        stored = workspace.documents.find(SCORES, {"supplier": "one@simulation", "task": spec.name})
        assert {d["_id"]: d["metrics"] for d in stored} == again and again


def test_new_epochs_ask_other_probes_under_the_same_hash(workspace: Workspace) -> None:
    spec = workspace.spec("identity")
    registered = Signatures().register(spec)
    current = workspace.datasets.current("identity")
    assert current is not None and current.task_hash == registered.task_hash
    one, two = (
        [p.requests for p in Signatures().build_prompts(spec, registered.data, [0, 1], "chat", seed)]
        for seed in ("a", "b")
    )
    assert one != two
    texts = Counter(
        p["requests"][0]["messages"][-1]["content"]
        for p in workspace.documents.find(PROMPTS, {"task": "identity", "api": "chat"})
    )
    assert set(texts.values()) == {1} and len(texts) == PROBES


def test_gates_open_for_the_signature_they_name(net: Localnet, tmp_path: Path) -> None:
    wanted = Signatures().signed(
        _spec_of(tmp_path, net, "config"), orjson.dumps(ONYX.page("config")).decode()
    )[0]
    logic = {
        "name": "starter_logic",
        "samples": 2,
        "planning": {"gates": [{"task": "config", "is": "equal", "value": wanted}]},
    }
    with installed(tmp_path, net, [TASKS[1], logic]) as opened:
        evaluated(opened)  # signs; the gates look at what is signed already
        evaluated(opened)
        answered = Counter(a["supplier"] for a in opened.documents.find(ATTEMPTS, {"task": "starter_logic"}))
        assert answered == {"one@simulation": 2, "twin@simulation": 2, "base@simulation": 2}
        plan = opened.documents.get(PLANS, "other@simulation")
        assert plan is not None and plan["tasks"]["starter_logic"]["state"] == "gated"
        assert (
            f"config signs {signatures(opened, 'config')['other'].pop()!r}"
            in (plan["tasks"]["starter_logic"]["reason"])
        )
        bare = opened.documents.get(PLANS, "bare@simulation")
        assert bare is not None and "has no signature yet" in bare["tasks"]["starter_logic"]["reason"]


def _spec_of(folder: Path, net: Localnet, task: str):
    with installed(folder, net, TASKS) as opened:
        return opened.spec(task)
