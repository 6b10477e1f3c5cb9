"""`testbench.yaml`: every key, every default, and messages that name key, value and remedy."""

from __future__ import annotations

import copy
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import BUILTIN_CONFIG, Config, RelaySettings, Settings, load_config
from testbench_dagster.config import settings as module
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import Limits
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.localnet.demo import STARTER_PORT, demo_settings, starter_text
from testbench_dagster.localnet.personas import DEMO_SUPPLIERS, SERVICE, default_population
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.stages.discover.roster import configured_supplier

SUPPLIER = {"address": "alpha", "base_url": "http://127.0.0.1:9001/v1", "model": "m"}
MINIMAL: dict[str, Any] = {"suppliers": [SUPPLIER], "tasks": [{"name": "starter_logic"}]}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TESTBENCH_CONFIG", "TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))


def written(folder: Path, settings: Any) -> Path:
    path = folder / "testbench.yaml"
    text = settings if isinstance(settings, str) else yaml.safe_dump(settings, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, settings: Any) -> Config:
    return load_config(written(folder, settings))


@pytest.mark.parametrize(
    ("block", "found"),
    [
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"temperature": 0, "top_p": 1}, {"temperature": 0.0, "top_p": 1.0}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "\n"], "system": "Be brief."}, {"stop": ["x", "\n"], "system": "Be brief."}),
        ({"stop": []}, {"stop": []}),
        ({"think_end_token": "</think>"}, {"think_end_token": "</think>"}),
        ({"think_end_token": False}, {"think_end_token": False}),
        ({}, {}),
    ],
)
def test_how_a_task_is_asked(block: dict[str, Any], found: dict[str, Any], tmp_path: Path) -> None:
    read = loaded(tmp_path, changed("tasks.0.generation", block)).settings
    assert read.tasks[0].generation.generation().settings() == found


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"max_tokens": 0}, "tasks[0].generation.max_tokens"),
        ({"max_tokens": "many"}, "tasks[0].generation.max_tokens"),
        ({"max_tokens": True}, "tasks[0].generation.max_tokens"),
        ({"max_tokens": 10**9}, "tasks[0].generation.max_tokens"),
        ({"temperature": -1}, "tasks[0].generation.temperature"),
        ({"temperature": True}, "true is no number"),
        ({"temperature": float("nan")}, "tasks[0].generation.temperature"),
        ({"top_p": 0}, "tasks[0].generation.top_p"),
        ({"top_p": 1.5}, "tasks[0].generation.top_p"),
        ({"stop": [""]}, "tasks[0].generation.stop[0]"),
        ({"stop": 7}, "a text or a list of texts"),
        ({"stop": ["x", 7]}, "a text or a list of texts"),
        ({"stop": ["x"] * 65}, "stop has 65 texts; 64 are allowed"),
        ({"system": ""}, "tasks[0].generation.system"),
        ({"think_end_token": True}, "the text that ends a model's thoughts"),
        ({"think_end_token": ""}, "or false to keep all tags"),
        ({"max_gen_toks": 9}, "max_gen_toks"),
        (7, "tasks[0].generation"),
    ],
)
def test_a_wrong_way_to_ask_is_named(block: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        loaded(tmp_path, changed("tasks.0.generation", block))


def test_a_signature_is_asked_in_one_way(tmp_path: Path) -> None:
    task = {"name": "tokenizer", "framework": "signatures", "generation": {"max_tokens": 9}}
    with pytest.raises(ConfigError, match="generation means nothing to 'tokenizer' of framework"):
        loaded(tmp_path, changed("tasks.0", task))


def test_deadlines_that_nobody_set_follow_the_limit_of_an_answer(tmp_path: Path) -> None:
    """20 tokens a second: n tokens may take n / 20 seconds, in total and between two pieces."""
    read = loaded(tmp_path, MINIMAL).settings.relays.limits()
    assert read.for_answer(600) is read
    long = read.for_answer(16_384)
    assert (long.first_byte_s, long.idle_s, long.total_s, long.connect_s) == (819.2, 819.2, 819.2, 5)
    assert read.for_answer(1000).total_s == 120 and read.for_answer(1000).idle_s == 50
    assert read.for_answer(10**9).total_s == 86_400
    settings = changed("relays", {"total_s": 99})
    settings["suppliers"] = [{**SUPPLIER}, {**SUPPLIER, "address": "beta", "relays": {"first_byte_s": 7}}]
    read = loaded(tmp_path, settings).settings.relays.limits()
    assert read.for_answer(16_384).total_s == 99, "set for all"
    plain, own = (configured_supplier(s).limits(read) for s in loaded(tmp_path, settings).settings.suppliers)
    assert plain.for_answer(16_384).first_byte_s == 819.2
    assert own.for_answer(16_384).first_byte_s == 7, "set for the supplier"
    assert own.for_answer(16_384).idle_s == 819.2
    assert Limits(total_s=1).for_answer(16_384).total_s == 1, "bounds given as such stay"


def changed(path: str, value: Any) -> dict[str, Any]:
    """MINIMAL with one value set; ``path`` is like ``suppliers.0.model``, ``...`` as value removes it."""
    settings = copy.deepcopy(MINIMAL)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place: Any = settings
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
    if value is ...:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return settings


def message(folder: Path, settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, settings)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- every key


def test_every_key_of_the_design_is_read(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
suppliers:
  - address: replay-a
    service: external
    transport: direct
    base_url: http://127.0.0.1:9001/v1/
    api: completions
    model: replay
    api_key_env: REPLAY_KEY
    max_in_flight: 32
tasks:
  - name: gsm8k
    alias: school
    num_fewshot: 5
    metric: exact_match
    filter: flexible-extract
    data: {test: data/test.jsonl.gz, train: data/train.jsonl.gz}
    where: {subject: algebra}
    only: ['gsm*']
    samples: {min: 25, max: 100, half_width: 0.1}
taxonomies: ['builtin:starter', path/to/file.tax]
relays: {connect_s: 4, first_byte_s: 50, idle_s: 20, total_s: 110, retries: 1, max_response_mb: 4,
         max_in_flight: 128}
sampling: {max_age_days: 30, window: 120, epoch_seed: 1234}
budget: {relays_per_day: 100000}
services: {}
task_paths: [mine]
simulation: true
""",
    ).settings
    supplier, task = settings.suppliers[0], settings.tasks[0]
    assert supplier.key == "replay-a@external"
    assert (supplier.transport, supplier.api, supplier.model) == ("direct", "completions", "replay")
    assert supplier.base_url == "http://127.0.0.1:9001/v1"
    assert (supplier.api_key_env, supplier.max_in_flight) == ("REPLAY_KEY", 32)
    assert (task.name, task.alias, task.num_fewshot, task.metric) == ("gsm8k", "school", 5, "exact_match")
    assert (task.filter, task.only) == ("flexible-extract", ["gsm*"])
    assert task.files == {"test": "data/test.jsonl.gz", "train": "data/train.jsonl.gz"}
    assert task.row_filter == {"subject": "algebra"}
    assert task.samples.model_dump() == {"min": 25, "start": 50, "max": 100, "half_width": 0.1}  # type: ignore[union-attr]
    assert settings.taxonomies == ["builtin:starter", "path/to/file.tax"]
    assert settings.relays.model_dump() == {
        "connect_s": 4,
        "first_byte_s": 50,
        "idle_s": 20,
        "total_s": 110,
        "retries": 1,
        "max_response_mb": 4,
        "max_in_flight": 128,
        "max_per_host": 64,
    }
    assert settings.sampling.model_dump() == {"max_age_days": 30, "window": 120, "epoch_seed": 1234}
    assert settings.budget.relays_per_day == 100000
    assert settings.task_paths == ["mine"]
    assert settings.simulation is True


def test_defaults(tmp_path: Path) -> None:
    settings = loaded(tmp_path, MINIMAL).settings
    supplier, task = settings.suppliers[0], settings.tasks[0]
    assert (supplier.service, supplier.transport, supplier.api) == ("external", "direct", "chat")
    assert supplier.api_key_env is None
    assert (task.alias, task.num_fewshot, task.metric, task.filter, task.only) == (None,) * 5
    assert task.files is None
    assert task.row_filter == {}
    assert task.samples.model_dump() == {"min": 25, "start": 50, "max": 100, "half_width": 0.1}  # type: ignore[union-attr]
    assert settings.relays.model_dump() == {
        "connect_s": 5,
        "first_byte_s": 60,
        "idle_s": 30,
        "total_s": 120,
        "retries": 5,
        "max_response_mb": 8,
        "max_in_flight": 256,
        "max_per_host": 64,
    }
    assert settings.sampling.model_dump() == {"max_age_days": 32, "window": 100, "epoch_seed": None}
    assert settings.budget.relays_per_day is None
    assert (settings.taxonomies, settings.task_paths, settings.simulation) == ([], [], False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", "all"),
        (40, {"min": 40, "start": 50, "max": 40, "half_width": None}),
        ({"min": 10, "max": 20}, {"min": 10, "start": 50, "max": 20, "half_width": 0.1}),
        ({"max": 30, "half_width": None}, {"min": 25, "start": 50, "max": 30, "half_width": None}),
        ({"half_width": 0.05}, {"min": 25, "start": 50, "max": 100, "half_width": 0.05}),
    ],
)
def test_samples(tmp_path: Path, given: Any, expected: Any) -> None:
    samples = loaded(tmp_path, changed("tasks.0.samples", given)).settings.tasks[0].samples
    assert (samples if isinstance(samples, str) else samples.model_dump()) == expected


def test_named_docs_are_all_that_are_asked(tmp_path: Path) -> None:
    settings = {**changed("tasks.0.samples", {"ids": [7, 0, 300]}), "sampling": {"window": 1}}
    rule = loaded(tmp_path, settings).settings.tasks[0].samples
    assert not isinstance(rule, str)
    assert (rule.ids, rule.min, rule.start, rule.max, rule.half_width) == ((7, 0, 300), 3, 3, 3, None)
    assert SampleRule.model_validate(rule.model_dump()) == rule
    assert "ids" not in SampleRule().model_dump()


def test_samples_all_ignores_the_window(tmp_path: Path) -> None:
    settings = {**changed("tasks.0.samples", "all"), "sampling": {"window": 1}}
    assert loaded(tmp_path, settings).settings.tasks[0].samples == "all"


def test_settings_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    settings = loaded(tmp_path, MINIMAL).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.simulation = True  # type: ignore[misc]


# ------------------------------------------------------------------------------- bounds per supplier


def test_relay_bounds_of_a_supplier_override_the_defaults_one_by_one(tmp_path: Path) -> None:
    settings = changed("relays", {"total_s": 99, "retries": 0})
    settings["suppliers"] = [
        {**SUPPLIER, "max_in_flight": 7},
        {**SUPPLIER, "address": "beta", "relays": {"connect_s": 1.5, "retries": 4}},
        {**SUPPLIER, "address": "gamma", "idle_s": 3, "relays": {"idle_s": 9, "max_response_mb": 2}},
    ]
    read = loaded(tmp_path, settings).settings
    flat, nested, both = (replace(read.relays.limits(), **s.bounds) for s in read.suppliers)
    base = Limits(total_s=99, retries=0)
    assert flat == Limits(total_s=99, retries=0, max_in_flight=7)
    assert nested == Limits(total_s=99, retries=4, connect_s=1.5)
    assert both == Limits(total_s=99, retries=0, idle_s=3, max_response_mb=2), "the flat one wins"
    assert {flat, nested, both}.isdisjoint({base})


def test_every_relay_bound_can_be_set_per_supplier() -> None:
    assert set(RelaySettings.model_fields) == set(module.RelayOverrides.model_fields)
    assert set(RelaySettings.model_fields) <= set(module.SupplierConfig.model_fields)
    assert set(RelaySettings.model_fields) <= set(Limits.__dataclass_fields__)


# --------------------------------------------------------------------------------------- environment


def test_environment_variables_are_expanded_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "9123")
    monkeypatch.setenv("DATA", "/srv/data")
    monkeypatch.setenv("SECONDS", "7.5")
    monkeypatch.setenv("EMPTY", "")
    settings = changed("suppliers.0.base_url", "http://${HOST:-127.0.0.1}:${PORT}/v1")
    settings["tasks"][0]["data"] = {"test": "${DATA}/x.jsonl"}
    settings["relays"] = {"total_s": "${SECONDS}"}
    settings["taxonomies"] = ["${NOWHERE:-}x", "${EMPTY:-fallback}", "a $ sign and {braces} and $PLAIN"]
    read = loaded(tmp_path, settings).settings
    assert read.suppliers[0].base_url == "http://127.0.0.1:9123/v1"
    assert read.tasks[0].files == {"test": "/srv/data/x.jsonl"}
    assert read.relays.total_s == 7.5
    assert read.taxonomies == ["x", "fallback", "a $ sign and {braces} and $PLAIN"]


def test_an_unset_variable_is_named_with_its_place_and_remedy(tmp_path: Path) -> None:
    text = message(tmp_path, changed("suppliers.0.base_url", "http://${TB_NOT_SET}/v1"))
    assert "suppliers[0].base_url" in text
    assert "TB_NOT_SET is not set" in text
    assert "export it or write ${TB_NOT_SET:-default}" in text


# ------------------------------------------------------------------------------------------ messages

BAD = [
    # path, value, what the message must name: key, value, remedy
    ("supplier", [], ["supplier: unknown key 'supplier'", "correct its spelling"]),
    ("suppliers.0.url", "http://x", ["suppliers[0].url", "unknown key 'url' in suppliers[0]", "base_url"]),
    ("suppliers.0.api_key", "sk-verysecret", ["suppliers[0].api_key", "unknown key", "api_key_env"]),
    ("suppliers.0.timeout", 3, ["suppliers[0].timeout", "total_s"]),
    ("suppliers.0.relays.timeout", 3, ["suppliers[0].relays.timeout", "total_s"]),
    ("tasks.0.fewshot", 5, ["tasks[0].fewshot", "unknown key", "num_fewshot"]),
    ("tasks.0.samples", {"minimum": 3}, ["tasks[0].samples.minimum", "unknown key 'minimum'", "spelling"]),
    ("suppliers.0.model", ..., ["suppliers[0].model", "required but missing", "add it"]),
    ("suppliers.0.model", 4, ["suppliers[0].model", "(it is 4)", "quotes"]),
    ("suppliers.0.model", None, ["suppliers[0].model", "valid string"]),
    ("suppliers.0.address", "a b", ["suppliers[0].address", "'a b'", "letters, digits"]),
    ("suppliers.0.address", "a..b", ["suppliers[0].address", "'a..b'", "single '.'"]),
    ("suppliers.0.address", "a@b", ["suppliers[0].address", "'a@b'", "letters, digits"]),
    ("suppliers.0.address", "x" * 129, ["suppliers[0].address", "1 to 128"]),
    ("suppliers.0.service", "", ["suppliers[0].service", "''", "1 to 128"]),
    ("suppliers.0.api", "chats", ["suppliers[0].api", "'chat' or 'completions'", "'chats'"]),
    ("suppliers.0.transport", "shannon", ["suppliers[0].transport", "'direct'", "'shannon'"]),
    ("suppliers.0.base_url", "127.0.0.1:9001", ["suppliers[0].base_url", "'127.0.0.1:9001'", "http://host"]),
    ("suppliers.0.base_url", "ftp://h/v1", ["suppliers[0].base_url", "'ftp://h/v1'", "http://host:port"]),
    ("suppliers.0.base_url", "http://[::1/v1", ["suppliers[0].base_url", "'http://[::1/v1'", "http://host"]),
    ("suppliers.0.base_url", "http://h:99999/v1", ["base_url", "'http://h:99999/v1'", "http://host:port"]),
    ("suppliers.0.base_url", "http://h/v1?key=1", ["suppliers[0].base_url", "query", "http://host:port"]),
    ("suppliers.0.base_url", "http://u:hush@h/v1", ["suppliers[0].base_url", "credentials", "api_key_env"]),
    ("suppliers.0.base_url", "u:hush@h/v1", ["suppliers[0].base_url", "credentials", "api_key_env"]),
    (
        "suppliers.0.max_in_flight",
        0,
        ["suppliers[0].max_in_flight", "(it is 0)", "greater than or equal to 1"],
    ),
    ("suppliers.0.relays.total_s", -1, ["suppliers[0].relays.total_s", "(it is -1)", "greater than 0"]),
    ("suppliers", {"a": 1}, ["suppliers", "valid list"]),
    ("tasks", ..., ["tasks", "required but missing"]),
    ("tasks", [], ["tasks", "empty", "name at least one"]),
    ("tasks", None, ["tasks", "valid list"]),
    ("tasks.0", "gsm8k", ["tasks[0]", "'gsm8k'"]),
    ("tasks.0.name", "", ["tasks[0].name", "at least 1 character"]),
    ("tasks.0.num_fewshot", -1, ["tasks[0].num_fewshot", "(it is -1)", "greater than or equal to 0"]),
    ("tasks.0.num_fewshot", "five", ["tasks[0].num_fewshot", "'five'", "valid integer"]),
    ("tasks.0.samples", "some", ["tasks[0].samples", "'some'", "{min: 25, max: 100}"]),
    ("tasks.0.samples", True, ["tasks[0].samples", "True", "{min: 25, max: 100}"]),
    ("tasks.0.samples", 2.5, ["tasks[0].samples", "2.5", "'all'"]),
    ("tasks.0.samples", [1, 2], ["tasks[0].samples", "[1, 2]", "'all'"]),
    ("tasks.0.samples", 0, ["tasks[0].samples", "0 is neither", "positive number"]),
    ("tasks.0.samples", {"min": 50, "max": 40}, ["tasks[0].samples", "min 50 exceeds max 40", "raise max"]),
    ("tasks.0.samples", {"ids": []}, ["tasks[0].samples", "ids names 0 docs", "from 1 to"]),
    ("tasks.0.samples", {"ids": [1, -2]}, ["tasks[0].samples.ids[1]", "-2", "greater than or equal to 0"]),
    ("tasks.0.samples", {"ids": ["3"]}, ["tasks[0].samples.ids[0]", "'3'", "valid integer"]),
    ("tasks.0.samples", {"ids": [4, 9, 4]}, ["tasks[0].samples", "the doc 4 twice", "once"]),
    (
        "tasks.0.samples",
        {"ids": [4, 9], "max": 50},
        ["tasks[0].samples", "max means nothing", "50", "remove one"],
    ),
    ("tasks.0.samples", {"ids": 5}, ["tasks[0].samples", "ids: 5 is no list of rows", "ids: [0, 7]"]),
    ("tasks.0.samples", {"ids": "0-5"}, ["tasks[0].samples", "ids: '0-5' is no list", "ids: [0, 7]"]),
    (
        "suppliers.0.reference",
        "m",
        ["suppliers[0].reference: 'm' is neither true nor false", "reference: true"],
    ),
    ("suppliers.0.reference", None, ["suppliers[0].reference: None is neither true nor false"]),
    (
        "allow_code_execution",
        "maybe",
        ["allow_code_execution: 'maybe' is neither true nor false; write true"],
    ),
    ("allow_code_execution", 1, ["allow_code_execution: 1 is neither true nor false"]),
    ("suppliers.0.reference", [], ["suppliers[0].reference: the list is empty", "remove it"]),
    ("suppliers.0.reference", [5], ["suppliers[0].reference[0]:", "valid string", "it is 5", "in quotes"]),
    ("suppliers.0.reference", ["m", "m"], ["suppliers[0].reference: 'm' stands there twice"]),
    ("sampling.max_age_days", 1e300, ["sampling.max_age_days", "700000", "1e+300"]),
    ("tasks.0.samples", {"half_width": 0.7}, ["tasks[0].samples.half_width", "0.7", "less than 0.5"]),
    ("tasks.0.samples", {"max": 200}, ["tasks[0]", "'starter_logic'", "200 exceeds", "at least 200"]),
    ("tasks.0.data", "test.jsonl", ["tasks[0].data", "'test.jsonl'", "{test: data/test.jsonl.gz}"]),
    ("tasks.0.data", {}, ["tasks[0].data", "names no split", "{test:"]),
    ("tasks.0.data", {"where": {"a": "b"}}, ["tasks[0].data", "names no split", "{test:"]),
    ("tasks.0.data", {"test": 5}, ["tasks[0].data", "'test'", ".jsonl.gz, .parquet or .csv"]),
    ("tasks.0.data", {"test": {"a": "b"}}, ["tasks[0].data", "'test'", "must be a path"]),
    ("tasks.0.data", {"test": "a", "where": "b"}, ["tasks[0].data", "where must map", "{subject:"]),
    ("tasks.0.data", {"test": "a", "where": {"year": 2020}}, ["tasks[0].data", "where", "in quotes"]),
    ("tasks.0.where", {"year": 2020}, ["tasks[0].where.year", "(it is 2020)", "in quotes"]),
    ("tasks.0.only", "x*", ["tasks[0].only", "valid list", "'x*'"]),
    ("relays.connect_s", 0, ["relays.connect_s", "(it is 0)", "greater than 0"]),
    ("relays.retries", 21, ["relays.retries", "(it is 21)", "less than or equal to 20"]),
    ("relays.max_response_mb", 16, ["relays.max_response_mb", "(it is 16)", "less than or equal to 15"]),
    ("sampling.max_age_days", 0, ["sampling.max_age_days", "(it is 0)", "greater than 0"]),
    ("sampling.window", "wide", ["sampling.window", "'wide'", "valid integer"]),
    ("sampling.seed", 1, ["sampling.seed", "unknown key 'seed' in sampling"]),
    ("budget.relays_per_day", -5, ["budget.relays_per_day", "(it is -5)"]),
    ("services.text.transport", "shannon", ["services.text.model", "required but missing", "add it"]),
    ("simulation", "perhaps", ["simulation", "'perhaps'", "valid boolean"]),
]


@pytest.mark.parametrize(("path", "value", "named"), BAD, ids=[f"{p}={v!r}"[:60] for p, v, _ in BAD])
def test_a_message_names_file_key_value_and_remedy(
    tmp_path: Path, path: str, value: Any, named: list[str]
) -> None:
    text = message(tmp_path, changed(path, value))
    for part in [str(tmp_path / "testbench.yaml"), *named]:
        assert part in text
    assert len(text.splitlines()) == 1, "one mistake, one message"
    for noise in ("literal[", "SampleRule", "pydantic", "sk-verysecret", "hush"):
        assert noise not in text


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    settings = changed("suppliers.0.api", "chats")
    settings["tasks"][0]["shots"] = 3
    settings["relays"] = {"retries": -1}
    lines = message(tmp_path, settings).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["suppliers[0].api", "tasks[0].shots", "relays.retries"]


def test_a_duplicate_supplier_is_refused(tmp_path: Path) -> None:
    text = message(tmp_path, changed("suppliers.1", {**SUPPLIER, "model": "other"}))
    assert "suppliers[1]: duplicate supplier 'alpha@external'" in text
    assert "another address or service" in text
    other_service = changed("suppliers.1", {**SUPPLIER, "service": "other"})
    assert [s.key for s in loaded(tmp_path, other_service).settings.suppliers] == [
        "alpha@external",
        "alpha@other",
    ]


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    text = message(tmp_path, "tasks: [{name: a}]\nsuppliers: []\ntasks: [{name: b}]\n")
    assert "duplicate key 'tasks'" in text
    assert "line 3" in text


def test_yaml_anchors_and_merges_still_work(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
suppliers:
  - &first {address: a, base_url: 'http://h/v1', model: m, retries: 1}
  - {<<: *first, address: b}
tasks: [{name: starter_logic}]
""",
    ).settings
    assert [(s.key, s.retries) for s in settings.suppliers] == [("a@external", 1), ("b@external", 1)]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("tasks: [", "not valid YAML"),
        ("- tasks", "must be a mapping with the keys suppliers and tasks"),
        ("", "must be a mapping"),
        (b"\xff\xfe\x00tasks", "cannot read"),
    ],
)
def test_an_unreadable_file_is_said_to_be_one(tmp_path: Path, content: str | bytes, named: str) -> None:
    path = tmp_path / "testbench.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=named) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_no_python_objects_from_yaml(tmp_path: Path) -> None:
    text = message(tmp_path, "tasks: !!python/object/apply:os.system ['true']\n")
    assert "not valid YAML" in text


