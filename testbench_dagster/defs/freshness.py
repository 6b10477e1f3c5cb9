"""How old the latest materialization of each asset may be before the UI shows it as late.

A light for "the pipeline is alive": Dagster looks at the newest materialization of the whole asset, whatever
its partitions. Whether each supplier's scores are fresh is what the check ``scores_fresh`` and the sensor
``stale_scores`` look at.
"""

from datetime import timedelta

import dagster as dg


def _within(**window: float) -> dg.FreshnessPolicy:
    fail = timedelta(**window)
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=fail * 0.75)


#: The sensor new_suppliers reports at least hourly.
ROSTER = _within(hours=3)
#: weekly_epochs.
CATALOG = _within(days=10)
#: nightly_evaluation.
EVALUATION = _within(hours=36)
#: Each supplier is probed at least daily where probes are on; the newest of all counts here.
SERVICE = _within(hours=36)
#: On the hour where something new arrived; at the latest after a night.
SUMMARIES = _within(hours=36)
SNAPSHOTS = _within(hours=36)
