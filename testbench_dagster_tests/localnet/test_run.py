"""The localnet as a subprocess: starts, tells, stops, and never outlives its parent."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from testbench_dagster.config import load_config
from testbench_dagster.localnet.__main__ import main
from testbench_dagster.localnet.run import LocalnetError, LocalnetProcess

PARENT = """
import time
from testbench_dagster.localnet.run import LocalnetProcess
net = LocalnetProcess(suppliers=1).start()
print(net.pid, flush=True)
time.sleep(60)
"""


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_serves_counts_and_stops(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"match": "what now?", "response": "tea"}\n')
    with LocalnetProcess(suppliers=4, seed=2, latency_ms=0, fail_rate=0, answers=rows) as net:
        roster = net.roster()
        assert [supplier["address"] for supplier in roster] == ["sim-01", "sim-02", "sim-03", "sim-04"]
        assert all(supplier["simulation"] for supplier in roster)
        body = post(
            roster[0]["base_url"] + "/chat/completions",
            {"messages": [{"role": "user", "content": "So what now?"}]},
        )
        assert body["choices"][0]["message"]["content"] == "tea"
        assert net.stats()["sim-01"]["answered"] == 1
        pid = net.pid
        with pytest.raises(LocalnetError, match="running already"):
            net.start()
    assert not alive(pid)
    with pytest.raises(LocalnetError, match="not running"):
        _ = net.url
    net.stop()


def test_up_prints_what_to_configure(tmp_path):
    command = [sys.executable, "-m", "testbench_dagster.localnet", "--suppliers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = process.stdout.readline().strip().removeprefix("listening on ")
        said = ""
        while "tasks:" not in said or "samples:" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
        process.stdout.close()
    path = tmp_path / "testbench.yaml"
    path.write_text(said.split("For testbench.yaml:\n")[1])
    settings = load_config(str(path)).settings
    assert settings.simulation and [task.name for task in settings.tasks] == ["starter_units"]
    assert [source.url for source in settings.supplier_sources] == [f"{url}/roster"]


def test_failures_from_the_command_line():
    with LocalnetProcess(suppliers=1, fail_mode="500", fail_rate=1.0, latency_ms=0) as net:
        with pytest.raises(urllib.error.HTTPError, match="500"):
            post(net.roster()[0]["base_url"] + "/chat/completions", {"messages": [{"content": "x"}]})
        assert net.stats()["sim-01"]["failed"] == {"500": 1}


def test_says_why_it_does_not_start(tmp_path):
    with pytest.raises(LocalnetError, match="at least 1"):
        LocalnetProcess(suppliers=0).start()
    with pytest.raises(LocalnetError, match="missing"):
        LocalnetProcess(answers=tmp_path / "missing").start()
    with LocalnetProcess(suppliers=1) as net:
        port = int(net.url.rsplit(":", 1)[1])
        with pytest.raises(LocalnetError, match=f"cannot listen on port {port}"):
            LocalnetProcess(suppliers=1, port=port).start()


def test_gives_up_on_a_start_that_takes_too_long():
    with pytest.raises(LocalnetError, match="not ready in time"):
        LocalnetProcess(start_timeout_s=0.0).start()


def test_dies_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert alive(child)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)


def test_help_lists_the_options(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for option in (
        "--suppliers",
        "--seed",
        "--port",
        "--fail-mode",
        "--fail-rate",
        "--latency-ms",
        "--answers",
    ):
        assert option in shown
