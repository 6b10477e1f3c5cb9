"""Verdicts against a reference: what they rest on, and how often they are wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from testbench_dagster.identity.pairs import PairFinding
from testbench_dagster.identity.references import (
    ALPHA,
    DRAWS,
    NEWEST,
    SCORES_ALPHA,
    AsReference,
    Drawn,
    Evidence,
    Judgement,
    Part,
    Scores,
    TaskDifference,
    docs_to_be_alike,
    judge,
)
from testbench_dagster.statistics.draws import surely_alike
from testbench_dagster.statistics.paired import paired_difference

SEED = 20261130


def pair(common: int = 100, agree: int = 100, relation: Any = "same stack", **changes: Any) -> PairFinding:
    said = {
        "a": "a@x",
        "b": "b@x",
        "common": common,
        "agree": agree,
        "agreement": agree / common if common else None,
        "low": 0.0,
        "high": 1.0,
        "distance": None,
        "distance_low": None,
        "distance_high": None,
        "log_merge": 0.0,
        "log_split": 0.0,
        "split": False,
        "relation": relation,
        "wording": "",
    }
    return PairFinding(**{**said, **changes})


def judged(margin: float = 0.05, **changes: Any) -> Judgement:
    said: dict[str, Any] = {
        "pair": pair(),
        "repeats": (0, 0),
        "noisy": (False, False),
        "whole": (100, 100),
        "scores": Scores(500, 0.001, -0.02, 0.02),
    }
    return judge(Evidence(**{**said, **changes}), margin=margin, form_docs=30, form_share=0.8)


DIFFERENT = pair(agree=10, relation="different", split=True, log_split=50.0)


def test_alike_in_answers_and_scores_is_yes() -> None:
    found = judged()
    assert found.verdict is AsReference.YES
    assert "100 of 100 common prompts" in found.finding and "-2.0 to +2.0" in found.finding


def test_scores_that_differ_for_certain_are_no_however_alike_the_answers() -> None:
    found = judged(scores=Scores(500, -0.034, -0.06, -0.0101))
    assert found.verdict is AsReference.NO
    assert found.finding == "scores differ from the reference: -3.4 points (-6.0 to -1.0) on 500 common docs"


@pytest.mark.parametrize(
    "scores", [Scores(0, None, None, None), Scores(40, 0.0, -0.2, 0.2), Scores(40, 0.0, 0.2, -0.2)]
)
def test_alike_answers_without_certain_scores_are_not_yet_known(scores: Scores) -> None:
    assert judged(scores=scores).verdict is AsReference.UNKNOWN


def test_answers_that_differ_are_no_once_it_is_known_how_steadily_both_answer() -> None:
    assert judged(pair=DIFFERENT).verdict is AsReference.UNKNOWN
    assert "how steadily" in judged(pair=DIFFERENT).finding
    assert judged(pair=DIFFERENT, repeats=(20, 20)).verdict is AsReference.NO
    little = pair(agree=10, relation="different", split=True, log_split=math.log(2 / ALPHA) - 0.01)
    assert judged(pair=little, repeats=(20, 20)).verdict is AsReference.UNKNOWN


@pytest.mark.parametrize("whole", [(10, 10), (100, 70)])
def test_equal_beginnings_are_not_enough(whole: tuple[int, int]) -> None:
    assert judged(whole=whole).verdict is AsReference.UNKNOWN


def test_nothing_in_common_is_not_yet_known() -> None:
    nothing = pair(0, 0, "too little evidence")
    assert judged(pair=nothing, whole=(0, 0)).verdict is AsReference.UNKNOWN
    assert judged(pair=None, whole=(0, 0), scores=Scores(0, None, None, None)).finding.startswith("no common")


def drawn(
    rng: np.random.Generator, prompts: int, draws: int, elsewhere: float = 0.0, answers: int = 4
) -> Drawn:
    """Both draw one of some answers, each at its own odds; a part of the supplier's comes from elsewhere."""
    found = []
    for _ in range(prompts):
        odds = rng.dirichlet(np.full(answers, 0.3))
        theirs = rng.choice(answers, draws, p=odds)
        ours = rng.choice(answers, draws, p=odds) + answers * (rng.random(draws) < elsewhere)
        found.append((ours.tolist(), theirs.tolist()))
    first = {n: [(a[:n], b[:n]) for a, b in found] for n in DRAWS if n <= draws}
    return Drawn(first, {"in a": found, "at the newest prompts": found[-NEWEST:]})


