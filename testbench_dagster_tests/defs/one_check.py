"""One asset check alone, run in this process, and what it said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from testbench_dagster.defs.build import build_definitions
from testbench_dagster.stages.workspace import Workspace

#: What a check says of an installation, in a run with some tags.
Check = Callable[[Workspace, Mapping[str, str]], Any]
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def check_in_job(instance: dg.DagsterInstance, job_name: str, check: dg.AssetCheckKey) -> Check:
    """The check of a job, without the job's assets."""

    def run(workspace: Workspace, tags: Mapping[str, str]) -> Any:
        job = build_definitions(workspace).resolve_job_def(job_name)
        only = job.get_subset(asset_selection=set(), asset_check_selection={check})
        assert only.execute_in_process(instance=instance, tags=dict(tags), run_config=_QUIET).success
        (newest, *_) = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        assert newest.event is not None and newest.event.dagster_event is not None
        return newest.event.dagster_event.asset_check_evaluation_data

    return run


def told(evaluation: Any) -> dict[str, Any]:
    """The metadata of what a check said, as plain values."""
    return {name: value.value for name, value in evaluation.metadata.items()}
