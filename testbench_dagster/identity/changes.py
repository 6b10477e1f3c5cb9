"""Has a supplier's model changed? Its answers against its own earlier ones, and against its group's.

Two streams of evidence, each with a Shiryaev-Roberts e-detector (``statistics.change``) whose baseline is
learnt from the stream itself, so that an endpoint that was always noisy raises no alarm by being so:

* repeat: an answer against the prefix the supplier gave most often to the same prompt before;
* group: a member's answer against the majority of the other members' answers to the same prompt, those near
  in time. One disagreement has two sides, so whoever deviates from most is found first and its answers after
  its change are taken out before the others are judged; in a pair that nothing else tells apart both are
  reported, as uncertain. Most may be one who runs them all: whose own repeats go on as before has not
  changed, however many say otherwise, and those that it is no longer like are looked at instead. A change is
  ``confirmed`` where the supplier's own repeats speak for it too: others' answers alone prove nothing.

Scores are a third one, see :mod:`.score_changes`.

An answer too short to be told from others' (see ``kernel``) counts as one kind: two of them say nothing, one
where there used to be text is a difference, as of a model that stopped explaining itself.

All is replayed from the answers of an era, in the order they came; dates are those of answers, never of the
processing. The first change of an era is reported: whoever acts on it cuts the era there.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.answers import AnswerTable
from testbench_dagster.identity.kernel import Answer, kernel
from testbench_dagster.identity.settings import IdentityError, IdentitySettings
from testbench_dagster.statistics.change import DropDetector

if TYPE_CHECKING:
    import numpy as np

#: The stream of answer prefixes; the ids of stored changes follow from its name.
OF_PREFIXES = "openings"
#: What is compared of an answer too short to be told from others.
_SHORT = ""
#: Two members whose evidence differs by less (nats) are both sides of the same disagreements.
_TIE = 0.7
#: Evidence (nats) from which a supplier's own repeats decide whether it changed: five that agree, say.
_DECIDED = math.log(20)
#: Comparisons of answers to one prompt from which arrays are quicker than a loop.
_MANY = 2_000
#: Comparisons that are made at a time.
_AT_ONCE = 1_000_000
_MICROSECOND = timedelta(microseconds=1)
_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Change:
    """A detected change of a supplier's model.

    It lies after ``before_at``, the last answer of the stream that looked as before, and not after ``at``,
    the first that did not: of answers by maximum likelihood, of scores the ends of an interval that holds it
    with 95 %. The answer that raised the alarm came at ``detected_at``. Cut the supplier's era just before
    ``at``. ``log_e`` (nats) is the detector's level then, alarms being at ln ``arl``. ``observations`` had
    been made, ``since_change`` of them from ``at`` on, with a mean of ``rate_after``; ``null_rate`` is the
    lowest mean (for "up" the highest) that the time before allowed for. ``stream`` names the evidence. Not
    ``certain``: one of two members changed, and this may be either. Not ``confirmed``: only others' answers
    tell, those of ``against``; the supplier's own repeats do not, or are too few yet.
    """

    supplier: str
    kind: Literal["repeat", "group", "score"]
    at: datetime
    before_at: datetime | None
    detected_at: datetime
    log_e: float
    arl: float
    stream: str
    observations: int
    since_change: int
    null_rate: float
    rate_after: float
    direction: Literal["down", "up"]
    certain: bool
    wording: str
    confirmed: bool = True
    against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """An observation of a stream: its value, when its answer came, and when it could be known."""

    at: datetime
    known_at: datetime
    value: float


def find_changes(
    answers: Iterable[Answer],
    settings: IdentitySettings | None = None,
    *,
    cut_at: Mapping[str, datetime] | None = None,
    groups: Iterable[Collection[str]] = (),
) -> list[Change]:
    """The first change of each supplier since its cut, in its repeats and within its group of ``groups``.

    Sorted by date of detection, then supplier. Raises IdentityError for times without a zone, or a supplier
    in two groups.
    """
    settings = settings or IdentitySettings()
    table = AnswerTable.of(answers).since(cut_at or {})
    found: dict[str, Change] = {}
    for supplier in sorted(table.suppliers):
        run = _replay(supplier, "repeat", _repeats(_era(table, supplier, settings), settings), settings)
        if run.change:
            found[supplier] = run.change
    seen: set[str] = set()
    for group in groups:
        members = sorted(set(group))
        if twice := seen.intersection(members):
            raise IdentityError(f"supplier {min(twice)!r} is in two groups; name each in one")
        seen.update(members)
        every = {member: _era(table, member, settings) for member in members}
        eras = {member: era for member, era in every.items() if era}
        for change in _group_changes(list(eras), eras, found, settings):
            known = found.get(change.supplier)
            # a repeat decides what others leave open, even when it comes later
            sure = change.certain and change.confirmed
            if known is None or (sure and change.detected_at < known.detected_at):
                found[change.supplier] = change
    return sorted(found.values(), key=lambda c: (c.detected_at, c.supplier))


def _era(table: AnswerTable, supplier: str, settings: IdentitySettings) -> list[tuple[Answer, str]]:
    """A supplier's answers with what is compared of them, in order of time."""
    return [
        (answer, kernel(answer.answer_prefix, settings.prefix_chars) or _SHORT)
        for answer in table.of_supplier(supplier)
    ]


