"""What the planner needs to know of the current window of one supplier and task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import Measured, Slots
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Sample
from testbench_dagster.planning.gates import TaskState
from testbench_dagster.scoring.failures import failures_of, higher_is_better, is_mean, is_proportion
from testbench_dagster.scoring.rows import counted_samples, measured, primary_pair, value_of
from testbench_dagster.stages.score.samples import samples_by_task
from testbench_dagster.stages.workspace import Workspace


@dataclass(frozen=True)
class WindowState:
    """The window as sampling rules (``measured``) and as gates (``state``) look at it."""

    measured: Measured = field(default_factory=Measured)
    state: TaskState = field(default_factory=TaskState)


def window_state(
    workspace: Workspace,
    supplier: Supplier,
    spec: TaskSpec,
    registration: Registration,
    now: datetime,
    wanted: Slots | None = None,
) -> WindowState:
    """Read the current window: scored docs, mean and values of the primary metric.

    The slots are those ``wanted``, by default as the epoch has them. Docs beyond these, which were
    asked for a gate, are there too.
    """
    slots = None if wanted is None else {spec.name: wanted}
    [(_, window)] = samples_by_task(workspace, supplier, [(spec, registration)], now, wanted=slots)
    samples = sorted([*window.samples, *window.beyond], key=lambda s: s.doc_id)
    pair = primary_pair(spec, registration)
    samples = list(counted_samples(spec, registration, samples, pair))
    found = measured(samples, registration, pair)
    answered = sorted((s for s in samples if s.scored), key=lambda s: (s.at, s.doc_id))
    values = [float(v) for s in answered if isinstance(v := value_of(s, pair), (int, float))]
    worst = failures_of(spec, registration, pair[0], values).worst
    bounded = is_proportion(values, registration, pair[0])
    lower = bounded and not higher_is_better(registration, pair[0])
    in_order = in_sequence(samples, pair, worst) if found.mean is not None or not values else ()
    state = TaskState(
        present=any(s.counts for s in samples),
        score=_score(samples, values, worst) if is_mean(registration, pair[0]) else None,
        signature=next((v for s in reversed(answered) if isinstance(v := value_of(s, pair), str)), None),
        values=tuple(1.0 - value if lower else value for value in in_order),
        lower=lower,
    )
    return WindowState(replace(found, values=tuple(values) if found.mean is not None else ()), state)


def _score(samples: Sequence[Sample], values: Sequence[float], worst: float | None) -> float | None:
    """Delivered quality: docs without an answer count as the worst value, where there is one."""
    lost = sum(s.failed or s.open for s in samples) if worst is not None else 0
    total, n = sum(values) + lost * (worst or 0.0), len(values) + lost
    return total / n if n else None


def in_sequence(samples: Iterable[Sample], pair: tuple[str, str], worst: float | None) -> Iterator[float]:
    """What the docs delivered, in the order in which they are asked, up to the first that is open.

    A supplier thus cannot choose by its silence at which doc a sequential test ends.
    """
    for sample in sorted(samples, key=lambda s: s.place):
        if sample.open:
            return
        if sample.failed and worst is not None:
            yield worst
        elif isinstance(value := value_of(sample, pair), (int, float)):
            yield float(value)
