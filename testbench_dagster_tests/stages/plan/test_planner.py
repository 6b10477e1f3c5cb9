"""Plans from stored facts: answers, epochs, ages, gates, schedules, proxies."""

from __future__ import annotations

import itertools
import math
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.sampling import asks_again, kept_docs
from testbench_dagster.identity.references import docs_to_be_alike
from testbench_dagster.planning.audits import LEAST_AUDITS
from testbench_dagster.planning.due import TaskPlan
from testbench_dagster.stages.identify.identify import detect_changes
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.sample.catalogue import current_epoch
from testbench_dagster.stages.score.groups import proxies_of
from testbench_dagster.stages.score.samples import window_samples
from testbench_dagster.stores.documents.collections import HEIGHTS, IDENTITY_GROUPS, PLANS, TAXONOMY_SUMMARIES
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, GATING, NOW
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA


def test_what_is_not_answered_is_due(stage: Any) -> None:
    made = stage()
    assert made.states() == {GATED: ("due", DOCS), GATING: ("due", DOCS)}
    made.answered(GATED, range(4))
    assert made.states() == {GATED: ("due", DOCS - 4), GATING: ("due", DOCS)}
    assert made.states(BETA) == {GATED: ("due", DOCS), GATING: ("due", DOCS)}
    assert made.states(tasks=[GATED]) == {GATED: ("due", DOCS - 4)}


def test_answers_of_an_earlier_epoch_count_while_they_are_fresh(stage: Any) -> None:
    made = stage({"sampling": {"max_age_days": 1}})
    made.answered(GATED, range(4), at=NOW - timedelta(hours=2))
    made.answered(GATED, range(4, 8), at=NOW - timedelta(hours=30))
    made.epoch(GATED, 2, order=list(range(20, 30)))
    assert made.states()[GATED] == ("due", DOCS - 4)


def test_named_docs_are_planned_alone(stage: Any) -> None:
    """Whatever else is fresh, open or fell due."""
    named = [7, 8, 9, 30]
    tasks = [{"name": GATED, "samples": {"ids": named}}, {"name": GATING, "samples": DOCS}]
    made = stage({"sampling": {"max_age_days": 1}}, tasks=tasks)
    made.answered(GATED, range(3), at=NOW - timedelta(hours=2))  # fresh
    made.answered(GATED, range(3, 6), at=NOW - timedelta(hours=30))  # due again
    opened, at = f"{GATED}-1-chat-6", NOW - timedelta(hours=1)
    made.facts.attempt(made.registrations[GATED], 6, Fault.SUPPLIER_HTTP, at, prompt_id=opened)
    made.answered(GATED, range(7, 8), at=NOW - timedelta(hours=2))
    assert made.states()[GATED] != ("due", 3), "there are no prompts of theirs yet"
    assert current_epoch(made.workspace, made.workspace.spec(GATED)).doc_ids == named
    made.epoch(GATED, 2, order=[30, 8, 9, 7], doc_ids=named)
    plan = Planner(made.workspace, now=NOW).plan(made.supplier()).tasks[GATED].plan
    assert [(due.prompt.doc_id, due.epoch) for due in plan.due] == [(30, None), (8, None), (9, None)]
    assert (plan.target, plan.fresh) == (4, 1)


def test_slots_that_fall_due_in_a_new_epoch_ask_half_of_their_docs_again(stage: Any) -> None:
    """In the epoch in which they were asked, where the new sequence has them not."""
    made = stage({"sampling": {"max_age_days": 1}})
    made.answered(GATED, range(DOCS), at=NOW - timedelta(hours=30))
    made.epoch(GATED, 2, order=list(range(20, 30)))
    again = [doc for doc in range(DOCS) if asks_again("seed 2", doc)]
    assert 1 < len(again) < 9
    due = Planner(made.workspace, now=NOW).plan(made.supplier()).tasks[GATED].plan.due
    asked = [(d.prompt.doc_id, d.epoch, d.round) for d in due]
    new = [(20 + n, None, 1) for n in range(DOCS - len(again))]
    assert asked == [(doc, 1, 2) for doc in again] + new
    other = Planner(made.workspace, now=NOW + timedelta(days=3)).plan(made.supplier()).tasks[GATED].plan.due
    assert [d.prompt.doc_id for d in other] == list(range(20, 30)), "nothing keeps a slot for so long"


