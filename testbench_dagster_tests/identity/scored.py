"""Suppliers whose scores may change: streams of docs with right and wrong answers, new ones and repeats."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from testbench_dagster.identity import Change, ScoreStream, score_change
from testbench_dagster_tests.identity.population import START

PERIOD = timedelta(days=32)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
#: 14 tasks of 50 docs in 32 days.
A_DAY = 22
FIRST = 700

Verdicts = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Docs with what a supplier and its peers answer to each, right or wrong, and its task.

    ``peers`` is of shape (peers, docs).
    """

    own: Verdicts
    peers: Verdicts
    tasks: NDArray[np.int64]

    @property
    def n_peers(self) -> int:
        return len(self.peers)


def away(peers: Verdicts) -> Verdicts:
    """How much better peers were on each doc than they are on the whole."""
    return (
        (peers - peers.mean(axis=1, keepdims=True)).mean(axis=0) if len(peers) else np.zeros(peers.shape[1])
    )


def synthetic(seed: int, share: float, *, peers: int = 6, docs: int = 12_000, tasks: int = 14) -> Pool:
    """Docs from easy to hard, easier in some tasks; all suppliers find the same ones hard."""
    rng = np.random.default_rng([seed, 0])
    of_task = rng.integers(tasks, size=docs)
    hardness = rng.normal(0, 1.5, docs) + rng.normal(0, 0.5, tasks)[of_task]
    # what this supplier is better or worse at than others are
    taste = rng.normal(0, 0.3, tasks)[of_task] if tasks > 1 else 0.0

    def right(level: float, more: Any = 0.0) -> Verdicts:
        easy = hardness + rng.logistic(0, 1, docs) + more
        return (easy > np.quantile(easy, 1 - level)).astype(float)

    own = right(share, taste)
    levels = rng.uniform(0.4, 0.8, peers)
    return Pool(own, np.array([right(level) for level in levels]).reshape(peers, docs), of_task)


def recorded(shared: Path) -> list[Pool]:
    """MMLU-Pro's three recorded models; six peers of each, drawn doc by doc from the other two."""

    def rows(name: str) -> list[dict[str, Any]]:
        with gzip.open(shared / "mmlu_pro" / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    questions = rows("questions.jsonl.gz")
    names = sorted({q["category"] for q in questions})
    tasks = np.array([names.index(q["category"]) for q in questions])
    verdicts = []
    for model in ("Mistral-7B-v0.1", "Meta-Llama-3_1-8B-Instruct", "jamba-1.5-large"):
        right = {
            r["question_id"]: float(r["pred"] == r["answer_at_run"])
            for r in rows(f"outputs_{model}.jsonl.gz")
        }
        verdicts.append(np.array([right[q["question_id"]] for q in questions]))
    rng = np.random.default_rng(1)
    pools = []
    for number, own in enumerate(verdicts):
        others = np.array([v for n, v in enumerate(verdicts) if n != number])
        drawn = others[rng.integers(2, size=(6, len(own))), np.arange(len(own))]
        pools.append(Pool(own, drawn, tasks))
    return pools


def fallen(own: Verdicts, by: float, seed: int) -> Verdicts:
    """What a supplier answers whose share of right answers fell by so much; risen where it is negative."""
    rng = np.random.default_rng([seed, 1])
    after = own.copy()
    changed = rng.choice(np.flatnonzero(own == (by > 0)), round(abs(by) * len(own)), replace=False)
    after[changed] = 1 - own[changed]
    return after


def asked(seed: int, n: int, docs: int, *, repeats: float = 0.5, first: int = FIRST) -> NDArray[np.int64]:
    """Which docs are asked: ``first`` new ones, then each one asked before with probability ``repeats``."""
    rng = np.random.default_rng([seed, 2])
    order, again = rng.permutation(docs), rng.random(n) < repeats
    again[:first] = False
    new = np.cumsum(~again) - 1  # the newest so far
    return order[np.where(again, rng.random(n) * (new + 1), new).astype(np.int64) % docs]


def stream_of(
    pool: Pool,
    docs: NDArray[np.int64],
    seed: int,
    *,
    after: Verdicts | None = None,
    since: int | None = None,
    noise: float = 0.02,
    at: Sequence[datetime] | None = None,
) -> ScoreStream:
    """The stream of these docs, from the doc ``since`` on answered as ``after`` says.

    ``noise``: share of answers that are drawn anew, as of an endpoint that does not repeat itself. ``at``:
    when they are asked, by default as :func:`times` says.
    """
    rng = np.random.default_rng([seed, 3])
    values = pool.own[docs]
    if after is not None:
        values[since:] = after[docs[since:]]
    anew = rng.random(len(docs)) < noise
    values = np.where(anew, pool.own[rng.integers(len(pool.own), size=len(docs))], values)
    return ScoreStream(
        at=milliseconds(times(len(docs)) if at is None else at),
        docs=docs,
        tasks=pool.tasks[docs],
        values=values,
        peers=away(pool.peers)[docs],
        n_peers=np.full(len(docs), pool.n_peers),
    )


def times(n: int, *, a_day: int = A_DAY, burst: int = 0) -> list[datetime]:
    """When docs are asked: the first ``burst`` within minutes, the others so many a day."""
    return [
        START + timedelta(seconds=i if i < burst else (i - burst + 1) * 86_400 // a_day) for i in range(n)
    ]


def milliseconds(at: Sequence[datetime]) -> NDArray[np.int64]:
    """Instants as streams have them."""
    return np.array([(one - BEGINNING) // timedelta(milliseconds=1) for one in at], np.int64)


@dataclass(frozen=True)
class Seen:
    """Docs from the change to the alarm, and the change."""

    delay: int
    change: Change

    def holds(self, at: datetime) -> bool:
        """Whether the change lies in the interval that is told."""
        return (self.change.before_at is None or self.change.before_at < at) and at <= self.change.at


def delays(
    pools: Sequence[Pool],
    by: float,
    plays: int,
    *,
    before: int = 1400,
    within: int = 2000,
    repeats: float = 0.5,
    after: Callable[[int], Verdicts] | None = None,
) -> list[Seen | None]:
    """Plays in which a supplier changes after ``before`` docs; None where that is not seen ``within``."""
    found: list[Seen | None] = []
    at = times(before + within)
    for seed in range(plays):
        pool = pools[seed % len(pools)]
        docs = asked(seed, before + within, len(pool.own), repeats=repeats)
        then = fallen(pool.own, by, seed) if after is None else after(seed % len(pools))
        change = score_change("s", stream_of(pool, docs, seed, after=then, since=before, at=at), PERIOD)
        found.append(None if change is None else Seen(at.index(change.detected_at) + 1 - before, change))
    return found


def quantile(found: Sequence[Seen | None], share: float) -> float:
    """A quantile of the delays; those that were not seen are infinite."""
    return float(np.quantile([np.inf if s is None else s.delay for s in found], share, method="higher"))
