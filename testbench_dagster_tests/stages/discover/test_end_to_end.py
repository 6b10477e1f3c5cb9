"""An installation whose suppliers all come from an HTTP roster that changes between two evaluations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError, TestbenchError
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.relay.probe import probe_suppliers
from testbench_dagster.stages.workspace import Workspace

DOCS = 4


@pytest.fixture(scope="module")
def net() -> Iterator[LocalnetProcess]:
    with LocalnetProcess(suppliers=20, latency_ms=0, fail_rate=0) as running:
        yield running


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)


def configuration(folder: Path, url: str, *, trusted: bool = True) -> Path:
    path = folder / "testbench.yaml"
    settings = {
        "simulation": True,
        "supplier_sources": [{"url": f"{url}/roster", "name": "net", "allow_private_networks": trusted}],
        "tasks": [{"name": "starter_logic", "samples": DOCS}],
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def sim(address: str) -> str:
    return f"{address}@simulation"


@pytest.mark.slow
def test_suppliers_of_a_source_are_asked_at_its_pace(tmp_path: Path) -> None:
    with LocalnetProcess(suppliers=2, latency_ms=0, fail_rate=0) as own:
        path = configuration(tmp_path, own.url)
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings["supplier_sources"][0]["pace"] = {"requests_per_day": 4, "account": "theirs"}
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace.open(path) as workspace:
            Testbench(workspace).run()
            assert sum(s["requests"] for s in own.stats().values()) == 4, "of the eight docs"
            (told,) = Testbench(workspace).plan().paces.values()
            assert "2 suppliers share theirs's pace of 4 requests a day" in told
            Testbench(workspace).run()
            assert sum(s["requests"] for s in own.stats().values()) == 4, "no more on this day"

            # raised: plans are made anew, without waiting for the day that the old pace had left
            settings["supplier_sources"][0]["pace"]["requests_per_day"] = 30
            path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace.open(path) as workspace:
            assert len(due_suppliers(workspace)) == 2
            Testbench(workspace).run()
            assert {s["answered"] for s in own.stats().values()} == {DOCS}


@pytest.mark.slow
def test_evaluations_follow_the_roster(
    tmp_path: Path, net: LocalnetProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    with Workspace.open(configuration(tmp_path, net.url)) as workspace:
        Testbench(workspace).run()
        before = net.stats()
        assert len(before) == 20 and {s["answered"] for s in before.values()} == {DOCS}
        testbench = Testbench(workspace)
        first = {row["supplier"]: row for row in testbench.scores().rows}
        assert len(first) == 20 and {row["n"] for row in first.values()} == {DOCS}

        net.leave("sim-01")
        net.swap("sim-02", backend="other", accuracy=0.0, announce=True)
        net.swap("sim-03", accuracy=0.0)
        net.join("new", backend="bright", accuracy=1.0)
        net.set_height(77)
        Testbench(workspace).run()
        asked = {
            a: s["requests"] - before.get(a, {"requests": 0})["requests"] for a, s in net.stats().items()
        }
        assert asked == {**dict.fromkeys(before, 0), "sim-02": DOCS, "new": DOCS}

        rows = {row["supplier"]: row for row in testbench.scores().rows}
        assert rows.keys() == {*first, sim("new")} - {sim("sim-01")}
        swapped = rows[sim("sim-02")]
        assert (swapped["n"], swapped["score"], swapped["round"]) == (DOCS, 0.0, 2)
        assert swapped["cut_at"] is not None and swapped["first_sample_at"] > swapped["cut_at"]
        assert rows[sim("sim-03")] == first[sim("sim-03")], "nobody can know of a silent swap"
        assert (rows[sim("new")]["score"], rows[sim("new")]["cut_at"]) == (1.0, None)
        assert testbench.scores([sim("sim-01")]).rows == [first[sim("sim-01")]]
        assert {e["supplier"] for e in testbench.leaderboard().rows} == rows.keys()
        assert {row["supplier"] for row in testbench.item_matrix().rows} == rows.keys()
        assert refresh_roster(workspace).heights == {"simulation": 77}
        net.return_("sim-01")


def test_an_untrusted_roster_cannot_send_us_into_private_networks(
    tmp_path: Path, net: LocalnetProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    trusting = Workspace.open(configuration(tmp_path, net.url))
    refresh_roster(trusting)
    trusting.close()
    asked = {address: s["requests"] for address, s in net.stats().items()}
    # the roster knows them already, from the days when the source was trusted
    with Workspace.open(configuration(tmp_path, net.url, trusted=False)) as workspace:
        known = active_suppliers(workspace)
        assert known and not any(s.trusted for s in known)
        results = asyncio.run(probe_suppliers(workspace, known))
    assert not any(result.ok for result in results)
    assert all("not connected: 127.0.0.1 is a private" in result.detail for result in results)
    assert {address: s["requests"] for address, s in net.stats().items()} == asked


def test_where_nobody_can_be_asked_the_sources_are_named(tmp_path: Path, net: LocalnetProcess) -> None:
    notes: list[str] = []
    with Workspace.open(configuration(tmp_path, net.url, trusted=False)) as workspace:
        with pytest.raises(TestbenchError, match="the supplier_sources list none that can be used") as caught:
            Testbench(workspace).run(on_note=notes.append)
        assert not isinstance(caught.value, ConfigError)
    told = "\n".join(notes)
    assert "warning: net: suppliers[0]: base_url" in told and "allow_private_networks" in told

    away = configuration(tmp_path, "http://127.0.0.1:9")
    checked = CliRunner().invoke(cli, ["-c", str(away), "check"])
    assert "FAIL  roster net: net: is not reachable" in checked.stdout
    assert "FAIL  suppliers: " in checked.stdout and "supplier_sources list none" in checked.stdout

    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{"name": "starter_logic"}]}))
    with (
        Workspace(load_config(path)) as workspace,
        pytest.raises(ConfigError, match="no supplier_sources; add"),
    ):
        Testbench(workspace).run()


def test_a_supplier_that_is_not_active_cannot_be_chosen(tmp_path: Path, net: LocalnetProcess) -> None:
    with (
        Workspace.open(configuration(tmp_path, net.url)) as workspace,
        pytest.raises(
            ConfigError, match=r"supplier 'nobody@simulation' is not active; active are: .*sim-01@sim"
        ),
    ):
        Testbench(workspace).run(["nobody@simulation"])