def test_half_of_the_slots_take_other_docs_where_the_first_set_the_number(stage: Any) -> None:
    """The same ones in the plan and in the score, which keeps what was there until they close."""
    made = stage()
    made.answered(GATED, range(DOCS), at=NOW - timedelta(hours=30))
    made.epoch(GATED, 2, order=list(range(20, 30)), draw="draw")

    def resting_on() -> set[int]:
        spec = made.workspace.spec(GATED)
        samples = window_samples(made.workspace, made.supplier(), spec, made.registrations[GATED], NOW)
        return {sample.doc_id for sample in samples}

    def due() -> list[int]:
        plan = Planner(made.workspace, now=NOW).plan(made.supplier()).tasks[GATED].plan
        return [doc.prompt.doc_id for doc in plan.due]

    kept = kept_docs("draw", range(DOCS), DOCS // 2)
    assert due() == [20, 21, 22, 23, 24]
    assert resting_on() == set(range(DOCS))
    made.answered(GATED, range(20, 22), at=NOW - timedelta(hours=1), epoch=2)
    assert due() == [22, 23, 24]
    assert len(resting_on()) == DOCS and resting_on() > kept | {20, 21}
    made.answered(GATED, range(22, 25), at=NOW - timedelta(hours=1), epoch=2)
    assert (due(), resting_on()) == ([], kept | {20, 21, 22, 23, 24})
    made.epoch(GATED, 3, order=list(range(30, 40)), draw="draw", since=2)
    assert (due(), resting_on()) == ([], kept | {20, 21, 22, 23, 24}), "and in the epochs after it"


def test_answers_before_a_change_of_the_model_are_void(stage: Any) -> None:
    made = stage()
    made.answered(GATED, range(DOCS), at=NOW - timedelta(hours=2))
    assert made.states()[GATED] == ("fresh", 0)
    made.facts.on_roster(ALPHA, cut_at=NOW - timedelta(hours=1))
    assert made.states()[GATED] == ("due", DOCS)


def test_after_a_change_that_scores_show_all_docs_are_asked_at_once(stage: Any) -> None:
    """But for those that were asked since: repeats of five docs showed it."""
    made = stage()
    minutes = itertools.count()
    start = NOW - timedelta(hours=12)

    def ask(task: str, doc: int, round_: int, value: float) -> None:
        at = start + timedelta(minutes=next(minutes))
        registration, prompt = made.registrations[task], f"{task}-1-chat-{doc}"
        made.facts.attempt(registration, doc, at=at, round_=round_, prompt_id=prompt, text="x")
        made.facts.score(registration, doc, value, at, round_=round_)

    for round_ in range(1, 6):
        for task, doc in itertools.product((GATED, GATING), range(10)):
            ask(task, doc, round_, 1.0)
    assert made.states() == {GATED: ("fresh", 0), GATING: ("fresh", 0)}
    for round_ in range(6, 14):
        for doc in range(5):
            ask(GATED, doc, round_, 0.0)
    (change,) = detect_changes(made.workspace, [ALPHA], now=NOW)
    assert (change.kind, change.cut) == ("score", True)
    assert made.states() == {GATED: ("due", 5), GATING: ("due", 10)}


def test_a_task_has_its_own_age(stage: Any) -> None:
    tasks = [
        {"name": GATED, "samples": DOCS, "planning": {"max_age_days": 1}},
        {"name": GATING, "samples": DOCS},
    ]
    made = stage(tasks=tasks)
    for task in (GATED, GATING):
        made.answered(task, range(DOCS), at=NOW - timedelta(days=2))
    assert made.states() == {GATED: ("due", DOCS), GATING: ("fresh", 0)}


def test_a_gate_looks_at_the_other_task(stage: Any) -> None:
    tasks = [
        {
            "name": GATED,
            "samples": DOCS,
            "planning": {"gates": [{"task": GATING, "pass": 0.9, "fail": 0.5, "alpha": 0.05, "beta": 0.05}]},
        },
        {"name": GATING, "samples": {"min": 2, "start": 2, "max": DOCS, "half_width": 0.4}},
    ]
    made = stage(tasks=tasks)
    assert made.states()[GATED] == ("gated", 0)
    made.answered(GATING, range(3))
    assert made.states()[GATED] == ("gated", 0)
    # it would have docs enough for its own rule, were the gate decided
    assert made.states()[GATING] == ("due", DOCS - 3)
    made.answered(GATING, range(3, 7))
    assert made.states() == {GATED: ("due", DOCS), GATING: ("fresh", 0)}
    assert made.states(tasks=[GATED]) == {GATED: ("due", DOCS)}, "also where the gating task is not chosen"


@pytest.mark.parametrize(
    ("changes", "opens"),
    [
        ({}, True),
        ({"score": 0.7}, False),
        ({"errors": 60}, False),
        ({"min_n": 9}, False),
        ({"n_measured": 1}, False),
        ({"age_days": 40}, False),
    ],
)
def test_an_ability_opens_a_gate(stage: Any, changes: dict[str, Any], opens: bool) -> None:
    gate = {"taxonomy": "starter", "min_score": 0.8, "min_success": 0.8, "min_samples": 10}
    tasks = [
        # a second configuration of a task, which is no part of the taxonomy it waits for
        {"name": GATED, "alias": "apart", "samples": DOCS, "planning": {"gates": [gate]}},
        {"name": GATED, "samples": DOCS},
        {"name": GATING, "samples": DOCS},
    ]
    made = stage({"taxonomies": ["builtin:starter"]}, tasks=tasks)
    made.registrations["apart"] = made.facts.registration("apart", n_docs=50)
    made.epoch("apart", 1)
    node = {
        "node": "root", "status": "ok", "score": 0.9, "se": 0.03, "ci_low": 0.84, "ci_high": 0.94,
        "weights": {}, "n_tasks": 2, "n_measured": 2, "coverage": 1.0, "min_n": 30, "missing": [],
        "n": 100, "errors": 10, **changes,
    }  # fmt: skip
    made.workspace.documents.upsert(
        TAXONOMY_SUMMARIES,
        [
            {
                "_id": "summary",
                "supplier": ALPHA,
                "taxonomy": "starter",
                "summarized_at": NOW - timedelta(days=changes.get("age_days", 1)),
                "score": node["score"],
                "root": "root",
                "nodes": {"root": node},
            }
        ],
    )
    assert made.states()["apart"][0] == ("due" if opens else "gated")


def test_a_schedule_counts_blocks_of_the_service(stage: Any) -> None:
    settings = {
        "supplier_sources": [{"file": "roster.json"}],
        "planning": {"schedule": {"every": 2, "unit": "session"}, "blocks_per_session": 10},
    }
    made = stage(settings)
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 119, "at": NOW}])
    registration = made.registrations[GATED]
    made.facts.attempt(registration, 0, at=NOW, prompt_id=f"{GATED}-1-chat-0", text="x")
    assert made.states()[GATED] == ("due", DOCS - 1), "a sample without a height does not block for good"
    made.facts.attempt(registration, 1, at=NOW, prompt_id=f"{GATED}-1-chat-1", text="x", height=100)
    assert made.states()[GATED] == ("scheduled", 0)
    made.workspace.documents.upsert(HEIGHTS, [{"_id": "external", "height": 120, "at": NOW}])
    assert made.states()[GATED] == ("due", DOCS - 2)


