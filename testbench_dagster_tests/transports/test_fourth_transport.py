"""A transport that no other code knows of: what a plug gives is all it takes, from a roster to its attempts.

It reaches suppliers by files: a question is a file that is put into the supplier's folder, and the answer is
read from beside it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import (
    Config,
    ServiceConfig,
    ServiceRules,
    SupplierConfig,
    load_config,
    services,
)
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Way, faults_on
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.quota import FixedQuota, Quota
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Attempt, Endpoint, Relay, Transport
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.plan.due_suppliers import waiting_suppliers
from testbench_dagster.stages.relay.probe import probe_suppliers
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster.transports import registry
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.discovery import Entry, Listing, Source
from testbench_dagster.transports.endpoints import endpoint_of
from testbench_dagster.transports.http import Exchange
from testbench_dagster.transports.outcome import attempt_from
from testbench_dagster.transports.payload import Api, build_payload
from testbench_dagster.transports.plug import (
    About,
    KnownOperators,
    KnownSessions,
    RelayHistory,
    TransportFactory,
)
from testbench_dagster.transports.stored import Shown, StoredSignature

TASK, DOCS, MOST = "starter_units", 5, 3
ANSWER = {"choices": [{"index": 0, "message": {"content": "42"}, "finish_reason": "stop"}]}


class Letterbox:
    """A folder per supplier, in one that the configuration names as the service's prefix."""

    name = "letterbox"
    rules = ServiceRules("letterbox", lambda service: None if service.prefix else "letterbox needs prefix")
    sends_only_in_sessions = False
    about = About(
        "By letter.", "who has a box", ("prefix",), "three a run", "boxes", faults_on(Way.PLAIN), ""
    )

    def sources(self, config: Config, services: Sequence[str], known: KnownOperators) -> Mapping[str, Source]:
        """Everybody who has a folder."""
        return {f"service:{name}": Folders(config.settings.services[name], name) for name in services}

    def endpoint(self, config: Config, supplier: Supplier) -> Endpoint:
        """The folder."""
        prefix = config.settings.services[supplier.service].prefix
        return endpoint_of(config, supplier, address=supplier.address, prefix=prefix)

    def key_problem(self, config: Config, service: str) -> str | None:
        """There are no keys."""
        return None

    def prepare(self, config: Config, services: Collection[str], history: RelayHistory) -> TransportFactory:
        """Nobody is sent more than some letters."""
        return Postman(config, tuple(services))

    def waiting(self, supplier: Supplier, known: KnownSessions, spent_until: int | None) -> str | None:
        """Until the box is opened."""
        return "its box is shut" if supplier.address == "shut" else None

    def shown(
        self, attempt: AttemptRecord, request: Mapping[str, Any], api: Api, error: str | None
    ) -> Shown | None:
        """Like any answer's."""
        return None

    def signature(self, attempt: AttemptRecord, *, answered: bool) -> StoredSignature | None:
        """Nobody signs what lies in a box."""
        return None

    def lists_models(self, endpoint: Endpoint) -> bool:
        """A box lists nothing."""
        return False

    def check(self, config: Config, service: str) -> Iterator[Finding]:
        """Whether there are folders."""
        folder = Path(config.settings.services[service].prefix)
        yield Finding(f"service {service}", f"{len(list(folder.iterdir()))} boxes")


@dataclass(frozen=True)
class Folders:
    """The suppliers of a service, by their folders."""

    service: ServiceConfig
    name: str

    def read(self, deadline: float) -> Listing:
        """List them."""
        boxes = sorted(Path(self.service.prefix).iterdir())
        suppliers = [
            SupplierConfig(address=b.name, service=self.name, base_url="http://box", model=self.service.model)
            for b in boxes
        ]
        return Listing([Entry(supplier, transport=Letterbox.name) for supplier in suppliers], height=7)


@dataclass(frozen=True)
class Postman:
    """Letters of one run."""

    config: Config
    services: tuple[str, ...]

    @property
    def unread(self) -> Mapping[str, str]:
        """Something that is said beside the suppliers."""
        return {"post": "the post has not come"}

    def problem(self, endpoint: Endpoint) -> str | None:
        """A box that is nailed up."""
        return "its box is nailed up" if endpoint.address == "nailed" else None

    def open(self) -> Transport:
        """Start his round."""
        return Round()

    def quota(self, inner: Quota) -> Quota:
        """So many letters a service."""
        return FixedQuota(dict.fromkeys(self.services, MOST))

    def used_up(self, endpoint: Endpoint) -> int | None:
        """Never."""
        return None


