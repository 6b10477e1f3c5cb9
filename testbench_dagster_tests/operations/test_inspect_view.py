"""Inspect View opens what `testbench export --format inspect` writes, in Chromium: list, log and a sample."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.operations.browser import Browser, chromium
from testbench_dagster_tests.servers import ServerMissing
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import Facts, configuration

pytestmark = [
    pytest.mark.slow(minutes=2),
    pytest.mark.skipif(
        importlib.util.find_spec("inspect_ai") is None, reason="inspect-ai is not installed (extra: inspect)"
    ),
]

TASK, SAID = "starter_logic", "forty-two, as ever"


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log with a right and a wrong answer, and a doc that failed."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {"tasks": [{"name": TASK, "samples": "all"}]}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        asked = Asked(facts, facts.registration(TASK, n_docs=10))
        asked.answer(0, 1.0, text=SAID)
        asked.answer(1, 0.0, text="no idea")
        facts.attempt(asked.registration, 2, Fault.EMPTY, NOW, prompt_id=asked.prompt(2))
        written = Testbench(workspace).export(tmp_path / "logs", format="inspect")
    assert list(written.values()) == [3]
    return tmp_path / "logs"


@pytest.fixture
def viewer(logs: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "inspect_ai", "view", "start", "--log-dir", str(logs)]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_the_list_a_log_and_a_sample_open(viewer: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    try:
        with chromium(profile) as driver:
            browser = Browser(driver, viewer, tmp_path)
            until_there(browser)
            assert TASK in browser.read(TASK)
            browser.click(f"//*[contains(text(), '{TASK}')]")
            lines = browser.read("Question 0?", "Question 2?", "3 Samples").splitlines()
            right, wrong = lines.index("Question 0?"), lines.index("Question 1?")
            assert "C" in lines[right:wrong] and "I" in lines[wrong:], lines
            browser.click("//*[contains(text(), 'Question 0?')]")
            assert SAID in browser.read(SAID, "Question 0?")
    except ServerMissing as missing:
        pytest.skip(str(missing))


def until_there(browser: Browser) -> None:
    """The viewer takes its time to start; the browser shows an error page meanwhile."""

    def look() -> bool:
        try:
            browser.open("/")
        except Exception:
            return False
        return TASK in browser.text() or "Inspect" in browser.driver.title

    browser.until("the viewer", look)