# ------------------------------------------------------------------------------------ files and homes


def test_which_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config().path == BUILTIN_CONFIG
    local = written(tmp_path, MINIMAL)
    assert load_config().path == local
    named = tmp_path / "elsewhere.yaml"
    named.write_text(yaml.safe_dump(MINIMAL), encoding="utf-8")
    monkeypatch.setenv("TESTBENCH_CONFIG", str(named))
    assert load_config().path == named
    assert load_config("testbench.yaml").path == local, "an argument goes before the environment"
    monkeypatch.setenv("TESTBENCH_CONFIG", str(tmp_path / "missing.yaml"))
    with pytest.raises(
        ConfigError, match=r"no configuration at .*missing\.yaml; create it or point TESTBENCH_CONFIG"
    ):
        load_config()


def test_where_the_data_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "installation"
    folder.mkdir()
    path = written(folder, MINIMAL)
    monkeypatch.chdir(tmp_path)
    assert load_config(path).home == folder / ".testbench"
    assert load_config().home == tmp_path / ".testbench", "never inside the installed package"
    monkeypatch.setenv("TESTBENCH_HOME", "elsewhere")
    assert load_config(path).home == tmp_path / "elsewhere"
    assert not (folder / ".testbench").exists(), "reading a configuration creates nothing"


