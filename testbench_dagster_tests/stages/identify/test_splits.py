"""Who is grouped by whole answers, and who is split off: saboteurs, truncators, routers, turncoats."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime

import pytest

from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.identify.identify import (
    detect_changes,
    identity_settings,
    refresh_identity,
)
from testbench_dagster.stages.identify.splits import watch_groups
from testbench_dagster.stages.identify.views import identity_rows, pair_rows
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.rank import leaderboard
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, SPLITS
from testbench_dagster_tests.growing import Reads, counted_reads
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, key, stored
from testbench_dagster_tests.stages.identify.town import (
    LOGIC,
    MINUTE,
    UNITS,
    Open,
    Town,
    merged,
    withheld,
)
from testbench_dagster_tests.stages.score.facts import Facts


def test_twins_form_a_group_by_whole_answers(town: Open) -> None:
    place = town("a1", "a2", "b")
    for name in ("a1", "a2"):
        place.probes(name, "a")
        place.docs(name, range(50))
    place.probes("b", "b")
    place.docs("b", range(50), text="model b")
    refresh_identity(place.workspace, now=NOW)
    assert place.groups() == {"a1": ["a1", "a2"], "a2": ["a1", "a2"], "b": ["b"]}


def test_a_saboteur_and_a_truncator_are_never_grouped(town: Open) -> None:
    """Both begin every answer like the honest one: one goes on with nonsense, the other ends there."""
    place = town("honest", "saboteur", "truncator")
    for name in ("honest", "saboteur", "truncator"):
        place.probes(name, "a")
    place.docs("honest", range(50))
    place.docs("saboteur", range(50), right=lambda task, doc: False, text="nonsense")
    place.docs("truncator", range(50), right=lambda task, doc: False, text="")
    before = windows(place.workspace, suppliers=[key("honest")], now=NOW)
    refresh_identity(place.workspace, now=NOW)
    assert place.groups() == {name: [name] for name in ("honest", "saboteur", "truncator")}
    assert windows(place.workspace, suppliers=[key("honest")], now=NOW) == before
    [pair] = [
        row
        for row in pair_rows(place.workspace, None)
        if {row["a"], row["b"]} == {key("honest"), key("saboteur")}
    ]
    assert (pair["relation"], pair["certain"], pair["n_agree"]) == ("different", True, 60)
    assert pair["finding"].endswith("but only 60 of 160 whole answers are equal: certainly two")
    scores = {e.supplier: e.score for e in leaderboard(place.workspace)}
    assert scores == {key("honest"): 0.8, key("saboteur"): 0.0, key("truncator"): 0.0}


def test_thirty_docs_are_needed_and_probes_count_among_them(town: Open) -> None:
    place = town("a1", "a2")
    for name in ("a1", "a2"):
        place.probes(name, "a")
        place.docs(name, range(2))
    refresh_identity(place.workspace, now=NOW)
    assert place.groups()["a1"] == ["a1", "a2"], "sixty probes and four docs"
    few = town("a1", "a2", "c1", "c2")
    for name in ("c1", "c2"):
        few.docs(name, range(30))
    refresh_identity(few.workspace, now=NOW)
    assert few.groups()["c1"] == ["c1"], "equal answers that begin with nothing of their own are not enough"


def test_what_was_compared_is_not_read_again_however_much_there_is(town: Open) -> None:
    """Documents and keys that the store looks at: an index finds what was stored since."""
    place = town("a1", "a2", "a3")
    merged(place, "a1", "a2", "a3")
    suppliers = active_suppliers(place.workspace)

    def reads() -> Reads:
        settings = identity_settings(place.workspace)
        with counted_reads(place.workspace) as counted:
            watch_groups(place.workspace, "external", suppliers, NOW - 18 * HOUR, settings)
            return counted()

    few = reads()
    for name in ("a1", "a2", "a3"):
        place.docs(name, range(50, 200), NOW - 90 * HOUR)
        place.probes(name, "a", NOW - 80 * HOUR)
    many = reads()
    assert many.returned == few.returned and many.examined <= few.examined + 100, "of 1,000 more"
    place.docs("a1", range(200, 202), NOW - 19 * HOUR)
    assert reads().examined > 2 * many.examined


@pytest.mark.slow
def test_who_turns_after_a_merge_is_split_within_ten_common_docs(town: Open) -> None:
    place = town("a1", "a2", "a3")
    proxy = merged(place, "a1", "a2", "a3")
    member, other = sorted({"a1", "a2", "a3"} - {proxy})
    later = NOW - 10 * HOUR
    for doc in range(50, 60):
        at = later + (doc - 50) * 5 * MINUTE
        place.docs(proxy, [doc], at, tasks=[LOGIC])
        place.docs(other, [doc], at, tasks=[LOGIC])
        place.docs(member, [doc], at, right=lambda task, doc: False, text="other", tasks=[LOGIC])
        detect_changes(place.workspace, [key(member)], now=at + MINUTE)
        if place.groups()[member] == [member]:
            break
    (split,) = place.workspace.documents.find(SPLITS)
    assert (split["supplier"], split["proxy"]) == (key(member), key(proxy))
    assert split["docs"] <= 10 and split["apart_from"] == sorted([key(proxy), key(other)])
    assert sorted(place.groups()[other]) == sorted([proxy, other])
    [row] = identity_rows(place.workspace, [key(member)])
    assert row["split_at"] == split["at"].isoformat() and row["reason"].startswith("split off ")
    supplier = next(s for s in active_suppliers(place.workspace) if s.key == key(member))
    assert Planner(place.workspace, now=NOW).facts(supplier).proxy is None, "it is asked in full"
    # its own docs alone from now on, and no merge before a hundred new common docs
    place.docs(member, range(60, 90), NOW - 8 * HOUR)
    place.docs(proxy, range(60, 90), NOW - 8 * HOUR)
    place.docs(other, range(60, 90), NOW - 8 * HOUR)
    refresh_identity(place.workspace, now=NOW - 7 * HOUR)
    assert place.groups()[member] == [member]
    for name in (member, proxy, other):
        place.docs(name, range(90, 140), NOW - 6 * HOUR)
    refresh_identity(place.workspace, now=NOW)
    assert "split_at" in stored(place.workspace)[member]
    assert stored(place.workspace)[member]["split_at"] is None


def unscorable(place: Town, name: str, docs: Sequence[int], start: datetime, *, error: str | None) -> None:
    """Answers that no score can be made of, or (without an error) that leave the metric without a value."""
    facts = Facts(place.workspace)
    for number, doc in enumerate(docs):
        at = start + number * MINUTE
        facts.score(place.tasks[LOGIC], doc, None, at, supplier=key(name), error=error)


@pytest.mark.parametrize("silent_one", ["member", "proxy"])
def test_a_copycat_that_leaves_docs_unanswered_is_split_off(town: Open, silent_one: str) -> None:
    place = town("a1", "a2")
    proxy = merged(place, "a1", "a2")
    (member,) = {"a1", "a2"} - {proxy}
    silent, honest = (member, proxy) if silent_one == "member" else (proxy, member)
    later = NOW - 10 * HOUR
    place.docs(honest, range(50, 70), later, tasks=[LOGIC])
    withheld(place, silent, range(50, 70), later + HOUR)
    before = windows(place.workspace, suppliers=[key(honest)], now=NOW)
    detect_changes(place.workspace, [key(proxy)], now=NOW)
    (split,) = place.workspace.documents.find(SPLITS)
    assert (split["supplier"], split["proxy"]) == (key(member), key(proxy)) and split["docs"] <= 12
    assert place.groups() == {name: [name] for name in ("a1", "a2")}
    assert windows(place.workspace, suppliers=[key(honest)], now=NOW) == before
    refresh_identity(place.workspace, now=NOW + HOUR)
    assert place.groups()[member] == [member], "its silence is no new common doc"


@pytest.mark.parametrize("error", ["unscorable: it killed it twice", None])
def test_a_copycat_whose_other_answers_have_no_score_is_split_off(town: Open, error: str | None) -> None:
    place = town("a1", "a2")
    proxy = merged(place, "a1", "a2")
    (member,) = {"a1", "a2"} - {proxy}
    later = NOW - 10 * HOUR
    place.docs(proxy, range(50, 70), later, tasks=[LOGIC])
    unscorable(place, member, range(50, 70), later + HOUR, error=error)
    detect_changes(place.workspace, [key(proxy)], now=NOW)
    (split,) = place.workspace.documents.find(SPLITS)
    assert (split["supplier"], split["proxy"]) == (key(member), key(proxy)) and split["docs"] <= 12
    refresh_identity(place.workspace, now=NOW + HOUR)
    assert place.groups()[member] == [member], "that is no new common doc"


def test_who_is_silent_is_not_grouped_by_the_answers_that_it_gives(town: Open) -> None:
    place = town("a1", "a2")
    for name in ("a1", "a2"):
        place.probes(name, "a")
    place.docs("a1", range(60))
    place.docs("a2", range(35))
    withheld(place, "a2", range(35, 60), NOW - 40 * HOUR)
    refresh_identity(place.workspace, now=NOW)
    assert place.groups()["a1"] == ["a1"]


def test_a_proxy_that_turns_is_the_odd_one(town: Open) -> None:
    place = town("a1", "a2", "a3", "a4")
    proxy = merged(place, "a1", "a2", "a3", "a4")
    others = sorted({"a1", "a2", "a3", "a4"} - {proxy})
    later = NOW - 10 * HOUR
    place.docs(proxy, range(50, 70), later, right=lambda task, doc: False, text="other")
    for name in others:
        place.docs(name, range(50, 70), later)
    detect_changes(place.workspace, [key(others[0])], now=NOW)
    (split,) = place.workspace.documents.find(SPLITS)
    assert split["supplier"] == key(proxy) and split["mean_difference"] < 0
    assert place.groups() == {proxy: [proxy], **dict.fromkeys(others, others)}


def test_a_router_has_own_rows_and_a_node_within_its_interval_until_it_is_split(town: Open) -> None:
    """It sends one task of two elsewhere, where everything is wrong."""
    place = town("a1", "a2", taxonomies=["builtin:starter"])
    proxy = merged(place, "a1", "a2")
    (router,) = {"a1", "a2"} - {proxy}
    later = NOW - 10 * HOUR
    place.docs(proxy, range(50, 100), later)
    drawn = sorted(random.Random(3).sample(range(50, 100), 15))
    place.docs(router, drawn, later, tasks=[LOGIC])
    place.docs(router, drawn[:2], later, right=lambda task, doc: False, tasks=[UNITS], text="cheap")
    rows = {r.task: r for r in windows(place.workspace, suppliers=[key(router)], now=NOW) if r.primary}
    # its own docs: those beyond the first fifty fill no slot
    assert rows[UNITS].n == 50 and rows[UNITS].score == pytest.approx(40 / 50)
    place.docs(router, drawn[2:], later + HOUR, right=lambda task, doc: False, tasks=[UNITS], text="cheap")
    detect_changes(place.workspace, [key(router)], now=NOW)
    assert place.groups()[router] == [router]


def test_a_member_has_its_proxys_score_corrected_by_its_own_answers(town: Open) -> None:
    """Twenty of fifty docs of both tasks answered, two of them otherwise."""
    place = town("a1", "a2", taxonomies=["builtin:starter"])
    place.probes("a1", "a")
    place.probes("a2", "a")
    place.docs("a1", range(50))
    drawn = sorted(random.Random(4).sample(range(50), 20))
    good = [doc for doc in drawn if doc % 5 != 0]
    wrong = [(LOGIC, good[6]), (UNITS, good[-1])]
    place.docs("a2", drawn, right=lambda task, doc: doc % 5 != 0 and (task, doc) not in wrong)
    refresh_identity(place.workspace, now=NOW)
    assert place.groups()["a2"] == ["a1", "a2"]
    placed = stored(place.workspace).values()
    place.workspace.documents.upsert(IDENTITY_GROUPS, [{**one, "proxy": key("a1")} for one in placed])
    summaries = {d.supplier: d for d in refresh_summaries(place.workspace, [key("a1"), key("a2")], NOW)}
    member, proxy = (s.nodes[s.root] for s in (summaries[key("a2")], summaries[key("a1")]))
    assert (proxy.score, proxy.shared, proxy.own_score) == (pytest.approx(0.8), False, pytest.approx(0.8))
    right = 2 * len(good) - 2
    assert member.shared and member.n_own == 40
    assert member.own_score == pytest.approx(right / 40)
    assert member.score == pytest.approx(0.8 - 2 / 40)
    low, high = wilson(right, 40)
    assert member.ci_low is not None and member.ci_high is not None
    assert member.ci_high - member.ci_low < high - low, "known better than by its own docs alone"
    entries = {e.supplier: e for e in leaderboard(place.workspace)}
    assert entries[key("a2")].score == member.score and entries[key("a2")].shared
    assert entries[key("a1")].rank_low == entries[key("a2")].rank_low == 1
    # who stands for another has its summary made anew with its own
    place.docs("a1", range(50), NOW - 10 * HOUR, right=lambda task, doc: True, round_=2)
    refresh_summaries(place.workspace, [key("a1")], NOW)
    (again,) = typed.find(place.workspace.documents, TaxonomySummaryRecord, {"supplier": key("a2")})
    assert again.nodes[again.root].score != member.score


@pytest.mark.slow
def test_a_copycat_and_sybils_change_nobody_elses_rows_and_places(town: Open) -> None:
    honest, sybils = ("best", "second", "third"), tuple(f"sybil{n:02d}" for n in range(20))
    shares = {"best": 10, "second": 4, "third": 2}
    alone = town(*honest)
    among = town(*honest, *sybils)
    for place, names in ((alone, honest), (among, (*honest, *sybils))):
        for name in names:
            like = "best" if name in sybils else name
            place.probes(name, like)
            place.docs(name, range(50), text=like, right=lambda task, doc, n=shares[like]: doc % n != 0)
        refresh_identity(place.workspace, now=NOW)
    assert len(among.groups()["best"]) == 21
    before, after = ({e.supplier: e for e in leaderboard(place.workspace)} for place in (alone, among))
    for name in honest:
        one, two = before[key(name)], after[key(name)]
        assert (one.score, one.ci_low, one.ci_high) == (two.score, two.ci_low, two.ci_high)
        assert (one.rank_low, one.rank_high) == (two.rank_low, two.rank_high)
    assert {after[key(name)].rank_low for name in sybils} == {after[key("best")].rank_low}
    for name in honest:
        mine = [windows(place.workspace, suppliers=[key(name)], now=NOW) for place in (alone, among)]
        assert mine[0] == mine[1]
