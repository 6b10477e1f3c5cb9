"""Which machine requested a run, which executes it, and whether both go by the same.

A run is executed only where configuration and packages are those of the code server. Elsewhere it fails at
once, before anything is relayed, with one sentence that says what differs; it is not retried, and sensors
leave its suppliers alone for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from testbench_dagster.coordination.statements import Statement
from testbench_dagster.core.errors import DriftError
from testbench_dagster.stages.statements import own_host, refuse_drift, requested_by
from testbench_dagster.stages.workspace import Workspace

CONFIG_TAG, PACKAGES_TAG = "testbench/config", "testbench/packages"
"""Run tags with the fingerprints that a run was requested under, and in the end executed under."""
REQUESTED_BY_TAG, HOST_TAG = "testbench/requested-by", "testbench/host"
"""Run tags with the names of the machine whose code server requested a run, and of that which executes it."""
REFUSED_TAG = "testbench/refused"
"""Run tag of runs that were not executed, for their machine goes by something else than the code server."""
_MAX_RETRIES = "dagster/max_retries"  # Dagster's own


def statement_tags(own: Statement) -> dict[str, str]:
    """What a machine goes by, as tags and as metadata of its code."""
    return {CONFIG_TAG: own.config, PACKAGES_TAG: own.packages}


def admit(instance: dg.DagsterInstance, run: dg.DagsterRun, workspace: Workspace) -> None:
    """Let this process execute a run, and have the run say where that is.

    Raises:
        Failure: this machine goes by something else than the code server. The run is not retried.
    """
    requested = requested_by(*(run.tags.get(name) for name in (REQUESTED_BY_TAG, CONFIG_TAG, PACKAGES_TAG)))
    try:
        own = refuse_drift(workspace, requested)
    except DriftError as error:
        instance.add_run_tags(run.run_id, {HOST_TAG: own_host(), REFUSED_TAG: "true", _MAX_RETRIES: "0"})
        raise dg.Failure(str(error), allow_retries=False) from error
    # a run that is started again by hand has the tags of the one that was refused
    again = {REFUSED_TAG: "false"} if REFUSED_TAG in run.tags else {}
    instance.add_run_tags(run.run_id, {HOST_TAG: own_host(), **statement_tags(own), **again})


def refused_runs(
    instance: dg.DagsterInstance, within_s: float, job: str | None = None
) -> Sequence[dg.DagsterRun]:
    """The runs that were refused in the last so many seconds, of one job or of all."""
    since = datetime.now(UTC) - timedelta(seconds=within_s)
    return instance.get_runs(
        dg.RunsFilter(
            job_name=job,
            statuses=[dg.DagsterRunStatus.FAILURE],
            tags={REFUSED_TAG: "true"},
            updated_after=since,
        ),
        limit=1_000,
    )
