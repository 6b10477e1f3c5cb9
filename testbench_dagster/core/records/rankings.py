"""Abilities and rankings: summaries of suppliers by taxonomy, leaderboards, and what is kept of each day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from testbench_dagster.core.records.declaring import (
    FACT,
    VIEW,
    Part,
    Record,
    content,
    counted,
    key,
    nested,
    queryable,
    record,
    view,
)


@nested
class PooledAbility(Part):
    """An ability's score with tasks of few docs drawn towards what other suppliers reach on them."""

    score: float | None = content("the score")
    se: float | None = content("its standard error")
    ci_low: float | None = content("lower end of its 95 % interval")
    ci_high: float | None = content("upper end of it")
    tasks: list[str] = content("the tasks that were drawn")


@nested
class Ability(Part):
    """An ability's score with all it rests on; score, error, interval and `min_n` are null without data."""

    node: str = content("name of the ability in the taxonomy")
    status: str = content(
        "ok, partial (docs are open), no_data, undefined (it has only placeholders for tasks) or "
        "not_applicable (the supplier is asked none of its tasks)"
    )
    score: float | None = content("weighted mean of its parts")
    se: float | None = content("its standard error")
    ci_low: float | None = content("lower end of its 95 % interval")
    ci_high: float | None = content("upper end of it")
    weights: Mapping[str, float] = content("weights of the measured tasks in the score; they add up to 1")
    n_tasks: int = content("tasks it could rest on")
    n_measured: int = content("those with data")
    coverage: float = content("`n_measured` / `n_tasks`")
    weight_coverage: float | None = content(
        "share of its weight that was measured, of the tasks that the supplier is asked", default=None
    )
    min_n: int | None = content("smallest number of docs behind a task that counts")
    missing: list[str] = content("names of the tasks without data")
    left_out: list[str] | None = content(
        "names of the tasks that the supplier cannot be asked or refuses altogether", default=None
    )
    not_applicable: list[str] | None = content(
        "names of the tasks that the configuration does not ask the supplier", default=None
    )
    n: int = content("docs behind the score")
    errors: int = content("docs that it left unanswered for good")
    n_open: int | None = content("docs that wait for an answer, and count as wrong until then", default=None)
    partial_pooling: PooledAbility | None = content(
        "the same by partial pooling, null where it is off or changes nothing", default=None
    )
    own_score: float | None = content("score of the supplier's own docs alone", default=None)
    n_own: int | None = content("own docs behind that, failed and open ones too", default=None)
    shared: bool = content(
        "whether `score` is that of its proxy, corrected by how its own answers to common docs differ",
        default=False,
    )


@nested
class SummarizedTask(Part):
    """A task's score as it went into a summary."""

    score: float = content("the score")
    n: int = content("docs behind it")
    se: float = content("its standard error")
    ci_low: float = content("lower end of its 95 % interval")
    ci_high: float = content("upper end of it")


@record(
    "taxonomy_summaries",
    one_per="supplier and taxonomy",
    kind=VIEW,
    indexes=(("taxonomy",),),
    unique=(("supplier", "taxonomy"),),
)
class TaxonomySummaryRecord(Record):
    """The abilities of a supplier by a taxonomy."""

    id: str = key("follows from supplier and taxonomy")
    supplier: str = queryable("key of the supplier")
    taxonomy: str = queryable("name of the taxonomy")
    summarized_at: datetime = queryable("as of when it was summarized")
    score: float | None = queryable("score of the taxonomy's root")
    root: str = content("name of the root")
    n: int = content("docs behind the root's score", default=0)
    errors: int = content("docs left unanswered for good", default=0)
    nodes: Mapping[str, Ability] = content("abilities by name, parents before children")
    tasks: Mapping[str, SummarizedTask] | None = content("the tasks with data by name", default=None)


@view(TaxonomySummaryRecord)
class SupplierAbilities(NamedTuple):
    """The abilities of a supplier, without the tasks behind them."""

    supplier: str
    taxonomy: str
    summarized_at: datetime
    root: str
    n: int
    errors: int
    nodes: Mapping[str, Ability]


@view(TaxonomySummaryRecord)
class SupplierTasks(NamedTuple):
    """The tasks behind the abilities of a supplier."""

    supplier: str
    tasks: Mapping[str, SummarizedTask] | None


@counted(TaxonomySummaryRecord)
class SummariesOfSupplier(NamedTuple):
    """Summaries by supplier."""

    supplier: str
    n: int