def test_a_member_is_only_audited_while_its_proxy_lives(stage: Any) -> None:
    made = stage({"planning": {"audit_docs": 2, "audit_hours": 24}})
    made.workspace.documents.upsert(
        IDENTITY_GROUPS,
        [{"_id": ALPHA, "group": "g", "proxy": BETA}, {"_id": BETA, "group": "g", "proxy": BETA}],
    )
    assert made.states() == {GATED: ("due", 2), GATING: ("due", 2)}
    made.answered(GATED, range(2), at=NOW - timedelta(hours=1))
    assert made.states()[GATED] == ("represented", 0)
    assert made.states(BETA) == {GATED: ("due", DOCS), GATING: ("due", DOCS)}, "the proxy is asked in full"
    kept = {"_id": BETA, "service": "external", "planned_at": NOW, "failures": 3, "due_calls": 0}
    made.workspace.documents.upsert(PLANS, [kept])
    assert made.states()[GATED] == ("due", DOCS - 2), "a proxy that does not answer stands for nobody"


@pytest.mark.parametrize("proxy", [ALPHA, BETA])
def test_a_reference_is_asked_all_docs_whoever_stands_for_its_group(stage: Any, proxy: str) -> None:
    suppliers = [
        {"address": name, "base_url": "http://127.0.0.1:9/v1", "model": "m", "reference": name == "alpha"}
        for name in ("alpha", "beta")
    ]
    made = stage({"suppliers": suppliers, "planning": {"audit_docs": 2, "audit_hours": 24}})
    made.workspace.documents.upsert(
        IDENTITY_GROUPS,
        [{"_id": key, "group": "g", "proxy": proxy, "members": [ALPHA, BETA]} for key in (ALPHA, BETA)],
    )
    assert made.states(ALPHA) == {GATED: ("due", DOCS), GATING: ("due", DOCS)}
    asked = DOCS if proxy == BETA else 2
    assert made.states(BETA) == {GATED: ("due", asked), GATING: ("due", asked)}
    known = {key: made.supplier(key) for key in (ALPHA, BETA)}
    represents = proxies_of(made.workspace.documents, known, (ALPHA,))
    assert represents == ({} if proxy == BETA else {BETA: ALPHA}), "of what is scored the same is so"


