"""What probes of a supplier come to: percentiles, uptime by hours, reach; of records alone."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import NamedTuple

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import PlainAnswer
from testbench_dagster.core.records.service_probes import ProbeTimes, ServiceProbeRecord
from testbench_dagster.core.service_quality import (
    ALL_WORKLOADS,
    ESTIMATE_PARTS,
    HOUR_FAILED,
    HOUR_LIMITED,
    HOUR_NOT_ASKED,
    HOUR_OK,
    HOUR_OTHER,
    HOUR_PARTLY,
    PERCENTILES,
    SPEED_PERCENTILES,
    ServiceQuality,
    percentile_parts,
)
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.statistics.quantiles import quantile
from testbench_dagster.statistics.slopes import theil_sen

_HOUR = timedelta(hours=1)
_FAULTS = {fault.value: fault for fault in Fault}


class Span(NamedTuple):
    """A period by its name, from ``since`` on and before ``until``."""

    name: str
    since: datetime
    until: datetime


def service_quality(
    supplier: str,
    service: str,
    workload: str,
    span: Span,
    probes: Sequence[ProbeTimes],
    made_at: datetime,
    estimate: Mapping[str, float | None] | None = None,
) -> ServiceQuality:
    """The row of a workload, or of :data:`ALL_WORKLOADS`, of which only what does not mix lengths is told.

    ``probes`` are those that ended in the period, in any order. ``estimate``: of the speed, from plain
    answers (:func:`plain_estimate`).
    """
    answered = [one for one in probes if _answered(one)]
    alone = [one for one in answered if one.own_in_flight <= 1]
    timed = [] if workload == ALL_WORKLOADS else alone
    unanswered = [one for one in probes if not _answered(one)]
    after_first = [(one, speed) for one in timed if (speed := speed_after_first(one)) is not None]
    whole = [(one, speed) for one in timed if (speed := speed_end_to_end(one)) is not None]
    hidden = [one for one in probes if one.found is not None]
    hours = _hours(probes)
    asked, ok = len(hours), math.fsum(hours.values())
    low, high = wilson(ok, asked) if asked else (None, None)
    return ServiceQuality(
        supplier=supplier,
        service=service,
        workload=workload,
        period=span.name,
        since=span.since,
        until=span.until,
        n=len(probes),
        n_answered=len(answered),
        n_crowded=len(answered) - len(alone),
        owners=dict(sorted(Counter(one.owner for one in unanswered).items())),
        faults=dict(sorted(Counter(one.fault for one in unanswered).items())),
        ttft_ms=_percentiles(one.first_token_ms for one in timed if one.streamed),
        first_answer_ms=_percentiles(one.first_answer_ms for one in timed if one.streamed),
        tokens_per_s=_percentiles((speed for _, speed in after_first), speed=True),
        tokens_per_s_end_to_end=_percentiles((speed for _, speed in whole), speed=True),
        latency_ms=_percentiles(one.ended_ms for one in timed),
        reasoning_share=_percentiles(_reasoning_share(one) for one in timed),
        estimated_share=sum(one.tokens_source == "estimated" for one, _ in whole) / len(whole)
        if whole
        else None,
        uptime=ok / asked if asked else None,
        uptime_low=low,
        uptime_high=high,
        hours_asked=asked,
        hours_ok=ok,
        hours=hours_text(span, probes),
        context_reached=max((_length(one) for one in hidden if one.found and _answered(one)), default=None),
        context_asked=max(map(_length, hidden), default=None),
        context_claimed=_claim(probes),
        estimated_tokens_per_s={
            **dict.fromkeys(ESTIMATE_PARTS),
            **(estimate or {}),
        },
        made_at=made_at,
    )


def _answered(one: ProbeTimes) -> bool:
    fault = _FAULTS.get(one.fault)
    return fault is not None and fault.answered


def _length(one: ProbeTimes) -> int:
    """Tokens of its prompt, as the supplier counts them, or as we estimate them."""
    return one.sent_tokens if one.prompt_tokens is None else one.prompt_tokens


def _claim(probes: Iterable[ProbeTimes]) -> int | None:
    """The context that was claimed at the last probe of one, as it is stored with the probe."""
    claims = [(one.finished_at, told) for one in probes if (told := one.evidence.get("context"))]
    return int(max(claims, key=itemgetter(0))[1]["tokens"]) if claims else None


# ------------------------------------------------------------------------------------------ percentiles


def _percentiles(values: Iterable[float | None], *, speed: bool = False) -> dict[str, float | None]:
    """How many values there are, their percentiles and the intervals of these."""
    ordered = sorted(value for value in values if value is not None and math.isfinite(value))
    made: dict[str, float | None] = dict.fromkeys(percentile_parts(speed=speed))
    made["n"] = len(ordered)
    for name, q in (SPEED_PERCENTILES if speed else PERCENTILES).items():
        if (found := quantile(ordered, q)) is not None:
            made |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return made


def speed_after_first(one: ProbeTimes | ServiceProbeRecord) -> float | None:
    """Tokens behind those that came first over the time from these to the last, per second."""
    first, last, tokens = one.first_token_ms, one.last_token_ms, one.tokens_after_first
    if not one.streamed or first is None or last is None or not tokens or tokens < 0 or last <= first:
        return None
    return tokens / (last - first) * 1000


def speed_end_to_end(one: ProbeTimes | ServiceProbeRecord) -> float | None:
    """Tokens a second over the whole time of an answer; None where it has none."""
    tokens = one.completion_tokens
    return tokens / one.ended_ms * 1000 if tokens and tokens > 0 and one.ended_ms > 0 else None


def _reasoning_share(one: ProbeTimes) -> float | None:
    """What part of its tokens was thought; a supplier that reports more thoughts than tokens says nothing."""
    thought, tokens = one.reasoning_tokens, one.completion_tokens
    if thought is None or not tokens or not 0 <= thought <= tokens:
        return None
    return thought / tokens


# ----------------------------------------------------------------------------------------------- uptime


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _hours(probes: Iterable[ProbeTimes]) -> dict[datetime, float]:
    """By UTC hour with a probe that counts the share of those that were answered.

    Failures cluster, so probes of one hour are no independent looks; hours are counted. What counts is said
    by the fault table (``available``).
    """
    counted: defaultdict[datetime, list[bool]] = defaultdict(list)
    for one in probes:
        fault = _FAULTS.get(one.fault)
        available = None if fault is None else fault.row.available
        if available is not None:
            counted[_hour(one.finished_at)].append(available)
    return {hour: sum(looks) / len(looks) for hour, looks in counted.items()}


def hours_text(span: Span, probes: Iterable[ProbeTimes]) -> str:
    """The state of every hour of a period, a character each; those to come are as if not asked."""
    states: dict[datetime, str] = {}
    probes = list(probes)
    for one in probes:
        fault = _FAULTS.get(one.fault)
        if fault is not None and fault.row.paces:
            states[_hour(one.finished_at)] = HOUR_LIMITED
        else:
            states.setdefault(_hour(one.finished_at), HOUR_OTHER)
    for hour, share in _hours(probes).items():
        states[hour] = HOUR_OK if share == 1 else HOUR_FAILED if share == 0 else HOUR_PARTLY
    first = _hour(span.since)
    count = math.ceil((span.until - first) / _HOUR)
    return "".join(states.get(first + i * _HOUR, HOUR_NOT_ASKED) for i in range(count))


# -------------------------------------------------------------------------------------- the free estimate


def plain_estimate(answers: Iterable[PlainAnswer]) -> dict[str, float | None] | None:
    """Estimate output tokens per second from answers that were not streamed; None where they do not tell.

    The time of an answer grows with its tokens; the slope is the median over pairs of answers to one task,
    whose prompts are alike. Answers are taken together that had about as many requests of ours beside them
    (1, 2, 3 to 4, 5 to 8 and so on in flight): of the fewest that bound the speed on both sides.
    """
    levels: defaultdict[int, list[PlainAnswer]] = defaultdict(list)
    for one in answers:
        if one.own_in_flight is not None and one.own_in_flight >= 1:
            levels[(one.own_in_flight - 1).bit_length()].append(one)
    return next((found for _, some in sorted(levels.items()) if (found := _estimate(some))), None)


def _estimate(answers: Sequence[PlainAnswer]) -> dict[str, float | None] | None:
    tasks: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in answers:
        if one.completion_tokens is not None:
            tasks[one.task].append((float(one.completion_tokens), one.latency_ms))
    slope = theil_sen(tasks.values())
    if slope is None or slope.low <= 0:  # as fast as one likes, for all that is known
        return None
    return {
        "value": 1000 / slope.value,
        "low": 1000 / slope.high,
        "high": 1000 / slope.low,
        "n": slope.n,
        "in_flight": max(one.own_in_flight or 0 for one in answers),
    }
