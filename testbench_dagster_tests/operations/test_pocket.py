"""The whole platform over signed relays: sessions roll, suppliers join and leave, every fault happens.

What the platform stored is held against what the simulated miners wrote down, relay by relay: each relay
carries the hash of its bytes, and ring signatures make no two alike.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.localnet.pocket.faults import KINDS
from testbench_dagster.localnet.pocket.run import PocketProcess
from testbench_dagster.localnet.pocket.settings import environment, services_block
from testbench_dagster.stages.rank.items import items
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import ATTEMPTS, SUPPLIERS
from testbench_dagster_tests.acceptance.harness import console_script
from testbench_dagster_tests.operations.harness import Platform, wait_until

pytestmark = pytest.mark.slow(minutes=4)

DOCS = 8
TASKS = ("starter_logic", "starter_units")
SUPPLIERS_N = len(KINDS) + 4
BLOCK_S, BLOCKS_PER_SESSION, GRACE = 1.0, 30, 15
RELAYS = {"connect_s": 2, "first_byte_s": 8, "idle_s": 8, "total_s": 12, "retries": 2, "max_response_mb": 1}
SAMPLING = {"epoch_seed": 4711}
#: 72 hours become six minutes, so that docs close by the same rules within the test.
OCCASIONS = [0, 0.25, 0.5, 1, 2, 4, 6]
SETTLES_WITHIN_S = 1200.0

#: Faults of attempts by what the miner did. Of a session it claims to be over, the height decides.
EXPECTED: Mapping[str, set[Fault]] = {
    "ok": {Fault.OK, Fault.TRUNCATED},
    "down": {Fault.TRANSPORT},
    "reset": {Fault.TRANSPORT},
    "html": {Fault.UNAVAILABLE},
    "html200": {Fault.SUPPLIER_PROTOCOL},
    "rate_limited": {Fault.QUOTA},
    "expired": {Fault.ROLLOVER, Fault.SUPPLIER_HTTP},
    "not_in_session": {Fault.ROLLOVER, Fault.SUPPLIER_HTTP},
    "not_reachable": {Fault.SUPPLIER_HTTP, Fault.UNAVAILABLE},
    "slow_headers": {Fault.OK, Fault.TRUNCATED},
    "slow_body": {Fault.OK, Fault.TRUNCATED},
    "hang": {Fault.SUPPLIER_TIMEOUT},
    "timeout": {Fault.SUPPLIER_TIMEOUT},
    "internal": {Fault.SUPPLIER_HTTP, Fault.UNAVAILABLE},
    "empty": {Fault.SUPPLIER_PROTOCOL},
    "truncated": {Fault.SUPPLIER_PROTOCOL},
    "gzip": {Fault.OK, Fault.TRUNCATED},
    "stream_cut": {Fault.TRANSPORT},
    "unterminated": {Fault.OK, Fault.TRUNCATED},
    "backend_4xx": {Fault.CREDENTIALS},
    "backend_5xx": {Fault.SUPPLIER_HTTP},
    "oversized": {Fault.SUPPLIER_PROTOCOL},
    "unsigned": {Fault.SUPPLIER_SIGNATURE},
    "bad_signature": {Fault.SUPPLIER_SIGNATURE},
    "high_s": {Fault.SUPPLIER_SIGNATURE},
    "wrong_signer": {Fault.SUPPLIER_SIGNATURE},
    "swapped_payload": {Fault.SUPPLIER_SIGNATURE},
    "no_payload_hash": {Fault.OK, Fault.TRUNCATED},
    "wrong_header": {Fault.SUPPLIER_SIGNATURE},
    "foreign_session": {Fault.SUPPLIER_SIGNATURE},
    "replay": {Fault.SUPPLIER_SIGNATURE},
}
#: Nothing is asked of these: without a public key nothing could be verified, without TLS nothing is reached.
UNREACHED = {"null_pubkey", "tls"}
#: How often a supplier fails in its way; what would keep all its docs open happens to a few relays only.
FEW = {"down", "reset", "stream_cut", "rate_limited", "expired", "not_in_session", "backend_4xx"}


class Stage:
    """A platform over a chain whose suppliers each have one fault, but for the last few."""

    def __init__(self, folder: Path, net: PocketProcess) -> None:
        self.net = net
        self.description = net.describe()
        self.platform = Platform(folder, net, environment(self.description))
        self.by_fault: dict[str, str] = {}  # kind → name of the supplier that has it
        chat = [s["name"] for s in self.description["suppliers"]]
        for kind, name in zip(KINDS, chat, strict=False):
            self.by_fault[kind] = name
            if kind in UNREACHED:
                net.sim("fault", supplier=name, kind=kind)
            else:
                fields: dict[str, Any] = {"times": 2} if kind in FEW else {"rate": 0.4}
                if kind in ("slow_headers", "slow_body"):
                    fields["seconds"] = 0.5
                if kind == "oversized":
                    fields["megabytes"] = 2
                net.sim("fault", supplier=name, kind=kind, **fields)
        self.sound = [name for name in chat if name not in self.by_fault.values()]

    def key(self, name: str) -> str:
        found = next(s for s in self.net.describe()["suppliers"] if s["name"] == name)
        return f"{found['operator']}@{found['service']}"

    def configure(self, **changes: Any) -> None:
        services = services_block(self.description)
        for service in services.values():
            service["relays"] = {"max_in_flight": 8}
        tasks = [{"name": n, "samples": {"min": DOCS, "max": DOCS, "half_width": None}} for n in TASKS]
        self.platform.configure(
            supplier_sources=[],
            services=services,
            tasks=tasks,
            relays=RELAYS,
            sampling=SAMPLING,
            roster={"grace_hours": 1},
            planning={"retry_minutes": 0.1, "occasions_minutes": OCCASIONS},
            **changes,
        )

    def unsettled(self) -> dict[str, list[tuple[int, int, int]]]:
        """Suppliers of which docs are open or not yet asked: scored, failed and open ones of each task."""
        reached = [n for kind, n in self.by_fault.items() if kind not in UNREACHED]
        names = {self.key(name): name for name in [*reached, *self.sound, "newcomer"]}
        with self.platform.workspace() as workspace:
            rows = windows(workspace, suppliers=list(names), tasks=TASKS)
        found: dict[str, list[tuple[int, int, int]]] = {}
        for row in rows:
            if row.n + row.n_failed + row.n_void < DOCS or row.n_open:
                found.setdefault(names[row.supplier], []).append((row.n, row.n_failed, row.n_open))
        return found

    def attempts(self) -> list[Document]:
        """All attempts, with their evidence."""
        with self.platform.documents() as documents:
            return list(documents.find(ATTEMPTS))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("pocket")
    with PocketProcess(
        suppliers=SUPPLIERS_N,
        block_s=BLOCK_S,
        blocks_per_session=BLOCKS_PER_SESSION,
        suppliers_per_session=SUPPLIERS_N // 2,
        hosts=4,
        nodes=2,
        fail_rate=0.0,
        latency_ms=5,
    ) as net:
        made = Stage(folder, net)
        made.configure()
        try:
            made.platform.start()
            yield made
        except BaseException:
            print(made.platform.log())
            raise
        finally:
            made.platform.stop()
            for pid in made.platform.pids(""):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def settled(stage: Stage) -> None:
    """Wait until every doc of every supplier that can be reached is closed; else say whose is not."""
    open_: dict[str, list[tuple[int, int, int]]] = {}

    def look() -> bool:
        nonlocal open_
        open_ = stage.unsettled()
        return not open_

    try:
        wait_until("all docs settled", look, SETTLES_WITHIN_S, every_s=5)
    except AssertionError as vain:
        kinds = {name: kind for kind, name in stage.by_fault.items()}
        raise AssertionError({kinds.get(name, name): rows for name, rows in open_.items()}) from vain


@pytest.fixture(scope="module")
def finished(stage: Stage) -> Stage:
    """The platform after everyone was asked everything, while the network was not at rest."""
    first = stage.net.describe()["session"]["number"]
    platform, leaver = stage.platform, stage.sound[0]
    known = {f"{s['operator']}@{s['service']}" for s in stage.description["suppliers"]}
    wait_until("first attempts", platform.attempts, 120)
    stage.net.sim("join", name="newcomer", api="chat")
    stage.net.sim("url", supplier=stage.sound[1], host="host-1")
    stage.net.sim("node", node=0, status=503)  # the second one serves from now on
    wait_until("the newcomer", lambda: stage.key("newcomer") in set(platform.partitions()) - known, 90)
    settled(stage)
    wait_until("everything at rest", platform.at_rest, 600, every_s=2)
    stage.net.sim("leave", supplier=leaver)

    key = stage.key(leaver)

    def left() -> bool:
        with platform.documents() as documents:
            found = documents.get(SUPPLIERS, key)
        return found is not None and found["status"] == "left"

    wait_until("the leave", left, 120)
    assert stage.net.describe()["session"]["number"] - first >= 3, "several sessions passed"
    return stage


def test_what_is_stored_is_what_miners_received(finished: Stage) -> None:
    """Every relay has one attempt and every attempt that was sent one relay; all within their sessions."""
    stored = {}
    for attempt in finished.attempts():
        sha = attempt["evidence"].get("request_sha256")
        if sha is None:
            assert Fault(attempt["fault"]).owner in (Owner.NODE, Owner.SESSION, Owner.BUDGET), attempt[
                "error"
            ]
            continue
        assert sha not in stored, "sent twice"
        stored[sha] = attempt
    accepted, refused = finished.net.ledger(), finished.net.refusals()
    received = {relay["request_sha256"]: relay for relay in [*refused, *accepted]}
    counts = Counter(relay["request_sha256"] for relay in [*refused, *accepted])
    # a miner that says it has no backend of the type asked for is asked once more without a type
    twice = {sha for sha, n in counts.items() if n > 1}
    again = {r["request_sha256"] for r in refused if r["outcome"] == "not_reachable" and r["flavour"] == "ha"}
    assert twice <= again, "no relay was received twice"
    assert len({relay["request_sha256"] for relay in accepted}) == len(accepted)
    assert received.keys() <= stored.keys(), "none is lost"
    never_arrived = {stored[sha]["fault"] for sha in stored.keys() - received.keys()}
    assert never_arrived <= {Fault.TRANSPORT.value}, "what no miner saw was not connected"
    assert len(accepted) > DOCS * len(TASKS) * len(finished.sound)
    for sha, relay in received.items():
        attempt = stored[sha]
        assert attempt["supplier"] == f"{relay['supplier']}@{relay['service']}"
        assert (attempt["app"], attempt["session"]) == (relay["app"], relay["session_id"])
        bounds = attempt["session_start"], attempt["session_end"]
        assert bounds == (relay["session_start"], relay["session_end"])
        assert bounds[0] <= attempt["height"] <= bounds[1]
        assert relay["height"] <= bounds[1] + GRACE
        assert attempt["evidence"]["request_hash"] == relay["request_hash"]
    assert len({relay["session_id"] for relay in accepted}) >= 3


def _same_answer(one: Document, other: Document) -> bool:
    """Whether two attempts brought the same signed answer."""
    if one["_id"] == other["_id"] or one["supplier"] != other["supplier"]:
        return False
    signed = (one["evidence"].get("envelope"), other["evidence"].get("envelope"))
    return signed[0] is not None and signed[0] == signed[1] and one["body"] == other["body"]


def test_every_fault_has_its_owner(finished: Stage) -> None:
    stored = {a["evidence"].get("request_sha256"): a for a in finished.attempts()}
    wrong, seen = [], Counter[str]()
    for relay in [*finished.net.ledger(), *finished.net.refusals()]:
        kind, attempt = relay["outcome"], stored[relay["request_sha256"]]
        seen[kind] += 1
        if kind not in EXPECTED:
            continue
        if Fault(attempt["fault"]) not in EXPECTED[kind]:
            if kind == "replay" and not any(_same_answer(attempt, one) for one in stored.values()):
                continue  # what it repeats never reached us: nothing in the protocol tells
            wrong.append((kind, relay["flavour"], attempt["fault"], attempt["error"]))
    assert wrong == []
    print(dict(seen))
    assert {kind for kind in KINDS if kind not in UNREACHED} <= seen.keys(), "every fault happened"
    # a supplier that was reached but for the network, or us, has no fault against it
    blameless = {k for k, f in EXPECTED.items() if not any(x.owner is Owner.SUPPLIER for x in f)} - {"ok"}
    for kind in sorted(blameless):
        key = finished.key(finished.by_fault[kind])
        faults = {Fault(a["fault"]) for a in stored.values() if a["supplier"] == key}
        assert not [f for f in faults if f.owner is Owner.SUPPLIER], (kind, faults)


def test_unverifiable_suppliers_are_not_asked(finished: Stage) -> None:
    operator = finished.key(finished.by_fault["null_pubkey"]).partition("@")[0]
    assert not [r for r in finished.net.ledger() if r["supplier"] == operator]


def values(config: Path, environment_: Mapping[str, str]) -> dict[tuple[str, str, int], float]:
    """The primary metric of every answered doc in the windows of an installation."""
    before = dict(os.environ)
    os.environ.update(environment_)
    try:
        with Workspace.open(config) as workspace:
            rows = [row for row in items(workspace) if Fault(row["outcome"]).answered]
    finally:
        os.environ.clear()
        os.environ.update(before)
    return {(row["supplier"], row["task"], row["doc_id"]): row["value"] for row in rows}


def test_scores_are_those_of_plain_http(finished: Stage, tmp_path: Path) -> None:
    """The same personas, asked the same docs without any chain, are worth the same, doc by doc."""
    names = {s["name"]: f"{s['operator']}@{s['service']}" for s in finished.net.describe()["suppliers"]}
    settings = yaml.safe_load(finished.platform.config_path.read_text(encoding="utf-8"))
    del settings["services"]
    settings["suppliers"] = [
        {n: s[n] for n in ("address", "service", "base_url", "api", "model")} for s in finished.net.roster()
    ]
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    done = subprocess.run(
        [console_script(), "-c", str(path), "run"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    plain = {(k.partition("@")[0], task, doc): v for (k, task, doc), v in values(path, {}).items()}
    native = values(finished.platform.config_path, finished.platform.environment)
    by_key = {key: name for name, key in names.items()}
    compared: Counter[str] = Counter()
    for (key, task, doc), value in native.items():
        name = by_key[key]
        assert plain[name, task, doc] == value
        compared[name] += 1
    sound, wanted = [*finished.sound[2:], "newcomer"], DOCS * len(TASKS)
    assert {name: compared[name] for name in sound} == dict.fromkeys(sound, wanted)
    # its old host did not know who moved any more, before the chain told where it is: that counts against it
    mover = finished.sound[1]
    refused = {"supplier": names[mover].partition("@")[0], "outcome": "not_reachable"}
    missed = sum(refused.items() <= relay.items() for relay in finished.net.refusals())
    assert wanted - missed <= compared[mover] <= wanted
    assert sum(compared.values()) > DOCS * len(TASKS) * SUPPLIERS_N / 2


def test_no_key_is_anywhere(finished: Stage) -> None:
    """Not in logs, stores, run records or what the UI is given."""
    keys = [app["private_key"] for app in finished.description["apps"]]
    needles = [form for key in keys for form in (key.encode(), key.upper().encode(), bytes.fromhex(key))]
    looked = 0
    for path in finished.platform.folder.rglob("*"):
        if not path.is_file():
            continue
        looked += 1
        content = path.read_bytes()
        assert not [n for n in needles if n in content], f"a key lies in {path}"
    assert looked > 10
