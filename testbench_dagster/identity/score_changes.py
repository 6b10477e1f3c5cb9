"""Have a supplier's scores moved? One detector for falls and one for rises, over all its tasks.

Each bets on the :mod:`differences <.score_differences>` of a supplier's docs from what was expected of them
(``statistics.mean_change``). The alarm is raised at ten times the docs of a year, so that each raises a false
one in ten years on average at most, both together .2 a year.

The change is dated by an interval that holds it with 95 % (measured: 95 to 100 %), and lies before its end.
Old docs may be folded (:mod:`.folded_scores`): the alarm stays the same, the interval is one of whole blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.changes import Change
from testbench_dagster.identity.folded_scores import FoldedScores
from testbench_dagster.identity.score_differences import Differences, ScoreStream, away, differences
from testbench_dagster.identity.settings import IdentityError
from testbench_dagster.statistics.mean_change import change_interval, log_levels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: The stream of scores; the ids of stored changes follow from its name.
OF_SCORES = "scores"
#: Years to a false alarm of either detector, on average at least.
YEARS = 10.0
_YEAR_DAYS = 365.0
_TASKS_TOLD = 3  # by name
_DAY = timedelta(days=1)
_MS = timedelta(milliseconds=1)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Alarm:
    """That a detector reached its level ``arl``: at which doc of those bet on, and how high (nats)."""

    place: int
    direction: Literal["down", "up"]
    log_e: float
    arl: float


def score_change(
    supplier: str, stream: ScoreStream, period: timedelta, folded: FoldedScores | None = None
) -> Change | None:
    """The first change of a supplier's scores in an era; None where none is seen.

    Args:
        supplier: its key.
        stream: its docs in the order in which they were asked.
        period: in which docs are renewed. What was asked first is spread over it when the docs of a year are
            counted, since as many follow in the next. Where docs were folded, that of then is in force.
        folded: the docs of the era that came before the stream; None where none did.

    Raises:
        IdentityError: times that are not in order, values that are not between 0 and 1, or peers' that are
            not between -1 and 1.
    """
    import numpy as np

    _check(supplier, stream, folded)
    if folded is not None and folded.change is not None:
        return folded.change
    if not len(stream.at):
        return None
    before = before_stream(stream, period, folded)
    found = differences(stream, before.learnt)
    expected = np.flatnonzero(~np.isnan(found.low))
    docs = docs_a_day(before.days(stream.at), before.period, before.n, before.n_first)
    arls = (YEARS * _YEAR_DAYS * docs)[expected]
    falls, rises = before.levels
    alarms = [
        _alarm("down", found.fall[expected], falls, arls),
        _alarm("up", found.rise[expected], rises, arls),
    ]
    first = min((a for a in alarms if a is not None), key=lambda a: (a.place, -a.log_e), default=None)
    return (
        None
        if first is None
        else _change(supplier, stream, found, expected[: first.place + 1], first, before)
    )


def before_stream(stream: ScoreStream, period: timedelta, folded: FoldedScores | None) -> FoldedScores:
    """What came before a stream of some docs, be it none."""
    return folded or FoldedScores.of_none(int(stream.at[0]), period / _DAY)


def docs_a_day(
    days: NDArray[np.float64], period: float, n_before: int = 0, n_first: int = 0
) -> NDArray[np.float64]:
    """How many docs were asked a day up to each, those of the first ``period`` days spread over it.

    Args:
        days: when each was asked, in days since the first, ascending, of shape (n,).
        period: in days.
        n_before: how many came before these.
        n_first: how many of them in the first ``period`` days.

    Returns:
        At least one a day, of shape (n,).
    """
    import numpy as np

    first = float(n_first + (days <= period).sum()) / period
    rate = (n_before + np.arange(1, len(days) + 1)) / np.maximum(days, period)
    return np.maximum(np.where(days <= period, first, rate), 1.0)


def _alarm(
    direction: Literal["down", "up"],
    bets: NDArray[np.float64],
    before: NDArray[np.float64],
    arls: NDArray[np.float64],
) -> _Alarm | None:
    import numpy as np

    levels = log_levels(bets, before)
    reached = np.flatnonzero(levels >= np.log(arls))
    if not len(reached):
        return None
    place = int(reached[0])
    return _Alarm(place, direction, float(levels[place]), float(arls[place]))


def _change(
    supplier: str,
    stream: ScoreStream,
    found: Differences,
    seen: NDArray[np.int64],
    alarm: _Alarm,
    before: FoldedScores,
) -> Change:
    """The change that docs of a stream, those bet on until the alarm, show."""
    import numpy as np

    down, far = alarm.direction == "down", away(stream, found)[seen]
    low, high = change_interval(
        far if down else -far,
        found.repeat[seen].astype(np.int64),
        before=before.stretches if down else -before.stretches,
    )
    # where in a block is not known: the first doc after it is the first that surely came after the change
    since = _Since.of(stream, found, seen, high + (high < len(before.blocks)), before)
    limit = min(max(since.low if down else since.high, 0.0), 1.0)
    observations = before.n + int(seen[-1]) + 1
    bound = "at least" if down else "at most"
    return Change(
        supplier=supplier,
        kind="score",
        at=since.at,
        before_at=_last_before(stream, seen, low, before),
        detected_at=_moment(int(stream.at[seen[-1]])),
        log_e=alarm.log_e,
        arl=alarm.arl,
        stream=OF_SCORES,
        observations=observations,
        since_change=observations - since.number,
        null_rate=limit,
        rate_after=since.rate,
        direction=alarm.direction,
        certain=True,
        wording=f"since {since.at:%Y-%m-%d %H:%M} at the latest its mean score over {since.tasks} is "
        f"{since.rate:.2f} on {counted(since.n, 'doc')}, {since.repeats} of them "
        f"asked before, where {bound} {limit:.2f} was expected",
    )


@dataclass(frozen=True, slots=True)
class _Since:
    """What is told of the docs since a change.

    ``number`` is that of the first in the era, from 0, and ``at`` when it was asked. ``n`` were bet on,
    ``repeats`` of them asked before, of the ``tasks`` in words; ``rate`` is their mean value, ``low`` and
    ``high`` are what was allowed for on average.
    """

    number: int
    at: datetime
    n: int
    repeats: int
    tasks: str
    rate: float
    low: float
    high: float

    @classmethod
    def of(
        cls,
        stream: ScoreStream,
        found: Differences,
        seen: NDArray[np.int64],
        step: int,
        before: FoldedScores,
    ) -> _Since:
        """Since a step, a block or one of the docs ``seen``."""
        blocks, docs = before.blocks[step:], seen[max(step - len(before.blocks), 0) :]
        n = int(blocks["n"].sum()) + len(docs)
        number = before.n - int(blocks["docs"].sum()) if len(blocks) else before.n + int(docs[0])
        means = {
            name: math.fsum([*blocks[name], *values[docs]]) / n
            for name, values in (("value", stream.values), ("low", found.low), ("high", found.high))
        }
        return cls(
            number=number,
            at=_moment(int(blocks["first"][0] if len(blocks) else stream.at[docs[0]])),
            n=n,
            repeats=int(blocks["n"][:, 1].sum() + found.repeat[docs].sum()),
            tasks=_tasks_told(stream, docs, number, before),
            rate=means["value"],
            low=means["low"],
            high=means["high"],
        )


def _last_before(
    stream: ScoreStream, seen: NDArray[np.int64], step: int, before: FoldedScores
) -> datetime | None:
    """When the last doc before a step, a block or one of the docs seen, was asked; None before the first."""
    earlier = before.blocks[:step]
    place = int(seen[step - len(before.blocks)]) if step >= len(before.blocks) else 0
    if place:
        return _moment(int(stream.at[place - 1]))
    return _moment(int(earlier["last"][-1])) if len(earlier) else None


def _tasks_told(stream: ScoreStream, docs: NDArray[np.int64], number: int, before: FoldedScores) -> str:
    """Which tasks are bet on from a doc on, by its number in the era, and in the stream in some docs.

    That they are all that it is asked is said of all alone.
    """
    import numpy as np

    of_folded = np.flatnonzero(before.last_bet >= number)
    numbers = np.union1d(of_folded, stream.tasks[docs]).tolist()
    if not stream.names:
        n = len(np.union1d(np.flatnonzero(before.learnt.new), stream.tasks))
        return counted(n, "task") if len(numbers) == n else f"{len(numbers)} of {counted(n, 'task')}"
    names = sorted({stream.names[number] for number in numbers})
    if set(names) >= set(stream.asked) and len(names) > 1:
        return f"all {counted(len(names), 'task')}"
    shown = ", ".join(names[:_TASKS_TOLD])
    more = f" and {len(names) - _TASKS_TOLD} more" if len(names) > _TASKS_TOLD else ""
    every = len({*names, *stream.asked})
    return shown if every == 1 else f"{shown}{more} ({len(names)} of {counted(every, 'task')})"


def _moment(at: int) -> datetime:
    """The instant so many milliseconds after 1970."""
    return _BEGINNING + at * _MS


def _check(supplier: str, stream: ScoreStream, folded: FoldedScores | None) -> None:
    import numpy as np

    late = folded is not None and len(stream.at) > 0 and stream.at[0] < folded.last
    if late or np.any(np.diff(stream.at) < 0):
        raise IdentityError(
            f"scores of {supplier} are not in order of time; sort the docs by when they were asked"
        )
    if not np.all((stream.values >= 0) & (stream.values <= 1)):
        raise IdentityError(f"scores of {supplier} must lie between 0 and 1")
    if not np.all(np.abs(stream.peers[stream.n_peers > 0]) <= 1):
        raise IdentityError(f"how well peers of {supplier} did must lie between -1 and 1")