def _repeats(era: Sequence[tuple[Answer, str]], settings: IdentitySettings) -> list[_Seen]:
    """Answers to prompts that were answered before, in another round: like the most frequent, or not."""
    before: dict[str, Counter[str]] = defaultdict(Counter)
    rounds: dict[str, set[int]] = defaultdict(set)
    stream = []
    for answer, text in era:
        earlier = before[answer.prompt]
        if earlier and answer.round not in rounds[answer.prompt]:
            usual = earlier.most_common(1)[0][0]  # the earliest among equals: a change does not outvote it
            if text != _SHORT or usual != _SHORT:
                stream.append(_Seen(answer.at, answer.at, float(text == usual)))
        earlier[text] += 1
        rounds[answer.prompt].add(answer.round)
    return stream


@dataclass(frozen=True, slots=True)
class _Run:
    """A replayed stream: the first alarm, if any, and how much speaks for a change at the end (nats)."""

    change: Change | None
    height: float


def _replay(
    supplier: str, kind: Literal["repeat", "group"], stream: Sequence[_Seen], settings: IdentitySettings
) -> _Run:
    detector = DropDetector(
        arl=settings.arl, baseline_alpha=settings.baseline_alpha, ceiling=settings.split_agreement
    )
    change = None
    for number, seen in enumerate(stream):
        alarm = detector.step(seen.value)
        if alarm and change is None:
            first = min(detector.start, number)
            after = stream[first : number + 1]
            rate = math.fsum(s.value for s in after) / len(after)
            what = "its own earlier answers" if kind == "repeat" else "the rest of its group"
            change = Change(
                supplier=supplier,
                kind=kind,
                at=stream[first].at,
                before_at=stream[first - 1].at if first else None,
                detected_at=max(s.known_at for s in after),
                log_e=detector.log_e,
                arl=settings.arl,
                stream=OF_PREFIXES,
                observations=number + 1,
                since_change=len(after),
                null_rate=detector.baseline,
                rate_after=rate,
                direction="down",
                certain=True,
                wording=f"since {stream[first].at:%Y-%m-%d %H:%M} it answers like {what} on {rate:.0%} of "
                f"{counted(len(after), 'prompt')}, before on at least {detector.baseline:.0%}",
            )
    return _Run(change, detector.height)


def _group_changes(
    members: Sequence[str],
    eras: Mapping[str, Sequence[tuple[Answer, str]]],
    found: Mapping[str, Change],
    settings: IdentitySettings,
) -> list[Change]:
    """Changes within one group, the member with the most evidence first and its later answers taken out.

    Whose repeats already showed a change is taken out from there on before anybody is judged.
    """
    until: dict[str, datetime] = {m: found[m].at for m in members if m in found}
    changes: list[Change] = []
    unchanged: set[str] = set()
    while True:
        runs = {
            member: _replay(member, "group", stream, settings)
            for member, stream in _deviations(members, eras, until, settings).items()
        }
        blamed = {change.supplier for change in changes}
        alarmed = {
            member: change
            for member, run in runs.items()
            if (change := run.change) is not None and member not in blamed | unchanged
        }
        if not alarmed:
            return [_judged(change, eras, settings) for change in changes]
        own = {member: _own_evidence(eras[member], change.at, settings) for member, change in alarmed.items()}
        steady = next((member for member in alarmed if own[member] <= -_DECIDED), None)
        if steady is not None:
            unchanged.add(steady)
            for other in [m for m in members if m not in blamed | unchanged]:
                theirs = _deviations([steady, other], eras, until, settings)[other]
                change = _replay(other, "group", theirs, settings).change
                if change is not None and _own_evidence(eras[other], change.at, settings) > -_DECIDED:
                    changes.append(replace(change, against=(steady,)))
                    until[other] = min(change.at, until.get(other, change.at))
            continue
        strongest = max(runs[m].height for m in alarmed)
        top = sorted(
            (m for m in alarmed if runs[m].height >= strongest - _TIE),
            key=lambda m: (own[m] < _DECIDED, m),  # who changed by its own repeats comes first
        )
        # a tie is both sides of the same disagreements only if taking one out leaves the other without
        first = top[0]
        change = replace(alarmed[first], against=_rest(members, first))
        without = {**until, first: min(change.at, until.get(first, change.at))}
        left = _deviations(members, eras, without, settings)
        for other in top[1:] if own[first] < _DECIDED else ():
            if not _replay(other, "group", left[other], settings).change:
                theirs_too = replace(alarmed[other], against=_rest(members, other))
                changes.append(_uncertain(theirs_too, first))
                change = _uncertain(change, other) if change.certain else change
                without[other] = theirs_too.at
        changes.append(change)
        until = without


