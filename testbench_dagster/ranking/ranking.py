"""Ranks and ties: pure functions of entries and windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from statistics import median
from typing import NamedTuple

from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.service_quality import Headline
from testbench_dagster.core.window import NOT_APPLICABLE, Window
from testbench_dagster.ranking.asked import ranked_among
from testbench_dagster.ranking.entry import Entry, Standing
from testbench_dagster.statistics.control_variate import Represented, by_proxy
from testbench_dagster.statistics.ranks import Estimate, LikelyRank, bootstrap_ranks, certain_ranks
from testbench_dagster.statistics.task_score import combined_tasks, left_out, measured_tasks, not_applicable

#: As many units have to have reached a share of the weight before it can be asked of others.
UNITS = 3
#: Columns that are known of a supplier, not of a node of a taxonomy.
NOT_BY_NODE = frozenset({"availability", "first_attempt_success", "latency_ms", "last_sample_at"})
#: Columns that service probes say, whatever a ranking is by.
OF_SERVICE = tuple(field.name for field in fields(Headline))
_SAME = 1e-9  # two sums of the same weights in another order


@dataclass(frozen=True)
class RankGroup:
    """The identity group of a supplier, by name, and who stands for it."""

    name: str
    proxy: str


def units_of(groups: Mapping[str, RankGroup], owners: Mapping[str, str]) -> dict[str, str]:
    """By supplier the unit it is counted in, where it is one with others: a group, or a stake owner.

    ``owners``: by supplier who owns its stake, as far as a chain tells. An identity group is a unit, whoever
    owns its members, unless they are all one owner's, whose suppliers are a unit. The two do not add up to
    larger units: who copies another with one of its suppliers would else take the other's place down to its
    worst.
    """
    members: dict[str, set[str]] = {}
    for supplier, group in groups.items():
        members.setdefault(group.name, set()).add(supplier)
    shared = {
        name: len({owners.get(supplier) or f"supplier {supplier}" for supplier in together}) > 1
        for name, together in members.items()
    }
    found = {}
    for supplier in {**groups, **owners}:
        own = groups.get(supplier)
        if own is not None and (shared[own.name] or supplier not in owners):
            found[supplier] = own.name
        else:
            found[supplier] = f"owner {owners[supplier]}"
    return found


class Reliability(NamedTuple):
    """What is said of a supplier besides its score, over all its attempts; shares from 0 to 1."""

    availability: float | None = None
    first_attempt_success: float | None = None


class RankScore(NamedTuple):
    """What a supplier is ranked by, and how many tasks it rests on; nothing by default."""

    score: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n_measured: int = 0
    n_tasks: int = 0
    weight_coverage: float | None = None
    own_score: float | None = None
    n_own: int | None = None
    shared: bool = False

    @classmethod
    def from_ability(cls, root: Ability) -> RankScore:
        """What the root of a taxonomy says."""
        return cls(*(getattr(root, name) for name in cls._fields))


def ranked(
    entries: Iterable[Entry],
    groups: Mapping[str, RankGroup] | None = None,
    apis: Mapping[str, str] | None = None,
    owners: Mapping[str, str] | None = None,
    among: Mapping[str, str | None] | None = None,
) -> list[Entry]:
    """Best first, with ranks; then those whose score rests on too little, and those without one.

    Places are counted by unit (:func:`units_of`). ``apis``: by supplier the form of requests it takes, for
    what can be reached with it (see :func:`_with_standing`). ``among``: by supplier who is asked the same
    tasks (:func:`~.asked.ranked_among`): only they are ranked together, the most of them first.
    """
    return ranked_again(named(entries, groups or {}, owners or {}, among or {}), apis)


def named(
    entries: Iterable[Entry],
    groups: Mapping[str, RankGroup],
    owners: Mapping[str, str],
    among: Mapping[str, str | None],
) -> list[Entry]:
    """Entries with group, unit and whom they are ranked among, still without ranks; see :func:`ranked`."""
    units = units_of(groups, owners)
    return [_named(entry, groups, units, among.get(entry.supplier)) for entry in entries]


def ranked_again(entries: Iterable[Entry], apis: Mapping[str, str] | None = None) -> list[Entry]:
    """Entries that are :func:`named`, best first and with ranks as by :func:`ranked`."""
    return _ranked_among(entries, apis or {})


def ranked_by_node(
    entries: Iterable[Entry], nodes: Mapping[str, Ability], apis: Mapping[str, str] | None = None
) -> list[Entry]:
    """The entries of a ranking by a taxonomy, ranked by one of its nodes instead of its root.

    Units stay what they are; ``nodes`` has the node of each supplier that was summarized. Who is asked none
    of its tasks has no place. What is not known of a node (:data:`NOT_BY_NODE`) is None.
    """
    asked = {key: node for key, node in nodes.items() if node.status != NOT_APPLICABLE}
    every = {name for node in nodes.values() for names in _tasks_of(node) for name in names}
    among = ranked_among({k: frozenset(node.not_applicable or ()) for k, node in asked.items()}, every)
    found = []
    for entry in entries:
        node = asked.get(entry.supplier)
        if node is None and entry.supplier in nodes:
            continue
        score = RankScore() if node is None else RankScore.from_ability(node)
        counts = (0, 0) if node is None else (node.n, node.errors)
        made = make_entry(
            entry.taxonomy, entry.supplier, score, counts, (), Reliability(), simulation=entry.simulation
        )
        kept = {
            name: getattr(entry, name)
            for name in (
                "group",
                "proxy",
                "unit",
                "asked_with",
                "model",
                "as_reference",
                "public_gap",
                *OF_SERVICE,
            )
        }
        n_open = 0 if node is None else node.n_open or 0
        found.append(replace(made, **kept, n_open=n_open, ranked_among=among.get(entry.supplier)))
    return _ranked_among(found, apis or {})


def _tasks_of(node: Ability) -> Iterable[Iterable[str]]:
    return node.weights, node.missing, node.left_out or (), node.not_applicable or ()


def _ranked_among(entries: Iterable[Entry], apis: Mapping[str, str]) -> list[Entry]:
    """Those that are asked the same tasks, ranked together; the most of them first."""
    together: dict[str | None, list[Entry]] = {}
    for entry in entries:
        together.setdefault(entry.ranked_among, []).append(entry)
    by_size = sorted(together, key=lambda name: (-len(together[name]), name or ""))
    return [entry for name in by_size for entry in _ranked_together(together[name], apis)]


def _ranked_together(entries: Sequence[Entry], apis: Mapping[str, str]) -> list[Entry]:
    """Those that are asked the same tasks, in their order."""
    shared = _with_standing(entries, apis)
    best_first = sorted(
        (e for e in shared if e.score is not None), key=lambda e: (-(e.score or 0.0), e.supplier)
    )
    scored = [e for e in best_first if e.standing != Standing.SHORT]
    numbers = _places(scored)
    done = [
        replace(
            entry,
            rank_low=low,
            rank_high=high,
            likely_low=likely.low,
            likely_high=likely.high,
            p_best=likely.p_best,
        )
        for entry, ((low, high), likely) in zip(scored, numbers, strict=True)
    ]
    short = [e for e in best_first if e.standing == Standing.SHORT]
    return done + short + [e for e in shared if e.score is None]


def _places(entries: Sequence[Entry]) -> list[tuple[tuple[int, int], LikelyRank]]:
    """The ranks of entries: certain, and likely.

    Of a group that is a unit, only the members with the fewest open docs count for others' places: what is
    open is no evidence yet that a member is like the others no more, and whoever copied a competitor and
    falls silent would take its place down.
    """
    silent = _silent_members(entries)
    places = _ranks([e for e in entries if e.supplier not in silent])
    if silent:
        places = _ranks(entries) | places
    return [places[e.supplier] for e in entries]


def _ranks(entries: Sequence[Entry]) -> dict[str, tuple[tuple[int, int], LikelyRank]]:
    """By supplier the ranks of entries among each other."""
    estimates = [_estimate(e) for e in entries]
    found = zip(certain_ranks(estimates), bootstrap_ranks(estimates), strict=True)
    return dict(zip([e.supplier for e in entries], found, strict=True))


def _silent_members(entries: Sequence[Entry]) -> set[str]:
    """Members with more open docs than another of their group.

    Not those of one owner, who answers for all of them.
    """
    members: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.unit is not None and entry.unit == entry.group:
            members.setdefault(entry.unit, []).append(entry)
    return {
        one.supplier
        for together in members.values()
        for one in together
        if one.n_open > min(other.n_open for other in together)
    }


def _with_standing(entries: Sequence[Entry], apis: Mapping[str, str]) -> list[Entry]:
    """Say of each entry whether as much of the root's weight was measured as others reached.

    Whoever answers only what it likes would else be compared by that. What three units of the same API
    reached (:func:`units_of`, or who stands alone) can be reached; below three units nobody shows
    that, so who has less than another is ranked all the same, and marked.
    """
    reached: dict[str, dict[str, float]] = {}
    unit = {e.supplier: e.unit or e.supplier for e in entries}
    for entry in entries:
        units = reached.setdefault(apis.get(entry.supplier, ""), {})
        if entry.score is not None:
            name = unit[entry.supplier]
            units[name] = max(units.get(name, 0.0), entry.coverage or 0.0)
    most = {api: sorted(units.values(), reverse=True)[:UNITS] for api, units in reached.items()}
    found = []
    for entry in entries:
        if entry.score is None:
            found.append(entry)
            continue
        api = apis.get(entry.supplier, "")
        best = most[api]
        own = reached[api][unit[entry.supplier]] + _SAME
        if len(best) >= UNITS:
            standing = Standing.SHORT if own < best[UNITS - 1] else Standing.RANKED
        else:
            standing = Standing.FEW_UNITS if own < best[0] else Standing.RANKED
        found.append(replace(entry, standing=standing.value))
    return found


def _named(
    entry: Entry, groups: Mapping[str, RankGroup], units: Mapping[str, str], among: str | None
) -> Entry:
    group = groups.get(entry.supplier)
    named = replace(entry, unit=units.get(entry.supplier), ranked_among=among)
    return named if group is None else replace(named, group=group.name, proxy=group.proxy)


def _estimate(entry: Entry) -> Estimate:
    """What is ranked; rounding may leave a score a last bit outside of its interval."""
    score = entry.score or 0.0
    low = score if entry.ci_low is None else min(score, entry.ci_low)
    high = score if entry.ci_high is None else max(score, entry.ci_high)
    return Estimate(score, low, high, entry.unit)


def make_entry(
    taxonomy: str,
    supplier: str,
    of: RankScore,
    counts: tuple[int, int],
    rows: Sequence[Window],
    reliability: Reliability,
    simulation: bool,
) -> Entry:
    """The entry of a supplier in a ranking, still without ranks.

    ``counts`` are the docs scored and failed that ``of`` rests on, ``rows`` the windows it was made from.
    """
    n, errors = counts
    open_ = sum(row.n_open for row in rows)
    coverage = of.weight_coverage
    if coverage is None and of.n_tasks:
        coverage = of.n_measured / of.n_tasks
    return Entry(
        taxonomy=taxonomy,
        supplier=supplier,
        score=of.score,
        ci_low=of.ci_low,
        ci_high=of.ci_high,
        tasks_measured=of.n_measured,
        tasks_total=of.n_tasks,
        n=n,
        errors=errors,
        n_open=open_,
        simulation=simulation,
        own_score=of.own_score,
        n_own=of.n_own,
        shared=of.shared,
        coverage=coverage,
        last_sample_at=max((r.last_sample_at for r in rows if r.last_sample_at), default=None),
        error_rate=errors / (n + errors) if n + errors else None,
        availability=reliability.availability,
        first_attempt_success=reliability.first_attempt_success,
        latency_ms={q: _median(row.latency_ms.get(q) for row in rows) for q in ("p50", "p95")},
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return median(known) if known else None


def mean_over_tasks(rows: Sequence[Window], represented: Represented | None = None) -> RankScore:
    """Unweighted mean of the primary scores; its interval treats tasks as independent.

    Tasks that the supplier is not asked count nowhere. ``represented``: of one for which a proxy stands, what
    that adds to its own docs.
    """
    tasks = measured_tasks(rows)
    asked = len(rows) - len(not_applicable(rows))
    k, could = len(tasks), asked - len(left_out(rows))
    if not tasks:
        return RankScore(n_tasks=could)
    weights = dict.fromkeys(tasks, 1 / k)
    own = combined_tasks(weights, tasks)
    shared = None if represented is None else by_proxy(weights, tasks, represented)
    found = shared or own
    n_own = sum(task.n for task in tasks.values())
    known = (found.score, *found.interval, k, could, k / asked)
    return RankScore(*known, own.score, n_own, shared is not None)
