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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.answers import AnswerTable, instant, microseconds
from testbench_dagster.identity.kernel import Answer
from testbench_dagster.identity.settings import IdentityError, IdentitySettings
from testbench_dagster.identity.streams import Answers, Compared, Observations, deviations, repeats
from testbench_dagster.statistics.change import DropDetector, may_alarm

#: The stream of answer prefixes; the ids of stored changes follow from its name.
OF_PREFIXES = "openings"
#: Two members whose evidence differs by less (nats) are both sides of the same disagreements.
_TIE = 0.7
#: Evidence (nats) from which a supplier's own repeats decide whether it changed: five that agree, say.
_DECIDED = math.log(20)
#: Answers that are looked at together: of whole suppliers, or groups.
_AT_ONCE = 300_000
_MICROSECOND = timedelta(microseconds=1)


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
    compared = Compared(table, settings.prefix_chars)
    found: dict[str, Change] = {}
    for some in _batches(([name] for name in table.suppliers), table):
        suppliers = [name for group in some for name in group]
        runs = _alarms(suppliers, "repeat", repeats(compared.answers(suppliers)), settings)
        found |= {name: run.change for name, run in runs.items()}
    for some in _batches(_members(groups), table):
        for members in _with_alarms(some, compared, found, settings):
            group = _Group(members, compared.answers(members), settings)
            for change in _group_changes(group, found):
                known = found.get(change.supplier)
                # a repeat decides what others leave open, even when it comes later
                sure = change.certain and change.confirmed
                if known is None or (sure and change.detected_at < known.detected_at):
                    found[change.supplier] = change
    return sorted(found.values(), key=lambda c: (c.detected_at, c.supplier))


def _members(groups: Iterable[Collection[str]]) -> list[list[str]]:
    """The members of each group in order. Raises IdentityError for a supplier in two groups."""
    seen: set[str] = set()
    found = []
    for group in groups:
        members = sorted(set(group))
        if twice := seen.intersection(members):
            raise IdentityError(f"supplier {min(twice)!r} is in two groups; name each in one")
        seen.update(members)
        found.append(members)
    return found


def _batches(groups: Iterable[list[str]], table: AnswerTable) -> Iterator[list[list[str]]]:
    """Groups of suppliers, each of those that answered, so many together that memory holds their answers."""
    batch: list[list[str]] = []
    answers = 0
    for group in groups:
        counts = [table.count(name) for name in group]
        batch.append([name for name, count in zip(group, counts, strict=True) if count])
        answers += sum(counts)
        if answers >= _AT_ONCE:
            yield batch
            batch, answers = [], 0
    yield batch


def _with_alarms(
    groups: Sequence[list[str]],
    compared: Compared,
    found: Mapping[str, Change],
    settings: IdentitySettings,
) -> list[list[str]]:
    """The groups in which any member's answers deviate so much that it may have changed."""
    import numpy as np

    names = [name for members in groups for name in members]
    places = np.repeat(np.arange(len(groups)), [len(members) for members in groups])
    given = _before(compared.answers(names), names, _first_known(names, found))
    alarms = _alarms(names, "group", deviations(given, places, _near(settings)), settings)
    return [members for members in groups if not alarms.keys().isdisjoint(members)]


@dataclass(frozen=True, slots=True)
class _Run:
    """A replayed stream with an alarm: the first, and how much speaks for a change at the end (nats)."""

    change: Change
    height: float


def _alarms(
    names: Sequence[str],
    kind: Literal["repeat", "group"],
    seen: Observations,
    settings: IdentitySettings,
) -> dict[str, _Run]:
    """The streams of suppliers, numbered as their names are, that raise an alarm."""
    import numpy as np

    lengths = np.bincount(seen.owner, minlength=len(names))
    suspects = np.flatnonzero(may_alarm(_detector(settings), seen.agreed, lengths)).tolist()
    runs = {names[place]: _replay(names[place], kind, seen.of(place), settings) for place in suspects}
    return {name: run for name, run in runs.items() if run is not None}


def _detector(settings: IdentitySettings) -> DropDetector:
    return DropDetector(
        arl=settings.arl, baseline_alpha=settings.baseline_alpha, ceiling=settings.split_agreement
    )


def _replay(
    supplier: str, kind: Literal["repeat", "group"], seen: Observations, settings: IdentitySettings
) -> _Run | None:
    """The first alarm of a stream, None where it raises none."""
    detector = _detector(settings)
    change = None
    for number, value in enumerate(seen.agreed.tolist()):
        if detector.step(float(value)) and change is None:
            change = _change(supplier, kind, seen, number, detector, settings)
    return None if change is None else _Run(change, detector.height)


