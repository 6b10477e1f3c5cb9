"""Whether a supplier is as a reference is: one that is trusted to serve the model they both name.

Three kinds of evidence. How answers begin at temperature 0, with the e-values of :mod:`.pairs`, and whether
whole answers are equal, over all docs, in each task and in the newest ones. Where neither repeats itself,
several draws of both at the same prompts: by a permutation test whether they differ, and by a test of
equivalence whether they are alike within a margin. And the paired differences of their scores, over all tasks
and in each, whose intervals hold at all times.

What is said is that answers and scores are those of the reference, that they differ, or that this is not
known yet; never what a supplier runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.pairs import PairFinding
from testbench_dagster.statistics.draws import Draws, permutation_p, surely_alike
from testbench_dagster.statistics.paired import paired_difference

#: Probability that a supplier that is as the reference is is ever told to differ, half by scores, half by
#: answers; and about that a supplier that answers like it on three of four prompts is told to be as it.
ALPHA = 0.01
#: That the interval of the difference over all tasks misses the truth; as much is shared among single tasks.
SCORES_ALPHA = ALPHA / 4
#: The newest common docs whose answers are looked at by themselves.
NEWEST = 30
#: Repeats of its own after which it is known how steadily a supplier answers.
REPEATS = 20
#: Prompts with draws of both at the first look at them; each further look takes twice as many.
FIRST_LOOK = 16
#: So many draws of each at a prompt are compared, the first ones; which part of the error each number has.
#: What is seen of a prompt once is thus never another later, however many draws follow.
DRAWS = {2: 0.5, 4: 0.25, 8: 0.25}
#: The share of docs that come out otherwise of two that are alike, in how many docs it takes to know that.
TWINS_DIFFER = 0.05
#: More docs than anybody is asked to be compared.
_MOST_DOCS = 10_000


class AsReference(StrEnum):
    """Whether a supplier is as the reference of its model is."""

    REFERENCE = "reference"
    YES = "yes"
    NO = "no"
    UNKNOWN = "not yet known"


@dataclass(frozen=True, slots=True)
class Scores:
    """The supplier's scores less the reference's on common docs: their interval of 1 - SCORES_ALPHA.

    ``low`` and ``high`` hold the true difference however often one looks; None where there is none.
    ``unanswered``: common docs that the supplier alone left unanswered for good; they count as wrong.
    ``tasks``: the differences of single tasks, whose intervals miss one with at most SCORES_ALPHA in all.
    """

    docs: int
    difference: float | None
    low: float | None
    high: float | None
    unanswered: int = 0
    tasks: Sequence[TaskDifference] = ()


@dataclass(frozen=True, slots=True)
class TaskDifference:
    """The difference of scores in one task, with its interval; None where there is none."""

    task: str
    docs: int
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """Common docs of one kind (``of``: of a task, the newest ones), and equal answers to them."""

    of: str
    docs: int
    equal: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """What two suppliers that do not repeat themselves drew at the same prompts, or docs.

    ``first``: by number of draws (of :data:`DRAWS`) those prompts of which both have so many, in the order
    in which they had them, with so many of each. ``parts``: all draws of single tasks, and of the newest
    prompts.
    """

    first: Mapping[int, Sequence[Draws]] = field(default_factory=dict)
    parts: Mapping[str, Sequence[Draws]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a supplier and the reference.

    ``pair`` is about how answers begin; ``repeats`` are the comparisons of each with itself, and ``noisy``
    says of each whether it does not repeat itself. ``whole``: common docs and equal answers to them, where a
    doc that the supplier left unanswered for good has none; ``parts``: the same of single tasks, and others.
    ``beginnings`` and ``answers``: where both are noisy, how their answers began to the same prompts, and
    what they answered as a whole to the same docs. ``asked_otherwise`` is why what they answered cannot be
    compared, if so.
    """

    pair: PairFinding | None
    repeats: tuple[int, int]
    noisy: tuple[bool, bool]
    whole: tuple[int, int]
    scores: Scores
    parts: Sequence[Part] = ()
    beginnings: Drawn = field(default_factory=Drawn)
    answers: Drawn = field(default_factory=Drawn)
    asked_otherwise: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict and what it rests on, in words."""

    verdict: AsReference
    finding: str


def judge(evidence: Evidence, *, margin: float, form_docs: int, form_share: float) -> Judgement:
    """Say whether a supplier is as the reference.

    Args:
        evidence: what is known of both.
        margin: a difference of scores that matters to nobody, 0 to 1.
        form_docs: common docs from which whole answers say something.
        form_share: the share of equal ones among them that answering alike takes.

    It differs where its scores do for certain, over all tasks or in one, by more or less than ``margin`` (how
    much is said), or where its answers do for certain. It is as the reference where answers are alike beyond
    doubt, in no task certainly less often than ``form_share``, the interval of the difference lies within
    ``margin``, and no larger share of docs has no answer: silence where the reference is wrong costs no
    point. Where neither repeats itself, answers are alike where draws of both are certainly equal
    ``form_share`` as often as two draws of either, in how they begin and as a whole. Who is asked otherwise
    than the reference cannot be judged.
    """
    if evidence.asked_otherwise is not None:
        return Judgement(AsReference.UNKNOWN, f"not comparable: {evidence.asked_otherwise}")
    told = _scores(evidence.scores)
    low, high = evidence.scores.low, evidence.scores.high
    if _apart(low, high):
        return Judgement(AsReference.NO, f"scores differ from the reference: {told}")
    apart = [one for one in evidence.scores.tasks if _apart(one.low, one.high)]
    if apart:
        worst = max(apart, key=lambda one: (abs(one.difference or 0), one.task))
        said = _difference(worst.difference, worst.low, worst.high, counted(worst.docs, "common doc"))
        also = "" if len(apart) == 1 else f", and in {counted(len(apart) - 1, 'other task')}"
        return Judgement(
            AsReference.NO, f"scores differ from the reference in {worst.task}: {said}{also}; in all {told}"
        )
    differ, alike, said = _answers(evidence, form_docs, form_share)
    if differ:
        return Judgement(AsReference.NO, f"answers differ from the reference: {said}; {told}")
    close = low is not None and high is not None and -margin <= low <= high <= margin
    silent = evidence.scores.unanswered > margin * evidence.scores.docs
    if alike and close and not silent:
        return Judgement(AsReference.YES, f"{said}; {told}")
    if alike and silent:
        said = f"{said}, but too many docs have no answer"
    elif alike:
        least = counted(100 * margin, "point", "g")
        said = f"{said}; that scores differ by less than {least} is not certain yet"
    return Judgement(AsReference.UNKNOWN, f"{said}; {told}")


def _apart(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low <= high and (low > 0 or high < 0)


def _scores(scores: Scores) -> str:
    if scores.difference is None:
        return "no scores of common docs yet"
    docs = counted(scores.docs, "common doc")
    if scores.unanswered:
        docs += f", of which it left {scores.unanswered} unanswered"
    return _difference(scores.difference, scores.low, scores.high, docs)


def _difference(difference: float | None, low: float | None, high: float | None, docs: str) -> str:
    told = counted(100 * (difference or 0.0), "point", "+.1f")
    if low is None or high is None:
        return f"{told} on {docs}"
    # rounded away from the middle, so that what is said holds
    least, most = math.floor(1000 * low) / 10, math.ceil(1000 * high) / 10
    return f"{told} ({least:+.1f} to {most:+.1f}) on {docs}"


def _answers(evidence: Evidence, form_docs: int, form_share: float) -> tuple[bool, bool, str]:
    """Whether answers differ, whether they are alike, and what was seen of them."""
    pair, (docs, equal) = evidence.pair, evidence.whole
    if pair is None or not pair.common:
        return False, False, "no common prompts with answers at temperature 0 yet"
    said = f"the same beginning on {pair.agree} of {counted(pair.common, 'common prompt')}"
    if docs:
        said += f", equal answers to {equal} of {counted(docs, 'doc')}"
    if any(evidence.noisy):
        if not all(evidence.noisy):
            # one keeps to temperature 0 and one ignores it: who draws answers rarely gives the likeliest one
            who = "it" if evidence.noisy[0] else "the reference"
            return False, False, f"{said}; {who} does not repeat itself, so answers say little"
        differ, alike, seen = _drawn(evidence, form_docs, form_share)
        return differ, alike, f"{said}; neither repeats itself{seen}"
    alike = pair.relation == "same stack" and docs >= form_docs and equal >= form_share * docs
    if alike:
        unlike = _unlike(evidence.parts, form_share)
        if unlike is not None:
            return False, False, f"{said}, but to {unlike.equal} of {unlike.docs} {unlike.of}"
        return False, True, f"{said}: alike beyond doubt"
    known = min(evidence.repeats) >= REPEATS
    if pair.split and not known:
        return False, False, f"{said}; how steadily both answer is not known yet"
    return pair.split and pair.log_split >= math.log(2 / ALPHA), False, said


def _unlike(parts: Sequence[Part], share: float) -> Part | None:
    """The part in which answers are most certainly equal less often than ``share``; None where in none."""
    from scipy.special import bdtr  # the distribution of scipy.stats, whose import takes .4 s

    chance = {part: float(bdtr(part.equal, part.docs, share)) for part in parts if part.docs}
    worst = min(chance, key=lambda part: (chance[part], part.of), default=None)
    return worst if worst is not None and chance[worst] <= ALPHA / len(chance) else None


def _drawn(evidence: Evidence, form_docs: int, form_share: float) -> tuple[bool, bool, str]:
    """Whether draws of two that do not repeat themselves differ, whether they are alike, and why."""
    draws, first = evidence.beginnings, evidence.beginnings.first
    prompts = max((len(of_number) for of_number in first.values()), default=0)
    if prompts < FIRST_LOOK:
        return False, False, ", and few draws are known"
    told = f"; by draws of both at {counted(prompts, 'prompt')}"
    if any(_apart_by_draws(first.get(number, ()), part) for number, part in DRAWS.items()):
        return True, False, f"{told} they differ"
    if not _alike_by_draws(draws, form_share):
        return False, False, f"{told} they may be alike"
    docs, equal = evidence.whole
    whole = "whole answers too"
    if docs >= form_docs and equal >= form_share * docs:
        unlike = _unlike(evidence.parts, form_share)
        if unlike is not None:
            return False, False, f"{told} alike, but equal to {unlike.equal} of {unlike.docs} {unlike.of}"
    elif _alike_by_draws(evidence.answers, form_share):
        whole = "by draws whole answers too"
    else:
        return False, False, f"{told} they begin alike; whole answers were drawn too seldom, or are others"
    part = _unlike_draws(draws.parts) or _unlike_draws(evidence.answers.parts)
    if part is not None:
        return False, False, f"{told} alike, but not {part}"
    return False, True, f"{told} alike beyond doubt, {whole}"


def _alike_by_draws(draws: Drawn, share: float) -> bool:
    return any(
        surely_alike(draws.first.get(number, ()), share, ALPHA * part) for number, part in DRAWS.items()
    )


def _unlike_draws(parts: Mapping[str, Sequence[Draws]]) -> str | None:
    """The part whose draws are most certainly of others; None where there is none."""
    needed = ALPHA / max(1, len(parts))
    chance = {of: permutation_p(draws, permutations=_permutations(needed)) for of, draws in parts.items()}
    worst = min(chance, key=lambda of: (chance[of], of), default=None)
    return worst if worst is not None and chance[worst] <= needed else None


def _apart_by_draws(draws: Sequence[Draws], part: float) -> bool:
    """Whether draws differ for certain, with so much of the error.

    Looked at after 16, 32, 64 ... prompts, with half of what is left of the error each time, so that it may
    be looked at whenever new ones come.
    """
    look, alpha = FIRST_LOOK, part * ALPHA / 4
    while look <= len(draws):
        if permutation_p(draws[:look], permutations=_permutations(alpha)) <= alpha:
            return True
        look, alpha = 2 * look, alpha / 2
    return False


def _permutations(alpha: float) -> int:
    """So many that a p-value can be as small as alpha, and is not by chance alone."""
    return max(1999, math.ceil(10 / alpha))


@lru_cache
def docs_to_be_alike(margin: float) -> int:
    """Common docs after which scores that are equal are known to differ by less than ``margin``.

    Of two that differ on :data:`TWINS_DIFFER` of the docs, now one way, now the other.
    """
    docs = 20
    while docs < _MOST_DOCS:
        ours, theirs = [1.0] * docs, [1.0] * docs
        for number, doc in enumerate(range(0, docs, round(1 / TWINS_DIFFER))):
            (ours, theirs)[number % 2][doc] = 0.0
        found = paired_difference(ours, theirs, SCORES_ALPHA)
        if -margin <= found.low and found.high <= margin:
            break
        docs = math.ceil(1.1 * docs)
    return min(docs, _MOST_DOCS)
