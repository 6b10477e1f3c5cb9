"""Audits: which docs a member of an identity group is asked, although another supplier stands for it.

Of the n docs of a task it answers a part by itself, drawn at random among those that its proxy is asked too,
whether that answers them or not (else a proxy would choose what its members are measured on), and spread
evenly over the time for which an answer counts: so its window holds that many own docs, its node scores can
be corrected by them, and whoever turns is found by the next few.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

from testbench_dagster.core.rules import PlanningSettings
from testbench_dagster.planning.due import CallOutcome, DuePrompt, PromptRef

#: The part of the docs that a member is asked itself.
AUDIT_SHARE = 0.3
#: So many of each task at least, where there are so many.
LEAST_AUDITS = 10


@dataclass(frozen=True, slots=True)
class AuditPace:
    """How many docs a member is asked at once, and how often."""

    docs: int
    every: timedelta


def audit_target(n: int, least: int = LEAST_AUDITS) -> int:
    """How many of ``n`` docs of a task a member answers itself, ``least`` where there are so many."""
    return min(n, max(least, math.ceil(AUDIT_SHARE * n)))


def audit_pace(
    n: int, max_age: timedelta, settings: PlanningSettings, *, at_once: bool, least: int = LEAST_AUDITS
) -> AuditPace:
    """The pace at which a member keeps :func:`audit_target` docs of ``n`` within ``max_age``.

    About every ``planning.audit_hours``, and less often where that would be less than one doc each time. Who
    has no sample of the task yet, or is to be asked by force, is asked the least number ``at_once``.
    ``planning.audit_docs``, where it is set, is asked every ``audit_hours`` instead. ``least`` is as in
    :func:`audit_target`.
    """
    hours = timedelta(hours=settings.audit_hours)
    if settings.audit_docs is not None:
        return AuditPace(settings.audit_docs, hours)
    wanted = audit_target(n, least)
    if not wanted:
        return AuditPace(0, hours)
    if at_once:
        return AuditPace(min(wanted, LEAST_AUDITS), hours)
    docs = min(wanted, max(1, round(wanted * (hours / max_age))))
    return AuditPace(docs, max_age * (docs / wanted))


def drawn_audits(
    prompts: Sequence[PromptRef],
    outcomes: Sequence[CallOutcome],
    elsewhere: Collection[int],
    of_proxy: Collection[int],
    docs: int,
    chance: Random,
) -> list[PromptRef]:
    """Draw so many prompts at random, those first whose docs the member has not answered lately.

    ``of_proxy``: docs that its proxy was asked; where these are none of the sequence, any may be drawn.
    ``elsewhere``: docs that the member closed in earlier epochs.
    """
    eligible = _eligible(prompts, of_proxy)
    asked = {outcome.prompt_id for outcome in outcomes}
    new = [p for p in eligible if p.id not in asked and p.doc_id not in elsewhere]
    known = [p for p in eligible if p.id in asked or p.doc_id in elsewhere]
    first = chance.sample(new, min(docs, len(new)))
    return first + chance.sample(known, min(docs - len(first), len(known)))


def placed_audits(
    due: Sequence[DuePrompt], prompts: Sequence[PromptRef], of_proxy: Collection[int], chance: Random
) -> list[DuePrompt]:
    """Give the docs of an audit places in the sequence that are drawn apart from them, and order them so.

    What a budget releases goes by place: by their positions the first docs of the sequence would be audited
    again and again, and the last never. Docs that are open keep theirs, and stand first.
    """
    new = [doc for doc in due if not doc.open]
    eligible = [prompt.position for prompt in _eligible(prompts, of_proxy)]
    places = chance.sample(eligible, len(new))
    placed = sorted(zip(places, new, strict=True), key=lambda one: one[0])
    return [doc for doc in due if doc.open] + [replace(doc, place=place) for place, doc in placed]


def _eligible(prompts: Sequence[PromptRef], of_proxy: Collection[int]) -> list[PromptRef]:
    return [prompt for prompt in prompts if prompt.doc_id in of_proxy] or list(prompts)
