"""What of a configuration two machines must agree on: everything that is measured or counts, nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.config import Settings, load_config_text
from testbench_dagster.config.fingerprint import fingerprint, stated_settings

KEY = "sk-" + "a1B2c3D4" * 5


def raw() -> dict[str, Any]:
    """A configuration with something in most blocks."""
    return {
        "suppliers": [
            {
                "address": name,
                "base_url": f"http://{name}.example.org:8000/v1",
                "model": "m",
                "api_key_env": "KEY_OF_SUPPLIERS",
                "headers": {"X-Organization": "ORGANIZATION"},
                "pace": {"requests_per_minute": 60},
            }
            for name in ("one", "two")
        ],
        "supplier_sources": [{"url": "https://rosters.example.org/all.json", "token_env": "TOKEN"}],
        "services": {
            "pocket": {
                "transport": "path",
                "model": "m",
                "gateway": {"url": "https://gateway.example.org/v1", "token_env": "GATEWAY"},
                "nodes": {"rest": ["https://node.example.org:1317"]},
            }
        },
        "tasks": [
            {"name": "starter_logic", "samples": 40},
            {"name": "starter_units", "data": {"test": "units.jsonl"}, "where": {"kind": "mass"}},
        ],
        "sampling": {"window": 200},
        "budget": {"relays_per_day": 10_000},
        "planning": {"retry_minutes": 7},
        "relays": {"total_s": 90},
    }


def stated(content: dict[str, Any]) -> dict[str, str]:
    """What a configuration with this content states."""
    return stated_settings(Settings.model_validate(content))


def of_file(text: str) -> dict[str, str]:
    """What a file with this text states."""
    return stated_settings(load_config_text(text, Path("/somewhere/testbench.yaml")).settings)


def shuffled(value: Any, order: random.Random) -> Any:
    """The same with the keys of all mappings in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, order)) for key, item in value.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), comment=st.text(st.characters(codec="ascii", categories=["L", "N", "Zs"])))
def test_order_of_keys_and_comments_make_no_difference(seed: int, comment: str) -> None:
    text = yaml.safe_dump(shuffled(raw(), random.Random(seed)), sort_keys=False)
    assert fingerprint(of_file(f"# {comment}\n{text}\n# {comment}")) == fingerprint(stated(raw()))


def at(content: dict[str, Any], *where: str | int) -> Any:
    """The block at a place."""
    found: Any = content
    for key in where:
        found = found[key]
    return found


OWN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "the variable of a key": lambda c: at(c, "suppliers", 0).update(api_key_env="ANOTHER"),
    "the variable of a header": lambda c: at(c, "suppliers", 0, "headers").update(
        {"X-Organization": "OTHER"}
    ),
    "a proxy": lambda c: at(c, "suppliers", 0).update(proxy="http://127.0.0.1:3128"),
    "an authority": lambda c: at(c, "suppliers", 0).update(tls={"ca_file": "/etc/own.pem"}),
    "the token of a source": lambda c: at(c, "supplier_sources", 0).update(token_env="ANOTHER"),
    "the token of a gateway": lambda c: at(c, "services", "pocket", "gateway").update(token_env="ANOTHER"),
    "the nodes": lambda c: at(c, "services", "pocket", "nodes").update(rest=["http://127.0.0.1:1317"]),
    "when sensors look": lambda c: c.update(automation={"stale_scores": {"every_s": 5}}),
    "the webhook": lambda c: c.update(automation={"alert_webhook_env": "HOOK"}),
    "the board": lambda c: c.update(board={"url": "https://board.example.org"}),
    "where data lies": lambda c: at(c, "tasks", 1).update(data={"test": "/data/units.jsonl"}),
    "where tasks lie": lambda c: c.update(task_paths=["/data/tasks"]),
    "a default spelled out": lambda c: c.update(roster={"grace_hours": 72}),
    "the order of suppliers": lambda c: c["suppliers"].reverse(),
}


@pytest.mark.parametrize("what", OWN)
def test_what_each_machine_has_of_its_own_makes_no_difference(what: str) -> None:
    content = raw()
    OWN[what](content)
    assert content != raw()
    assert stated(content) == stated(raw())


