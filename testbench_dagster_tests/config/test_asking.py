"""How suppliers are asked, as configured: what is inherited, what is refused, and that no key is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import Config, load_config
from testbench_dagster.config.asking import Asking, Connection
from testbench_dagster.config.fields import looks_like_key
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration

KEY = "sk-live-0123456789abcdefABCDEF"
AZURE = "0f" * 16


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_CONFIG", "TESTBENCH_HOME"):
        monkeypatch.delenv(name, raising=False)


def loaded(folder: Path, text: str) -> Config:
    path = folder / "testbench.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def of_supplier(folder: Path, **keys: Any) -> Config:
    supplier = {"address": "a", "base_url": "http://h/v1", "model": "m", **keys}
    return loaded(folder, yaml.safe_dump({"suppliers": [supplier], "tasks": [{"name": "t"}]}))


def asked(config: Config, key: str = "a@external") -> Asking:
    own = config.supplier(key)
    assert own is not None
    return config.settings.asking(own.service, "direct", own)


def test_a_supplier_without_settings_is_asked_as_the_task_says(tmp_path: Path) -> None:
    found = asked(of_supplier(tmp_path))
    assert found == Asking() and found.generation is AS_THE_TASK_SAYS


def test_every_key_is_read_and_inherited_setting_by_setting(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
tasks: [{name: t}]
services:
  azure:
    transport: direct
    generation:
      {token_field: max_completion_tokens, budget: 16384, temperature: omit, seed: omit, stop: client}
    headers: {X-Org: ORG, X-Team: TEAM}
    query: {api-version: 2024-10-21, preview: true, n: 3}
    query_env: {sig: SIG}
    key_header: api-key
    proxy_env: PROXY_URL
    tls: {ca_file: ca.pem}
    context_tokens: 128000
    relays: {total_s: 900}
suppliers:
  - {address: a, service: azure, base_url: https://a/v1, model: m, api_key_env: AZURE_KEY}
  - {address: c, service: azure, base_url: https://c/v1, model: m, context_tokens: 4096}
  - address: b
    service: azure
    base_url: https://b/v1
    model: m
    generation: {budget: 0, effort: low, temperature: .6, seed: null, stop: 4, extra_body: {top_k: 1}}
    headers: {x-org: OTHER, X-Team: null}
    query: {preview: null, sig: plain}
    key_header: null
    proxy: http://proxy:3128
    tls: null
    context_tokens: null
    total_s: 5
""",
    )
    assert asked(config, "a@azure") == Asking(
        SupplierGeneration("max_completion_tokens", 16384, None, "omit", "omit", "client"),
        {"X-Org": "ORG", "X-Team": "TEAM"},
        {"api-version": "2024-10-21", "preview": "true", "n": "3"},
        {"sig": "SIG"},
        "api-key",
        Connection(proxy_env="PROXY_URL", ca_file="ca.pem"),
        128_000,
    )
    assert asked(config, "c@azure").context_tokens == 4_096
    assert asked(config, "b@azure") == Asking(
        SupplierGeneration("max_completion_tokens", 0, "low", 0.6, None, 4, {"top_k": 1}),
        {"x-org": "OTHER"},
        {"api-version": "2024-10-21", "n": "3", "sig": "plain"},
        {},
        None,
        Connection(proxy="http://proxy:3128"),
    )
    assert config.settings.secret_variables >= {"ORG", "TEAM", "OTHER", "SIG", "PROXY_URL", "AZURE_KEY"}
    assert config.settings.shared_bounds("azure") == {"total_s": 900}
    assert not config.settings.discovers


