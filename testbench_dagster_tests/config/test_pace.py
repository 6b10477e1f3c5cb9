"""The blocks `pace` of suppliers and services, and whose pace follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.config import Settings
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.transports.registry import supplier_endpoint
from testbench_dagster_tests.config.test_services import PATH, _own_home, loaded

__all__ = ["_own_home"]

URL = "http://127.0.0.1:9/v1"


def configured(folder: Path, *paces: dict[str, Any] | None) -> Any:
    suppliers = [
        {"address": f"s{n}", "base_url": URL, "model": "m", **({} if pace is None else {"pace": pace})}
        for n, pace in enumerate(paces)
    ]
    return loaded(folder, suppliers=suppliers)


def of(settings: Settings, address: str, service: str = "external", **fields: Any) -> Pace | None:
    return settings.pace_of(Supplier(address, service, URL, "chat", "m", **fields))


def test_each_supplier_has_its_own_pace(tmp_path: Path) -> None:
    bounds = {"requests_per_minute": 20, "tokens_per_minute": 40_000, "requests_per_day": 200}
    config = configured(tmp_path, bounds, {"requests_per_minute": 20}, None)
    assert of(config.settings, "s0") == Pace("supplier:s0@external", 20, 40_000, 200)
    assert of(config.settings, "s1") == Pace("supplier:s1@external", 20)
    assert of(config.settings, "s2") is None
    endpoint = supplier_endpoint(config, Supplier("s1", "external", URL, "chat", "m"))
    assert endpoint.pace == Pace("supplier:s1@external", 20)


def test_suppliers_with_one_account_share_a_pace(tmp_path: Path) -> None:
    shared = {"requests_per_day": 50, "account": "openrouter"}
    settings = configured(tmp_path, shared, shared).settings
    pace = Pace("account:openrouter", requests_per_day=50)
    assert of(settings, "s0") == of(settings, "s1") == pace


def test_a_service_has_one_pace_or_one_for_each(tmp_path: Path) -> None:
    together = {**PATH, "pace": {"requests_per_minute": 60}}
    each = {**PATH, "pace": {"requests_per_minute": 5, "per": "supplier"}}
    settings = loaded(tmp_path, together, each, PATH).settings
    found = [
        [of(settings, name, service, source=f"service:{service}", transport="path") for name in ("a", "b")]
        for service in ("text", "other", "third")
    ]
    assert found == [
        [Pace("service:text", 60), Pace("service:text", 60)],
        [Pace("supplier:a@other", 5), Pace("supplier:b@other", 5)],
        [None, None],
    ]
    assert of(settings, "a", "text", source="a roster") is None


def test_the_pace_of_a_source_is_that_of_each_of_its_suppliers_or_shared(tmp_path: Path) -> None:
    bounds = {"requests_per_minute": 20, "requests_per_day": 200}
    shared = {"requests_per_minute": 60, "account": "key"}
    config = loaded(
        tmp_path,
        suppliers=[
            {"address": "mine", "base_url": URL, "model": "m", "pace": shared},
            {"address": "alike", "base_url": URL, "model": "m"},
        ],
        supplier_sources=[
            {"file": "a.json", "pace": bounds},
            {"url": "https://b.example/roster", "name": "b", "pace": shared},
            {"file": "c.json"},
        ],
    )
    found = {
        label: [of(config.settings, name, source=label) for name in ("x", "alike")]
        for label in ("a.json", "b", "c.json")
    }
    assert found == {
        "a.json": [
            Pace("supplier:x@external", 20, requests_per_day=200),
            Pace("supplier:alike@external", 20, requests_per_day=200),
        ],
        "b": [Pace("account:key", 60), Pace("account:key", 60)],
        "c.json": [None, None],
    }
    assert of(config.settings, "mine") == Pace("account:key", 60)
    assert of(config.settings, "alike") is None, "the configuration wins over the source that lists it too"
    endpoint = supplier_endpoint(config, Supplier("x", "external", URL, "chat", "m", source="a.json"))
    assert endpoint.pace == Pace("supplier:x@external", 20, requests_per_day=200)


@pytest.mark.parametrize(
    ("pace", "told"),
    [
        ({}, r"supplier_sources\[0\].pace: bounds nothing; give requests_per_minute"),
        ({"requests_per_minute": 0}, r"supplier_sources\[0\].pace.requests_per_minute"),
        ({"requests_per_minute": 20, "per": "supplier"}, r"supplier_sources\[0\].pace.per"),
        (
            {"requests_per_minute": 21, "account": "key"},
            r"supplier_sources\[0\].pace: account 'key' is bound otherwise in suppliers\[0\]; who",
        ),
    ],
)
def test_what_is_wrong_with_the_pace_of_a_source_is_told(
    tmp_path: Path, pace: dict[str, Any], told: str
) -> None:
    shared = {"requests_per_minute": 20, "account": "key"}
    mine = {"address": "mine", "base_url": URL, "model": "m", "pace": shared}
    with pytest.raises(ConfigError, match=told):
        loaded(tmp_path, suppliers=[mine], supplier_sources=[{"file": "a.json", "pace": pace}])


def test_the_pace_of_a_service_that_lists_nobody_belongs_to_the_lists(tmp_path: Path) -> None:
    direct = {"transport": "direct", "pace": {"requests_per_minute": 20}}
    with pytest.raises(ConfigError, match="listed in suppliers and supplier_sources; give it there"):
        loaded(
            tmp_path, direct, suppliers=[{"address": "a", "base_url": URL, "model": "m", "service": "text"}]
        )


@pytest.mark.parametrize(
    ("paces", "told"),
    [
        ([{}], "pace: bounds nothing; give requests_per_minute"),
        ([{"requests_per_minute": 0}], "requests_per_minute"),
        ([{"requests_per_minute": 20, "account": "a b"}], "'a b' is no name of an account"),
        ([{"requests_per_minutes": 20}], "requests_per_minutes"),
        (
            [{"requests_per_day": 50, "account": "k"}, None, {"requests_per_day": 51, "account": "k"}],
            r"suppliers\[2\].pace: account 'k' is bound otherwise in suppliers\[0\]",
        ),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, paces: list[Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        configured(tmp_path, *paces)
