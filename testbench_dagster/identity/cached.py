"""Cached answers: what was asked before comes back at once, to the letter.

What is asked anew at times (canaries, probes, slots that fall due) could be answered from a store of earlier
answers. A repeat counts as served from one where its answer is equal to the letter to an earlier one of the
supplier's and came at least :attr:`CacheSettings.times` faster than *every one* of k first answers of
comparable length, of the same days and with no more requests of ours beside them. A repeat that is computed
anew is as slow as they are, so it is the fastest of k + 1 with a chance of 1 / (k + 1) at most, and with that
margin far less. Repeats share the answers that they are compared with, so the stated rate of false alarms
rests on the margin; a test plays it. Prompts that are long and answers that are short are left out: a server
that keeps what it read of a prompt, as many do, saves nearly all of the time there, and computes the answer.

Equal text alone says nothing: at temperature 0 it is what is asked for. What is told comes with how often
others, asked the same again, vary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.copies import Call
from testbench_dagster.identity.settings import IdentityError
from testbench_dagster.statistics.coincidences import log_e_of_events
from testbench_dagster.statistics.multiplicity import family_wise_threshold

#: Requests that are named of those that came from a store.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The constants of cached answers. IdentityError when out of range."""

    #: Probability that any supplier of a service that keeps no answers is named in a stretch.
    alpha: float = 0.001
    #: First answers that a repeat is compared with: those nearest in length, within this ratio of tokens.
    comparable: int = 19
    least_comparable: int = 9
    length_ratio: float = 1.5
    #: By which factor a repeat is faster than the fastest of them.
    times: float = 4.0
    #: First answers further away in time, in days, say nothing: a supplier may have got faster since.
    near_days: float = 3.0
    #: Shorter answers, in tokens, take no time that could be saved; nor do those of longer prompts, by tokens
    #: of the prompt to one of the answer.
    least_tokens: int = 8
    prompt_ratio: float = 50.0
    #: Fewest repeats that came so.
    least: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise IdentityError(f"alpha must lie between 0 and 1, both excluded; got {self.alpha}")
        if not 0 < self.least_comparable <= self.comparable:
            raise IdentityError(
                f"want 0 < least_comparable <= comparable; got {self.least_comparable} and {self.comparable}"
            )
        if self.times < 1 or self.length_ratio < 1:
            raise IdentityError(
                f"times and length_ratio must be 1 or more; got {self.times}, {self.length_ratio}"
            )


@dataclass(frozen=True, slots=True)
class Cached:
    """That repeats of a supplier come from a store: ``hits`` of ``repeats``, with ``log_e`` nats of evidence.

    ``prompts`` are some of the requests that came so. ``speedup`` is by which factor these were faster than
    first answers, the median. ``others_vary`` is the share of requests that others answered otherwise when
    asked again, None where none was.
    """

    supplier: str
    repeats: int
    hits: int
    speedup: float
    others_vary: float | None
    since: datetime
    until: datetime
    log_e: float
    threshold: float
    prompts: tuple[str, ...]
    wording: str


