"""Copies in time: suppliers that fail, slow down, vary or change together, more than chance and model allow.

Two suppliers of one model answer alike, and nothing is said of that here. But each has its own outages, its
own busy minutes and, where answers vary, its own draws. Who hands requests on to another, or buys from it,
has the other's. So has who shares an owner, a data centre or an upstream with it: that is all that is said,
as a suspicion with its figures, and nothing follows from it.

Each kind is tested for all pairs of a service together (Bonferroni), by e-values over one stretch of time
(:func:`stretch`), so that looking every hour costs nothing: the chance that any pair of a service that share
nothing is ever named in a stretch, of one kind, is at most :attr:`CopySettings.alpha`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.settings import IdentityError
from testbench_dagster.statistics.coincidences import (
    chances_of_onsets,
    log_e_of_coins,
    log_e_of_directions,
    log_e_of_events,
    same_draws,
    steps,
    without_common,
)
from testbench_dagster.statistics.evalues import log_mean_exp
from testbench_dagster.statistics.multiplicity import family_wise_threshold

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["outages", "latency", "answers", "changes"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE, _DAY = 60.0, 86400.0


@dataclass(frozen=True, slots=True)
class CopySettings:
    """The constants of copies in time. IdentityError when out of range."""

    #: Probability, per service, kind and stretch, that any two who share nothing are named.
    alpha: float = 0.001
    #: Suppliers of a service that are compared, those asked most; and pairs whose outages are looked at,
    #: those that failed together most: what it costs grows with their square.
    most_suppliers: int = 1000
    most_pairs: int = 20_000
    #: A stretch begins every so many days and is two of these long at its end.
    stretch_days: float = 14.0
    #: Seconds within which outages may lie anywhere by chance, more often at hours at which many fail: how
    #: often there are any may change from one to the next.
    outage_block: float = 86400.0
    #: Outages at each hour of the day that are assumed before any is seen, as a share of the mean of all.
    outage_prior: float = 0.5
    #: Seconds between looks within which two outages that began between looks count as at once.
    outage_slack: float = 120.0
    #: A minute in which more than this share of the others fail too is the network's or ours.
    network_share: float = 1 / 3
    #: Fewest outages of each of two, and fewest of them at once.
    least_outages: int = 3
    #: Seconds that make one value of latency, and most seconds between two that are compared.
    latency_slot: float = 120.0
    latency_apart: float = 3600.0
    #: Seconds without a call after which the next one is left out: it may have to connect first.
    warm_after: float = 60.0
    #: Share of steps that go the same way which is granted to what all have in common.
    latency_alike: float = 0.55
    #: Fewest suppliers whose latencies tell how slow everything is at a time.
    least_others: int = 3
    #: Fewest prompts answered in two ways that are compared.
    least_draws: int = 8
    #: Days over which changes are compared, days by which they may follow, and fewest of each of two.
    change_days: float = 365.0
    change_slack: float = 1.0
    least_changes: int = 3
    #: Changes of so large a share of a service within a day are its own: of our prompts, say.
    changes_share: float = 0.25

    def __post_init__(self) -> None:
        for name in ("alpha", "latency_alike", "network_share", "changes_share"):
            if not 0 < getattr(self, name) < 1:
                raise IdentityError(
                    f"{name} must lie between 0 and 1, both excluded; got {getattr(self, name)}"
                )
        for name in ("stretch_days", "outage_block", "latency_slot", "latency_apart", "change_days"):
            if not getattr(self, name) > 0:
                raise IdentityError(f"{name} must be more than 0; got {getattr(self, name)}")


def stretch(now: datetime, settings: CopySettings | None = None) -> datetime:
    """Where the stretch of time begins that is looked at now: one to two times ``stretch_days`` ago.

    It stays there until the next one begins, so that evidence is only ever added to: else looking again and
    again at a window that moves would find something at last.
    """
    length = timedelta(days=(settings or CopySettings()).stretch_days)
    return _EPOCH + (((now - _EPOCH) // length) - 1) * length


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt, as far as copies show in it.

    ``prompt`` is the same for all who were sent the same request, ``draw`` tells the rounds and repeats of a
    request apart. ``answered``: False for a failure that the supplier or its network is behind, None where it
    says nothing of either. ``said`` stands for the whole answer, None where there is none or it is not known.
    ``tokens`` are those of the answer, ``prompt_tokens`` those of the prompt; ``beside`` is how many requests
    of ours were under way to the host, this one included; ``family`` the task.
    """

    supplier: str
    prompt: str
    draw: str
    at: datetime
    answered: bool | None
    latency_ms: float
    tokens: int | None = None
    prompt_tokens: int | None = None
    beside: int | None = None
    said: str | None = None
    family: str = ""