@record("leaderboards", one_per="taxonomy", kind=VIEW)
class LeaderboardRecord(Record):
    """The ranking by a taxonomy as it was last made."""

    id: str = key("follows from the taxonomy")
    taxonomy: str = queryable("name of the taxonomy, or `all tasks`")
    made_at: datetime = queryable("as of which instant it was made")
    rests_on: str | None = queryable(
        "changes with whatever of stores and configuration it follows from", default=None
    )
    entries: list[dict[str, Any]] = content(
        "suppliers, best first: the columns of a leaderboard as JSON; the first 2,000 of them"
    )
    parts: int = content("how many documents of `ranking_parts` have the others", default=0)


@view(LeaderboardRecord)
class StoredRanking(NamedTuple):
    """That there is a ranking, and as of when."""

    id: str
    taxonomy: str
    made_at: datetime


@view(LeaderboardRecord)
class RankingMark(NamedTuple):
    """What a ranking follows from."""

    id: str
    made_at: datetime
    rests_on: str | None


@view(TaxonomySummaryRecord)
class SummarizedAt(NamedTuple):
    """When a supplier was summarized last by a taxonomy."""

    id: str
    summarized_at: datetime


@record("group_scores", one_per="group of tasks", kind=VIEW)
class GroupScoresRecord(Record):
    """The scores of all suppliers on a group of tasks, as of when the rankings were last made.

    They are ranked when somebody asks for it: of thousands of suppliers that takes seconds for each group.
    """

    id: str = key("follows from the group")
    group: str = queryable("name of the group")
    made_at: datetime = queryable("as of which instant they were read")
    entries: list[dict[str, Any]] = content(
        "suppliers: the columns of a leaderboard as JSON, without ranks; the first 2,000 of them"
    )
    parts: int = content("how many documents of `ranking_parts` have the others", default=0)


@record(
    "ranking_parts",
    one_per="2,000 suppliers of a ranking, or of the scores on a group, but the first",
    kind=VIEW,
    indexes=(("ranking", "made_at"),),
)
class RankingPartRecord(Record):
    """What of a ranking does not fit into its document: MongoDB's hold 16 MB."""

    id: str = key("follows from the ranking, when it was made, and the number")
    ranking: str = queryable("id of the ranking, or of the scores on a group")
    made_at: datetime = queryable("as of which instant it was made")
    number: int = queryable("its place, from 1")
    entries: list[dict[str, Any]] = content("suppliers, in order: as in the document that this continues")


@view(GroupScoresRecord)
class StoredGroupScores(NamedTuple):
    """That there are scores on a group, and as of when."""

    id: str
    group: str
    made_at: datetime


@nested
class SummaryOfDay(Part):
    """The summary of the supplier by one taxonomy."""

    taxonomy: str = content("name of the taxonomy")
    summarized_at: datetime = content("as of when it was summarized")
    score: float | None = content("score of the taxonomy's root")
    root: str = content("name of the root")
    n: int = content("docs behind the root's score", default=0)
    errors: int = content("docs left unanswered for good", default=0)
    nodes: Mapping[str, Ability] = content("abilities by name, parents before children")
    tasks: Mapping[str, SummarizedTask] | None = content("the tasks with data by name", default=None)


@record(
    "supplier_snapshots",
    one_per="supplier and day",
    kind=FACT,
    indexes=(("day",), ("supplier", "day")),
)
class SupplierSnapshotRecord(Record):
    """What was known of a supplier on a day; until the day is over a newer one takes its place."""

    id: str = key("follows from supplier and day")
    supplier: str = queryable("key of the supplier")
    day: str = queryable("the day, in UTC, as YYYY-MM-DD")
    taken_at: datetime = queryable("when it was taken")
    cut_at: datetime | None = content(
        "the last change of its model: answers up to it did not count", default=None, sparse=True
    )
    rows: bytes | None = content(
        "its scores by task and by node of a taxonomy, packed: see `core/snapshot_rows.py`; null in those of "
        "earlier versions",
        default=None,
        sparse=True,
    )
    windows: list[dict[str, Any]] | None = content(
        "of earlier versions: its primary windows with their columns, without the shared ones",
        default=None,
        sparse=True,
    )
    summaries: tuple[SummaryOfDay, ...] | None = content(
        "of earlier versions: its summaries by taxonomy", default=None, sparse=True
    )


@view(SupplierSnapshotRecord)
class SnapshotOfSupplier(NamedTuple):
    """That there is a snapshot of a supplier."""

    supplier: str
    taken_at: datetime


@view(SupplierSnapshotRecord)
class SnapshotDay(NamedTuple):
    """That there is a snapshot of a day."""

    day: str


@counted(SupplierSnapshotRecord)
class SnapshotsOfSupplier(NamedTuple):
    """Snapshots by supplier."""

    supplier: str
    n: int