def find_cached(calls: Iterable[Call], settings: CacheSettings | None = None) -> list[Cached]:
    """Suppliers of a service whose repeats come from a store, by name."""
    settings = settings or CacheSettings()
    by_supplier: dict[str, list[Call]] = {}
    for call in calls:
        if call.answered and call.said is not None and call.latency_ms > 0:
            by_supplier.setdefault(call.supplier, []).append(call)
    varied = {key: _varied(own) for key, own in by_supplier.items()}
    looked = {key: _looked_at(own, settings) for key, own in sorted(by_supplier.items())}
    tests = sum(len(repeats) >= settings.least for repeats in looked.values())
    threshold = family_wise_threshold(tests, settings.alpha)
    found = []
    for key, repeats in looked.items():
        hits = [one for one in repeats if one.hit]
        if len(hits) < settings.least:
            continue
        log_e = _log_e(repeats)
        if log_e < threshold:
            continue
        speedups = sorted(one.speedup for one in hits)
        n = sum(all_ for other, (_, all_) in varied.items() if other != key)
        share = sum(some for other, (some, _) in varied.items() if other != key) / n if n else None
        told = "" if share is None else f"; others vary on {share:.0%} of {counted(n, 'request')} asked again"
        speedup = speedups[len(speedups) // 2]
        found.append(
            Cached(
                key, len(repeats), len(hits), speedup, share, hits[0].at, hits[-1].at, log_e, threshold,
                tuple(dict.fromkeys(one.prompt for one in hits))[:_SHOWN],
                f"{len(hits)} of {counted(len(repeats), 'repeat')} came back to the letter and {speedup:.0f} "
                f"times as fast as first answers of their length{told}: answers may be kept and sent again",
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True, slots=True)
class _Repeat:
    prompt: str
    at: datetime
    chance: float
    hit: bool
    speedup: float


def _looked_at(own: list[Call], settings: CacheSettings) -> list[_Repeat]:
    """The repeats of a supplier in the order they came: which were kept answers, by what chance at most.

    A repeat that says something else, or took half as long as first answers usually do, is none: of these
    nothing is looked up.
    """
    import numpy as np

    calls = sorted(own, key=lambda c: (c.at, c.prompt, c.draw))
    said: dict[str, set[str]] = {}
    first: list[Call] = []
    again: list[tuple[Call, bool]] = []
    for call in calls:
        before = said.setdefault(call.prompt, set())
        if before:
            again.append((call, call.said in before))
        else:
            first.append(call)
        before.add(call.said or "")
    if len(first) < settings.least_comparable:
        return []
    families = {family: number for number, family in enumerate(dict.fromkeys(c.family for c in calls))}
    at = np.array([c.at.timestamp() for c in first])
    latency = np.array([c.latency_ms for c in first])
    tokens = np.array([-1 if c.tokens is None else c.tokens for c in first])
    beside = np.array([c.beside or 1 for c in first])
    family = np.array([families[c.family] for c in first])
    usual = float(np.median(latency))
    found = []
    for call, equal in again:
        size = -1 if call.tokens is None else call.tokens
        if 0 <= size < max(settings.least_tokens, (call.prompt_tokens or 0) / settings.prompt_ratio):
            continue
        if not equal or 2 * call.latency_ms > usual:
            found.append(_Repeat(call.prompt, call.at, 1 / (settings.least_comparable + 1), False, 1.0))
            continue
        if size < 0:  # lengths are not told: answers to the same task
            like = (tokens < 0) & (family == families[call.family])
        else:
            like = (tokens * settings.length_ratio >= size) & (tokens <= size * settings.length_ratio)
        away = np.abs(at - call.at.timestamp())
        like &= (away <= settings.near_days * 86400) & (beside <= 2 * (call.beside or 1) + 1)
        near = np.flatnonzero(like)
        near = near[np.argsort(away[near], kind="stable")[: settings.comparable]]
        if len(near) < settings.least_comparable:
            continue
        hit = call.latency_ms * settings.times <= float(latency[near].min())
        speedup = float(np.median(latency[near])) / call.latency_ms
        found.append(_Repeat(call.prompt, call.at, 1 / (len(near) + 1), hit, speedup))
    return found


def _log_e(repeats: list[_Repeat]) -> float:
    import numpy as np

    hits = np.array([one.hit for one in repeats], dtype=bool)
    return log_e_of_events(hits, np.array([one.chance for one in repeats]))


def _varied(own: list[Call]) -> tuple[int, int]:
    """How many requests that were asked again were answered otherwise, and how many were asked again."""
    said: dict[str, list[str]] = {}
    for call in own:
        said.setdefault(call.prompt, []).append(call.said or "")
    again = [texts for texts in said.values() if len(texts) > 1]
    return sum(len(set(texts)) > 1 for texts in again), len(again)