@dataclass(frozen=True, slots=True)
class Copy:
    """That two suppliers fall together: ``share`` of ``observations``, with ``log_e`` nats of evidence.

    ``follower`` is the one that comes after where there is an order, else the first by name; ``ordered`` says
    which. ``lag_ms`` is by how much its calls take longer, the median; of other kinds it is None.
    """

    kind: Kind
    follower: str
    followed: str
    ordered: bool
    since: datetime
    until: datetime
    log_e: float
    threshold: float
    observations: int
    share: float
    lag_ms: float | None
    wording: str


def find_copies(
    calls: Iterable[Call],
    changes: Mapping[str, Sequence[tuple[datetime, datetime]]] | None = None,
    settings: CopySettings | None = None,
    *,
    now: datetime | None = None,
) -> list[Copy]:
    """Pairs of suppliers of one service that fall together, the strongest evidence of each kind first.

    ``changes``: by supplier the intervals in which what it answers changed, of the ``change_days`` before
    ``now``. Raises IdentityError for times without a zone.
    """
    settings = settings or CopySettings()
    table = _Table.of(_of_most(list(calls), settings.most_suppliers))
    found = [*_outages(table, settings), *_latencies(table, settings), *_draws(table, settings)]
    if changes and now is not None:
        found += _changes(changes, now, settings)
    return sorted(found, key=lambda c: (c.kind, -c.log_e, c.follower, c.followed))


def _of_most(calls: list[Call], most: int) -> list[Call]:
    """The calls of those suppliers that were asked most; of equals the first by name."""
    counts = Counter(call.supplier for call in calls)
    if len(counts) <= most:
        return calls
    chosen = set(sorted(counts, key=lambda key: (-counts[key], key))[:most])
    return [call for call in calls if call.supplier in chosen]


@dataclass(frozen=True, eq=False)
class _Table:
    """Calls as columns, by time. Suppliers are numbered in the order of their names."""

    suppliers: tuple[str, ...]
    supplier: np.ndarray
    prompt: np.ndarray
    draw: np.ndarray
    at: np.ndarray
    answered: np.ndarray  # 1, 0, or -1: says nothing
    latency: np.ndarray
    tokens: np.ndarray
    prompt_tokens: np.ndarray
    beside: np.ndarray
    said: np.ndarray  # -1: nothing

    @classmethod
    def of(cls, calls: Iterable[Call]) -> _Table:
        import numpy as np

        prompts: dict[str, int] = {}
        draws: dict[str, int] = {}
        texts: dict[str, int] = {}
        names: dict[str, int] = {}
        rows = []
        for call in calls:
            if call.at.tzinfo is None:
                raise IdentityError(f"at {call.at.isoformat()} has no time zone; give it one, such as UTC")
            rows.append(
                (
                    names.setdefault(call.supplier, len(names)),
                    prompts.setdefault(call.prompt, len(prompts)),
                    draws.setdefault(call.draw, len(draws)),
                    call.at.timestamp(),
                    -1 if call.answered is None else int(call.answered),
                    call.latency_ms,
                    -1 if call.tokens is None else call.tokens,
                    -1 if call.prompt_tokens is None else call.prompt_tokens,
                    1 if call.beside is None else call.beside,
                    -1 if call.said is None else texts.setdefault(call.said, len(texts)),
                )
            )
        table = np.array(rows, dtype=np.float64).reshape(-1, 10)
        ordered = sorted(names)
        rank = np.zeros(max(len(names), 1), dtype=np.int64)
        for place, name in enumerate(ordered):
            rank[names[name]] = place
        table[:, 0] = rank[table[:, 0].astype(np.int64)]
        table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0], table[:, 3]))]
        whole = [table[:, i].astype(np.int64) for i in range(10)]
        return cls(
            tuple(ordered), whole[0], whole[1], whole[2], table[:, 3], whole[4], table[:, 5],
            table[:, 6], table[:, 7], table[:, 8], whole[9],
        )  # fmt: skip