NOISY = {"pair": DIFFERENT, "noisy": (True, True)}


def test_who_ignores_the_temperature_is_judged_by_several_draws() -> None:
    rng = np.random.default_rng(SEED)
    alike, other = drawn(rng, 160, 4), drawn(rng, 32, 4, elsewhere=1.0)
    found = judged(**NOISY, beginnings=alike)
    assert found.verdict is AsReference.YES
    assert "by draws of both at 160 prompts alike beyond doubt, whole answers too" in found.finding
    assert judged(**NOISY, beginnings=other).verdict is AsReference.NO
    few = judged(**NOISY, beginnings=drawn(rng, 15, 4, elsewhere=1.0))
    assert few.verdict is AsReference.UNKNOWN and "few draws" in few.finding
    some = judged(**NOISY, beginnings=drawn(rng, 32, 2))
    assert some.verdict is AsReference.UNKNOWN and "they may be alike" in some.finding


def test_draws_that_are_alike_are_no_yes_without_scores_and_whole_answers() -> None:
    rng = np.random.default_rng(SEED)
    alike, other = drawn(rng, 160, 4), drawn(rng, 160, 4, elsewhere=0.6)
    wide = judged(**NOISY, beginnings=alike, scores=Scores(40, 0.0, -0.2, 0.2))
    assert wide.verdict is AsReference.UNKNOWN and "not certain yet" in wide.finding
    # whole answers are seldom equal: draws of them are looked at, where there are any
    unequal: dict[str, Any] = {**NOISY, "beginnings": alike, "whole": (100, 40)}
    assert judged(**unequal).verdict is AsReference.UNKNOWN
    assert judged(**unequal, answers=other).verdict is AsReference.UNKNOWN
    assert "whole answers were drawn too seldom, or are others" in judged(**unequal, answers=other).finding
    assert judged(**unequal, answers=drawn(rng, 160, 4)).verdict is AsReference.YES
    parts = [Part("docs of b", 60, 30)]
    unlike = judged(**NOISY, beginnings=alike, parts=parts)
    assert unlike.verdict is AsReference.UNKNOWN and "equal to 30 of 60 docs of b" in unlike.finding


def test_who_turned_lately_is_no_yes_by_draws() -> None:
    rng = np.random.default_rng(SEED)
    alike, turned = drawn(rng, 400, 4), drawn(rng, NEWEST, 2, elsewhere=1.0)
    beginnings = Drawn(alike.first, {**alike.parts, "at the newest prompts": turned.first[2]})
    found = judged(**NOISY, beginnings=beginnings)
    assert found.verdict is AsReference.UNKNOWN and "but not at the newest prompts" in found.finding


@pytest.mark.slow
def test_who_sends_a_fifth_elsewhere_is_told_alike_no_more_often_than_stated() -> None:
    """At the margin itself, the hardest case: after 2 and after 4 draws of 60, 120 and 240 prompts."""
    rng = np.random.default_rng(SEED)
    n = 150
    told = 0
    for _ in range(n):
        made = drawn(rng, 240, 4, elsewhere=0.2)
        told += any(
            surely_alike(made.first[number][:prompts], 0.8, ALPHA * DRAWS[number])
            for number in made.first
            for prompts in (60, 120, 240)
        )
    assert told <= ALPHA * n + 3 * (ALPHA * n) ** 0.5


def test_where_only_one_keeps_to_temperature_0_answers_say_little() -> None:
    for noisy, who in (((True, False), "it does not"), ((False, True), "the reference does not")):
        found = judged(pair=DIFFERENT, repeats=(50, 50), noisy=noisy)
        assert found.verdict is AsReference.UNKNOWN and who in found.finding


def test_one_task_that_differs_for_certain_is_enough() -> None:
    tasks = [
        TaskDifference("a", 50, 0.01, -0.1, 0.1),
        TaskDifference("b", 50, 0.3, 0.1, 0.5),
        TaskDifference("c", 60, -0.41, -0.6, -0.2),
        TaskDifference("d", 50, -0.9, 0.2, -0.2),  # nothing fits all of its docs
        TaskDifference("e", 50, 0.5, None, None),
    ]
    found = judged(scores=Scores(500, 0.0, -0.02, 0.02, tasks=tasks))
    assert found.verdict is AsReference.NO
    assert found.finding == (
        "scores differ from the reference in c: -41.0 points (-60.0 to -20.0) on 60 common docs, and in 1 "
        "other task; in all +0.0 points (-2.0 to +2.0) on 500 common docs"
    )
    assert (
        judged(scores=Scores(500, 0.0, -0.02, 0.02, tasks=[tasks[0], *tasks[3:]])).verdict is AsReference.YES
    )


