"""All suppliers by the root of each taxonomy, best first, with what the rank rests on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain

import testbench_dagster
from testbench_dagster.core import versions
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.memory import keeping_all
from testbench_dagster.core.records.identity import ProxyOfSupplier
from testbench_dagster.core.records.rankings import (
    Ability,
    GroupScoresRecord,
    LeaderboardRecord,
    RankingMark,
    SummarizedAt,
)
from testbench_dagster.core.records.windows import WindowsToken
from testbench_dagster.core.service_quality import Headline
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import SIGNATURES
from testbench_dagster.core.window import Window
from testbench_dagster.ranking.asked import ranked_among
from testbench_dagster.ranking.entry import ALL_TASKS, Board, Entry
from testbench_dagster.ranking.ranking import (
    RankGroup,
    RankScore,
    Reliability,
    make_entry,
    mean_over_tasks,
    named,
    ranked,
)
from testbench_dagster.stages.discover.roster import active_suppliers, asked_with
from testbench_dagster.stages.identify.public_gaps import public_gaps
from testbench_dagster.stages.identify.references import as_reference
from testbench_dagster.stages.rank.stored import all_entries, write_rankings
from testbench_dagster.stages.rank.task_entries import group_members, reliability, task_entries
from testbench_dagster.stages.read.identity import current_abilities
from testbench_dagster.stages.read.service import headlines, service_mark
from testbench_dagster.stages.sample.set_aside import tasks_set_aside
from testbench_dagster.stages.score.groups import proxies_of
from testbench_dagster.stages.score.represented import represented_suppliers
from testbench_dagster.stages.score.window_cache import Tally
from testbench_dagster.stages.score.windows import MeasuredSupplier, measured_suppliers
from testbench_dagster.stages.summarize.refresh import configured_taxonomies, docs_and_errors
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.task_score import measured_tasks, not_applicable
from testbench_dagster.stores.documents import DocumentStore, document_id, typed

#: As often as rankings are made: what only time changes is looked at then.
FRESH = timedelta(hours=1)


def leaderboard(workspace: Workspace, taxonomy: str | None = None) -> list[Entry]:
    """Rank the active suppliers per taxonomy, or over all tasks where none is configured.

    Reads the stored summaries; one older than ``sampling.max_age_days`` rests on nothing that still counts
    and is left out. Suppliers without a score stand last, unranked, those that are asked none of a ranking's
    tasks nowhere.

    Raises:
        ConfigError: the named taxonomy is not configured.
    """
    return make_board(workspace, taxonomy).entries


@keeping_all()
def make_board(workspace: Workspace, taxonomy: str | None = None, now: datetime | None = None) -> Board:
    """Read roster, groups, windows and summaries, each once, and rank as of one instant.

    See :func:`leaderboard`. ``now`` is the instant, timezone-aware; the present by default.

    Raises:
        ConfigError: the named taxonomy is not configured.
    """
    scopes = {t.name: t.rests_on(t.root) for t in configured_taxonomies(workspace)}
    names = list(scopes)
    if taxonomy is not None:
        if taxonomy not in names:
            known = ", ".join(names) or "none"
            raise ConfigError(f"taxonomy {taxonomy!r} is not configured; configured are: {known}")
        names = [taxonomy]
    now = now or datetime.now(UTC)
    suppliers = active_suppliers(workspace)
    mark = _rests_on(workspace, suppliers)  # before anything is read that may change meanwhile
    keys = {s.key for s in suppliers}
    apis = {s.key: s.api for s in suppliers}
    owners = {s.key: s.owner for s in suppliers if s.owner is not None}
    rows: dict[str, list[Window]] = {}
    tallies: dict[str, Mapping[str, Tally]] = {}
    references = workspace.config.settings.reference_keys
    proxies = {} if names else proxies_of(workspace.documents, {s.key: s for s in suppliers}, references)
    compared = {key for pair in proxies.items() for key in pair}
    with_docs: dict[str, MeasuredSupplier] = {}
    of_groups: dict[str, Sequence[Window]] = {}
    for measured in measured_suppliers(
        workspace, suppliers, now, with_docs=compared, groups=workspace.groups
    ):
        of_groups[measured.supplier] = measured.groups
        # a signature is a text and ranks nobody
        rows[measured.supplier] = [row for row in measured.rows if row.framework != SIGNATURES]
        tallies[measured.supplier] = measured.tallies
        if measured.supplier in compared:
            with_docs[measured.supplier] = measured
    groups = rank_groups(workspace.documents, keys)
    simulation = workspace.config.settings.simulation
    nodes: dict[tuple[str, str], Mapping[str, Ability]] = {}
    roots: dict[str, str] = {}
    rankings: dict[str, list[Entry]] = {}
    for name in names:
        entries = []
        summaries = {one.supplier: one for one in current_abilities(workspace, name, now)}
        tasks = [spec for spec in workspace.specs if spec.name in scopes[name]]
        not_asked: dict[str, frozenset[str]] = {}
        for supplier in suppliers:
            own = rows[supplier.key]
            summary = summaries.get(supplier.key)
            if tasks and not any(spec.asked_of(supplier) for spec in tasks):
                continue  # whoever is asked none of its tasks has no place in it
            if summary is None:
                not_asked[supplier.key] = frozenset(s.name for s in tasks if not s.asked_of(supplier))
                entries.append(
                    make_entry(name, supplier.key, RankScore(), (0, 0), (), Reliability(), simulation)
                )
                continue
            nodes[supplier.key, name] = summary.nodes
            roots[name] = summary.root
            root = summary.nodes[summary.root]
            # what its score rests on, which an evaluation to come may change
            not_asked[supplier.key] = frozenset(root.not_applicable or ()) & {spec.name for spec in tasks}
            counts = (summary.n, summary.errors)
            behind = {*root.weights, *root.missing}
            used = [row for row in own if row.task in behind]
            reliable = reliability(used, tallies[supplier.key])
            score = RankScore.from_ability(root)
            entries.append(make_entry(name, supplier.key, score, counts, used, reliable, simulation))
        among = ranked_among(not_asked, [spec.name for spec in tasks])
        rankings[name] = ranked(entries, groups, apis, owners, among)
    if not names:
        scores = {key: measured_tasks(rows[key]) for key in with_docs}
        represented = represented_suppliers(with_docs, scores, proxies)
        asked = {key: own for key, own in rows.items() if not own or len(not_applicable(own)) < len(own)}
        not_asked = {key: not_applicable(own) for key, own in asked.items()}
        everything = {row.task for own in asked.values() for row in own}
        rankings[ALL_TASKS] = ranked(
            (
                make_entry(
                    ALL_TASKS,
                    key,
                    mean_over_tasks(own, represented.get(key)),
                    docs_and_errors(own),
                    own,
                    reliability(own, tallies[key]),
                    simulation,
                )
                for key, own in asked.items()
            ),
            groups,
            apis,
            owners,
            ranked_among(not_asked, everything),
        )
    group_scores = {
        group.name: named(
            task_entries(
                group.name,
                [row for own in of_groups.values() for row in own if row.task == group.name],
                {key: group_members(group, own) for key, own in rows.items()},
                tallies,
                simulation=simulation,
            ),
            groups,
            owners,
            {},
        )
        for group in workspace.groups
        if group.metrics
    }
    rankings, group_scores = with_facts(workspace, suppliers, now, rankings, group_scores)
    aside = tasks_set_aside(workspace, workspace.specs)
    ranking = {s.name for s in workspace.specs if s.framework != SIGNATURES}
    lacking = {name: [t for t in aside if t in scopes.get(name, ranking)] for name in rankings}
    url = workspace.config.settings.board.url
    return Board(
        now,
        simulation,
        suppliers,
        rankings,
        nodes,
        roots,
        rows,
        aside,
        lacking,
        url,
        workspace.groups,
        of_groups,
        group_scores,
        mark,
    )


def rank_groups(documents: DocumentStore, keys: Collection[str]) -> dict[str, RankGroup]:
    """By supplier the identity group that it is ranked with, where that has several of these suppliers.

    Of each the name of its group is read, not who else is in it: that would be all members for each member.
    """
    placed = list(typed.find(documents, ProxyOfSupplier, {"_id": {"in": sorted(keys)}}))
    members = Counter(one.group for one in placed)
    return {one.id: RankGroup(one.group, one.proxy) for one in placed if members[one.group] > 1}


def with_facts(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    now: datetime,
    *rankings: Mapping[str, Sequence[Entry]],
) -> list[dict[str, list[Entry]]]:
    """Rankings whose entries say what is known of suppliers besides scores: model, settings, service.

    None of that moves a score or a rank.
    """
    models = {s.key: s.model for s in suppliers}
    settings = {s.key: asked_with(workspace.config, s) for s in suppliers}
    alike, gaps = as_reference(workspace), public_gaps(workspace)
    service = headlines(workspace, now)
    unknown = Headline()
    return [
        {
            name: [
                replace(
                    entry,
                    model=models.get(entry.supplier),
                    asked_with=settings.get(entry.supplier),
                    as_reference=alike.get(entry.supplier),
                    public_gap=gaps.get(entry.supplier),
                    **vars(service.get(entry.supplier, unknown)),
                )
                for entry in entries
            ]
            for name, entries in some.items()
        }
        for some in rankings
    ]


def store_board(workspace: Workspace, board: Board) -> None:
    """Store the rankings of a board and its scores of groups, replacing the last ones."""
    records = [
        LeaderboardRecord(
            id=document_id("leaderboard", name),
            taxonomy=name,
            made_at=board.made_at,
            rests_on=board.rests_on,
            entries=[entry.to_json() for entry in entries],
        )
        for name, entries in board.rankings.items()
        if entries
    ]
    write_rankings(workspace.documents, LeaderboardRecord, records)
    of_groups = [
        GroupScoresRecord(
            id=document_id("group scores", name),
            group=name,
            made_at=board.made_at,
            entries=[entry.to_json() for entry in entries],
        )
        for name, entries in board.group_scores.items()
        if entries
    ]
    write_rankings(workspace.documents, GroupScoresRecord, of_groups)


def stored_entries(workspace: Workspace, now: datetime | None = None) -> list[Entry] | None:
    """The entries of the stored rankings, if these are what :func:`leaderboard` would make.

    They are where they are not older than :data:`FRESH` and nothing that they follow from was cached anew,
    summarized, compared, listed or configured since: to look takes a hundredth of the time.
    """
    now = now or datetime.now(UTC)
    found = list(typed.find(workspace.documents, RankingMark))
    newest = max((one.made_at for one in found), default=None)
    if newest is None or not timedelta(0) <= now - newest <= FRESH:
        return None
    ids = [one.id for one in found if one.made_at == newest]
    mark = _rests_on(workspace, active_suppliers(workspace))
    if any(one.rests_on != mark for one in found if one.made_at == newest):
        return None
    records = typed.by_id(workspace.documents, LeaderboardRecord, ids)
    if any(one.made_at != newest for one in records.values()):  # it is being replaced
        return None
    order = {name: place for place, name in enumerate(t.name for t in configured_taxonomies(workspace))}
    ranked_by = sorted(records.values(), key=lambda one: order.get(one.taxonomy, len(order)))
    entries: list[Entry] = []
    for one in ranked_by:
        rows = all_entries(workspace.documents, one)
        if rows is None:
            return None
        entries += map(Entry.from_json, rows)
    return entries


def _rests_on(workspace: Workspace, suppliers: Sequence[Supplier]) -> str:
    """Changes with whatever of stores and configuration rankings follow from, but for the time."""
    documents = workspace.documents
    digest = hashlib.sha256(workspace.config.settings.model_dump_json().encode())
    groups = sorted(typed.find(documents, ProxyOfSupplier), key=lambda one: one.id)
    parts: Iterable[object] = chain(
        [versions.WINDOWS.number, testbench_dagster.__version__],
        sorted((r.task, r.task_hash, r.config_hash) for r in workspace.datasets.tasks()),
        (vars(supplier) for supplier in suppliers),
        sorted(tasks_set_aside(workspace, workspace.specs).items()),
        sorted(typed.find(documents, WindowsToken)),
        sorted(typed.find(documents, SummarizedAt)),
        groups,
        sorted(as_reference(workspace).items()),
        sorted(public_gaps(workspace).items()),
        service_mark(workspace),
    )
    for part in parts:
        digest.update(repr(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
