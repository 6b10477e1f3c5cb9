"""The simulated Pocket network as a subprocess, and the commands that start and change it."""

import os
import signal
import subprocess
import urllib.request

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.localnet.pocket.run import PocketProcess
from testbench_dagster.localnet.run import LocalnetError
from testbench_dagster_tests.acceptance.harness import console_script


def test_a_network_of_its_own_process(tmp_path):
    with PocketProcess(
        3, block_s=None, blocks_per_session=6, suppliers_per_session=2, hosts=3, nodes=2, latency_ms=0
    ) as net:
        description = net.describe()
        assert description["simulation"] is True
        assert (description["blocks_per_session"], description["suppliers_per_session"]) == (6, 2)
        assert [host["flavour"] for host in description["hosts"]] == ["classic", "ha", "classic"]
        assert len(description["nodes"]) == 2
        assert [s["name"] for s in description["suppliers"]] == ["sim-01", "sim-02", "sim-03"]
        assert net.sim("roll", offset=None)["height"] == 1007
        assert net.ledger() == net.refusals(0) == []
        with pytest.raises(LocalnetError, match="no action"):
            net.sim("dance")
        assert {s["address"] for s in net.roster()} == {"sim-01", "sim-02", "sim-03"}
        done = CliRunner().invoke(
            cli,
            ["localnet", "control", "fault", "supplier=sim-02", "kind=empty", "--url", net.url, "--pocket"],
        )
        assert done.exit_code == 0, done.output
        assert yaml.safe_load(done.output)["faults"] == [{"kind": "empty", "rate": 1.0, "fired": 0}]
        refused = CliRunner().invoke(cli, ["localnet", "control", "dance", "--url", net.url, "--pocket"])
        assert isinstance(refused.exception, LocalnetError) or refused.exit_code == 1


def test_blocks_come_by_themselves():
    net = PocketProcess(1, block_s=0.05, blocks_per_session=5).start()
    try:
        first = net.describe()["height"]
        while net.describe()["height"] < first + 5:
            pass
    finally:
        net.stop()
    with pytest.raises(LocalnetError, match="want at least"):
        PocketProcess(1, blocks_per_session=0).start()


def test_up_prints_what_to_configure(tmp_path):
    command = [str(console_script()), "localnet", "up", "--pocket", "--port", "0"]
    command += ["--suppliers", "2", "--blocks-per-session", "4", "--block-seconds", "0.5", "--hosts", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = ""
        while "/roster" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        url = said.splitlines()[0].removeprefix("listening on ")
        exports = dict(
            line.removeprefix("export ").split("=")
            for line in said.splitlines()
            if line.startswith("export ")
        )
        block = said.split("For testbench.yaml:\n")[1].split("\nAll about it")[0]
        path = tmp_path / "testbench.yaml"
        path.write_text(block)
        settings = load_config(str(path)).settings
        services = settings.services
        assert settings.tasks, "what is printed can be used as it is"
        assert services["simulation"].transport == "shannon"
        assert services["simulation"].nodes.rest == [url]
        assert {app.key_env for service in services.values() for app in service.apps} == set(exports)
        with urllib.request.urlopen(f"{url}/_sim/describe", timeout=5) as response:
            assert response.status == 200
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
        process.stdout.close()


def test_options_of_pocket_need_it():
    done = CliRunner().invoke(cli, ["localnet", "up", "--hosts", "3"])
    assert done.exit_code == 2
    assert "--hosts needs --pocket" in done.output
