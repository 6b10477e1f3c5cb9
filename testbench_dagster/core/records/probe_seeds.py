"""What the instants of service probes are drawn from."""

from __future__ import annotations

from datetime import datetime

from testbench_dagster.core.records.declaring import COORDINATION, Record, content, key, record


@record("probe_seeds", one_per="installation", kind=COORDINATION)
class ProbeSeedRecord(Record):
    """The secret from which follows when suppliers are probed; all processes share it."""

    id: str = key("always `service_probes`")
    seed: str = content("the secret; never published", exported=False)
    drawn_at: datetime = content("when it was drawn", exported=False)
