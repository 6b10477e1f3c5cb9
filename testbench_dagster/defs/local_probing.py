"""Service probes in this process, asked for by hand: what ``testbench probe`` does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.migrate import migrate_if_safe
from testbench_dagster.stages.preconditions import chosen_suppliers, require_keys
from testbench_dagster.stages.service.due import is_probed
from testbench_dagster.stages.service.probing import Probed
from testbench_dagster.stages.workspace import Workspace


def probe_now(
    workspace: Workspace,
    suppliers: Sequence[str] | None = None,
    *,
    on_stage: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> Probed:
    """Ask suppliers every configured workload, due or not, in a run of Dagster.

    Args:
        workspace: the installation.
        suppliers: keys; by default all active ones that the configuration has probed.
        on_stage: called with what begins, in words; with an empty text at the end.
        stop: ends it within about a second once it is set.

    Raises:
        ConfigError: a supplier is not active or its key is missing, or nobody is to be probed.
        TestbenchError: a stage failed, or no supplier can be found.
    """
    stage = on_stage or (lambda text: None)
    migrate_if_safe(workspace.config, lambda text: None)
    if workspace.config.settings.discovers:
        refresh_roster(workspace)
    chosen = chosen_suppliers(workspace, suppliers)
    if suppliers is None:
        chosen = [one for one in chosen if is_probed(workspace.config.settings, one)]
    if not chosen:
        raise ConfigError(
            f"{workspace.config.path}: service_probes.services and .suppliers leave everybody out; widen "
            "them, or name suppliers"
        )
    require_keys(workspace.config, chosen)
    with LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
        workspace.stop = stop
        stage("service: probing how fast suppliers answer")
        try:
            return runs.probe([one.key for one in chosen], force=True)
        finally:
            workspace.stop = None
            stage("")
