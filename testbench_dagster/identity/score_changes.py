"""Have a supplier's scores moved? One detector for falls and one for rises, over all its tasks.

Each bets on the :mod:`differences <.score_differences>` of a supplier's docs from what was expected of them
(``statistics.mean_change``). The alarm is raised at ten times the docs of a year, so that each raises a false
one in ten years on average at most, both together .2 a year.

The change is dated by an interval that holds it with 95 % (measured: 95 to 100 %), and lies before its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.changes import Change
from testbench_dagster.identity.score_differences import Differences, ScoreStream, differences
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


def score_change(supplier: str, stream: ScoreStream, period: timedelta) -> Change | None:
    """The first change of a supplier's scores in an era; None where none is seen.

    Args:
        supplier: its key.
        stream: its docs in the order in which they were asked.
        period: in which docs are renewed. What was asked first is spread over it when the docs of a year are
            counted, since as many follow in the next.

    Raises:
        IdentityError: times that are not in order, values that are not between 0 and 1, or peers' that are
            not between -1 and 1.
    """
    import numpy as np

    _check(supplier, stream)
    if not len(stream.at):
        return None
    found = differences(stream)
    expected = np.flatnonzero(~np.isnan(found.low))
    days = (stream.at - stream.at[0]) / (_DAY / _MS)
    arls = (YEARS * _YEAR_DAYS * docs_a_day(days, period / _DAY))[expected]
    alarms = [_alarm("down", found.fall[expected], arls), _alarm("up", found.rise[expected], arls)]
    first = min((a for a in alarms if a is not None), key=lambda a: (a.place, -a.log_e), default=None)
    return None if first is None else _change(supplier, stream, found, expected, first)


def docs_a_day(days: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """How many docs were asked a day up to each, those of the first ``period`` days spread over it.

    Args:
        days: when each was asked, in days since the first, ascending, of shape (n,).
        period: in days.

    Returns:
        At least one a day, of shape (n,).
    """
    import numpy as np

    first = float((days <= period).sum()) / period
    rate = np.arange(1, len(days) + 1) / np.maximum(days, period)
    return np.maximum(np.where(days <= period, first, rate), 1.0)


def _alarm(
    direction: Literal["down", "up"], bets: NDArray[np.float64], arls: NDArray[np.float64]
) -> _Alarm | None:
    import numpy as np

    levels = log_levels(bets)
    reached = np.flatnonzero(levels >= np.log(arls))
    if not len(reached):
        return None
    place = int(reached[0])
    return _Alarm(place, direction, float(levels[place]), float(arls[place]))


def _change(
    supplier: str,
    stream: ScoreStream,
    found: Differences,
    expected: NDArray[np.int64],
    alarm: _Alarm,
) -> Change:
    import numpy as np

    seen = expected[: alarm.place + 1]
    away = stream.values[seen] - ((found.low[seen] + found.high[seen]) / 2).clip(0.0, 1.0)
    interval = change_interval(
        away if alarm.direction == "down" else -away, found.repeat[seen].astype(np.int64)
    )
    first, last, end = (int(seen[place]) for place in (*interval, -1))
    at, after = _moment(stream, last), seen[seen >= last]
    rate = math.fsum(stream.values[after]) / len(after)
    allowed = found.low if alarm.direction == "down" else found.high
    limit = min(max(math.fsum(allowed[after]) / len(after), 0.0), 1.0)
    repeats = int(found.repeat[after].sum())
    bound = "at least" if alarm.direction == "down" else "at most"
    return Change(
        supplier=supplier,
        kind="score",
        at=at,
        before_at=_moment(stream, first - 1) if first else None,
        detected_at=_moment(stream, end),
        log_e=alarm.log_e,
        arl=alarm.arl,
        stream=OF_SCORES,
        observations=end + 1,
        since_change=end + 1 - last,
        null_rate=limit,
        rate_after=rate,
        direction=alarm.direction,
        certain=True,
        wording=f"since {at:%Y-%m-%d %H:%M} at the latest its mean score over "
        f"{_tasks_told(stream, after)} is {rate:.2f} on {counted(len(after), 'doc')}, {repeats} of them "
        f"asked before, where {bound} {limit:.2f} was expected",
    )


def _tasks_told(stream: ScoreStream, docs: NDArray[np.int64]) -> str:
    """Which tasks some docs are of: that they are all that it is asked is said of all alone."""
    import numpy as np

    numbers = np.unique(stream.tasks[docs]).tolist()
    if not stream.names:
        n = len(np.unique(stream.tasks))
        return counted(n, "task") if len(numbers) == n else f"{len(numbers)} of {counted(n, 'task')}"
    names = sorted({stream.names[number] for number in numbers})
    if set(names) >= set(stream.asked) and len(names) > 1:
        return f"all {counted(len(names), 'task')}"
    shown = ", ".join(names[:_TASKS_TOLD])
    more = f" and {len(names) - _TASKS_TOLD} more" if len(names) > _TASKS_TOLD else ""
    every = len({*names, *stream.asked})
    return shown if every == 1 else f"{shown}{more} ({len(names)} of {counted(every, 'task')})"


def _moment(stream: ScoreStream, place: int) -> datetime:
    """When a doc was asked."""
    return _BEGINNING + int(stream.at[place]) * _MS


def _check(supplier: str, stream: ScoreStream) -> None:
    import numpy as np

    if np.any(np.diff(stream.at) < 0):
        raise IdentityError(
            f"scores of {supplier} are not in order of time; sort the docs by when they were asked"
        )
    if not np.all((stream.values >= 0) & (stream.values <= 1)):
        raise IdentityError(f"scores of {supplier} must lie between 0 and 1")
    if not np.all(np.abs(stream.peers[stream.n_peers > 0]) <= 1):
        raise IdentityError(f"how well peers of {supplier} did must lie between -1 and 1")