def test_members_are_asked_as_many_docs_as_comparing_them_with_a_reference_takes(stage: Any) -> None:
    """Spread over the two tasks that both are asked, where that is more than the usual part."""
    suppliers = [
        {"address": "alpha", "base_url": "http://127.0.0.1:9/v1", "model": "m", "reference": True},
        {"address": "beta", "base_url": "http://127.0.0.1:9/v1", "model": "m"},
    ]
    cases = ((True, 0.5, LEAST_AUDITS), (True, 0.05, None), (False, 0.05, LEAST_AUDITS))
    for trusted, margin, least in cases:
        suppliers[0]["reference"] = trusted
        made = stage({"suppliers": suppliers, "identity": {"reference_margin": margin}})
        made.workspace.documents.upsert(
            IDENTITY_GROUPS,
            [{"_id": key, "group": "g", "proxy": ALPHA, "members": [ALPHA, BETA]} for key in (ALPHA, BETA)],
        )
        facts = Planner(made.workspace, now=NOW).facts(made.supplier(BETA))
        wanted = math.ceil(docs_to_be_alike(margin) / 2) if least is None else least
        assert {one.least_audits for one in facts.tasks.values()} == {wanted}, (trusted, margin)


def represented(made: Any) -> None:
    made.workspace.documents.upsert(
        IDENTITY_GROUPS,
        [{"_id": key, "group": "g", "proxy": BETA, "members": [ALPHA, BETA]} for key in (ALPHA, BETA)],
    )


def test_a_member_is_asked_docs_that_its_proxy_answered(stage: Any) -> None:
    made = stage({"planning": {"audit_docs": 3, "audit_hours": 24}})
    represented(made)
    made.answered(GATED, range(4, 8), supplier=BETA)
    drawn = set()
    for seed in range(8):
        plan = Planner(made.workspace, now=NOW, chance=Random(seed)).plan(made.supplier()).tasks[GATED].plan
        docs = {due.prompt.doc_id for due in plan.due}
        assert len(docs) == 3 and docs <= {4, 5, 6, 7}
        drawn.add(frozenset(docs))
    assert len(drawn) > 1, "nobody can foresee which"


def test_a_member_is_asked_docs_that_its_proxy_left_unanswered_too(stage: Any) -> None:
    """Else a proxy that is silent where it would be wrong leaves its members the docs that it gets right."""
    made = stage({"planning": {"audit_docs": 3, "audit_hours": 24}})
    represented(made)
    made.answered(GATED, range(4, 6), supplier=BETA)
    for doc in (6, 7):
        ask(made, doc, Fault.SUPPLIER_HTTP, NOW - timedelta(minutes=1), supplier=BETA)
    drawn: set[int] = set()
    for seed in range(8):
        plan = Planner(made.workspace, now=NOW, chance=Random(seed)).plan(made.supplier()).tasks[GATED].plan
        drawn |= {due.prompt.doc_id for due in plan.due}
    assert drawn == {4, 5, 6, 7}


def test_what_opens_a_gate_for_a_proxy_does_for_whom_it_stands(stage: Any) -> None:
    """A member answers too few docs itself for a gate that wants more."""
    gate = {"task": GATING, "pass": 0.9, "fail": 0.5, "alpha": 0.05, "beta": 0.05}
    tasks = [
        {"name": GATED, "samples": DOCS, "planning": {"gates": [gate]}},
        {"name": GATING, "samples": DOCS},
    ]
    made = stage({"planning": {"audit_docs": 2, "audit_hours": 24}}, tasks=tasks)
    made.answered(GATING, range(3))
    assert made.states()[GATED] == ("gated", 0)
    represented(made)
    assert made.states()[GATED] == ("gated", 0), "its proxy answered none either"
    made.answered(GATING, range(9), supplier=BETA)
    assert made.states()[GATED] == ("due", 2)


def ask(made: Any, doc: int, fault: Fault, at: datetime, **more: Any) -> None:
    made.facts.attempt(made.registrations[GATED], doc, fault, at, prompt_id=f"{GATED}-1-chat-{doc}", **more)


