"""Members that no longer answer like the one that stands for them, doc by doc as both have answered.

The e-process is :mod:`testbench_dagster.statistics.divergence`. Of each doc the answers nearest in time are
compared, in the order in which both were there; a doc on which the two differed once is not counted again,
as it would differ for the same reason. A doc that one left unanswered for good counts as its worst value:
who copies another's answers and withholds the rest delivers something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from testbench_dagster.identity.content import GradedAnswer
from testbench_dagster.identity.settings import IdentitySettings
from testbench_dagster.statistics.divergence import DIFFER, log_divergence, most_log_divergence

#: Repeats of its own from which a supplier's verdicts may be known to differ more than others' do.
_REPEATS = 20
_ROUNDING = 1e-6  # of sums of logarithms


@dataclass(frozen=True, slots=True)
class Divergence:
    """That two suppliers do not answer alike: certain ``at`` the last of ``docs`` common docs.

    ``differ`` adds up the parts by which scores differed, ``mean`` is that of the first's less the second's.
    """

    at: datetime
    docs: int
    differ: float
    mean: float
    log_e: float


@dataclass(frozen=True, slots=True)
class CommonDoc:
    """A doc that two suppliers answered: the difference of their scores, known ``at`` the later answer."""

    at: datetime
    task: str
    doc: str
    difference: float


def common_docs(
    own: Sequence[GradedAnswer], other: Sequence[GradedAnswer], since: datetime | None = None
) -> list[CommonDoc]:
    """What two suppliers answered to the same docs, in the order in which both were there after ``since``."""
    theirs: dict[tuple[str, str], list[GradedAnswer]] = {}
    for one in other:
        if one.value is not None:
            theirs.setdefault((one.task, one.doc), []).append(one)
    pairs = []
    for one in own:
        given = theirs.get((one.task, one.doc)) if one.value is not None else None
        if given is None or one.value is None:
            continue
        nearest = given[0] if len(given) == 1 else min(given, key=lambda answer: abs(answer.at - one.at))
        at = max(one.at, nearest.at)
        if nearest.value is not None and (since is None or at > since):
            pairs.append(CommonDoc(at, one.task, one.doc, one.value - nearest.value))
    pairs.sort(key=lambda pair: (pair.at, pair.task, pair.doc))
    found, differed = [], set()
    for pair in pairs:
        if (pair.task, pair.doc) not in differed:
            found.append(pair)
        if pair.difference:
            differed.add((pair.task, pair.doc))
    return found


def own_differences(answers: Iterable[GradedAnswer]) -> float:
    """On which part of docs asked again a supplier's own verdicts differ; 0 while few were asked again.

    Only answers tell: silence now and then is not to make a supplier look noisy, and be found later for it.
    """
    last: dict[tuple[str, str], float] = {}
    repeats, differ = 0, 0.0
    for one in answers:
        if one.value is None or one.failed:
            continue
        key = (one.task, one.doc)
        if key in last:
            repeats += 1
            differ += abs(one.value - last[key])
        last[key] = one.value
    return differ / repeats if repeats >= _REPEATS else 0.0


def find_divergence(
    own: Sequence[GradedAnswer],
    other: Sequence[GradedAnswer],
    tasks: Sequence[str],
    since: datetime | None = None,
    settings: IdentitySettings | None = None,
) -> Divergence | None:
    """Whether one supplier's answers were ever certain to differ from another's; None where they were not.

    Both sorted by time. ``tasks`` are all that there are, whether answered or not: evidence in a single one
    is weighed by how many there are. ``since``: docs that were complete before do not count.
    """
    import numpy as np

    settings = settings or IdentitySettings()
    number = {task: i for i, task in enumerate(tasks)}
    docs = [doc for doc in common_docs(own, other, since) if doc.task in number]
    if not docs:
        return None
    differ, threshold = min(max(DIFFER, own_differences(own)), 0.5), -math.log(settings.divergence_alpha)
    # most answer alike: the evidence of so few differences need not be followed doc by doc
    most = most_log_divergence(math.fsum(abs(doc.difference) for doc in docs), differ)
    if most < threshold - _ROUNDING:
        return None
    differences = np.array([doc.difference for doc in docs])
    path = log_divergence(differences, [number[doc.task] for doc in docs], len(number), differ)
    certain = np.flatnonzero(path >= threshold)
    if not len(certain):
        return None
    last = int(certain[0])
    seen = differences[: last + 1]
    return Divergence(
        docs[last].at, last + 1, float(np.abs(seen).sum()), float(seen.mean()), float(path[last])
    )


def odd_ones(diverged: Mapping[str, Divergence], members: Sequence[str], proxy: str) -> dict[str, list[str]]:
    """Who is split off, and from whom, of a group in which these ``diverged`` from the proxy.

    Where most of the others did, the proxy is the odd one. Else each of them is apart from all the rest,
    since the rest answers like the proxy.
    """
    others = [member for member in members if member != proxy]
    if len(others) > 1 and 2 * len(diverged) > len(others):
        return {proxy: sorted(diverged)}
    return {member: sorted(m for m in members if m != member) for member in diverged}
