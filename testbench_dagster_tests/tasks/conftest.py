"""What a report of the task tests names."""

from __future__ import annotations

import importlib.metadata

from testbench_dagster_tests.tasks.layouts import DATA


def pytest_report_header() -> str:
    """Name the lm-eval release that parity is measured against."""
    return f"lm-eval {importlib.metadata.version('lm_eval')}, test inputs {DATA}"
