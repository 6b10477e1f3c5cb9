"""The roster: joins, leaves and changes with their history, and how a supplier is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.errors import ConfigError
from testbench_dagster.stores.documents.collections import SUPPLIERS
from testbench_dagster.suppliers import endpoint, refresh_roster, remember_echo_logprobs
from testbench_dagster.workspace import Workspace
from testbench_dagster_tests.scoring.facts import configuration

Opener = Callable[..., Workspace]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens one installation, again and again, with other suppliers each time."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    opened: list[Workspace] = []

    def build(*suppliers: dict[str, Any]) -> Workspace:
        base = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
        settings = {"tasks": [{"name": "starter_logic"}], "suppliers": [base | s for s in suppliers]}
        opened.append(Workspace(configuration(tmp_path, settings)))
        return opened[-1]

    yield build
    for workspace in opened:
        workspace.close()


def roster(workspace: Workspace) -> dict[str, dict[str, Any]]:
    return {d["address"]: d for d in workspace.documents.find(SUPPLIERS)}


def test_joining_changing_leaving_and_returning_is_recorded(installed: Opener) -> None:
    a, b = {"address": "a"}, {"address": "b"}
    first = refresh_roster(installed(a, b))
    assert (first.active, first.joined, first.left, first.changed) == (["a@external", "b@external"],) * 2 + (
        [],
        [],
    )
    again = refresh_roster(installed(a, b))
    assert (again.joined, again.left, again.changed) == ([], [], [])

    changed = refresh_roster(installed(b, {"address": "a", "model": "other"}))
    assert (changed.active, changed.changed) == (["b@external", "a@external"], ["a@external"])
    gone = installed(b)
    assert refresh_roster(gone).left == ["a@external"]
    left = roster(gone)["a"]
    assert (left["status"], left["model"]) == ("left", "other")
    assert left["left_at"] is not None
    assert refresh_roster(gone).left == [], "it leaves once"

    back = installed(a, b)
    assert refresh_roster(back).joined == ["a@external"]
    found = roster(back)["a"]
    assert [h["event"] for h in found["history"]] == ["joined", "changed", "left", "returned"]
    assert (found["status"], found["left_at"], found["model"]) == ("active", None, "m")
    assert found["joined_at"] == left["joined_at"]
    assert [h["event"] for h in roster(back)["b"]["history"]] == ["joined"]


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"base_url": "http://127.0.0.1:8/v1"}, {"api": "completions"}]
)
def test_another_endpoint_must_be_probed_anew(installed: Opener, change: dict[str, Any]) -> None:
    workspace = installed({"address": "a"})
    refresh_roster(workspace)
    remember_echo_logprobs(workspace, "a@external", True)
    assert roster(workspace)["a"]["echo_logprobs"] is True
    refresh_roster(workspace)
    assert roster(workspace)["a"]["echo_logprobs"] is True, "nothing changed"
    other = installed({"address": "a", **change})
    refresh_roster(other)
    assert roster(other)["a"]["echo_logprobs"] is None


def test_a_probe_leaves_alone_what_others_wrote_meanwhile(installed: Opener) -> None:
    workspace = installed({"address": "a"})
    refresh_roster(workspace)
    refresh_roster(installed({"address": "b"}))
    remember_echo_logprobs(workspace, "a@external", False)
    found = roster(workspace)["a"]
    assert (found["status"], found["echo_logprobs"]) == ("left", False)
    assert found["probed_at"] is not None
    remember_echo_logprobs(workspace, "nobody@external", True)
    assert set(roster(workspace)) == {"a", "b"}


def test_limits_and_headers_of_an_endpoint(installed: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TB_KEY", "sk-secret")
    config = installed({"address": "a", "api_key_env": "TB_KEY", "total_s": 9}).config
    target = endpoint(config, config.settings.suppliers[0])
    assert (target.supplier, target.service, target.api) == ("a@external", "external", "chat")
    assert (target.limits.total_s, target.limits.retries) == (9, 2)
    assert target.headers == {"Authorization": "Bearer sk-secret"}
    assert "sk-secret" not in repr(target)


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_names_its_variable(
    installed: Opener, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("TB_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TB_KEY", value)
    config = installed({"address": "a", "api_key_env": "TB_KEY"}).config
    with pytest.raises(ConfigError, match="supplier a@external: api_key_env names TB_KEY, which is not set"):
        endpoint(config, config.settings.suppliers[0])


@pytest.mark.parametrize("value", ["sk-secret\n", "sk-sécret", "sk-other\r"])
def test_a_key_no_header_can_carry_is_refused_without_showing_it(
    installed: Opener, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TB_KEY", value)
    config = installed({"address": "a", "api_key_env": "TB_KEY"}).config
    with pytest.raises(ConfigError, match="TB_KEY holds a line break") as caught:
        endpoint(config, config.settings.suppliers[0])
    assert value.strip() not in str(caught.value)