MEANT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "samples": (lambda c: at(c, "tasks", 0).update(samples=41), "tasks.starter_logic.samples.max"),
    "whom a task asks": (
        lambda c: at(c, "tasks", 0).update(suppliers=["one@*"]),
        "tasks.starter_logic.suppliers",
    ),
    "rows of a task": (
        lambda c: at(c, "tasks", 1).update(where={"kind": "time"}),
        "tasks.starter_units.where",
    ),
    "a metric": (lambda c: at(c, "tasks", 0).update(metric="exact_match"), "tasks.starter_logic.metric"),
    "what requests carry": (
        lambda c: at(c, "tasks", 0).update(generation={"max_tokens": 77}),
        "tasks.starter_logic.generation.max_tokens",
    ),
    "the order of tasks": (lambda c: c["tasks"].reverse(), "tasks"),
    "a model": (lambda c: at(c, "suppliers", 0).update(model="n"), "suppliers.one@external.model"),
    "an address": (
        lambda c: at(c, "suppliers", 0).update(base_url="http://one.example.org:8001/v1"),
        "suppliers.one@external.base_url",
    ),
    "a header": (
        lambda c: at(c, "suppliers", 0, "headers").update({"X-Project": "PROJECT"}),
        "suppliers.one@external.headers",
    ),
    "a pace": (
        lambda c: at(c, "suppliers", 0, "pace").update(requests_per_minute=61),
        "suppliers.one@external.pace.requests_per_minute",
    ),
    "a supplier": (lambda c: c["suppliers"].pop(), "suppliers.two@external.model"),
    "a source": (
        lambda c: at(c, "supplier_sources", 0).update(url="https://rosters.example.org/some.json"),
        "supplier_sources.https://rosters.example.org/some.json",
    ),
    "a gateway": (
        lambda c: at(c, "services", "pocket", "gateway").update(url="https://other.example.org/v1"),
        "services.pocket.gateway.url",
    ),
    "a service": (
        lambda c: c["services"].update(direct={"transport": "direct"}),
        "services.direct",
    ),
    "the window": (lambda c: c["sampling"].update(window=201), "sampling.window"),
    "the seed": (lambda c: c["sampling"].update(epoch_seed=5), "sampling.epoch_seed"),
    "a budget": (lambda c: c["budget"].update(relays_per_day=10_001), "budget.relays_per_day"),
    "planning": (lambda c: c["planning"].update(retry_minutes=8), "planning.retry_minutes"),
    "a deadline": (lambda c: c["relays"].update(total_s=91), "relays.total_s"),
    "a deadline that follows no more": (lambda c: c["relays"].update(idle_s=30), "relays.idle_s"),
    "identity": (lambda c: c.update(identity={"cut_on": []}), "identity.cut_on"),
    "retention": (lambda c: c.update(retention={"evidence_days": 400}), "retention.evidence_days"),
    "a taxonomy": (lambda c: c.update(taxonomies=["builtin:starter"]), "taxonomies.builtin:starter"),
    "probes": (lambda c: c.update(service_probes={"enabled": True}), "service_probes.enabled"),
    "choices on chat": (lambda c: c.update(choices_on_chat=True), "choices_on_chat"),
    "a schedule": (
        lambda c: c.update(schedules=[{"name": "weekly", "suppliers": ["*"], "cron": "0 3 * * 1"}]),
        "schedules[0].name",
    ),
}


@pytest.mark.parametrize("what", MEANT)
def test_what_is_measured_and_how_it_counts_makes_a_difference(what: str) -> None:
    change, key = MEANT[what]
    content, before = raw(), stated(raw())
    change(content)
    after = stated(content)
    assert fingerprint(after) != fingerprint(before)
    assert after.get(key) != before.get(key)


def test_no_secret_and_no_name_of_one_is_stated() -> None:
    content = raw()
    at(content, "supplier_sources", 0)["url"] += f"?token={KEY}"
    told = str(stated(content))
    assert KEY not in told
    for name in ("KEY_OF_SUPPLIERS", "ORGANIZATION", "TOKEN", "GATEWAY"):
        assert name not in told
    with_another_key = raw()
    at(with_another_key, "supplier_sources", 0)["url"] += "?token=other"
    assert stated(with_another_key) != stated(content), "another roster"


def test_what_is_stated_stays_small_whatever_is_configured() -> None:
    content = raw()
    one = at(content, "suppliers", 0)
    content["suppliers"] = [{**one, "address": f"s{i}"} for i in range(1_000)]
    before = stated(content)
    assert len(before) < 200 and before["suppliers"].startswith("1000, ")
    at(content, "suppliers", 999)["model"] = "another"
    assert stated(content) != before
    content = raw()
    content["services"] = {
        f"s{i}": {"transport": "direct", "generation": {"budget": i, "effort": "low"}} for i in range(800)
    }
    before = stated(content)
    assert len(before) <= 2_000
    at(content, "services", "s7", "generation")["budget"] = 1
    after = stated(content)
    assert [key for key in after if after[key] != before[key]] == ["services.s7"]
