"""The block `services` of `testbench.yaml`: what may be written, and messages that never show a key."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import Config, ServiceConfig, load_config
from testbench_dagster.config.asking import AskingSettings
from testbench_dagster.core.bech32 import encode
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import Limits

APP, OTHER, GATEWAY, SUPPLIER = (encode("pokt", bytes([n]) * 20) for n in (1, 2, 3, 4))
KEY = "2d00ef07" * 8
NODES = {"rest": ["https://node.example:1317"]}
SHANNON: dict[str, Any] = {
    "transport": "shannon",
    "model": "m",
    "nodes": NODES,
    "apps": [{"address": APP, "key_env": "APP_KEY"}],
}
PATH: dict[str, Any] = {"transport": "path", "model": "m", "gateway": {"url": "https://gw.example/v1/"}}


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_CONFIG", "TESTBENCH_HOME"):
        monkeypatch.delenv(name, raising=False)


def loaded(folder: Path, *services: dict[str, Any], **blocks: Any) -> Config:
    names = ("text", "other", "third")
    settings = {
        "tasks": [{"name": "starter_logic"}],
        "services": dict(zip(names, services, strict=False)),
        **blocks,
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return load_config(path)


def service(folder: Path, base: dict[str, Any] = SHANNON, /, **changes: Any) -> ServiceConfig:
    block = {k: v for k, v in {**base, **changes}.items() if v is not None}
    return loaded(folder, block).settings.services["text"]


def message(folder: Path, *services: dict[str, Any], **blocks: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, *services, **blocks)
    return str(caught.value)


def test_every_key_is_read(tmp_path: Path) -> None:
    text = f"""
tasks: [{{name: starter_logic}}]
services:
  text-generation:
    transport: shannon
    model: llama-3.1-8b
    api: completions
    nodes: {{rest: ['https://a.example:1317/'], rpc: ['http://b.example:26657'], timeout_s: 5, poll_s: 3}}
    apps:
      - {{address: {APP}, key_env: APP_KEY}}
      - {{address: {OTHER}, gateway: {GATEWAY}, key_file: keys/gateway.hex}}
    ring: self
    discover: staked
    only: [{SUPPLIER}]
    prefix: /openai/v1/
    rpc_types: [json_rpc, rest]
    stream: true
    allow_private_networks: true
    max_relays_per_session: 40
    relays: {{total_s: 600, max_in_flight: 8, max_per_host: 4}}
    pace: {{requests_per_minute: 30, per: supplier}}
  through-gateway:
    transport: path
    model: m
    gateway: {{url: 'https://gw/v1', token_env: GW_TOKEN, app_address: {SUPPLIER}, rpc_type: rest}}
