"""The queue of runs (`run_coordinator` in `dagster.yaml`): Dagster's own, and every run that enters it says
of what kind it is, and under which configuration and packages it was requested.

Sensors, schedules, backfills, the UI and retries all pass here. Only jobs have tags of their own: runs that
name assets carried none, and so escaped the limits by kind.
"""

from __future__ import annotations

import logging

import dagster as dg

from testbench_dagster.defs.dagster_internals import QueuedRunCoordinator, SubmitRunContext, stated_metadata
from testbench_dagster.defs.hosts import CONFIG_TAG, PACKAGES_TAG, REQUESTED_BY_TAG
from testbench_dagster.defs.kinds import KIND_TAG, kind_of

_log = logging.getLogger("dagster")


class TaggingRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, whose runs are tagged before they wait in it."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Tag a run and put it into the queue; one that cannot be tagged is queued as it is."""
        run = context.dagster_run
        try:
            if tags := {**_kind(run), **_statement(context)}:
                self._instance.add_run_tags(run.run_id, tags)
        except Exception as error:  # a queue that does not take runs would stop everything
            _log.warning(f"run {run.run_id} ({run.job_name}) could not be tagged: {error!r}"[:300])
        return super().submit_run(context)


def _kind(run: dg.DagsterRun) -> dict[str, str]:
    """Of a run that has none yet."""
    if KIND_TAG in run.tags or not run.job_name.startswith("__"):
        return {}
    assets = None if run.asset_selection is None else {key.path[-1] for key in run.asset_selection}
    if assets is None and run.asset_check_selection:  # checks alone
        return {}
    kind = kind_of(assets)
    return {} if kind is None else {KIND_TAG: kind}


def _statement(context: SubmitRunContext) -> dict[str, str]:
    """What the code that the run is of was loaded under; a retry's own tags are those of its first run."""
    said = stated_metadata(context)
    names = (CONFIG_TAG, PACKAGES_TAG, REQUESTED_BY_TAG)
    return {name: said[name] for name in names if name in said}