def _rest(members: Sequence[str], one: str) -> tuple[str, ...]:
    return tuple(member for member in members if member != one)


def _judged(
    change: Change, eras: Mapping[str, Sequence[tuple[Answer, str]]], settings: IdentitySettings
) -> Change:
    """A change by its group with what the supplier's own repeats say of it."""
    confirmed = _own_evidence(eras[change.supplier], change.at, settings) >= _DECIDED
    return replace(change, confirmed=confirmed)


def _own_evidence(era: Sequence[tuple[Answer, str]], at: datetime, settings: IdentitySettings) -> float:
    """Evidence (nats) of a supplier's repeats for a change at an instant: against one where it is below 0.

    The likelihood ratio of repeats from then on that agree half as often as those before did, to as often.
    """
    repeats = _repeats(era, settings)
    before = [seen.value for seen in repeats if seen.at < at]
    since = [seen.value for seen in repeats if seen.at >= at]
    weight = settings.self_prior
    usual = (math.fsum(before) + weight * settings.split_agreement) / (len(before) + weight)
    usual = min(usual, settings.split_agreement)
    agree = math.fsum(since)
    return agree * math.log(0.5) + (len(since) - agree) * math.log((1 - usual / 2) / (1 - usual))


def _uncertain(change: Change, other: str) -> Change:
    return replace(change, certain=False, wording=f"{change.wording}; it may as well be {other} that changed")