def _change(
    supplier: str,
    kind: Literal["repeat", "group"],
    seen: Observations,
    number: int,
    detector: DropDetector,
    settings: IdentitySettings,
) -> Change:
    """The change that an observation raised the alarm for."""
    first = min(detector.start, number)
    after = slice(first, number + 1)
    at, n = instant(int(seen.at[first])), number + 1 - first
    rate = int(seen.agreed[after].sum()) / n
    what = "its own earlier answers" if kind == "repeat" else "the rest of its group"
    return Change(
        supplier=supplier,
        kind=kind,
        at=at,
        before_at=instant(int(seen.at[first - 1])) if first else None,
        detected_at=instant(int(seen.known_at[after].max())),
        log_e=detector.log_e,
        arl=settings.arl,
        stream=OF_PREFIXES,
        observations=number + 1,
        since_change=n,
        null_rate=detector.baseline,
        rate_after=rate,
        direction="down",
        certain=True,
        wording=f"since {at:%Y-%m-%d %H:%M} it answers like {what} on {rate:.0%} of "
        f"{counted(n, 'prompt')}, before on at least {detector.baseline:.0%}",
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """Members of a group with their answers, by the members' places."""

    members: Sequence[str]
    answers: Answers
    settings: IdentitySettings

    def alarms(self, until: Mapping[str, datetime]) -> dict[str, _Run]:
        """Who deviates from the others, all before their ``until``."""
        import numpy as np

        given = _before(self.answers, self.members, until)
        seen = deviations(given, np.zeros(len(self.members), dtype=np.int64), _near(self.settings))
        return _alarms(self.members, "group", seen, self.settings)

    def alarms_against(
        self, steady: str, others: Sequence[str], until: Mapping[str, datetime]
    ) -> dict[str, _Run]:
        """Which of some others deviate from one member, each alone with it, all before their ``until``."""
        import numpy as np

        given = _before(self.answers, self.members, until)
        given = given.where(np.argsort(given.owner, kind="stable"))
        pairs = [self.members.index(name) for other in others for name in (other, steady)]
        bounds = np.searchsorted(given.owner, np.arange(len(self.members) + 1))
        parts = [np.arange(bounds[place], bounds[place + 1]) for place in pairs]  # steady's once for each
        owner = np.repeat(np.arange(len(pairs)), [len(part) for part in parts])
        of_pairs = replace(given.where(np.concatenate([bounds[:0], *parts])), owner=owner)
        seen = deviations(of_pairs, np.arange(len(pairs)) // 2, _near(self.settings))
        theirs = seen.where(seen.owner % 2 == 0)
        return _alarms(others, "group", replace(theirs, owner=theirs.owner // 2), self.settings)

    def own_evidence(self, member: str, at: datetime) -> float:
        """Evidence (nats) of a member's repeats for a change at an instant: against one where below 0.

        The likelihood ratio of repeats from then on that agree half as often as those before did, to as
        often.
        """
        seen = repeats(self.answers.where(self.answers.owner == self.members.index(member)))
        since = seen.at >= microseconds(at)
        n, agree = int(since.sum()), int(seen.agreed[since].sum())
        before, agreed = len(since) - n, int(seen.agreed.sum()) - agree
        weight = self.settings.self_prior
        usual = (agreed + weight * self.settings.split_agreement) / (before + weight)
        usual = min(usual, self.settings.split_agreement)
        return agree * math.log(0.5) + (n - agree) * math.log((1 - usual / 2) / (1 - usual))


def _near(settings: IdentitySettings) -> int:
    return timedelta(days=settings.near_days) // _MICROSECOND


def _first_known(members: Iterable[str], found: Mapping[str, Change]) -> dict[str, datetime]:
    """Where members changed, of those of whom it is known."""
    return {member: found[member].at for member in members if member in found}


def _before(given: Answers, names: Sequence[str], until: Mapping[str, datetime]) -> Answers:
    """The answers of suppliers before an instant each; all of those that have none."""
    import numpy as np

    if not until:
        return given
    ends = np.full(len(names), np.iinfo(np.int64).max)
    for place, name in enumerate(names):
        if name in until:
            ends[place] = microseconds(until[name])
    return given.where(given.at < ends[given.owner])


def _group_changes(group: _Group, found: Mapping[str, Change]) -> list[Change]:
    """Changes within one group, the member with the most evidence first and its later answers taken out.

    Whose repeats already showed a change is taken out from there on before anybody is judged.
    """
    members = group.members
    until = _first_known(members, found)
    changes: list[Change] = []
    unchanged: set[str] = set()
    while True:
        blamed = {change.supplier for change in changes}
        runs = {
            member: run for member, run in group.alarms(until).items() if member not in blamed | unchanged
        }
        if not runs:
            return [_judged(change, group) for change in changes]
        own = {member: group.own_evidence(member, run.change.at) for member, run in runs.items()}
        steady = next((member for member in runs if own[member] <= -_DECIDED), None)
        if steady is not None:
            unchanged.add(steady)
            others = [member for member in members if member not in blamed | unchanged]
            for other, run in group.alarms_against(steady, others, until).items():
                if group.own_evidence(other, run.change.at) > -_DECIDED:
                    changes.append(replace(run.change, against=(steady,)))
                    until[other] = min(run.change.at, until.get(other, run.change.at))
            continue
        strongest = max(run.height for run in runs.values())
        top = sorted(
            (m for m, run in runs.items() if run.height >= strongest - _TIE),
            key=lambda m: (own[m] < _DECIDED, m),  # who changed by its own repeats comes first
        )
        # a tie is both sides of the same disagreements only if taking one out leaves the other without
        first = top[0]
        change = replace(runs[first].change, against=_rest(members, first))
        without = {**until, first: min(change.at, until.get(first, change.at))}
        others = top[1:] if own[first] < _DECIDED else []
        left = group.alarms(without) if others else {}
        for other in others:
            if other not in left:
                theirs_too = replace(runs[other].change, against=_rest(members, other))
                changes.append(_uncertain(theirs_too, first))
                change = _uncertain(change, other) if change.certain else change
                without[other] = theirs_too.at
        changes.append(change)
        until = without


def _rest(members: Sequence[str], one: str) -> tuple[str, ...]:
    return tuple(member for member in members if member != one)


def _judged(change: Change, group: _Group) -> Change:
    """A change by its group with what the supplier's own repeats say of it."""
    return replace(change, confirmed=group.own_evidence(change.supplier, change.at) >= _DECIDED)


def _uncertain(change: Change, other: str) -> Change:
    return replace(change, certain=False, wording=f"{change.wording}; it may as well be {other} that changed")
