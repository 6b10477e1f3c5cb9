"""The demo over signed relays, as its users meet it."""

import os
import subprocess

import pytest
import yaml

from testbench_dagster.localnet.pocket.names import private_key_hex
from testbench_dagster.localnet.pocket.run import height_by_calendar
from testbench_dagster_tests.acceptance.harness import _FOREIGN, console_script

KEYS = [
    private_key_hex(0, name) for name in ("app-simulation", "app-simulation-completions", "gateway", "sim-01")
]


def demo(folder):
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    command = [str(console_script()), "demo", "--pocket", "--no-ui", "--suppliers", "3"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_the_demo_over_relays(tmp_path):
    done = demo(tmp_path)
    assert "simulated Pocket network: 3 suppliers" in done.stderr
    assert "@simulation-completions" in done.stdout
    folder = tmp_path / ".testbench" / "demo-pocket"
    settings = yaml.safe_load((folder / "testbench.yaml").read_text())
    assert {service["transport"] for service in settings["services"].values()} == {"shannon"}
    assert settings["simulation"] is True
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [key for key in KEYS if key.encode() in content or bytes.fromhex(key) in content], file
    assert not [key for key in KEYS if key in done.stdout + done.stderr]
    again = demo(tmp_path)  # a chain further on; nothing is asked again
    assert "@simulation-completions" in again.stdout


def test_a_network_started_again_is_further_on(monkeypatch):
    now = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    first = height_by_calendar(2.0, 10)
    assert (first - 1001) % 10 == 0
    now += 20
    assert height_by_calendar(2.0, 10) == first + 10
