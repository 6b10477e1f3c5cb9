"""The leaderboard as values: entries, their columns and where they are shown; and all of one instant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from testbench_dagster.core.columns import (
    Cell,
    Column,
    Gauge,
    Origin,
    Shape,
    Unit,
    Views,
    columns_of,
    plain_json,
)
from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task_group import TaskGroup
from testbench_dagster.core.text import without_folders
from testbench_dagster.core.window import FirstAttemptSuccess, Window

ALL_TASKS = "all tasks"


class Standing(StrEnum):
    """Whether a score can be compared with others'."""

    RANKED = "ranked"
    #: It rests on less than another's of the same API, but below three units nobody shows what is possible.
    FEW_UNITS = "few_units"
    #: It rests on less of the root's weight than three units of the same API reached.
    SHORT = "short"


@dataclass(frozen=True)
class Entry:
    """One supplier on a leaderboard.

    ``rank_low`` to ``rank_high`` holds the true rank with 95 % confidence (see ``statistics.ranks``);
    ``likely_low`` to ``likely_high`` is the narrower range of the parametric bootstrap, which promises less.
    Members of an identity ``group`` answer alike: they have one place together, each with a score of its own.
    """

    taxonomy: Annotated[
        str, Column("the ranking: a taxonomy, `all tasks`, or the task or group that was asked for")
    ]
    supplier: Annotated[str, Column("partition key")]
    score: Annotated[
        float | None,
        Column(
            "delivered quality by the taxonomy's root: docs without an answer count as wrong; of a "
            "represented member its proxy's, corrected by how its own answers differ",
            Unit.SCORE,
        ),
    ]
    ci_low: Annotated[float | None, Column("lower end of its 95 % interval", Unit.SCORE)]
    ci_high: Annotated[float | None, Column("upper end of it", Unit.SCORE)]
    tasks_measured: Annotated[int, Column("tasks with data", Unit.TASKS)]
    tasks_total: Annotated[int, Column("tasks of the taxonomy that it can be asked", Unit.TASKS)]
    n: Annotated[int, Column("docs behind the supplier's own score", Unit.DOCS)]
    errors: Annotated[int, Column("docs it left unanswered for good", Unit.DOCS)]
    rank_low: Annotated[
        int | None,
        Column(
            "best rank it may have: `rank_low` to `rank_high` holds the true rank with 95 % confidence; "
            "suppliers whose ranges overlap are tied; places are counted by `unit`",
            Unit.RANK,
        ),
    ] = None
    rank_high: Annotated[int | None, Column("worst rank it may have", Unit.RANK)] = None
    simulation: Annotated[bool, Column("whether the suppliers are simulated")] = False
    likely_low: Annotated[
        int | None, Column("lower end of the middle 95 % of its ranks in a parametric bootstrap", Unit.RANK)
    ] = None
    likely_high: Annotated[int | None, Column("upper end of it", Unit.RANK)] = None
    p_best: Annotated[
        float | None, Column("share of the bootstrap's draws in which nobody is better", Unit.SHARE)
    ] = None
    group: Annotated[
        str | None,
        Column("identity group of several suppliers; `null` for who stands alone", sparse=True),
    ] = None
    proxy: Annotated[str | None, Column("who represents the group")] = None
    unit: Annotated[
        str | None,
        Column(
            "what has one place in the ranking together: its group, or `owner ...` where a chain names the "
            "owner of its stake; `null` for who is counted alone",
            sparse=True,
        ),
    ] = None
    own_score: Annotated[float | None, Column("the score by its own docs alone", Unit.SCORE, sparse=True)] = (
        None
    )
    n_own: Annotated[
        int | None, Column("own docs behind that, failed and open ones too", Unit.DOCS, sparse=True)
    ] = None
    shared: Annotated[
        bool,
        Column("whether `score` is its proxy's, corrected by how its own answers to common docs differ"),
    ] = False
    n_open: Annotated[
        int, Column("docs that wait for an answer, and count as wrong until then", Unit.DOCS)
    ] = 0
    standing: Annotated[
        str | None,
        Column(
            "`ranked`; `few_units`: ranked, though on less than another of its API reached; `short`: not "
            "ranked, its score rests on less of the root's weight than three units of its API reached"
        ),
    ] = None
    coverage: Annotated[
        float | None, Column("share of the weight of the tasks it is asked that has data", Unit.SHARE)
    ] = None
    ranked_among: Annotated[
        str | None,
        Column(
            "which tasks they are asked whom it is ranked among, where not all are asked the same: `all "
            "tasks`, `only ...` or `not ...`; ranks and `standing` count within them; `null` where all are",
            sparse=True,
        ),
    ] = None
    last_sample_at: Annotated[datetime | None, Column("date of the newest sample")] = None
    error_rate: Annotated[float | None, Column("`errors` / (`n` + `errors`)", Unit.SHARE)] = None
    availability: Annotated[
        float | None,
        Column(
            "mean over minutes of the share of attempts answered, of those that the fault table counts: a "
            "burst of failures weighs as one minute",
            Unit.SHARE,
        ),
    ] = None
    first_attempt_success: FirstAttemptSuccess = None
    latency_ms: Annotated[
        Mapping[str, float | None],
        Column(
            "`p50` and `p95`: the median over the tasks of their windows' p50, and of their p95",
            Unit.MILLISECONDS,
            parts=("p50", "p95"),
        ),
    ] = field(default_factory=lambda: {"p50": None, "p95": None})
    asked_with: Annotated[
        str | None,
        Column(
            "how it is asked otherwise than the tasks say (`generation` of the configuration), as JSON; "
            "`null` for as they say",
            origin=Origin.SUPPLIER,
            sparse=True,
        ),
    ] = None
    model: Annotated[
        str | None, Column("model that the supplier claims to serve", origin=Origin.SUPPLIER)
    ] = None
    as_reference: Annotated[
        str | None,
        Column(
            "whether it answers and scores as the reference of its model: `yes`, `no`, `not yet known`, or "
            "`reference` for that itself; `null` where its model has none",
            sparse=True,
        ),
    ] = None
    public_gap: Annotated[
        str | None,
        Column(
            "whether it is better on public questions than on fresh ones of the kind, beside its peers: "
            "`better` where two of its last four epochs with a verdict say so, `not better`, `no verdict`; "
            "`null` where it is asked none in pairs",
            sparse=True,
        ),
    ] = None

    ttft_p50_ms: Annotated[
        float | None,
        Column(
            "median time to the first token of the last 72 hours, from service probes of the shortest "
            "workload that anybody was asked; `null` below 6 of them, as all of these",
            Unit.MILLISECONDS,
            sparse=True,
        ),
    ] = None
    tokens_per_s_p50: Annotated[
        float | None,
        Column("median output speed after the first token, of the same probes", Unit.SPEED, sparse=True),
    ] = None
    uptime: Annotated[
        float | None,
        Column(
            "mean over the UTC hours in which it was probed of the share answered, of the last 72",
            Unit.SHARE,
            sparse=True,
        ),
    ] = None
    uptime_low: Annotated[float | None, Column("lower end of its 95 % interval", Unit.SHARE, sparse=True)] = (
        None
    )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return plain_json(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Entry:
        """An entry from what :meth:`to_json` made of it, also by a version with fewer or further columns."""
        known = {name: value for name, value in values.items() if name in columns_of(cls)}
        last = known.get("last_sample_at")
        return cls(**known | {"last_sample_at": datetime.fromisoformat(last) if last else None})


ENTRY_VIEWS = Views(
    commands=(
        "taxonomy", "rank_low", "rank_high", "supplier", "model", "score", "ci_low", "ci_high",
        "tasks_measured", "n", "errors", "n_open", "standing", "group", "as_reference", "public_gap",
        "ranked_among",
        "asked_with", "ttft_p50_ms", "tokens_per_s_p50", "uptime",
    ),
    dagster=(
        Cell("taxonomy", ("taxonomy",)),
        Cell("rank", ("rank_low", "rank_high"), Shape.RANGE),
        Cell("supplier", ("supplier",)),
        Cell("model", ("model",)),
        Cell("score", ("score",)),
        Cell("95 % interval", ("ci_low", "ci_high"), Shape.RANGE),
        Cell("tasks", ("tasks_measured", "tasks_total"), Shape.OF),
        Cell("docs", ("n",)),
        Cell("failed", ("errors",)),
        Cell("open", ("n_open",)),
        Cell("standing", ("standing",)),
        Cell("as the reference", ("as_reference",)),
        Cell("on public questions", ("public_gap",)),
        Cell("among", ("ranked_among",)),
        Cell("first token p50, ms", ("ttft_p50_ms",)),
        Cell("tokens/s p50", ("tokens_per_s_p50",)),
        Cell("uptime", ("uptime",)),
    ),
    page=(
        Cell("Rank", ("rank_low", "rank_high"), Shape.RANGE, "95 % confidence; overlapping ranks are ties"),
        Cell("Supplier", ("supplier",), Shape.NAME),
        Cell("Model", ("model",), explanation="Model that the supplier claims to serve"),
        Cell("Score", ("score",)),
        Cell("", ("score", "ci_low", "ci_high"), Shape.DRAWING, "Score on its 95 % interval"),
        Cell("95 %", ("ci_low", "ci_high"), Shape.RANGE, "95 % interval of the score"),
        Cell(
            "Best", ("p_best",), Shape.PLACE, "Chance that nobody is better; adds up to 100 % over all places"
        ),
        Cell("Tasks", ("tasks_measured", "tasks_total"), Shape.OF, "Tasks measured of all"),
        Cell("Errors", ("error_rate",), explanation="Share of docs left unanswered for good"),
        Cell(
            "Available",
            ("availability",),
            explanation="Mean over minutes of the share of attempts answered",
        ),
        Cell("p50", ("latency_ms.p50",), explanation="Median latency of a call"),
        Cell(
            "First token",
            ("ttft_p50_ms",),
            explanation="Median time to the first token, of service probes of the last 72 hours",
        ),
        Cell("Tokens/s", ("tokens_per_s_p50",), explanation="Median output speed after the first token"),
        Cell("Uptime", ("uptime",), explanation="Share of the hours probed in which it answered"),
        Cell("Newest", ("last_sample_at",), Shape.AGE, "Age of the newest sample"),
        Cell(
            "As the reference",
            ("as_reference",),
            explanation="Whether it answers and scores as the one that is trusted to serve its model",
        ),
        Cell(
            "On public questions",
            ("public_gap",),
            explanation="Whether it is better on public questions than on fresh ones of the kind",
        ),
        Cell("Among", ("ranked_among",), explanation="Ranked among those that are asked the same tasks"),
    ),
    published=(
        Cell("Docs", ("n",), explanation="Docs behind the score"),
        Cell("Open", ("n_open",), explanation="Docs that wait for an answer: they count as wrong until then"),
        Cell("Standing", ("standing",), explanation="Whether as much was measured as of others of its API"),
        Cell("At once", ("first_attempt_success",), explanation="Calls answered at the first attempt"),
        Cell("p95", ("latency_ms.p95",), explanation="95 % of calls are answered faster"),
        Cell("Group", ("group",), explanation="Suppliers that answer alike"),
        Cell("Asked with", ("asked_with",), explanation="Settings that differ from the tasks' own requests"),
    ),
    feed=(
        Cell("group", ("group",)),
        Cell("proxy", ("proxy",)),
        Cell("unit", ("unit",)),
        Cell("score", ("score",)),
        Cell("lower_bound", ("ci_low",)),
        Cell("upper_bound", ("ci_high",)),
        Cell("rank_low", ("rank_low",)),
        Cell("rank_high", ("rank_high",)),
        Cell("p_best", ("p_best",)),
        Cell("standing", ("standing",)),
        Cell("ranked_among", ("ranked_among",)),
        Cell("own_score", ("own_score",)),
        Cell("n_own", ("n_own",)),
        Cell("shared", ("shared",)),
        Cell("n_open", ("n_open",)),
        Cell("last_sample_at", ("last_sample_at",)),
        Cell("age_seconds", ("last_sample_at",), Shape.AGE),
        Cell("error_rate", ("error_rate",)),
        Cell("availability", ("availability",)),
        Cell("first_attempt_success", ("first_attempt_success",)),
        Cell("latency_ms", ("latency_ms",)),
        Cell("asked_with", ("asked_with",)),
        Cell("model", ("model",)),
        Cell("as_reference", ("as_reference",)),
        Cell("public_gap", ("public_gap",)),
        Cell("ttft_p50_ms", ("ttft_p50_ms",)),
        Cell("tokens_per_s_p50", ("tokens_per_s_p50",)),
        Cell("uptime", ("uptime",)),
        Cell("uptime_lower_bound", ("uptime_low",)),
    ),
    gauges=(
        Gauge(
            "testbench_supplier_score_lower_bound",
            "Lower 95 % confidence bound of the score of a supplier by the root of a taxonomy.",
            "ci_low",
        ),
        Gauge("testbench_supplier_score", "Score of a supplier by the root of a taxonomy.", "score"),
        Gauge(
            "testbench_supplier_score_upper_bound",
            "Upper 95 % confidence bound of the score of a supplier by the root of a taxonomy.",
            "ci_high",
        ),
        Gauge(
            "testbench_supplier_last_sample_timestamp_seconds",
            "When the newest sample behind the score was taken.",
            "last_sample_at",
        ),
        Gauge(
            "testbench_supplier_error_ratio",
            "Share of docs left unanswered for good.",
            "error_rate",
        ),
        Gauge(
            "testbench_supplier_availability_ratio",
            "Mean over minutes of the share of attempts answered.",
            "availability",
        ),
        Gauge(
            "testbench_supplier_first_attempt_success_ratio",
            "Share of calls answered at the first attempt.",
            "first_attempt_success",
        ),
        Gauge(
            "testbench_supplier_latency_seconds",
            "Latency of calls, median over tasks, by quantile; unanswered ones stand at the deadline.",
            "latency_ms",
        ),
        Gauge(
            "testbench_supplier_first_token_seconds",
            "Median time to the first token of service probes of the last 72 hours.",
            "ttft_p50_ms",
        ),
        Gauge(
            "testbench_supplier_tokens_per_second",
            "Median output speed after the first token, of the same probes.",
            "tokens_per_s_p50",
        ),
        Gauge(
            "testbench_supplier_uptime_ratio",
            "Share of the hours probed in which it answered, of the last 72.",
            "uptime",
        ),
        Gauge("testbench_supplier_rank_low", "Best rank it may have, 95 % confidence.", "rank_low"),
        Gauge("testbench_supplier_rank_high", "Worst rank it may have, 95 % confidence.", "rank_high"),
        Gauge("testbench_supplier_best_probability", "Probability that nobody is better.", "p_best"),
    ),
)  # fmt: skip


#: What the rows of a ranking may be ordered by, besides the score: a column, and whether more is better.
_BY: Mapping[str, tuple[str, bool]] = {
    "first-token": ("ttft_p50_ms", False),
    "speed": ("tokens_per_s_p50", True),
    "uptime": ("uptime", True),
}
ORDERS = ("score", *_BY)


def ordered(entries: Iterable[Entry], by: str) -> list[Entry]:
    """The entries of rankings by one of :data:`ORDERS`, the best of each ranking first, the unknown last.

    Rankings stay one behind the other, and those that are equal in the order of their scores.
    """
    found = list(entries)
    if by == ORDERS[0]:
        return found
    column, more_is_better = _BY[by]
    places = {name: place for place, name in enumerate(dict.fromkeys(one.taxonomy for one in found))}

    def key(one: Entry) -> tuple[int, bool, float]:
        value = getattr(one, column)
        known = 0.0 if value is None else float(value)
        return places[one.taxonomy], value is None, -known if more_is_better else known

    return sorted(found, key=key)


@dataclass(frozen=True)
class Board:
    """Everything the page and the feeds show, read at one instant.

    ``rankings``: entries by taxonomy, best first. ``nodes``: by supplier and taxonomy the abilities, parents
    before children, as the summaries store them. ``roots``: by taxonomy the root's name. ``windows``: by
    supplier its primary windows, without signatures. ``set_aside``: why a task could not be prepared and
    nobody is asked it, by task. ``lacking``: by ranking those of its tasks that are set aside.
    ``url``: where people reach the board, if anywhere. ``groups``: the groups of which lm-eval makes a score,
    ``group_windows`` by supplier their primary rows, and ``group_scores`` by group what suppliers are ranked
    by, without ranks. ``rests_on`` changes with whatever of stores and
    configuration the rankings follow from.
    """

    made_at: datetime
    simulation: bool
    suppliers: Sequence[Supplier]
    rankings: Mapping[str, Sequence[Entry]]
    nodes: Mapping[tuple[str, str], Mapping[str, Ability]]
    roots: Mapping[str, str]
    windows: Mapping[str, Sequence[Window]]
    set_aside: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, Sequence[str]] = field(default_factory=dict)
    url: str | None = None
    groups: Sequence[TaskGroup] = ()
    group_windows: Mapping[str, Sequence[Window]] = field(default_factory=dict)
    group_scores: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    rests_on: str | None = None

    @property
    def published_set_aside(self) -> dict[str, str]:
        """``set_aside`` for everybody to read: a reason may name files of this machine."""
        return {task: without_folders(reason) for task, reason in self.set_aside.items()}

    @property
    def entries(self) -> list[Entry]:
        """The entries of all taxonomies, one ranking after the other."""
        return [entry for ranking in self.rankings.values() for entry in ranking]