"""
    path = tmp_path / "testbench.yaml"
    path.write_text(text, encoding="utf-8")
    services = load_config(path).settings.services
    native = services["text-generation"]
    shared = AskingSettings.model_fields
    assert native.model_dump(exclude=set(shared)) == {
        "transport": "shannon",
        "model": "llama-3.1-8b",
        "api": "completions",
        "nodes": {
            "rest": ["https://a.example:1317"],
            "rpc": ["http://b.example:26657"],
            "timeout_s": 5,
            "poll_s": 3,
        },
        "apps": [
            {"address": APP, "gateway": None, "key_env": "APP_KEY", "key_file": None},
            {"address": OTHER, "gateway": GATEWAY, "key_env": None, "key_file": "keys/gateway.hex"},
        ],
        "ring": "self",
        "discover": "staked",
        "gateway": None,
        "only": [SUPPLIER],
        "prefix": "/openai/v1",
        "rpc_types": ["json_rpc", "rest"],
        "stream": True,
        "allow_private_networks": True,
        "max_relays_per_session": 40,
        "relays": native.relays.model_dump(),
        "pace": {
            "requests_per_minute": 30,
            "tokens_per_minute": None,
            "requests_per_day": None,
            "per": "supplier",
        },
    }
    assert [app.signer for app in native.apps] == [APP, GATEWAY]
    assert native.session_apps == (APP, OTHER)
    assert replace(Limits(), **native.relays.overrides()) == Limits(
        total_s=600, max_in_flight=8, max_per_host=4
    )
    gateway = services["through-gateway"].gateway
    assert gateway is not None
    assert (gateway.url, gateway.token_env, gateway.app_address, gateway.rpc_type) == (
        "https://gw/v1", "GW_TOKEN", SUPPLIER, "rest",
    )  # fmt: skip


def test_defaults(tmp_path: Path) -> None:
    found = service(tmp_path)
    assert (found.api, found.ring, found.prefix, found.stream) == ("chat", "full", "/v1", False)
    assert (found.rpc_types, found.only, found.discover) == (["rest", "json_rpc"], None, None)
    assert (found.allow_private_networks, found.max_relays_per_session) == (False, None)
    assert found.nodes is not None and (found.nodes.timeout_s, found.nodes.poll_s) == (10, 10)
    assert found.relays.overrides() == {}
    assert loaded(tmp_path).settings.services == {}


@pytest.mark.parametrize(
    ("block", "discovery", "apps"),
    [
        (SHANNON, "sessions", (APP,)),
        ({**SHANNON, "discover": "staked"}, "staked", (APP,)),
        (PATH, "ready", ()),
        ({**PATH, "nodes": NODES}, "staked", ()),
        ({**PATH, "nodes": NODES, "discover": "ready"}, "ready", ()),
        ({**PATH, "nodes": NODES, "apps": [{"address": OTHER}]}, "sessions", (OTHER,)),
        ({**PATH, "nodes": NODES, "gateway": {"url": "http://g", "app_address": APP}}, "sessions", (APP,)),
    ],
)
def test_where_suppliers_come_from_follows_from_what_is_configured(
    tmp_path: Path, block: dict[str, Any], discovery: str, apps: tuple[str, ...]
) -> None:
    found = service(tmp_path, block)
    assert (found.discovery, found.session_apps) == (discovery, apps)


def app(**changes: Any) -> dict[str, Any]:
    given = {"address": APP, "key_env": "APP_KEY", **changes}
    return {"apps": [{k: v for k, v in given.items() if v is not None}]}


def nodes(**changes: Any) -> dict[str, Any]:
    return {"nodes": {**NODES, **changes}}


BROKEN_CHECKSUM = APP[:-1] + ("q" if APP[-1] != "q" else "p")
BAD: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    # the valid block, what is changed in it, what the message must name: key, value, remedy
    (
        SHANNON,
        {"transport": "morse"},
        ["services.text.transport", "'shannon', 'path' or 'direct'", "'morse'"],
    ),
    (SHANNON, {"transport": "direct"}, ["services.text:", "means nothing to transport direct", "remove it"]),
    (SHANNON, {"model": None}, ["services.text.model", "required but missing", "add it"]),
    (SHANNON, {"model": ""}, ["services.text.model", "required but missing"]),
    (SHANNON, {"api": "chats"}, ["services.text.api", "'chat' or 'completions'", "'chats'"]),
    (SHANNON, {"node": NODES}, ["services.text.node", "unknown key 'node' in services.text", "spelling"]),
    (SHANNON, {"nodes": None}, ["services.text:", "transport shannon needs nodes", "add nodes"]),
    (SHANNON, {"nodes": {}}, ["services.text.nodes", "names no node", "give rest or rpc"]),
    (SHANNON, {"nodes": {"grpc": ["x"]}}, ["services.text.nodes.grpc", "unknown key 'grpc'"]),
    (SHANNON, nodes(rest=["node:1317"]), ["services.text.nodes.rest[0]", "'node:1317'", "https://host:port"]),
    (SHANNON, nodes(rpc=["ws://n"]), ["services.text.nodes.rpc[0]", "'ws://n'", "https://host:port"]),
    (SHANNON, nodes(rest=["https://u:hush@n"]), ["services.text.nodes.rest[0]", "credentials", "wants none"]),
    (SHANNON, nodes(rest=["http://a", "http://a/"]), ["services.text.nodes", "rest[1]", "twice", "remove"]),
    (SHANNON, nodes(timeout_s=0), ["services.text.nodes.timeout_s", "(it is 0)", "greater than 0"]),
    (SHANNON, nodes(poll_s=601), ["services.text.nodes.poll_s", "(it is 601)", "less than or equal to 600"]),
    (SHANNON, {"apps": None}, ["services.text:", "transport shannon needs apps", "add apps"]),
    (SHANNON, app(address="pokt1abc"), ["services.text.apps[0].address", "'pokt1abc'", "copy it again"]),
    (SHANNON, app(address=BROKEN_CHECKSUM), ["services.text.apps[0].address", BROKEN_CHECKSUM, "checksum"]),
    (SHANNON, app(address=APP.upper()), ["services.text.apps[0].address", APP.upper(), "copy it again"]),
    (SHANNON, app(address=encode("cosmos", bytes(20))), ["services.text.apps[0].address", "'cosmos1"]),
    (SHANNON, app(address=None), ["services.text.apps[0].address", "required but missing"]),
    (SHANNON, app(key_env=None), ["services.text:", "apps[0]", "no key", "key_env or key_file"]),
    (SHANNON, app(key_file="f"), ["services.text:", "apps[0]", "both key_env and key_file"]),
    (SHANNON, app(key_env=KEY), ["services.text.apps[0].key_env", "is a key itself", "name the variable"]),
    (SHANNON, app(key_env=f"0x{KEY}"), ["services.text.apps[0].key_env", "is a key itself"]),
    (SHANNON, app(key_env=int(KEY, 16)), ["services.text.apps[0].key_env", "is a number", "in quotes"]),
    (SHANNON, app(key_file=int(KEY, 16)), ["services.text.apps[0].key_file", "is a number", "in quotes"]),
    (SHANNON, app(address=int(KEY, 16)), ["services.text.apps[0].address", "is a number", "in quotes"]),
    (SHANNON, app(address=KEY), ["services.text.apps[0].address", "is a private key", "never written"]),
    (SHANNON, app(key_env="my key"), ["services.text.apps[0].key_env", "no name of an environment variable"]),
    (SHANNON, app(key_env=None, key_file=KEY), ["services.text.apps[0].key_file", "is a key itself"]),
    (SHANNON, app(key_env=None, key_file=" "), ["services.text.apps[0].key_file", "empty", "name the file"]),
    (SHANNON, app(key=KEY), ["services.text.apps[0].key", "unknown key", "key_env or key_file"]),
    (SHANNON, app(private_key=KEY), ["services.text.apps[0].private_key", "unknown key", "key_env"]),
    (SHANNON, app(gateway="gw"), ["services.text.apps[0].gateway", "'gw'", "copy it again"]),
    (SHANNON, app(gateway=APP), ["services.text.apps[0]", "application itself", "leave gateway out"]),
    (SHANNON, {"ring": "small"}, ["services.text.ring", "'full' or 'self'", "'small'"]),
    (SHANNON, {"discover": "all"}, ["services.text.discover", "'sessions', 'staked' or 'ready'", "'all'"]),
    (SHANNON, {"discover": "ready"}, ["services.text:", "discover: ready", "use sessions or staked"]),
    (SHANNON, {"gateway": PATH["gateway"]}, ["services.text:", "gateway is for transport path", "apps"]),
    (SHANNON, {"only": []}, ["services.text:", "only is empty", "name at least one"]),
    (SHANNON, {"only": ["x"]}, ["services.text.only[0]", "'x'", "copy it again"]),
    (SHANNON, {"only": [APP, APP]}, ["services.text:", "only[1]", "twice", "remove one"]),
    (SHANNON, {"rpc_types": []}, ["services.text:", "rpc_types is empty"]),
    (SHANNON, {"rpc_types": ["grpc"]}, ["services.text.rpc_types[0]", "'rest', 'json_rpc'", "'grpc'"]),
    (SHANNON, {"rpc_types": ["rest", "rest"]}, ["services.text:", "rpc_types[1]", "'rest'", "twice"]),
    (SHANNON, {"prefix": "v1"}, ["services.text.prefix", "'v1'", "write it like /v1"]),
    (SHANNON, {"prefix": "/v1?x=1"}, ["services.text.prefix", "'/v1?x=1'", "write it like /v1"]),
    (SHANNON, {"prefix": "/../admin"}, ["services.text.prefix", "'/../admin'", "without"]),
    (SHANNON, {"max_relays_per_session": 0}, ["services.text.max_relays_per_session", "(it is 0)"]),
    (SHANNON, {"relays": {"timeout": 3}}, ["services.text.relays.timeout", "total_s"]),
    (PATH, {"gateway": None}, ["services.text:", "transport path needs gateway", "add gateway"]),
    (PATH, {"gateway": {"url": "gw"}}, ["services.text.gateway.url", "'gw'", "https://host/v1"]),
    (
        PATH,
        {"gateway": {"url": "http://u:hush@g"}},
        ["services.text.gateway.url", "credentials", "token_env"],
    ),
    (PATH, {"gateway": {**PATH["gateway"], "token_env": "a b"}}, ["services.text.gateway.token_env"]),
    (
        PATH,
        {"gateway": {**PATH["gateway"], "rpc_type": "grpc"}},
        ["services.text.gateway.rpc_type", "'grpc'"],
    ),
    (PATH, {"ring": "self"}, ["services.text:", "ring means nothing to transport path", "remove it"]),
    (PATH, {"stream": True}, ["services.text:", "stream means nothing", "buffer", "remove it"]),
    (PATH, {"discover": "staked"}, ["services.text:", "discover: staked reads the chain", "add nodes"]),
    (PATH, {"apps": [{"address": APP}]}, ["services.text:", "apps are read from the chain", "add nodes"]),
    (
        PATH,
        {"nodes": NODES, **app()},
        ["services.text:", "apps[0]", "path needs no key", "leave only address"],
    ),
    (
        PATH,
        {"nodes": NODES, "discover": "sessions"},
        ["services.text:", "discover: sessions needs apps", "discover: staked"],
    ),
]


@pytest.mark.parametrize(
    ("base", "changes", "named"), BAD, ids=[f"{b['transport']}-{c!r}"[:70] for b, c, _ in BAD]
)
def test_a_message_names_file_key_value_and_remedy(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], named: list[str]
) -> None:
    block = {k: v for k, v in copy.deepcopy({**base, **changes}).items() if v is not None}
    text = message(tmp_path, block)
    for part in [str(tmp_path / "testbench.yaml"), *named]:
        assert part in text
    assert len(text.splitlines()) == 1, "one mistake, one message"
    for noise in (KEY, str(int(KEY, 16)), "hush", "literal[", "pydantic"):
        assert noise not in text


@pytest.mark.parametrize("name", ["a b", "x" * 43, "a.b", "", "tëxt"])
def test_an_id_no_service_can_have_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{"name": "t"}], "services": {name: SHANNON}}), "utf-8")
    with pytest.raises(ConfigError, match="is no id of a service; use 1 to 42 letters"):
        load_config(path)


def test_two_services_cannot_share_an_application(tmp_path: Path) -> None:
    text = message(tmp_path, SHANNON, {**SHANNON, "apps": [{"address": APP, "key_env": "SECOND"}]})
    assert "services.other.apps[0]" in text and f"{APP} is named by services.text.apps[0] already" in text
    gateway = {**PATH, "gateway": {"url": "http://g", "app_address": APP}}
    assert "services.other.gateway" in message(tmp_path, SHANNON, gateway)
    twice = {**SHANNON, "apps": [*SHANNON["apps"], {"address": APP, "key_env": "SECOND"}]}
    assert "services.text.apps[1]" in message(tmp_path, twice)
    other = {**SHANNON, "apps": [{"address": OTHER, "key_env": "SECOND"}]}
    assert list(loaded(tmp_path, SHANNON, other).settings.services) == ["text", "other"]


def test_schedules_may_count_blocks_where_a_service_has_nodes(tmp_path: Path) -> None:
    planning = {"schedule": {"every": 2, "unit": "session"}}
    assert loaded(tmp_path, SHANNON, planning=planning).settings.planning.schedule is not None
    assert loaded(tmp_path, PATH, SHANNON, planning=planning)
    for services in ((), (PATH,)):
        text = message(tmp_path, *services, planning=planning)
        assert "schedule counts sessions, but nothing tells a block height" in text
        assert "add a service with nodes" in text


def test_sources_cannot_take_the_name_of_a_service(tmp_path: Path) -> None:
    text = message(tmp_path, SHANNON, supplier_sources=[{"file": "r.json", "name": "service:text"}])
    assert "supplier_sources[0]: 'service:text' names another source already" in text


def test_the_service_behind_a_source(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SHANNON).settings
    assert settings.service_of("service:text") is settings.services["text"]
    assert settings.service_of("service:gone") is None
    assert settings.service_of("text") is None
    assert settings.discovers and not loaded(tmp_path).settings.discovers