def test_stores_are_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = loaded(tmp_path, MINIMAL)
    assert (config.mongo_uri, config.postgres_uri) == (None, None)
    monkeypatch.setenv("TESTBENCH_MONGO_URI", "mongodb://h/db")
    monkeypatch.setenv("TESTBENCH_POSTGRES_URI", "")
    assert (config.mongo_uri, config.postgres_uri) == ("mongodb://h/db", None)


def test_a_supplier_is_found_by_its_key(tmp_path: Path) -> None:
    config = loaded(tmp_path, MINIMAL)
    found = config.supplier("alpha@external")
    assert found is not None
    assert found.address == "alpha"
    assert config.supplier("alpha") is None


# ------------------------------------------------------------------------------------- task expansion


def specs_of(folder: Path, tasks: list[dict[str, Any]], **more: Any) -> list[TaskSpec]:
    return task_specs(loaded(folder, {"suppliers": [SUPPLIER], "tasks": tasks, **more}))


def test_a_tag_expands_to_its_leaves(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, [{"name": "starter", "num_fewshot": 1, "samples": "all"}])
    names = [spec.name for spec in specs]
    assert len(names) == 8
    assert names == sorted(names)
    assert {(s.group, s.root, s.num_fewshot, s.samples) for s in specs} == {("starter", "starter", 1, None)}