# --------------------------------------------------------------------------------------------- outages


def _outages(table: _Table, settings: CopySettings) -> list[Copy]:
    """Outages that begin in the same minutes, others' and ours set aside."""
    import numpy as np

    telling = table.answered >= 0
    if not telling.any():
        return []
    minute = np.floor(table.at[telling] / _MINUTE).astype(np.int64)
    minutes, slot = np.unique(minute, return_inverse=True)
    size = (len(table.suppliers), len(minutes))
    place = table.supplier[telling] * size[1] + slot
    asked = np.bincount(place, minlength=size[0] * size[1]).reshape(size)
    failed = np.bincount(place, weights=1 - table.answered[telling], minlength=size[0] * size[1])
    looked = asked > 0
    failing = 2 * failed.reshape(size) > asked
    n_looked, n_failing = looked.sum(axis=0), failing.sum(axis=0)
    at = minutes * _MINUTE

    own = np.array([int(_onsets(failing[s][looked[s]]).sum()) for s in range(size[0])])
    able = np.flatnonzero(own >= settings.least_outages)
    profile = _profile(failing, looked, at, settings)
    tests = len(able) * (len(able) - 1) // 2
    if not tests:
        return []
    threshold = family_wise_threshold(tests, settings.alpha)
    # minutes in which too many fail count for no pair
    few = n_failing - 2 <= settings.network_share * np.maximum(n_looked - 2, 0)
    some = failing[able][:, few].astype(np.float32)
    together_in = np.triu(some @ some.T, 1)
    near = np.argwhere(together_in >= settings.least_outages)
    near = near[np.argsort(-together_in[near[:, 0], near[:, 1]], kind="stable")[: settings.most_pairs]]
    found = []
    for i, j in near:
        a, b = int(able[i]), int(able[j])
        both = looked[a] & looked[b]
        others = n_looked[both] - 2
        down = n_failing[both] - failing[a][both] - failing[b][both]
        clear = (others >= 1) & (down <= settings.network_share * others)
        times, one, two = at[both][clear], failing[a][both][clear], failing[b][both][clear]
        # single failures, and those that two looks in a row saw: where single requests fail now and then,
        # only the latter are outages
        ways = [_meeting(times, one, two, looks, profile, settings) for looks in (1, 2)]
        log_e = float(log_mean_exp([way.log_e for way in ways]))
        best = max(ways, key=lambda way: way.log_e)
        if log_e < threshold or max(best.hits) < settings.least_outages or max(best.shares) < 0.5:
            continue
        # told of the one of whose outages more are the other's too; that is no order: whoever makes up
        # outages at half of another's would else make that one look like the follower
        side = int(best.shares[1] >= best.shares[0])
        together = times[best.together]
        names = table.suppliers
        most, other = (names[b], names[a]) if side else (names[a], names[b])
        found.append(
            Copy(
                "outages", names[a], names[b], False, _moment(together[0]),
                _moment(together[-1]), log_e, threshold, best.counts[side], best.shares[side], None,
                f"{best.hits[side]} of {counted(best.counts[side], 'outage')} of {most} began in "
                f"the same minutes as outages of {other}, while others answered: one may hand "
                "requests on to the other, or they share an upstream, an owner or a fault domain",
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Meeting:
    """How outages of two met: how many of each began, and how many of these with one of the other's."""

    log_e: float
    counts: tuple[int, int]
    hits: tuple[int, int]
    together: np.ndarray

    @property
    def shares(self) -> tuple[float, float]:
        """Of each the share that met one of the other's."""
        return self.hits[0] / max(self.counts[0], 1), self.hits[1] / max(self.counts[1], 1)


def _meeting(
    times: np.ndarray,
    one: np.ndarray,
    two: np.ndarray,
    looks: int,
    profile: np.ndarray,
    settings: CopySettings,
) -> _Meeting:
    """How outages of two met that so many looks in a row saw; each is tested against the other."""
    began = _onsets(one, looks), _onsets(two, looks)
    log_es, hits = [], []
    for mine, theirs in (began, began[::-1]):
        close = _widened(theirs, times, settings.outage_slack)
        chances = chances_of_onsets(times, close, settings.outage_block, profile)
        log_es.append(log_e_of_events(close[mine], chances[mine]))
        hits.append(int(close[mine].sum()))
    counts = int(began[0].sum()), int(began[1].sum())
    if min(counts) < settings.least_outages:
        log_es = [0.0]
    together = began[0] & _widened(began[1], times, settings.outage_slack)
    return _Meeting(float(log_mean_exp(log_es)), counts, (hits[0], hits[1]), together)


def _profile(failing: np.ndarray, looked: np.ndarray, at: np.ndarray, settings: CopySettings) -> np.ndarray:
    """How often outages of all suppliers begin at each hour of the day, by how often it was looked then."""
    import numpy as np

    hour = np.floor(at % _DAY / 3600).astype(np.int64)
    began, looks = np.zeros(24), np.zeros(24)
    for s in range(len(failing)):
        mine = looked[s]
        began += np.bincount(hour[mine], weights=_onsets(failing[s][mine]), minlength=24)
        looks += np.bincount(hour[mine], minlength=24)
    usual = began.sum() / max(looks.sum(), 1.0)
    prior = settings.outage_prior * max(looks.mean(), 1.0)
    found: np.ndarray = (began + prior * usual) / (looks + prior)
    return found if usual else np.ones(24)


def _onsets(failing: np.ndarray, looks: int = 1) -> np.ndarray:
    """Where failing begins that lasts so many looks; not at the first look, as it may have begun before."""
    import numpy as np

    began: np.ndarray = np.asarray(failing, dtype=bool).copy()
    began[:1] = False
    began[1:] &= ~failing[:-1]
    for later in range(1, looks):
        began[:-later] &= failing[later:]
        began[-later:] = False
    return began


def _widened(began: np.ndarray, at: np.ndarray, slack: float) -> np.ndarray:
    """The looks at which something began, and the neighbours that lie within ``slack`` seconds."""
    import numpy as np

    close = began.copy()
    near = np.diff(at) <= slack
    close[1:] |= began[:-1] & near
    close[:-1] |= began[1:] & near
    return close


# --------------------------------------------------------------------------------------------- latency


def _latencies(table: _Table, settings: CopySettings) -> list[Copy]:
    """Busy minutes in common, seen on different prompts, so that what is asked cannot be the reason."""
    import numpy as np

    chosen, rest = _residuals(table, settings)
    if not len(chosen):
        return []
    number = np.floor(table.at[chosen] / settings.latency_slot).astype(np.int64)
    slots, slot = np.unique(number, return_inverse=True)
    half = _halves(table)[table.prompt[chosen]]
    at = slots * settings.latency_slot
    shape = (2, len(table.suppliers), len(slots))
    values = _medians(half * shape[1] * shape[2] + table.supplier[chosen] * shape[2] + slot, rest, shape)
    moves = [steps(part, at, settings.latency_apart) for part in values]
    if not moves[0].shape[1]:
        return []
    # What all have in common is taken from both, but as two disjoint sets of suppliers see it: the noise of
    # one estimate would make any two alike that it is taken from. Where there are too few, from one only.
    places = np.arange(len(table.suppliers)) % 2
    sides = [[_freed(part, part[places == side], settings.least_others) for side in (0, 1)] for part in moves]
    if len(table.suppliers) < 2 * settings.least_others + 2:
        sides = [[_freed(part, part, settings.least_others), part] for part in moves]
    # the one's steps on prompts of one half with the other's on the other half; then the halves swapped
    crossed, alike, known_pairs = [], [], []
    for one, two in ((0, 1), (1, 0)):
        log_e, heads, tosses = log_e_of_directions(sides[one][0], sides[two][1], settings.latency_alike)
        crossed += [log_e, log_e.T]
        alike += [heads, heads.T]
        known_pairs += [tosses, tosses.T]
    log_es = log_mean_exp(crossed)
    tosses = np.sum(known_pairs, axis=0)
    upper = np.triu(np.ones(log_es.shape, dtype=bool), 1)
    tests = int((upper & (tosses > 0)).sum())
    threshold = family_wise_threshold(tests, settings.alpha)
    found = []
    for a, b in np.argwhere(upper & (log_es >= threshold)):
        names = table.suppliers[a], table.suppliers[b]
        lag, ordered, since, until = _lag(table, int(a), int(b))
        follower, followed = names if lag >= 0 else names[::-1]
        share = float(np.sum(alike, axis=0)[a, b] / tosses[a, b])
        found.append(
            Copy(
                "latency", follower, followed, ordered, since, until, float(log_es[a, b]), threshold,
                int(tosses[a, b]) // 2, share, abs(lag),
                f"it got slower and faster with {followed} in {share:.0%} of "
                f"{counted(int(tosses[a, b]) // 2, 'step')} between neighbouring minutes, on different "
                f"prompts; its calls take {abs(lag):.0f} ms longer in the median: it may hand requests "
                "on, or both share an upstream, an owner or a fault domain",
            )
        )  # fmt: skip
    return found


def _freed(moves: np.ndarray, others: np.ndarray, least: int) -> np.ndarray:
    """Steps without what ``others`` have in common, where so many of them are known at least."""
    import numpy as np

    enough = (~np.isnan(others)).sum(axis=0) >= least
    return without_common(moves, np.where(enough, _nanmedian(others), np.nan))


def _halves(table: _Table) -> np.ndarray:
    """Which half each prompt belongs to, alike for all suppliers: every other one in the order of asking."""
    import numpy as np

    prompts, first = np.unique(table.prompt, return_index=True)  # calls are in order of time
    half = np.zeros(int(prompts.max()) + 1, dtype=np.int64)
    half[prompts[np.argsort(first, kind="stable")]] = np.arange(len(prompts)) & 1
    return half


def _residuals(table: _Table, settings: CopySettings) -> tuple[np.ndarray, np.ndarray]:
    """Which calls tell of latency, and its logarithm less what length, load of ours and hour explain."""
    import numpy as np

    usable = (table.answered == 1) & (table.latency > 0)
    order = np.lexsort((table.at, table.supplier))
    s, t = table.supplier[order], table.at[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (s[1:] != s[:-1]) | (t[1:] - t[:-1] > settings.warm_after)
    usable[order[first]] = False
    chosen, rest = [], []
    for supplier in range(len(table.suppliers)):
        mine = np.flatnonzero(usable & (table.supplier == supplier))
        if len(mine) < 20:
            continue
        y = np.log(table.latency[mine])
        parts = [np.ones(len(mine))]
        for column in (table.tokens, table.prompt_tokens, table.beside):
            values = column[mine]
            known = values >= 0
            if known.any():
                filled = np.where(known, np.log1p(np.maximum(values, 0)), 0.0)
                parts += [filled, known.astype(float)]
        hour = np.floor(table.at[mine] % _DAY / 3600).astype(np.int64)
        x = np.column_stack(parts)
        # twice, the second time without what the first leaves far off: one hung call bends no line
        keep = np.ones(len(mine), dtype=bool)
        for _ in range(2):
            line, *_ = np.linalg.lstsq(x[keep], y[keep], rcond=None)
            off = y - x @ line
            keep = np.abs(off - np.median(off)) <= 4 * 1.4826 * max(
                float(np.median(np.abs(off - np.median(off)))), 1e-9
            )
        by_hour = _medians(hour, off, (24,))
        chosen.append(mine)
        rest.append(off - by_hour[hour])
    if not chosen:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    return np.concatenate(chosen), np.concatenate(rest)


def _medians(place: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The median of the values of each place, nan where there are none."""
    import numpy as np

    found = np.full(math.prod(shape), np.nan)
    order = np.lexsort((values, place))
    places, start, n = np.unique(place[order], return_index=True, return_counts=True)
    ordered = values[order]
    found[places] = (ordered[start + (n - 1) // 2] + ordered[start + n // 2]) / 2
    return found.reshape(shape)


def _nanmedian(values: np.ndarray) -> np.ndarray:
    """The median of each column, nan where it is empty, without numpy's warning about that."""
    import numpy as np

    rows, columns = np.nonzero(~np.isnan(values))
    return _medians(columns, values[rows, columns], (values.shape[1],))


def _lag(table: _Table, a: int, b: int) -> tuple[float, bool, datetime, datetime]:
    """By how many ms A takes longer than B on the same request, the median; if nearly always so; when."""
    import numpy as np

    answered = (table.answered == 1) & (table.latency > 0)
    sides = []
    for supplier in (a, b):
        mine = np.flatnonzero(answered & (table.supplier == supplier))
        sides.append({(int(table.prompt[k]), int(table.draw[k])): k for k in mine})
    common = [(sides[0][key], sides[1][key]) for key in sides[0].keys() & sides[1].keys()]
    times = table.at[np.flatnonzero(answered & np.isin(table.supplier, (a, b)))]
    since, until = _moment(times[0]), _moment(times[-1])
    if not common:
        return 0.0, False, since, until
    longer = np.array([table.latency[two] - table.latency[one] for one, two in common])
    lag = float(np.median(longer))
    # A is the follower where B is the faster: the sign says who is slower
    return -lag, bool(np.mean(np.sign(longer) == np.sign(lag)) >= 0.9), since, until


# --------------------------------------------------------------------------------------------- answers


def _draws(table: _Table, settings: CopySettings) -> list[Copy]:
    """Answers that vary, and vary together."""
    import numpy as np

    known = np.flatnonzero(table.said >= 0)
    if not len(known):
        return []
    # the first answer to each request, round and repeat of a supplier
    order = known[
        np.lexsort((table.at[known], table.draw[known], table.supplier[known], table.prompt[known]))
    ]
    keys = table.prompt[order], table.supplier[order], table.draw[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (keys[0][1:] != keys[0][:-1]) | (keys[1][1:] != keys[1][:-1]) | (keys[2][1:] != keys[2][:-1])
    order = order[new]
    size = len(table.suppliers)
    straight = np.zeros((size, size), dtype=np.int32)
    crossed = np.zeros_like(straight)
    _, start = np.unique(table.prompt[order], return_index=True)
    for begin, end in zip(start, [*start[1:], len(order)], strict=True):
        rows = order[begin:end]
        pair = _two_draws(table.draw[rows], table.supplier[rows])
        if pair is None:
            continue
        said = np.full((2, size), -1, dtype=np.int64)
        for side, draw in enumerate(pair):
            of = rows[table.draw[rows] == draw]
            said[side, table.supplier[of]] = table.said[of]
        varied = np.flatnonzero((said[0] >= 0) & (said[1] >= 0) & (said[0] != said[1]))
        if len(varied) > 1:
            same_draws(said[0, varied], said[1, varied], straight, crossed, varied)
    tossed = straight + crossed
    upper = np.triu(np.ones((size, size), dtype=bool), 1)
    compared = upper & (tossed >= settings.least_draws)
    tests = int(compared.sum())
    if not tests:
        return []
    threshold = family_wise_threshold(tests, settings.alpha)
    log_es = np.where(compared, log_e_of_coins(straight, crossed), -np.inf)
    since, until = _moment(table.at[known[0]]), _moment(table.at[known[-1]])
    found = []
    for a, b in np.argwhere(log_es >= threshold):
        n, k = int(tossed[a, b]), int(straight[a, b])
        names = table.suppliers
        found.append(
            Copy(
                "answers", names[a], names[b], False, since, until, float(log_es[a, b]), threshold, n, k / n,
                None,
                f"where both answer a request asked twice in two ways, {names[b]} had the same answers in "
                f"the same order on {k} of {counted(n, 'request')}: chance has half of them in the "
                "other order. One may hand the other's answers on, or they share a cache or an upstream",
            )
        )  # fmt: skip
    return found


def _two_draws(draws: np.ndarray, suppliers: np.ndarray) -> tuple[int, int] | None:
    """The two draws of a request that most suppliers made, the earlier numbered first; None of only one."""
    import numpy as np

    numbers, counts = np.unique(draws, return_counts=True)
    if len(numbers) < 2:
        return None
    best = np.sort(numbers[np.argsort(-counts, kind="stable")[:2]])
    return int(best[0]), int(best[1])


# --------------------------------------------------------------------------------------------- changes


def _changes(
    changes: Mapping[str, Sequence[tuple[datetime, datetime]]], now: datetime, settings: CopySettings
) -> list[Copy]:
    """Changes of what is answered that follow each other, again and again."""
    import numpy as np

    day = timedelta(days=1)
    oldest = now - settings.change_days * day
    spans = {
        key: sorted((max(low, oldest), high) for low, high in own if oldest < high <= now)
        for key, own in sorted(changes.items())
    }
    everywhere = [high for own in spans.values() for _, high in own]
    most = max(2.0, settings.changes_share * len(changes))

    def of_all(at: datetime) -> bool:
        return sum(abs(other - at) <= day / 2 for other in everywhere) > most

    spans = {key: [span for span in own if not of_all(span[1])] for key, own in spans.items()}
    able = [key for key, own in spans.items() if len(own) >= settings.least_changes]
    tests = len(able) * (len(able) - 1) // 2
    if not tests:
        return []
    threshold = family_wise_threshold(tests, settings.alpha)
    slack = settings.change_slack * day
    found = []
    for place, a in enumerate(able):
        for b in able[place + 1 :]:
            sides = []
            for mine, theirs in ((spans[a], spans[b]), (spans[b], spans[a])):
                hits, chances = [], []
                for low, high in mine:
                    covered = sum(((h - lo) + (high - low) + 2 * slack) / day for lo, h in theirs)
                    chances.append(min(covered / settings.change_days, 1.0))
                    hits.append(any(lo - slack <= high and low - slack <= h for lo, h in theirs))
                sides.append((log_e_of_events(np.array(hits), np.array(chances)), hits))
            log_e = float(log_mean_exp([sides[0][0], sides[1][0]]))
            if log_e < threshold:
                continue
            together = [span for span, hit in zip(spans[a], sides[0][1], strict=True) if hit]
            order = [
                float(np.sign((_nearest(spans[b], high) - high).total_seconds())) for _, high in together
            ]
            ordered = len(order) > 0 and abs(sum(order)) == len(order)
            followed, follower = (a, b) if sum(order) >= 0 else (b, a)
            n = min(len(spans[a]), len(spans[b]))
            found.append(
                Copy(
                    "changes", follower, followed, ordered, together[0][0], together[-1][1], log_e, threshold,
                    n, len(together) / n, None,
                    f"{len(together)} of {counted(n, 'change')} of its answers came with changes of "
                    f"{followed}: they share an upstream or an owner, or one hands on to the other",
                )
            )  # fmt: skip
    return found


def _nearest(spans: Sequence[tuple[datetime, datetime]], at: datetime) -> datetime:
    return min((high for _, high in spans), key=lambda high: abs(high - at))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