class Round:
    """Puts a question into a box, and takes the answer from it."""

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send one letter."""
        exchange, box = Exchange(), Path(endpoint.prefix) / endpoint.address
        path, payload = build_payload(relay.request, endpoint.api, endpoint.model)
        (box / f"{relay.prompt_id[:8]}.question").write_text(json.dumps(payload), encoding="utf-8")
        exchange.status, exchange.body = 200, (box / "answer").read_bytes()
        answer = parse_answer(relay.request, endpoint.api, 200, exchange.body)
        return attempt_from(exchange, answer, {"path": path, "payload_sha256": "0" * 64})

    async def close(self) -> None:
        """Go home."""


@pytest.fixture
def letterboxes(monkeypatch: pytest.MonkeyPatch) -> Letterbox:
    """The transport, known for one test."""
    monkeypatch.setattr(registry, "_PLUGS", dict(registry._PLUGS))
    monkeypatch.setattr(services, "_RULES", dict(services._RULES))
    plug = Letterbox()
    registry.register(plug)
    return plug


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, letterboxes: Letterbox) -> Iterator[Workspace]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    for name in ("open", "shut", "nailed"):
        box = tmp_path / "boxes" / name
        box.mkdir(parents=True)
        (box / "answer").write_text(json.dumps(ANSWER), encoding="utf-8")
    with Workspace.open(configuration(tmp_path)) as opened, FrameworkWorker() as worker:
        opened.worker = worker
        yield opened


def configuration(folder: Path, **service: Any) -> Path:
    path = folder / "testbench.yaml"
    settings = {
        "services": {
            "post": {"transport": "letterbox", "model": "m", "prefix": f"{folder}/boxes", **service}
        },
        "tasks": [{"name": TASK, "samples": DOCS}],
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def probed(workspace: Workspace) -> dict[str, str]:
    found = asyncio.run(probe_suppliers(workspace, active_suppliers(workspace)))
    return {result.supplier.partition("@")[0]: result.detail for result in found}


def test_a_plug_is_found_planned_bounded_and_relayed_to(workspace: Workspace, tmp_path: Path) -> None:
    assert refresh_roster(workspace).joined == ["nailed@post", "open@post", "shut@post"]
    suppliers = active_suppliers(workspace)
    assert {(s.transport, s.service) for s in suppliers} == {("letterbox", "post")}
    assert waiting_suppliers(workspace, suppliers) == {"shut@post": "its box is shut"}
    for spec in workspace.specs:
        refresh_dataset(workspace, spec)
        refresh_prompts(workspace, spec)

    report = relay_due(workspace, [supplier.key for supplier in suppliers])

    assert report.problems == {
        "nailed@post": "its box is nailed up",
        "service:post": "its sessions could not be read: the post has not come",
    }
    attempts = list(workspace.documents.find(ATTEMPTS))
    assert {(a["supplier"], a["fault"]) for a in attempts} == {("open@post", "ok")}
    assert {json.loads(a["body"])["choices"][0]["message"]["content"] for a in attempts} == {"42"}
    assert len(attempts) == MOST, "its own quota holds"
    assert len(list((tmp_path / "boxes" / "open").glob("*.question"))) == MOST
    assert {a["height"] for a in attempts} == {7}, "its source told the height"


def test_a_plug_is_checked(workspace: Workspace) -> None:
    refresh_roster(workspace)
    assert list(registry.check_service(workspace.config, "post")) == [Finding("service post", "3 boxes")]
    found = probed(workspace)
    assert found["nailed"] == "its box is nailed up"
    assert found["open"].startswith("chat at http://box answers in ")


def test_its_rules_hold_for_the_configuration(tmp_path: Path, letterboxes: Letterbox) -> None:
    with pytest.raises(ConfigError, match=r"services\.post: letterbox needs prefix"):
        load_config(configuration(tmp_path, prefix=""))
    with pytest.raises(ConfigError, match="input should be 'shannon', 'path', 'direct' or 'letterbox'"):
        load_config(configuration(tmp_path, transport="pigeon"))


def test_a_name_is_taken_once(letterboxes: Letterbox) -> None:
    with pytest.raises(ValueError, match="there is a transport 'letterbox' already"):
        registry.register(Letterbox())
    with pytest.raises(ConfigError, match="there is no transport 'pigeon', but direct, path, shannon"):
        registry.transport("pigeon")


def test_without_the_plug_the_configuration_knows_no_such_transport(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="input should be 'shannon', 'path' or 'direct'"):
        load_config(configuration(tmp_path))
