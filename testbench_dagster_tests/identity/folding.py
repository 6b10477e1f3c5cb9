"""Streams of scores of which old docs are folded, as an installation does it over the years."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from testbench_dagster.identity import Change, FoldedScores, ScoreStream, fold_scores, score_change
from testbench_dagster_tests.identity.scored import PERIOD


def part(stream: ScoreStream, first: int, end: int | None = None) -> ScoreStream:
    """Some docs of a stream, one after the other."""
    fields = ("at", "docs", "tasks", "values", "peers", "n_peers")
    return ScoreStream(
        *(getattr(stream, name)[first:end] for name in fields), names=stream.names, asked=stream.asked
    )


def folded_at(stream: ScoreStream, places: Iterable[int]) -> FoldedScores | None:
    """A stream folded up to one place after the other, all docs being known."""
    folded, done = None, 0
    for place in places:
        folded = fold_scores("s", part(stream, done), place - done, PERIOD, folded)
        done = place
    return folded


def change_when_folded(stream: ScoreStream, places: Iterable[int]) -> Change | None:
    """The change that is seen when the stream was folded at these places, in order."""
    folded = folded_at(stream, places)
    return score_change("s", part(stream, folded.n if folded else 0), PERIOD, folded)


def docs_older_than(stream: ScoreStream, age: timedelta, n: int) -> int:
    """How many of the first ``n`` docs are older than so much, as of the last of them."""
    old = stream.at[:n] < stream.at[n - 1] - age / timedelta(milliseconds=1)
    return int(old.sum())
