"""Audits of represented members: how many docs, which, and how they are spread."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.rules import PlanningSettings
from testbench_dagster.planning.audits import audit_pace, audit_target, drawn_audits
from testbench_dagster.planning.release import release
from testbench_dagster.planning.supplier import plan_supplier
from testbench_dagster_tests.planning.test_supplier import DAY, HOUR, MAX_AGE, NOW, answer, supplier, task

SETTINGS = PlanningSettings()


@pytest.mark.parametrize(("n", "docs"), [(0, 0), (6, 6), (10, 10), (25, 10), (33, 10), (34, 11), (50, 15)])
def test_three_in_ten_and_ten_at_least(n: int, docs: int) -> None:
    assert audit_target(n) == docs


@given(st.integers(1, 400), st.floats(0.5, 90), st.floats(0.5, 500))
def test_the_pace_keeps_the_wanted_docs_within_the_age(n: int, days: float, hours: float) -> None:
    max_age = timedelta(days=days)
    pace = audit_pace(n, max_age, PlanningSettings(audit_hours=hours), at_once=False)
    assert 1 <= pace.docs <= audit_target(n)
    assert pace.docs * (max_age / pace.every) == pytest.approx(audit_target(n), rel=1e-6)


def test_who_begins_is_asked_the_least_number_at_once_and_a_setting_wins() -> None:
    assert audit_pace(50, MAX_AGE, SETTINGS, at_once=True).docs == 10
    assert audit_pace(6, MAX_AGE, SETTINGS, at_once=True).docs == 6
    fixed = audit_pace(50, MAX_AGE, PlanningSettings(audit_docs=7, audit_hours=5), at_once=True)
    assert (fixed.docs, fixed.every) == (7, 5 * HOUR)


@pytest.mark.parametrize(("n", "least", "docs"), [(50, 10, 15), (50, 40, 40), (30, 40, 30), (500, 40, 150)])
def test_a_member_answers_as_many_as_it_takes_where_there_are_so_many(n: int, least: int, docs: int) -> None:
    assert audit_target(n, least) == docs
    pace = audit_pace(n, MAX_AGE, SETTINGS, at_once=False, least=least)
    assert pace.docs * (MAX_AGE / pace.every) == pytest.approx(docs, rel=1e-6)
    assert audit_pace(n, MAX_AGE, SETTINGS, at_once=True, least=least).docs == 10, "at once no more than ever"


def test_docs_are_drawn_at_random_among_those_of_the_proxy() -> None:
    facts = task("a", 60, 6)
    doc_of = [prompt.doc_id for prompt in facts.prompts]
    of_proxy, elsewhere = set(doc_of[:50:2]), doc_of[10]
    answered = {doc_of[0], doc_of[2], doc_of[4], elsewhere}
    counts: Counter[int] = Counter()
    for seed in range(400):
        found = drawn_audits(facts.prompts, facts.outcomes, {elsewhere}, of_proxy, 5, Random(seed))
        docs = [prompt.doc_id for prompt in found]
        assert len(set(docs)) == 5 and set(docs) <= of_proxy
        assert not set(docs) & answered, "what it answered lately comes last"
        counts.update(docs)
    assert len(counts) == 21 and max(counts.values()) < 2 * min(counts.values())
    most = drawn_audits(facts.prompts, facts.outcomes, {elsewhere}, of_proxy, 23, Random(1))
    assert len({p.doc_id for p in most} & answered) == 2, "then those it has answered"
    anything = drawn_audits(facts.prompts, [], (), {999}, 3, Random(1))
    assert len(anything) == 3, "a proxy that answered none of the sequence limits nothing"


def test_a_budget_cuts_audits_at_random() -> None:
    """Whatever else it releases: of 60 docs each is audited as often as any other, and as many in all."""
    member = supplier(task("a", 60), proxy="p@external")
    other = plan_supplier(supplier(task("a", 60)), SETTINGS, now=NOW, chance=Random(0))
    counts: Counter[int] = Counter()
    for seed in range(600):
        audit = plan_supplier(member, PlanningSettings(audit_docs=6), now=NOW, chance=Random(seed))
        cut = release({"m": audit, "o": other}, 33)
        counts.update(doc.prompt.position for doc in cut["m"].tasks["a"].plan.due)
        positions = [doc.prompt.position for doc in cut["o"].tasks["a"].plan.due]
        assert positions == list(range(len(positions))), "others get the first ones, as ever"
    assert counts.total() == pytest.approx(600 * 3, rel=0.05)
    thirds = [sum(counts[n] for n in range(start, start + 20)) for start in (0, 20, 40)]
    assert max(thirds) < 1.15 * min(thirds)


def test_a_member_has_its_part_answered_itself_spread_over_the_time() -> None:
    """Planned every six hours for three ages: its window holds three in ten docs, all of its proxy's."""
    settings = PlanningSettings(audit_hours=24)
    known = task("a", 80)
    of_proxy = frozenset(prompt.doc_id for prompt in known.prompts[:50])
    facts = supplier(replace(known, proxy_docs=of_proxy), proxy="p@external")
    now, chance, asked = NOW, Random(7), []
    while now < NOW + 3 * MAX_AGE:
        made = plan_supplier(facts, settings, now=now, chance=chance)
        due = made.tasks["a"].plan.due
        if due:
            asked += [(now, doc.prompt.doc_id) for doc in due]
            facts = answer(facts, made, now)
        now += 6 * HOUR
    last = NOW + 3 * MAX_AGE - MAX_AGE
    window = {doc for at, doc in asked if at > last}
    wanted = audit_target(80)
    assert abs(len([1 for at, _ in asked if at > last]) - wanted) <= 3
    assert window <= of_proxy
    days = Counter(int((at - last) / DAY) for at, _ in asked if at > last)
    assert max(days.values()) <= 2 * wanted / (MAX_AGE / DAY) + 1, "not in bursts"
