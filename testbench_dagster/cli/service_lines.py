"""Service quality in words: what ``show`` tells of a supplier, and cells of the table of ``service``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from testbench_dagster.core.service_quality import ALL_WORKLOADS, ServiceQuality
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.read.service import probes_to_a_median

_NOTHING = "–"


def service_lines(rows: Sequence[ServiceQuality]) -> Iterator[str]:
    """A line of uptime, one per workload, and one of the estimate; none where nobody was probed."""
    head = f"  {'service':<10} "
    for row in rows:
        told = list(_of_all(row) if row.workload == ALL_WORKLOADS else _of_workload(row))
        for line in told:
            yield head + line
            head = " " * len(head)


def _of_all(row: ServiceQuality) -> Iterator[str]:
    if row.n:
        up = "" if row.uptime is None else f", up {shares(row)} of {counted(row.hours_asked, 'hour')}"
        failed = "".join(f", {name} {n}" for name, n in row.faults.items())
        yield f"last 72 hours: {row.n_answered} of {counted(row.n, 'probe')} answered{failed}{up}"
    estimate = row.estimated_tokens_per_s
    if (value := estimate["value"]) is not None:
        yield (
            f"about {value:,.0f} ({number(estimate['low'])}–{number(estimate['high'])}) tokens/s, estimated "
            f"from {counted(int(estimate['n'] or 0), 'plain answer')} with up to "
            f"{counted(int(estimate['in_flight'] or 0), 'request')} in flight"
        )


def _of_workload(row: ServiceQuality) -> Iterator[str]:
    parts = [f"first token {with_interval(row.ttft_ms, 'p50')} ms"]
    if row.ttft_ms["p90"] is not None:
        parts.append(f"p90 {number(row.ttft_ms['p90'])} ms")
    parts.append(f"tokens/s {with_interval(row.tokens_per_s, 'p50')} after it")
    parts.append(f"{with_interval(row.tokens_per_s_end_to_end, 'p50')} in all")
    parts.append(f"a request {with_interval(row.latency_ms, 'p50')} ms")
    if missing := probes_to_a_median(row):
        parts.append(f"medians take {counted(missing, 'answered probe')} more")
    if row.estimated_share:
        parts.append(f"tokens of {100 * row.estimated_share:.0f} % of answers estimated")
    if row.context_asked is not None:
        reached = "none" if row.context_reached is None else f"{row.context_reached:,}"
        claimed = "" if row.context_claimed is None else f", it claims {row.context_claimed:,}"
        asked = counted(row.context_asked, "token", ",")
        parts.append(f"prompts read to the end up to {reached} of {asked}{claimed}")
    yield f"{row.workload}: {', '.join(parts)}"


def with_interval(values: Mapping[str, float | None], name: str) -> str:
    """A percentile with its interval; a dash where too few values are known."""
    if values[name] is None:
        return _NOTHING
    return f"{number(values[name])} ({number(values[f'{name}_low'])}–{number(values[f'{name}_high'])})"


def missing_probes(rows: Sequence[ServiceQuality]) -> str | None:
    """How many answered probes rows lack for their medians, in a line; None where none lacks any."""
    lacking = [missing for row in rows if (missing := probes_to_a_median(row))]
    if not lacking:
        return None
    least, most = min(lacking), max(lacking)
    n = counted(most, "answered probe")
    return (
        f"{counted(len(lacking), 'row')} without medians: {n if least == most else f'{least} to {n}'} more "
        "until they are known"
    )


def shares(row: ServiceQuality) -> str:
    """Uptime with its interval, in hundredths."""
    if row.uptime is None or row.uptime_low is None or row.uptime_high is None:
        return _NOTHING
    return f"{100 * row.uptime:.1f} % ({100 * row.uptime_low:.1f}–{100 * row.uptime_high:.1f})"


def number(value: float | None) -> str:
    """A number of about three digits."""
    if value is None:
        return _NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
