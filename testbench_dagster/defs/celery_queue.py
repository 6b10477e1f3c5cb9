"""The run queue where runs go to Celery: limits from the environment, which hold for runs of every origin.

Dagster bounds how many runs of a kind go at a time by a tag (`tag_concurrency_limits`). Our jobs carry it;
runs that people start from an asset's page, and those of backfills from the UI, are of Dagster's own job and
carry none: they get it here, when they are queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import dagster as dg
from dagster import Field, IntSource

from testbench_dagster.defs.dagster_internals import ConfigurableClassData, RunQueueConfig
from testbench_dagster.defs.evaluation import EVALUATION_KIND, KIND_TAG
from testbench_dagster.defs.partitions import PROBES

#: Which of our assets makes a run one of a kind; of a run with several, the first counts.
_KINDS = {"relay_responses": EVALUATION_KIND, "service_probes": PROBES}


def kind_of(assets: Iterable[dg.AssetKey]) -> str | None:
    """Of what kind a run over these assets is; None where no limit is about it."""
    names = {key.to_user_string() for key in assets}
    return next((kind for asset, kind in _KINDS.items() if asset in names), None)


class CeleryRunQueue(dg.QueuedRunCoordinator):
    """The queue; ``evaluations`` bounds how many evaluations go at a time, beside Dagster's own settings.

    Unlike the limits under ``concurrency.runs`` the numbers may come from the environment, so that hosts
    that differ in nothing else share one ``dagster.yaml``.
    """

    def __init__(self, evaluations: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._evaluations = evaluations

    @classmethod
    def config_type(cls) -> Any:
        """Dagster's own settings, and ``evaluations``."""
        own = {"evaluations": Field(IntSource, is_required=False)}
        return {**cast(dict[str, Any], super().config_type()), **own}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> CeleryRunQueue:
        """Build it from the validated configuration."""
        return cls(inst_data=inst_data, **config_value)

    def get_run_queue_config(self) -> RunQueueConfig:
        """Dagster's limits, and that of evaluations."""
        config = super().get_run_queue_config()
        if self._evaluations is None:
            return config
        limit = {"key": KIND_TAG, "value": EVALUATION_KIND, "limit": self._evaluations}
        return config._replace(tag_concurrency_limits=[*config.tag_concurrency_limits, limit])

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Queue a run, with the tag of its kind where it has none."""
        run = context.dagster_run
        kind = kind_of(run.asset_selection or ())
        if kind is not None and KIND_TAG not in run.tags:
            self._instance.add_run_tags(run.run_id, {KIND_TAG: kind})
        return super().submit_run(context)