def test_only_picks_leaves_by_pattern(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, [{"name": "starter", "only": ["*_logic", "starter_u*"]}])
    assert [spec.name for spec in specs] == ["starter_logic", "starter_units"]
    with pytest.raises(
        ConfigError, match=r"tasks\[0\]\.only: 'nothing\*' matches none of the 8 tasks of 'starter'"
    ):
        specs_of(tmp_path, [{"name": "starter", "only": ["*_logic", "nothing*"]}])


def test_an_alias_names_a_second_configuration(tmp_path: Path) -> None:
    specs = specs_of(
        tmp_path,
        [
            {"name": "starter_logic"},
            {"name": "starter_logic", "alias": "logic_zero", "num_fewshot": 0},
            {"name": "starter", "alias": "again", "only": ["*_logic"]},
        ],
    )
    assert [(s.name, s.leaf, s.group) for s in specs] == [
        ("starter_logic", "starter_logic", None),
        ("logic_zero", "starter_logic", None),
        ("again__starter_logic", "starter_logic", "again"),
    ]


@pytest.mark.parametrize(
    ("tasks", "named"),
    [
        (
            [{"name": "starter_logic"}, {"name": "starter"}],
            ["tasks[1]", "duplicate task 'starter_logic'", "alias"],
        ),
        (
            [{"name": "starter_logic"}, {"name": "starter_units", "alias": "starter_logic"}],
            ["tasks[1]", "duplicate task 'starter_logic'", "another|alias"],
        ),
        ([{"name": "starter_logik"}], ["unknown task 'starter_logik'", "did you mean", "starter_logic"]),
        (
            [{"name": "starter_logic", "alias": "a,b"}],
            ["tasks[0]", "'a,b' cannot be a partition key", "alias"],
        ),
        ([{"name": "starter_logic", "alias": "a...b"}], ["tasks[0]", "'a...b' cannot be a partition key"]),
    ],
)
def test_bad_task_lists(tmp_path: Path, tasks: list[dict[str, Any]], named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        specs_of(tmp_path, tasks)
    for part in named:
        assert any(choice in str(caught.value) for choice in part.split("|"))


def test_a_missing_task_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task_paths: .*/nowhere is no folder"):
        specs_of(tmp_path, [{"name": "starter_logic"}], task_paths=["nowhere"])


def _own_tasks(folder: Path) -> None:
    tasks = folder / "mine"
    tasks.mkdir()
    for leaf, subject in (("own_red", "red"), ("own_blue", "blue"), ("own_bare", None)):
        lines = [f"task: {leaf}", "tag: own", "dataset_path: json", "output_type: generate_until"]
        lines += [f"dataset_name: {subject}"] if subject else []
        (tasks / f"{leaf}.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")


def test_paths_and_row_filters_are_filled_per_leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _own_tasks(tmp_path)
    monkeypatch.chdir("/")  # paths are relative to the configuration file, not to the working directory
    specs = specs_of(
        tmp_path,
        [
            {
                "name": "own",
                "only": ["own_red", "own_blue"],
                "data": {
                    "test": "data/{dataset_name}.csv",
                    "train": "/srv/{task}.jsonl",
                    "where": {"subject": "{dataset_name}", "kind": "x"},
                },
                "where": {"kind": "{task}"},
            }
        ],
        task_paths=["mine"],
    )
    by_name = {spec.name: spec for spec in specs}
    assert by_name["own_red"].data == {
        "test": str(tmp_path / "data/red.csv"),
        "train": "/srv/own_red.jsonl",
    }
    assert by_name["own_blue"].data == {
        "test": str(tmp_path / "data/blue.csv"),
        "train": "/srv/own_blue.jsonl",
    }
    assert by_name["own_red"].where == {"subject": "red", "kind": "own_red"}, "the task's own where wins"
    assert by_name["own_red"].include == (str(tmp_path / "mine"),)


def test_a_pattern_that_cannot_be_filled_is_named(tmp_path: Path) -> None:
    _own_tasks(tmp_path)
    task = {"name": "own_bare", "data": {"test": "{dataset_name}.csv"}}
    with pytest.raises(ConfigError) as caught:
        specs_of(tmp_path, [task], task_paths=["mine"])
    assert "tasks[0].data.test: '{dataset_name}.csv' uses {dataset_name}, but 'own_bare' has none" in str(
        caught.value
    )


# ------------------------------------------------------------------------------ bundled configuration


def test_the_bundled_configuration_is_that_of_the_demo() -> None:
    assert BUILTIN_CONFIG.read_text(encoding="utf-8") == starter_text()
    roster = [
        {
            "address": person.address,
            "service": SERVICE,
            "base_url": f"${{TESTBENCH_LOCALNET_URL:-http://127.0.0.1:{STARTER_PORT}}}/{person.address}/v1",
            "api": person.api,
            "model": person.backend.model,
        }
        for person in default_population(DEMO_SUPPLIERS, 0)
    ]
    assert yaml.safe_load(BUILTIN_CONFIG.read_text(encoding="utf-8")) == demo_settings(roster)


def test_the_bundled_configuration_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TESTBENCH_LOCALNET_URL", raising=False)
    config = load_config()
    assert [s.base_url for s in config.settings.suppliers][:1] == [
        f"http://127.0.0.1:{STARTER_PORT}/sim-01/v1"
    ]
    assert config.settings.simulation
    kinds = Counter(spec.framework for spec in task_specs(config))
    assert kinds == {"lm_eval": 8, "chat_choice": 1, "tools": 2, "signatures": 1, "twins": 1}
    assert [s.address for s in config.settings.suppliers if s.reference] == ["sim-01"]
    monkeypatch.setenv("TESTBENCH_LOCALNET_URL", "http://10.1.2.3:80")
    assert load_config().settings.suppliers[5].base_url == "http://10.1.2.3:80/sim-06/v1"


def test_unknown_keys_are_refused_in_every_block() -> None:
    blocks = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Settings.__base__)
    ]  # type: ignore[arg-type]
    assert len(blocks) >= 8
    assert all(block.model_config["extra"] == "forbid" for block in blocks)