def test_of_a_service_that_is_reached_otherwise_not_the_way_is_inherited(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
tasks: [{name: t}]
services:
  text:
    transport: path
    model: m
    gateway: {url: 'https://gw/v1'}
    generation: {budget: 7}
    context_tokens: 8192
    headers: {X-Gateway: TOKEN}
suppliers: [{address: a, service: text, base_url: https://a/v1, model: m}]
""",
    )
    assert asked(config, "a@text") == Asking(SupplierGeneration(budget=7), context_tokens=8_192)
    assert config.settings.asking("text", "path").headers == {"X-Gateway": "TOKEN"}


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"generation": {"token_field": "limit"}}, ["generation.token_field", "max_completion_tokens"]),
        ({"generation": {"budget": -1}}, ["generation.budget", "(it is -1)"]),
        ({"generation": {"budget": 10**7}}, ["generation.budget", "1000000"]),
        ({"context_tokens": 100}, ["context_tokens", "256"]),
        ({"context_tokens": 10**12}, ["context_tokens", "100000000"]),
        ({"generation": {"effort": "Very High"}}, ["generation.effort", "one word"]),
        ({"generation": {"temperature": "warm"}}, ["generation.temperature", "'warm'", "omit"]),
        ({"generation": {"temperature": 11}}, ["generation.temperature", "0 to 10"]),
        ({"generation": {"temperature": True}}, ["generation.temperature", "True"]),
        ({"generation": {"temperature": float("nan")}}, ["generation.temperature", "nan"]),
        ({"generation": {"seed": 1.5}}, ["generation.seed", "1.5", "omit"]),
        ({"generation": {"seed": 2**63}}, ["generation.seed", "64 bits"]),
        ({"generation": {"stop": "server"}}, ["generation.stop", "'server'", "client"]),
        ({"generation": {"stop": -1}}, ["generation.stop", "'-1'"]),
        ({"generation": {"max_tokens": 3}}, ["generation.max_tokens", "unknown key"]),
        ({"generation": {"extra_body": {"model": "x"}}}, ["generation.extra_body", "may not hold model"]),
        ({"generation": {"extra_body": {"stream": 1, "prompt": 2}}}, ["may not hold prompt, stream"]),
        ({"generation": {"extra_body": {"a": KEY}}}, ["generation.extra_body", "looks like a key"]),
        ({"generation": {"extra_body": {"a": [float("inf")]}}}, ["generation.extra_body", "number"]),
        ({"generation": {"extra_body": {"a": "x" * 70_000}}}, ["generation.extra_body", "65536 bytes"]),
        ({"generation": {"extra_body": [1]}}, ["generation.extra_body", "mapping"]),
        ({"headers": {"Host": "X"}}, ["headers", "Host is set by what sends"]),
        ({"headers": {"content-length": "X"}}, ["headers", "cannot be configured"]),
        ({"headers": {"Transfer-Encoding": "X"}}, ["headers", "cannot be configured"]),
        ({"headers": {"X Y": "X"}}, ["headers", "no name of a header"]),
        ({"headers": {"X-A\r\nHost": "X"}}, ["headers", "no name of a header"]),
        ({"headers": {"api-key": KEY}}, ["headers.api-key", "is a key itself"]),
        ({"headers": {"api-key": AZURE}}, ["headers.api-key", "is a key itself"]),
        ({"headers": {"api-key": int(AZURE, 16)}}, ["headers.api-key", "is a number"]),
        ({"headers": {"X-A": "the value"}}, ["headers.X-A", "no name of an environment variable"]),
        ({"headers": {"X-A": "A", "x-a": "B"}}, ["headers: 'x-a' stands there twice"]),
        ({"headers": {"api-key": "A"}, "key_header": "Api-Key"}, ["'Api-Key' stands in headers and"]),
        ({"headers": {"authorization": "A"}, "api_key_env": "B"}, ["Authorization", "remove one of them"]),
        ({"key_header": "Content-Type"}, ["key_header", "cannot be configured"]),
        ({"query": {"api-version": KEY}}, ["query.api-version", "looks like a key", "query_env"]),
        ({"query": {"a": "x\ny"}}, ["query.a", "one line"]),
        ({"query": {"a b": "x"}}, ["query", "no name of a parameter"]),
        ({"query": {"a": "x"}, "query_env": {"a": "B"}}, ["'a' stands in both query and query_env"]),
        ({"proxy": "http://u:hush@h:1"}, ["proxy", "credentials", "proxy_env"]),
        ({"proxy": "https://h:1"}, ["proxy", "http://host:port"]),
        ({"proxy": "http://h:1/path"}, ["proxy", "http://host:port"]),
        ({"proxy": "http://h:1", "proxy_env": "P"}, ["both proxy and proxy_env"]),
        ({"proxy_env": "http://u:hush@h:1"}, ["proxy_env", "no name of an environment variable"]),
        ({"tls": {"verify": False}}, ["tls.verify", "unknown key"]),
        ({"tls": {"ca_file": ""}}, ["tls.ca_file"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named_and_no_key_is_shown(
    tmp_path: Path, keys: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        of_supplier(tmp_path, **keys)
    text = str(caught.value)
    for part in [str(tmp_path / "testbench.yaml"), "suppliers[0]", *named]:
        assert part in text
    for secret in (KEY, AZURE, str(int(AZURE, 16)), "hush"):
        assert secret not in text


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"transport": "direct", "nodes": {"rest": ["http://n"]}}, "nodes means nothing to transport direct"),
        ({"transport": "direct", "model": "m"}, "model means nothing to transport direct"),
        ({"transport": "path", "model": "m", "gateway": {"url": "http://g"}, "headers": {"rpc-type": "X"}},
         "says what each relay says itself"),
        ({"transport": "shannon", "model": "m", "headers": {"X-A": "B"}}, "headers means nothing to"),
        ({"transport": "shannon", "model": "m", "query": {"a": "b"}}, "query means nothing to transport"),
    ],
)  # fmt: skip
def test_services_refuse_what_means_nothing_to_them(
    tmp_path: Path, block: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        loaded(tmp_path, yaml.safe_dump({"tasks": [{"name": "t"}], "services": {"s": block}}))


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        AZURE,
        "a" * 48,
        "hf_abcdefghijklmnop",
        "Bearer abcdefghijklmn",
        "aB3" * 10,
        "eyJhbGciOiJIUzI1NiJ9",
    ],
)
def test_what_may_be_a_key(text: str) -> None:
    assert looks_like_key(text)


@pytest.mark.parametrize(
    "text",
    ["2024-10-21-preview", "OPENAI_API_KEY_OF_TEAM_2", "meta-llama/Llama-3.1-405B-Instruct-Turbo", "low",
     "gpt-4o-mini-2024-07-18", "https://example.org/v1/Some-Path-2", "sk-short"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    assert not looks_like_key(text)


@pytest.mark.parametrize(
    "said",
    [
        {"token_field": "x"}, {"budget": True}, {"budget": 10**9}, {"effort": 1}, {"temperature": "hot"},
        {"temperature": float("nan")}, {"seed": 0.5}, {"stop": -1}, {"stop": "x"}, {"extra_body": []},
        {"extra_body": {"messages": []}},
    ],
)  # fmt: skip
def test_settings_that_are_none_are_no_value(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(said))} m"):
        SupplierGeneration(**said)
