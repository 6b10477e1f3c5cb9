"""Backfills requested from outside the UI: stored in the instance, worked off by its daemon.

Dagster publishes no way to do that (:mod:`.dagster_internals`); a test runs one for real.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.dagster_internals import (
    BACKFILL_ID_TAG,
    BULK_ACTION_TERMINAL_STATUSES,
    FINISHED_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
    get_current_timestamp,
    get_daemon_statuses,
    make_new_backfill_id,
    partition_loading_context,
)
from testbench_dagster.defs.evaluation.assets import FORCE_TAG
from testbench_dagster.defs.kinds import EVALUATION, EVALUATION_KIND, KIND_TAG, RESCORE_KIND, RESCORING
from testbench_dagster.defs.local_runs import opened_instance
from testbench_dagster.defs.partitions import SUPPLIER
from testbench_dagster.stages.discover.roster import TO_REFRESH_ROSTER
from testbench_dagster.stages.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """How far a backfill is: Dagster's status, the error if there was one, and how many of its runs ended."""

    status: str
    ended: bool
    succeeded: bool
    detail: str
    runs: int = 0
    runs_ended: int = 0


def add_backfill(
    instance: dg.DagsterInstance,
    workspace: Workspace,
    keys: Sequence[str],
    *,
    title: str,
    tags: Mapping[str, str],
    rescore: bool = False,
    tasks: Sequence[str] | None = None,
    description: str | None = None,
    backfill_id: str | None = None,
) -> str:
    """Store a backfill of suppliers, which have partitions, for the daemon; return its id.

    Its runs count as evaluations where Dagster bounds how many of these run at a time. ``tasks`` are names
    of tasks and groups: no others are asked then. ``rescore`` asks nothing.
    """
    config = None if tasks is None else {"ops": {"relay_responses": {"config": {"tasks": list(tasks)}}}}
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id=backfill_id or make_new_backfill_id(),
        asset_graph=build_definitions(workspace).resolve_asset_graph(),
        partition_names=list(keys),
        asset_selection=[dg.AssetKey(name) for name in (RESCORING if rescore else EVALUATION)],
        backfill_timestamp=get_current_timestamp(),
        tags={KIND_TAG: RESCORE_KIND if rescore else EVALUATION_KIND, **tags},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=title,
        description=description,
        run_config=config,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id


def unfinished_backfill(instance: dg.DagsterInstance, tag: str, value: str) -> str | None:
    """Id of a backfill with a tag of this value that has not ended yet; None where there is none."""
    going_on = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=going_on)):
        if backfill.tags.get(tag) == value:
            return backfill.backfill_id
    return None


def covered_by_backfills(instance: dg.DagsterInstance, keys: Collection[str]) -> set[str]:
    """Those of the suppliers that a backfill which has not ended is about, with runs of them or not yet."""
    going_on = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
    covered: set[str] = set()
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=going_on)):
        if backfill.asset_backfill_data is not None:
            subsets = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
            with partition_loading_context(dynamic_partitions_store=instance):
                for subset in subsets.values():
                    covered.update(key for key in subset.get_partition_keys() if key in keys)
        elif backfill.partition_names is not None:  # of a job
            covered.update(key for key in backfill.partition_names if key in keys)
        else:  # stored as an earlier Dagster did
            covered.update(keys)
    return covered


class BackfillRequests:
    """Requests backfills on an installation's Dagster instance; a context manager."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._opened = opened_instance(workspace.config)
        self._instance = self._opened.__enter__()

    def __enter__(self) -> BackfillRequests:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.__exit__(None, None, None)

    def start(self, keys: Sequence[str], *, rescore: bool = False, force: bool = False) -> str:
        """Request one and return its id.

        Raises:
            TestbenchError: a supplier has no partition yet.
        """
        known = set(self._instance.get_dynamic_partitions(SUPPLIER))
        missing = [key for key in keys if key not in known]
        if missing:
            raise TestbenchError(f"{missing[0]} has no partition yet; {TO_REFRESH_ROSTER}")
        return add_backfill(
            self._instance,
            self._workspace,
            keys,
            title="rescore" if rescore else "evaluate, forced" if force else "evaluate",
            tags={FORCE_TAG: "true"} if force else {},
            rescore=rescore,
        )

    def outcome(self, id_: str) -> Outcome:
        """How the backfill with this id stands."""
        found = self._instance.get_backfill(id_)
        if found is None:
            raise TestbenchError(f"backfill {id_} is not known to this instance")
        tags = {BACKFILL_ID_TAG: id_}
        ended = dg.RunsFilter(tags=tags, statuses=FINISHED_STATUSES)
        return Outcome(
            status=found.status.value,
            ended=found.status in BULK_ACTION_TERMINAL_STATUSES,
            succeeded=found.status is BulkActionStatus.COMPLETED_SUCCESS,
            detail=found.error.message if found.error else "see its runs in the UI",
            runs=self._instance.get_runs_count(dg.RunsFilter(tags=tags)),
            runs_ended=self._instance.get_runs_count(ended),
        )

    def daemon_is_running(self) -> bool:
        """Whether a daemon that works backfills off has lately been heard of."""
        status = get_daemon_statuses(self._instance, ["BACKFILL"]).get("BACKFILL")
        return bool(status and status.healthy)


@dataclass(frozen=True)
class RequestedBackfill:
    """A backfill that waits for the daemon, or is worked off: its id, and the keys of its suppliers."""

    _workspace: Workspace
    id: str
    suppliers: tuple[str, ...]

    @classmethod
    def request(
        cls, workspace: Workspace, keys: Sequence[str], *, rescore: bool = False, force: bool = False
    ) -> RequestedBackfill:
        """Request one; see :meth:`BackfillRequests.start`."""
        with BackfillRequests(workspace) as requests:
            return cls(workspace, requests.start(keys, rescore=rescore, force=force), tuple(keys))

    def daemon_is_running(self) -> bool:
        """Whether a daemon that works backfills off has lately been heard of."""
        with BackfillRequests(self._workspace) as requests:
            return requests.daemon_is_running()

    def outcome(self) -> Outcome:
        """How far it is."""
        with BackfillRequests(self._workspace) as requests:
            return requests.outcome(self.id)

    def wait(self, poll_s: float = 1.0, on_progress: Callable[[Outcome], None] | None = None) -> Outcome:
        """Wait for the end, for as long as that takes, looking every so many seconds.

        ``on_progress`` is told how far it is whenever that is not what it was told last.
        """
        told: Outcome | None = None
        with BackfillRequests(self._workspace) as requests:
            while not (outcome := requests.outcome(self.id)).ended:
                if on_progress is not None and outcome != told:
                    on_progress(outcome)
                    told = outcome
                time.sleep(poll_s)
        return outcome