def test_automation_keeps_what_a_block_leaves_out(tmp_path: Path) -> None:
    changed = {"nightly_evaluation": {"enabled": False}, "lost_runs": {"enabled": False}}
    automation = loaded(tmp_path, {**MINIMAL, "automation": changed}).settings.automation
    defaults = Settings.model_validate(MINIMAL).automation
    assert automation.nightly_evaluation.cron == defaults.nightly_evaluation.cron
    assert automation.lost_runs.every_s == defaults.lost_runs.every_s == 30
    assert not automation.nightly_evaluation.enabled and not automation.lost_runs.enabled
    with pytest.raises(ConfigError, match=r"automation\.retention\.crom: unknown key 'crom'"):
        loaded(tmp_path, {**MINIMAL, "automation": {"retention": {"crom": "0 0 * * *"}}})


def test_the_demo_has_a_reference_where_others_serve_its_model() -> None:
    def of(*models: str) -> list[bool]:
        roster = [
            {"address": f"s{n}", "service": SERVICE, "base_url": "http://s", "api": "chat", "model": model}
            for n, model in enumerate(models)
        ]
        return [supplier.get("reference", False) for supplier in demo_settings(roster)["suppliers"]]

    assert of("a", "b", "a", "b", "a") == [True, False, False, False, False]
    assert of("a", "b", "c", "b") == [False, True, False, False]
    assert of("a", "b") == [False, False]
