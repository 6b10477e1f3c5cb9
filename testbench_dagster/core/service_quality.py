"""Service quality as it is published: the columns of what service probes come to, by workload and period."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from testbench_dagster.core.columns import Column, Origin, Unit, columns_of, plain_json
from testbench_dagster.core.workloads import WORKLOADS

#: The workload of what rests on all of them: uptime, and the estimate from answers of the evaluation.
ALL_WORKLOADS = "all"
#: The period up to now, and how long it is.
ROLLING = "72h"
ROLLING_SPAN = timedelta(hours=72)

#: Percentiles of what is the better the less there is of it, and of speeds, of which the slow side counts.
PERCENTILES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95}
SPEED_PERCENTILES: Mapping[str, float] = {"p5": 0.05, "p10": 0.1, **PERCENTILES}

#: Keys of :attr:`ServiceQuality.estimated_tokens_per_s`.
ESTIMATE_PARTS = ("value", "low", "high", "n", "in_flight")

#: States of an hour, as :attr:`ServiceQuality.hours` has them: a character each.
HOUR_OK, HOUR_PARTLY, HOUR_FAILED, HOUR_LIMITED, HOUR_OTHER, HOUR_NOT_ASKED = "+", "~", "-", "l", "o", "."


def _parts(percentiles: Mapping[str, float]) -> tuple[str, ...]:
    return ("n", *(f"{name}{end}" for name in percentiles for end in ("", "_low", "_high")))


_PARTS, _SPEED_PARTS = _parts(PERCENTILES), _parts(SPEED_PERCENTILES)
_Numbers = Mapping[str, float | None]


def percentile_parts(*, speed: bool = False) -> tuple[str, ...]:
    """The keys of a column of percentiles: how many values, each percentile and the ends of its interval."""
    return _SPEED_PARTS if speed else _PARTS


@dataclass(frozen=True)
class ServiceQuality:
    """What the service probes of a supplier come to: of one workload or of all, on a day or in 72 hours.

    Percentiles are by nearest rank, with 95 % intervals of order statistics; null of too few values: a p50
    takes 6, a p90 29, a p95 59. Answers while other requests of ours were in flight to the host are in none.
    """

    supplier: Annotated[str, Column("partition key")]
    service: Annotated[str, Column("its service")]
    workload: Annotated[
        str,
        Column(
            "how long the prompt and the answer are (`short`, `1k`, `10k`, `context`); `all`: what rests on "
            "all of them together"
        ),
    ]
    period: Annotated[str, Column("a day, in UTC, as YYYY-MM-DD, or `72h`: the last 72 hours")]
    since: Annotated[datetime, Column("beginning of the period")]
    until: Annotated[datetime, Column("its end")]
    n: Annotated[int, Column("probes that ended in it", Unit.ANSWERS)]
    n_answered: Annotated[int, Column("those that were answered", Unit.ANSWERS)]
    n_crowded: Annotated[
        int,
        Column(
            "answers while other requests of ours were in flight to the host: they enter no percentile",
            Unit.ANSWERS,
        ),
    ]
    owners: Annotated[Mapping[str, int], Column("probes without an answer by who answers for that")]
    faults: Annotated[Mapping[str, int], Column("probes without an answer by how they ended")]
    ttft_ms: Annotated[
        _Numbers,
        Column(
            "time to the first token, of a thought too, from the hand-over to the transport, connecting "
            "included: percentiles of streamed answers",
            Unit.MILLISECONDS,
            parts=_PARTS,
        ),
    ]
    first_answer_ms: Annotated[
        _Numbers,
        Column(
            "time to the first token of the answer itself, behind all thoughts",
            Unit.MILLISECONDS,
            parts=_PARTS,
        ),
    ]
    tokens_per_s: Annotated[
        _Numbers,
        Column(
            "output speed after the first token: tokens that came behind it over the time from it to the "
            "last; `p10`: nine in ten answers come faster",
            Unit.SPEED,
            parts=_SPEED_PARTS,
        ),
    ]
    tokens_per_s_end_to_end: Annotated[
        _Numbers,
        Column(
            "all tokens of an answer over its whole time, waiting for the first one included",
            Unit.SPEED,
            parts=_SPEED_PARTS,
        ),
    ]
    latency_ms: Annotated[
        _Numbers, Column("whole time of a request that was answered", Unit.MILLISECONDS, parts=_PARTS)
    ]
    reasoning_share: Annotated[
        _Numbers,
        Column(
            "share (0 to 1) of the tokens that were thought, of answers that report it",
            parts=_PARTS,
        ),
    ]
    estimated_share: Annotated[
        float | None,
        Column("share of the answers behind speeds whose tokens are estimated from their text", Unit.SHARE),
    ]
    uptime: Annotated[
        float | None,
        Column(
            "mean over UTC hours of the share of probes answered, of those that the fault table counts: "
            "neither rate limits nor what is ours; `null` where no hour was asked",
            Unit.SHARE,
        ),
    ]
    uptime_low: Annotated[
        float | None, Column("lower end of its 95 % interval (Wilson, over hours)", Unit.SHARE)
    ]
    uptime_high: Annotated[float | None, Column("upper end of it", Unit.SHARE)]
    hours_asked: Annotated[int, Column("UTC hours with a probe that counts")]
    hours_ok: Annotated[float, Column("of these, those answered; an hour answered in part counts as that")]
    hours: Annotated[
        str,
        Column(
            "a character per UTC hour, the first that of `since`: `+` answered, `~` in part, `-` not, `l` "
            "rate limited, `o` nothing but faults that are neither the supplier's nor the network's, `.` not "
            "asked"
        ),
    ]
    context_reached: Annotated[
        int | None,
        Column("longest prompt that was answered with the word hidden in it", Unit.TOKENS, sparse=True),
    ]
    context_asked: Annotated[
        int | None,
        Column(
            "longest prompt with a hidden word of which it is known whether that was found: nine tenths of "
            "what it claims to take",
            Unit.TOKENS,
            sparse=True,
        ),
    ]
    context_claimed: Annotated[
        int | None,
        Column(
            "tokens of context that it claims, or that the operator says it has, at the last such probe",
            Unit.TOKENS,
            sparse=True,
        ),
    ]
    estimated_tokens_per_s: Annotated[
        _Numbers,
        Column(
            "estimate of the output speed from plain answers of the evaluation: Theil-Sen slope of time over "
            "tokens with its 95 % interval, from `n` answers with at most `in_flight` requests of ours in "
            "flight to the host; of `all` alone",
            Unit.SPEED,
            parts=ESTIMATE_PARTS,
        ),
    ]
    made_at: Annotated[datetime, Column("when it was made")]
    model: Annotated[
        str | None, Column("model that the supplier claims to serve", origin=Origin.SUPPLIER)
    ] = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return plain_json(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ServiceQuality:
        """A row from what :meth:`to_json` made of it, also by a version with fewer or further columns."""
        columns = columns_of(cls)
        known: dict[str, Any] = {name: values.get(name) for name in columns}
        for name, one in columns.items():
            if one.kind is datetime and known[name] is not None:
                known[name] = datetime.fromisoformat(known[name])
            elif one.column.parts:
                known[name] = dict.fromkeys(one.column.parts) | (known[name] or {})
        return cls(**known)


@dataclass(frozen=True)
class Headline:
    """What a ranking shows of a supplier's service, of its last 72 hours; None where it is not known."""

    ttft_p50_ms: float | None = None
    tokens_per_s_p50: float | None = None
    uptime: float | None = None
    uptime_low: float | None = None


_ORDER = {name: place for place, name in enumerate((ALL_WORKLOADS, *WORKLOADS))}


def in_order(rows: Iterable[ServiceQuality]) -> list[ServiceQuality]:
    """Rows by supplier, period and workload: first that of all, then that of the shortest prompts."""
    places = len(_ORDER)
    return sorted(
        rows, key=lambda row: (row.supplier, row.since, _ORDER.get(row.workload, places), row.workload)
    )
