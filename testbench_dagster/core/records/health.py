"""Health: what is wrong with each supplier, as its last runs left it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from testbench_dagster.core.records.declaring import VIEW, Record, content, key, queryable, record, view


@record("health", one_per="supplier", kind=VIEW)
class HealthRecord(Record):
    """What the asset checks look at of a supplier, so that they need not look at all windows and attempts.

    In parts, each written by whatever asset or check finds out; one whose date is null never was. Texts
    say of the first five what is wrong, and the number beside them of how many it is so.
    """

    id: str = key("key of the supplier")
    attempts_at: datetime | None = queryable("when its attempts were counted", default=None)
    attempts: int = content(
        "attempts inside the window age that were answered, or failed by its own fault", default=0
    )
    fault_share: float | None = queryable("share of these that failed by its own fault", default=None)
    n_unowned: int = queryable("kinds of faults of them that name another owner than theirs", default=0)
    unowned: Mapping[str, str] | None = content(
        "of these, by fault: how many attempts", default=None, sparse=True
    )
    scores_at: datetime | None = queryable("when its windows were looked at", default=None)
    scores_until: datetime | None = queryable(
        "when the first of its tasks will have no score that is young enough", default=None
    )
    n_stale: int = queryable("tasks without a score that is young enough", default=0)
    stale: Mapping[str, str] | None = content("of these, by task: why", default=None, sparse=True)
    n_short: int = queryable("windows of fewer docs than everybody is asked", default=0)
    short: Mapping[str, str] | None = content(
        "of these, by task: how many of how many docs", default=None, sparse=True
    )
    half_width: float | None = queryable(
        "half the widest 95 % interval of its scores, null where there is none", default=None
    )
    half_width_task: str | None = queryable("the task of that interval", default=None)
    n_late: int = queryable("windows many of whose docs were answered in a later run only", default=0)
    late: Mapping[str, str] | None = content("of these, by task: how many docs", default=None, sparse=True)
    n_empty: int = queryable("windows many of whose answers are cut before they begin", default=0)
    empty: Mapping[str, str] | None = content(
        "of these, by task: how many, and what to do", default=None, sparse=True
    )
    n_refused: int = queryable("tasks the form of whose requests it refuses", default=0)
    refused: Mapping[str, str] | None = content(
        "of these, by task: because of what", default=None, sparse=True
    )
    reproduced_at: datetime | None = queryable("when answers of it were last scored again", default=None)
    n_unreproduced: int = queryable("answers that gave other scores then than are stored", default=0)
    unreproduced: Mapping[str, str] | None = content(
        "of these, by answer: which doc of which task", default=None, sparse=True
    )
    abilities_at: datetime | None = queryable("when its abilities were looked at", default=None)
    coverage: float | None = queryable(
        "the lowest share of a taxonomy's tasks that is measured, null where it is asked none", default=None
    )
    n_uncovered: int = queryable("taxonomies with an ability no task of which is measured", default=0)
    uncovered: Mapping[str, str] | None = content(
        "of these, by taxonomy: which abilities", default=None, sparse=True
    )


@view(HealthRecord)
class HealthDates(NamedTuple):
    """When the parts of a supplier's row were written."""

    id: str
    attempts_at: datetime | None
    scores_at: datetime | None
    abilities_at: datetime | None


@view(HealthRecord)
class ScoreWidth(NamedTuple):
    """How wide the widest interval of a supplier's scores is."""

    id: str
    half_width: float | None
    half_width_task: str | None


@view(HealthRecord)
class Coverage(NamedTuple):
    """The lowest coverage of a supplier's taxonomies."""

    id: str
    coverage: float | None