def _deviations(
    members: Sequence[str],
    eras: Mapping[str, Sequence[tuple[Answer, str]]],
    until: Mapping[str, datetime],
    settings: IdentitySettings,
) -> dict[str, list[_Seen]]:
    """Per member its answers against the majority of the others' nearest ones, all before ``until``."""
    near = timedelta(days=settings.near_days)
    by_prompt: dict[str, dict[str, list[tuple[datetime, str]]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        end = until.get(member)
        for answer, text in eras[member]:
            if end is None or answer.at < end:
                by_prompt[answer.prompt][member].append((answer.at, text))
    streams: dict[str, list[_Seen]] = {member: [] for member in members}
    for theirs in by_prompt.values():
        if len(theirs) < 2:
            continue
        for member, at, usual, text, known in _against_others(theirs, near):
            if text != _SHORT or usual != _SHORT:
                streams[member].append(_Seen(at, known, float(text == usual)))
    for stream in streams.values():
        stream.sort(key=lambda seen: (seen.at, seen.known_at, seen.value))
    return streams


def _against_others(
    theirs: Mapping[str, Sequence[tuple[datetime, str]]], near: timedelta
) -> Iterator[tuple[str, datetime, str, str, datetime]]:
    """Each answer to one prompt with what most others said: member, time, usual, own, when all was known."""
    entries = [(member, at, text) for member, own in theirs.items() for at, text in own]
    times = [at for _, at, _ in entries]
    if len(entries) == len(theirs) and max(times) - min(times) <= near:
        # one answer each, all near: counted once for all, less one's own
        counts = Counter(text for _, _, text in entries)
        latest: dict[str, datetime] = {}
        for _, at, text in entries:
            latest[text] = max(at, latest.get(text, at))
        top = counts.most_common(2)  # who has the majority of the others is one of these
        for member, at, text in entries:
            for usual, count in top:
                if 2 * (count - (usual == text)) > len(entries) - 1:
                    yield member, at, usual, text, max(at, latest[usual])
        return
    if len(entries) * len(theirs) > _MANY:
        yield from _against_many_others(theirs, near)
        return
    for member, at, text in entries:
        votes = [
            nearest
            for other, given in theirs.items()
            if other != member and (nearest := _nearest(given, at, near)) is not None
        ]
        usual, count = Counter(prefix for _, prefix in votes).most_common(1)[0] if votes else (_SHORT, 0)
        if 2 * count > len(votes):
            yield member, at, usual, text, max(at, *(t for t, prefix in votes if prefix == usual))


def _against_many_others(
    theirs: Mapping[str, Sequence[tuple[datetime, str]]], near: timedelta
) -> Iterator[tuple[str, datetime, str, str, datetime]]:
    """The same of many members that answered more than once, in arrays: members x answers of each."""
    import numpy as np

    members = list(theirs)
    entries = [(place, at, text) for place, member in enumerate(members) for at, text in theirs[member]]
    texts = {text: number for number, text in enumerate(dict.fromkeys(text for _, _, text in entries))}
    names = list(texts)
    begin = min(at for _, at, _ in entries)
    most = max(len(given) for given in theirs.values())
    times = np.full((len(members), most), _NEVER)
    said = np.full((len(members), most), -1)
    for place, member in enumerate(members):
        given = theirs[member]
        times[place, : len(given)] = [(at - begin) // _MICROSECOND for at, _ in given]
        said[place, : len(given)] = [texts[text] for _, text in given]
    own = np.array([place for place, _, _ in entries])
    asked = np.array([(at - begin) // _MICROSECOND for _, at, _ in entries])
    first = int(np.bincount(said[said >= 0]).argmax())
    some = max(1, _AT_ONCE // times.size)
    for start in range(0, len(entries), some):
        part = slice(start, start + some)
        votes, known = _votes(times, said, own[part], asked[part], near // _MICROSECOND)
        count = (votes >= 0).sum(axis=1)
        usual = np.full(len(votes), first)
        other = 2 * (votes == first).sum(axis=1) <= count
        # what most say is in the middle of all that is said, in any order of texts
        ordered = np.sort(np.where(votes[other] < 0, len(texts), votes[other]), axis=1)
        usual[other] = ordered[np.arange(len(ordered)), count[other] // 2]
        alike = votes == usual[:, None]
        most_say = 2 * alike.sum(axis=1) > count
        latest = np.where(alike, known, -1).max(axis=1)
        for row in np.flatnonzero(most_say).tolist():
            place, at, text = entries[start + row]
            heard = begin + int(latest[row]) * _MICROSECOND
            yield members[place], at, names[usual[row]], text, max(at, heard)


def _votes(
    times: np.ndarray, said: np.ndarray, own: np.ndarray, asked: np.ndarray, widest: int
) -> tuple[np.ndarray, np.ndarray]:
    """What each member said nearest to some instants, -1 where nothing near or its ``own``, and when.

    ``times`` and ``said`` are members x answers of each, in order of time; both outcomes instants x members.
    """
    import numpy as np

    members = np.arange(len(times))
    now = asked[:, None]
    # of each member the last answer before, the first of this instant, or the first after it
    before = (times[None] < now[:, :, None]).sum(axis=2)
    until = (times[None] <= now[:, :, None]).sum(axis=2)
    left, right = np.maximum(before - 1, 0), np.minimum(before, times.shape[1] - 1)
    to_left = np.where(before > 0, now - times[members, left], _NEVER)
    to_right = np.where(before < times.shape[1], times[members, right] - now, _NEVER)
    nearest = np.where((until > before) | (to_right < to_left), right, left)
    votes = np.where(np.minimum(to_left, to_right) <= widest, said[members, nearest], -1)
    votes[np.arange(len(own)), own] = -1
    return votes, times[members, nearest]


def _nearest(
    entries: Sequence[tuple[datetime, str]], at: datetime, near: timedelta
) -> tuple[datetime, str] | None:
    """The entry nearest in time, the earlier of equals; None beyond ``near``. Entries are sorted by time."""
    times = [t for t, _ in entries]
    around = entries[max(bisect_left(times, at) - 1, 0) : bisect_right(times, at) + 1]
    best = min(around, key=lambda entry: abs(entry[0] - at))
    return best if abs(best[0] - at) <= near else None