def test_an_open_doc_waits_for_its_next_occasion(stage: Any) -> None:
    made = stage()
    ask(made, 0, Fault.TRANSPORT, NOW - timedelta(minutes=14))
    ask(made, 1, Fault.SUPPLIER_HTTP, NOW - timedelta(minutes=16))
    ask(made, 2, Fault.INTERNAL, NOW)
    plan = Planner(made.workspace, now=NOW, chance=Random(1)).plan(made.supplier()).tasks[GATED].plan
    asked = [(doc.prompt.doc_id, doc.occasion, doc.open) for doc in plan.due]
    assert asked[:2] == [(2, 1, True), (1, 2, True)], "ours count for nothing"
    assert (plan.open, len(plan.due)) == (3, DOCS - 1)
    retried = Planner(made.workspace, now=NOW).plan(made.supplier(), retry_errors=True).tasks[GATED].plan
    assert [doc.prompt.doc_id for doc in retried.due[:3]] == [2, 0, 1]


def test_a_doc_closes_after_witnessed_occasions_and_is_asked_no_more(stage: Any) -> None:
    """The witnesses are answers of another task: one query for all tasks of a supplier."""
    made = stage()
    for place, minutes in enumerate((200, 180, 60)):
        at = NOW - timedelta(minutes=minutes)
        ask(made, 0, Fault.SUPPLIER_HTTP, at, number=place + 1, lease=place + 1)
        if place < 2:
            made.answered(GATING, range(place, place + 1), at=at)

    def plan() -> TaskPlan:
        return Planner(made.workspace, now=NOW).plan(made.supplier(), retry_errors=True).tasks[GATED].plan

    assert (plan().open, plan().fresh, len(plan().due)) == (1, 0, DOCS), "two of three are witnessed"
    made.answered(GATING, range(2, 3), at=NOW - timedelta(minutes=60))
    assert (plan().open, plan().fresh, len(plan().due)) == (0, 1, DOCS - 1)


def test_occasions_can_be_compressed(stage: Any) -> None:
    made = stage({"planning": {"occasions_minutes": [0, 1, 2]}})
    ask(made, 0, Fault.TRANSPORT, NOW - timedelta(seconds=61))
    ask(made, 1, Fault.TRANSPORT, NOW - timedelta(seconds=59))
    plan = Planner(made.workspace, now=NOW).plan(made.supplier()).tasks[GATED].plan
    assert [doc.prompt.doc_id for doc in plan.due if doc.open] == [0]


def test_open_docs_of_an_earlier_epoch_are_asked_under_its_prompts(stage: Any) -> None:
    made = stage()
    made.answered(GATED, range(1, DOCS), at=NOW - timedelta(hours=2))
    ask(made, 0, Fault.TRANSPORT, NOW - timedelta(minutes=30))
    made.epoch(GATED, 2, order=list(range(20, 30)))
    plan = Planner(made.workspace, now=NOW).plan(made.supplier()).tasks[GATED].plan
    (due,) = plan.due
    assert (due.prompt.id, due.epoch, due.occasion, plan.fresh) == (f"{GATED}-1-chat-0", 1, 2, DOCS - 1)


def test_a_form_of_request_that_is_refused_everywhere_leaves_its_docs_open(stage: Any) -> None:
    made = stage({"planning": {"occasions_minutes": [0, 1, 2]}})
    for doc in range(2):
        for place, minutes in enumerate((9, 7, 5)):
            at = NOW - timedelta(minutes=minutes)
            ask(made, doc, Fault.CLIENT_REQUEST, at, number=place + 1, lease=place + 1)
    plan = Planner(made.workspace, now=NOW).plan(made.supplier()).tasks[GATED].plan
    assert [doc.prompt.doc_id for doc in plan.due if doc.open] == [0, 1]


def test_a_plan_draws_canaries_from_what_was_answered(stage: Any) -> None:
    made = stage()
    made.answered(GATING, range(4), at=NOW - timedelta(hours=1))
    ask(made, 0, Fault.TRANSPORT, NOW - timedelta(minutes=30))
    supplier = made.supplier()
    plan = Planner(made.workspace, now=NOW, chance=Random(3)).plan(supplier)
    drawn = {canary.prompt.id for canary in (*plan.canaries, *plan.spares)}
    assert (len(plan.canaries), len(plan.spares)) == (3, 1)
    assert drawn == {f"{GATING}-1-chat-{doc}" for doc in range(4)}
    assert plan.n_calls == DOCS + (DOCS - 4) + 3
    canary = plan.canaries[0]
    made.facts.attempt(
        made.registrations[GATING], canary.prompt.doc_id, at=NOW, prompt_id=canary.prompt.id,
        number=canary.attempt, canary=True, text="x",
    )  # fmt: skip
    again = Planner(made.workspace, now=NOW, chance=Random(3)).plan(supplier)
    numbers = {c.prompt.id: c.attempt for c in (*again.canaries, *again.spares)}
    assert numbers[canary.prompt.id] == canary.attempt + 1, "an attempt is never written over"
