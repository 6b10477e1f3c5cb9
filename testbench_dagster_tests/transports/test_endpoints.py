"""How a supplier of the roster is reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbench_dagster.config import Config, Settings, SupplierConfig, load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import configured_supplier
from testbench_dagster.transports.registry import check_service, supplier_endpoint

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


def configured(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "testbench.yaml"
    path.write_text(f"tasks: [{{name: t}}]\n{text}", encoding="utf-8")
    return load_config(path)


AZURE = """
services:
  azure:
    transport: direct
    generation: {budget: 5}
    headers: {X-Org: ORG}
    query: {api-version: 2024-10-21}
    query_env: {sig: SIG}
    key_header: api-key
    proxy_env: PROXY
    relays: {total_s: 77}
suppliers:
  - {address: a, service: azure, base_url: 'https://a/v1', model: m, api_key_env: TB_KEY}
"""


def of_source(config: Config, *, trusted: bool) -> Supplier:
    return Supplier("b", "azure", "https://b/v1", "chat", "m", source="r.json", trusted=trusted)


def test_settings_of_a_service_reach_its_endpoints_and_no_text_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path, AZURE)
    own = config.settings.suppliers[0]
    shown = configured_supplier(own, None, config.settings.shared_bounds("azure"))
    held = {
        "ORG": "org-s3cret",
        "SIG": "sig-s3cret",
        "PROXY": "http://me:pw-s3cret@p:3128",
        "TB_KEY": "k-s3cret",
    }
    for name, value in held.items():
        with pytest.raises(ConfigError, match=r"which is not set; export it"):
            supplier_endpoint(config, shown)
        monkeypatch.setenv(name, value)
    target = supplier_endpoint(config, shown)
    assert target.headers == {"X-Org": "org-s3cret", "api-key": "k-s3cret"}
    assert target.route.query == (("api-version", "2024-10-21"),)
    assert target.route.secret_query == (("sig", "sig-s3cret"),)
    assert target.route.proxy == "http://me:pw-s3cret@p:3128"
    assert target.generation == SupplierGeneration(budget=5)
    assert target.limits.total_s == 77
    assert "s3cret" not in repr(target)
    monkeypatch.setenv("PROXY", "socks5://pw-s3cret:1")
    with pytest.raises(ConfigError, match="PROXY, which holds no URL of an HTTP proxy") as caught:
        supplier_endpoint(config, shown)
    assert "s3cret" not in str(caught.value)


def test_a_source_that_is_not_trusted_is_given_no_secrets_of_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(tmp_path, AZURE)
    for name in ("ORG", "SIG"):
        monkeypatch.setenv(name, "s3cret-value")
    monkeypatch.setenv("PROXY", "http://p:1")
    with pytest.raises(ConfigError, match=r"r\.json lists it, and is not trusted with headers and query_env"):
        supplier_endpoint(config, of_source(config, trusted=False))
    trusted = supplier_endpoint(config, of_source(config, trusted=True))
    assert trusted.headers == {"X-Org": "s3cret-value"} and trusted.generation.budget == 5
    plain = configured(tmp_path, "services: {azure: {transport: direct, generation: {seed: omit}}}")
    assert supplier_endpoint(plain, of_source(plain, trusted=False)).generation.seed == "omit"


def test_a_service_that_nobody_is_of_is_told(tmp_path: Path) -> None:
    text = "services: {azure: {transport: direct, generation: {seed: omit}}}\n"
    (finding,) = check_service(configured(tmp_path, text), "azure")
    assert finding.warning and "no supplier is of it" in finding.detail
    assert list(check_service(configured(tmp_path, AZURE), "azure")) == []
    listed = configured(tmp_path, f"{text}supplier_sources: [{{file: r.json}}]")
    assert list(check_service(listed, "azure")) == []


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    text = "suppliers: [{address: a, base_url: 'https://a', model: m, tls: {ca_file: none.pem}}]"
    config = configured(tmp_path, text)
    with pytest.raises(ConfigError, match=r"supplier a@external: tls\.ca_file: cannot read .*/none\.pem"):
        supplier_endpoint(config, configured_supplier(config.settings.suppliers[0]))
