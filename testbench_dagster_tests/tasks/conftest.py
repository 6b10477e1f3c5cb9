"""Fixtures of the task tests: an index cache of their own."""

from __future__ import annotations

import importlib.metadata

import pytest

from testbench_dagster.tasks.index import CACHE_ENV
from testbench_dagster_tests.tasks.layouts import DATA


@pytest.fixture(scope="session", autouse=True)
def _own_index_cache(tmp_path_factory: pytest.TempPathFactory):
    """Tests neither read nor fill the user's index cache; child processes inherit the setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_ENV, str(tmp_path_factory.mktemp("index-cache")))
        yield


def pytest_report_header() -> str:
    """Name the lm-eval release that parity is measured against."""
    return f"lm-eval {importlib.metadata.version('lm_eval')}, test inputs {DATA}"
