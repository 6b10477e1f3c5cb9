"""How a supplier of the roster is reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbench_dagster.config import Config, Settings, SupplierConfig
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import configured_supplier
from testbench_dagster.transports.registry import supplier_endpoint

CONFIG = Config(Settings.model_validate({"tasks": [{"name": "t"}]}), Path("t.yaml"), Path("."))


def supplier(*, trusted: bool = True, **changes: object) -> Supplier:
    plain = {"address": "a", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": "TB_KEY"}
    return replace(configured_supplier(SupplierConfig.model_validate({**plain, **changes})), trusted=trusted)


def test_limits_headers_and_trust_of_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_KEY", "sk-secret")
    target = supplier_endpoint(CONFIG, supplier(total_s=9))
    assert (target.supplier, target.service, target.api) == ("a@external", "external", "chat")
    assert (target.base_url, target.model) == ("http://127.0.0.1:9/v1", "m")
    assert (target.limits.total_s, target.limits.retries) == (9, 5)
    assert target.headers == {"Authorization": "Bearer sk-secret"}
    assert "sk-secret" not in repr(target)
    assert target.private_allowed
    assert not supplier_endpoint(CONFIG, supplier(trusted=False)).private_allowed
    assert supplier_endpoint(CONFIG, supplier(api_key_env=None)).headers == {}


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("TB_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TB_KEY", value)
    with pytest.raises(ConfigError, match="supplier a@external: api_key_env names TB_KEY, which is not set"):
        supplier_endpoint(CONFIG, supplier())


@pytest.mark.parametrize("value", ["sk-secret\n", "sk-sécret", "sk-other\r"])
def test_a_key_no_header_can_carry_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TB_KEY", value)
    with pytest.raises(ConfigError, match="TB_KEY holds a line break") as caught:
        supplier_endpoint(CONFIG, supplier())
    assert value.strip() not in str(caught.value)
