"""Changes found by a loop over the answers, one after the other: what the arrays are held against."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from testbench_dagster.identity import Answer, Change, IdentitySettings
from testbench_dagster.identity.kernel import kernel
from testbench_dagster.statistics.change import DropDetector

#: What is compared of an answer that is too short.
SHORT = ""
TIE, DECIDED = 0.7, math.log(20)

Era = Sequence[tuple[Answer, str]]


@dataclass(frozen=True, order=True)
class Seen:
    """An observation: when its answer came, when it could be known, and what it was."""

    at: datetime
    known_at: datetime
    value: float


def plain_changes(
    answers: Iterable[Answer],
    settings: IdentitySettings,
    cut_at: Mapping[str, datetime],
    groups: Iterable[Collection[str]],
) -> list[Change]:
    """What ``find_changes`` finds."""
    eras: dict[str, list[tuple[Answer, str]]] = defaultdict(list)
    for answer in answers:
        cut = cut_at.get(answer.supplier)
        if cut is None or answer.at > cut:
            utc = replace(answer, at=answer.at.astimezone(UTC))
            eras[answer.supplier].append((utc, kernel(answer.answer_prefix, settings.prefix_chars) or SHORT))
    for era in eras.values():
        era.sort(key=lambda pair: (pair[0].at, pair[0].prompt, pair[0].round))
    found = {}
    for supplier, era in eras.items():
        change, _ = replay(supplier, "repeat", repeats(era), settings)
        if change:
            found[supplier] = change
    for group in groups:
        members = sorted(member for member in set(group) if member in eras)
        for change in group_changes(members, eras, found, settings):
            known = found.get(change.supplier)
            sure = change.certain and change.confirmed
            if known is None or (sure and change.detected_at < known.detected_at):
                found[change.supplier] = change
    return sorted(found.values(), key=lambda c: (c.detected_at, c.supplier))


def repeats(era: Era) -> list[Seen]:
    """Answers to prompts that were answered before, in another round: like the most frequent, or not."""
    before: dict[str, Counter[str]] = defaultdict(Counter)
    rounds: dict[str, set[int]] = defaultdict(set)
    stream = []
    for answer, text in era:
        earlier = before[answer.prompt]
        if earlier and answer.round not in rounds[answer.prompt]:
            usual = earlier.most_common(1)[0][0]  # the earliest among equals
            if text != SHORT or usual != SHORT:
                stream.append(Seen(answer.at, answer.at, float(text == usual)))
        earlier[text] += 1
        rounds[answer.prompt].add(answer.round)
    return stream


def deviations(
    members: Sequence[str], eras: Mapping[str, Era], until: Mapping[str, datetime], near: timedelta
) -> dict[str, list[Seen]]:
    """Per member its answers against the majority of the others' nearest ones, all before ``until``."""
    by_prompt: dict[str, dict[str, list[tuple[datetime, str]]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        for answer, text in eras[member]:
            if member not in until or answer.at < until[member]:
                by_prompt[answer.prompt][member].append((answer.at, text))
    streams: dict[str, list[Seen]] = {member: [] for member in members}
    for theirs in by_prompt.values():
        for member, own in theirs.items():
            for at, text in own:
                votes = [
                    nearest
                    for other, said in theirs.items()
                    if other != member and (nearest := nearest_of(said, at, near)) is not None
                ]
                usual, count = Counter(said for _, said in votes).most_common(1)[0] if votes else ("", 0)
                if 2 * count > len(votes) and not text == usual == SHORT:
                    known_at = max(at, *(t for t, said in votes if said == usual))
                    streams[member].append(Seen(at, known_at, float(text == usual)))
    return {member: sorted(stream) for member, stream in streams.items()}


def nearest_of(
    said: Sequence[tuple[datetime, str]], at: datetime, near: timedelta
) -> tuple[datetime, str] | None:
    """What was said nearest in time, if near; of one instant first or last, as seen from there."""
    least = min(abs(t - at) for t, _ in said)
    before = [entry for entry in said if at - entry[0] == least]
    after = [entry for entry in said if entry[0] - at == least]
    if least > near:
        return None
    return after[0] if least == timedelta(0) or not before else before[-1]


def replay(
    supplier: str, kind: Literal["repeat", "group"], stream: Sequence[Seen], settings: IdentitySettings
) -> tuple[Change | None, float]:
    """The first alarm, and how much speaks for a change at the end (nats)."""
    detector = DropDetector(
        arl=settings.arl, baseline_alpha=settings.baseline_alpha, ceiling=settings.split_agreement
    )
    change = None
    for number, seen in enumerate(stream):
        if detector.step(seen.value) and change is None:
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
                stream="openings",
                observations=number + 1,
                since_change=len(after),
                null_rate=detector.baseline,
                rate_after=rate,
                direction="down",
                certain=True,
                wording=f"since {stream[first].at:%Y-%m-%d %H:%M} it answers like {what} on {rate:.0%} of "
                f"{len(after)} {'prompt' if len(after) == 1 else 'prompts'}, before on at least "
                f"{detector.baseline:.0%}",
            )
    return change, detector.height


def group_changes(
    members: Sequence[str],
    eras: Mapping[str, Era],
    found: Mapping[str, Change],
    settings: IdentitySettings,
) -> list[Change]:
    """Changes within one group, the member with the most evidence first and its later answers taken out."""
    near = timedelta(days=settings.near_days)
    until = {m: found[m].at for m in members if m in found}
    changes: list[Change] = []
    unchanged: set[str] = set()

    def alarms(
        who: Sequence[str], before: Mapping[str, datetime], judged: Collection[str]
    ) -> dict[str, tuple[Change, float]]:
        runs = {m: replay(m, "group", s, settings) for m, s in deviations(who, eras, before, near).items()}
        return {m: (change, height) for m, (change, height) in runs.items() if change and m in judged}

    while True:
        open_ = [m for m in members if m not in unchanged and m not in {c.supplier for c in changes}]
        alarmed = alarms(members, until, open_)
        if not alarmed:
            return [
                replace(c, confirmed=own_evidence(eras[c.supplier], c.at, settings) >= DECIDED)
                for c in changes
            ]
        own = {m: own_evidence(eras[m], change.at, settings) for m, (change, _) in alarmed.items()}
        steady = next((m for m in alarmed if own[m] <= -DECIDED), None)
        if steady is not None:
            unchanged.add(steady)
            for other in open_:
                if other == steady:
                    continue
                for change, _ in alarms([steady, other], until, [other]).values():
                    if own_evidence(eras[other], change.at, settings) > -DECIDED:
                        changes.append(replace(change, against=(steady,)))
                        until[other] = min(change.at, until.get(other, change.at))
            continue
        strongest = max(height for _, height in alarmed.values())
        first, *others = sorted(
            (m for m, (_, height) in alarmed.items() if height >= strongest - TIE),
            key=lambda m: (own[m] < DECIDED, m),
        )
        change = replace(alarmed[first][0], against=tuple(m for m in members if m != first))
        without = {**until, first: min(change.at, until.get(first, change.at))}
        left = alarms(members, without, members)
        for other in others if own[first] < DECIDED else ():
            if other not in left:
                theirs = replace(alarmed[other][0], against=tuple(m for m in members if m != other))
                changes.append(uncertain(theirs, first))
                change = uncertain(change, other) if change.certain else change
                without[other] = theirs.at
        changes.append(change)
        until = without


def own_evidence(era: Era, at: datetime, settings: IdentitySettings) -> float:
    """Log likelihood ratio of repeats from an instant on that agree half as often as before, to as often."""
    before = [seen.value for seen in repeats(era) if seen.at < at]
    since = [seen.value for seen in repeats(era) if seen.at >= at]
    weight, most = settings.self_prior, settings.split_agreement
    usual = min((math.fsum(before) + weight * most) / (len(before) + weight), most)
    agree = math.fsum(since)
    return agree * math.log(0.5) + (len(since) - agree) * math.log((1 - usual / 2) / (1 - usual))


def uncertain(change: Change, other: str) -> Change:
    return replace(change, certain=False, wording=f"{change.wording}; it may as well be {other} that changed")
