"""The queue of runs (`run_coordinator` in `dagster.yaml`): Dagster's own, and every run that enters it says
of what kind it is, and under which configuration and packages it was requested.

Dagster bounds how many runs of a kind go at a time by a tag. Sensors, schedules, backfills, the UI and
retries all pass here. Only jobs have tags of their own: runs that name assets carried none, and so escaped
the limits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import dagster as dg
from dagster import Field, IntSource

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs.dagster_internals import (
    ConfigurableClassData,
    QueuedRunCoordinator,
    RunQueueConfig,
    SubmitRunContext,
    stated_metadata,
)
from testbench_dagster.defs.hosts import CONFIG_TAG, PACKAGES_TAG, REQUESTED_BY_TAG
from testbench_dagster.defs.kinds import EVALUATION_KIND, KIND_TAG, kind_of

_log = logging.getLogger("dagster")


class TestbenchRunQueue(QueuedRunCoordinator):
    """Dagster's queue, whose runs are tagged before they wait in it.

    ``evaluations`` bounds how many evaluations go at a time, beside Dagster's own settings. Unlike the limits
    under ``concurrency.runs`` it may come from the environment, so that hosts that differ in nothing else
    share one ``dagster.yaml``.
    """

    __test__ = False  # pytest: the name starts with "Test", but this is no test class

    def __init__(self, evaluations: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._evaluations = evaluations
        slots = super().get_run_queue_config().max_concurrent_runs
        if slots == 0:
            raise ConfigError(
                "max_concurrent_runs in dagster.yaml is 0, so that no run begins; set it to the slots of all "
                "workers (TESTBENCH_RUN_SLOTS)"
            )
        if evaluations is not None and not 1 <= evaluations <= (slots if slots > 0 else evaluations):
            raise ConfigError(
                f"evaluations in dagster.yaml is {evaluations}; set it to 1 or more "
                f"(TESTBENCH_EVALUATION_SLOTS), and to no more than max_concurrent_runs, which is {slots}"
            )

    @classmethod
    def config_type(cls) -> Any:
        """Dagster's own settings, and ``evaluations``."""
        own = {"evaluations": Field(IntSource, is_required=False)}
        return {**cast(dict[str, Any], super().config_type()), **own}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> TestbenchRunQueue:
        """Build it from the validated configuration."""
        return cls(inst_data=inst_data, **config_value)

    def get_run_queue_config(self) -> RunQueueConfig:
        """Dagster's limits, and that of evaluations."""
        config = super().get_run_queue_config()
        if self._evaluations is None:
            return config
        limit = {"key": KIND_TAG, "value": EVALUATION_KIND, "limit": self._evaluations}
        return config._replace(tag_concurrency_limits=[*config.tag_concurrency_limits, limit])

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Tag a run and put it into the queue; one that cannot be tagged is queued as it is."""
        run = context.dagster_run
        self._tag(run, lambda: _kind(run))
        self._tag(run, lambda: _statement(context))
        return super().submit_run(context)

    def _tag(self, run: dg.DagsterRun, tags_of: Callable[[], dict[str, str]]) -> None:
        try:
            if tags := tags_of():
                self._instance.add_run_tags(run.run_id, tags)
        except Exception as error:  # a queue that does not take runs would stop everything
            _log.warning(f"run {run.run_id} ({run.job_name}) could not be tagged: {error!r}"[:300])


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
