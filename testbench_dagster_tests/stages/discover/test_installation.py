"""Whose suppliers a store holds: hosts of one installation share it, a second one is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.installation import ForeignStore
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import INSTALLATIONS
from testbench_dagster_tests.rosters import entry, write_roster

SOURCE = {"supplier_sources": [{"file": "r.json"}]}


@pytest.fixture
def host(
    mongo_database_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Workspace]]:
    """An installation opened in a folder and home of its own, over one database."""
    monkeypatch.setenv("TESTBENCH_MONGO_URI", mongo_database_uri)
    monkeypatch.delenv("TESTBENCH_HOME", raising=False)
    opened: list[Workspace] = []

    def build(name: str, suppliers: str = "", **blocks: Any) -> Workspace:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write_roster(folder / "r.json", [entry("x"), entry("y")])
        base = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
        settings = {
            "tasks": [{"name": "starter_logic"}],
            "suppliers": [{"address": address, **base} for address in suppliers],
            **blocks,
        }
        path = folder / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        opened.append(Workspace(load_config(path)))
        return opened[-1]

    yield build
    for workspace in opened:
        workspace.close()


def keys(workspace: Workspace) -> list[str]:
    return sorted(s.key for s in active_suppliers(workspace))


def test_a_second_installation_is_refused_with_the_remedy_and_retires_nobody(
    host: Callable[..., Workspace],
) -> None:
    first = host("one", "ab", **SOURCE)
    refresh_roster(first)
    (owner,) = first.documents.find(INSTALLATIONS)
    for second in (host("two", "c"), host("two", "ab", installation="two"), host("two", "abc", **SOURCE)):
        with pytest.raises(ForeignStore) as refused:
            refresh_roster(second)
        said = str(refused.value)
        assert "\n" not in said and said.startswith(f"{second.config.path}: ")
        assert f"another installation, {owner['installation']} (its sources are r.json)" in said
        assert "TESTBENCH_MONGO_URI" in said and f"installation: {owner['installation']}" in said
        found = {one.what: one for one in findings(second)}
        assert not found["suppliers"].ok and "another installation" in found["suppliers"].detail
    assert keys(first) == ["a@external", "b@external", "x@s", "y@s"]
    assert refresh_roster(first).left == []
    assert list(first.documents.find(INSTALLATIONS)) == [owner]


def test_hosts_with_the_same_configuration_are_one_installation(host: Callable[..., Workspace]) -> None:
    first, second = host("one", "ab", **SOURCE), host("two", "ab", **SOURCE)
    refresh_roster(first)
    assert not refresh_roster(second).anything_new
    # and stay one when the operator edits it on either
    changed = refresh_roster(host("two", "a"))
    assert sorted(changed.left) == ["b@external", "x@s", "y@s"]
    assert "r.json is no longer configured" in changed.warnings["supplier_sources"]
    assert refresh_roster(host("one", "a")).warnings == {}


def test_a_name_holds_however_configurations_and_homes_differ(host: Callable[..., Workspace]) -> None:
    """As with pods, whose homes go with them."""
    refresh_roster(host("one", "ab", installation="net-1"))
    assert refresh_roster(host("two", "a", installation="net-1")).left == ["b@external"]
    with pytest.raises(ForeignStore, match="another installation, net-1 "):
        refresh_roster(host("three", "a", installation="net-2"))
    with pytest.raises(ForeignStore):
        refresh_roster(host("four", "b"))


def test_an_installation_may_be_given_a_name_and_another(host: Callable[..., Workspace]) -> None:
    refresh_roster(host("one", "a"))
    for name in ("net-1", "net-2"):
        workspace = host("one", "b", installation=name)
        refresh_roster(workspace)
        (owner,) = workspace.documents.find(INSTALLATIONS)
        assert (owner["installation"], owner["named"]) == (name, True)
    # the name is kept where the configuration drops it again
    assert not refresh_roster(host("one", "b")).anything_new


def test_a_home_that_cannot_be_written_is_known_by_its_sources(
    host: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = host("one", "ab")
    refresh_roster(first)
    (tmp_path / "no-home").write_text("a file, not a folder")
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path / "no-home" / "home"))
    second = host("two", "ab")
    second.documents = first.documents  # opened where there is a home
    assert not refresh_roster(second).anything_new


def test_configurations_of_one_folder_are_one_installation(
    host: Callable[..., Workspace], tmp_path: Path
) -> None:
    first = host("one", "ab")
    refresh_roster(first)
    other = tmp_path / "one" / "other.yaml"
    settings = yaml.safe_load((tmp_path / "one" / "testbench.yaml").read_text(encoding="utf-8"))
    settings["suppliers"][0]["address"] = "c"
    other.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(other)) as second:
        assert refresh_roster(second).left == ["a@external"]
        assert keys(second) == ["b@external", "c@external"]


def test_configurations_of_two_folders_with_one_home_are_two_installations(
    host: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the embedded stores, too."""
    monkeypatch.delenv("TESTBENCH_MONGO_URI")
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path / "home"))
    refresh_roster(host("one", "ab"))
    with pytest.raises(ForeignStore, match="TESTBENCH_HOME for the embedded store"):
        refresh_roster(host("two", "c"))
    assert refresh_roster(host("one", "b")).left == ["a@external"], "the first may go on editing its own"


def test_a_name_that_is_none_is_refused(host: Callable[..., Workspace]) -> None:
    with pytest.raises(ConfigError, match="installation: 'my net' is no name of an installation"):
        host("one", "a", installation="my net")


def test_an_installation_may_be_moved_with_its_home(
    host: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TESTBENCH_MONGO_URI")
    first = host("one", "ab")
    refresh_roster(first)
    first.close()
    (tmp_path / "one").rename(tmp_path / "moved")
    assert refresh_roster(host("moved", "b")).left == ["a@external"]