def test_a_part_whose_answers_are_certainly_others_is_no_yes() -> None:
    parts = [Part("docs of a", 40, 31), Part("docs of b", 60, 30), Part("of the newest docs", 30, 20)]
    found = judged(parts=parts)
    assert found.verdict is AsReference.UNKNOWN and "but to 30 of 60 docs of b" in found.finding
    assert judged(parts=[parts[0], parts[2]]).verdict is AsReference.YES, "that may be chance"


@pytest.mark.parametrize(("unanswered", "verdict"), [(25, AsReference.YES), (26, AsReference.UNKNOWN)])
def test_silence_beyond_the_margin_is_no_yes(unanswered: int, verdict: AsReference) -> None:
    found = judged(scores=Scores(500, 0.0, -0.02, 0.02, unanswered))
    assert found.verdict is verdict and f"of which it left {unanswered} unanswered" in found.finding


def test_who_is_asked_in_another_form_is_not_judged() -> None:
    found = judged(scores=Scores(500, -0.5, -0.6, -0.4), asked_otherwise="because")
    assert found == Judgement(AsReference.UNKNOWN, "not comparable: because")


def test_how_many_docs_it_takes_to_be_alike_follows_from_the_margin() -> None:
    """So many that equal scores, 5 % of docs otherwise, are within the margin, and not far fewer."""
    assert docs_to_be_alike(0.1) < docs_to_be_alike(0.05) < docs_to_be_alike(0.03)
    needed = docs_to_be_alike(0.05)
    assert 350 <= needed <= 500
    for docs, certain in ((needed, True), (needed // 2, False)):
        ours, theirs = np.ones(docs), np.ones(docs)
        ours[::40], theirs[20::40] = 0.0, 0.0
        found = paired_difference(ours, theirs, SCORES_ALPHA)
        assert (found.low >= -0.05 and found.high <= 0.05) is certain


def test_a_verdict_never_says_what_a_supplier_runs() -> None:
    for found in (judged(), judged(pair=DIFFERENT, repeats=(20, 20)), judged(whole=(0, 0))):
        assert not any(word in found.finding for word in ("model", "runs", "serves", "fake"))


@pytest.mark.slow
def test_the_stated_rate_of_errors_holds_however_often_one_looks() -> None:
    """Suppliers that are as the reference, but for 3 % of docs that come out otherwise by chance.

    Looked at after 50, 200, 800 and 1,600 docs: ever told to differ by scores in at most SCORES_ALPHA of
    them, and what chance adds.
    """
    rng = np.random.default_rng(SEED)
    n, wrong = 300, 0
    for _ in range(n):
        chance = rng.beta(3, 1.5, size=1600)
        base = rng.random(1600) < chance
        ours, theirs = (np.where(rng.random(1600) < 0.03, rng.random(1600) < chance, base) for _ in range(2))
        for docs in (50, 200, 800, 1600):
            found = paired_difference(ours[:docs].astype(float), theirs[:docs].astype(float), SCORES_ALPHA)
            scores = Scores(docs, found.difference, found.low, found.high)
            if judged(scores=scores).verdict is AsReference.NO:
                wrong += 1
                break
    assert wrong <= SCORES_ALPHA * n + 3 * (SCORES_ALPHA * n) ** 0.5


@pytest.mark.slow
def test_what_a_quantised_twin_loses_is_seen() -> None:
    """Three points less, 6 % of docs otherwise: told to differ in most runs of 3,000 docs."""
    rng = np.random.default_rng(SEED)
    seen = 0
    for _ in range(60):
        base = rng.random(3000) < 0.8
        lost = base & (rng.random(3000) < 0.045 / 0.8)
        won = ~base & (rng.random(3000) < 0.015 / 0.2)
        found = paired_difference((base & ~lost | won).astype(float), base.astype(float), SCORES_ALPHA)
        seen += judged(scores=Scores(3000, found.difference, found.low, found.high)).verdict is AsReference.NO
    assert seen >= 50
