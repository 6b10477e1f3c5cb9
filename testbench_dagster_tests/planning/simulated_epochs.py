"""Suppliers with a known share of right docs, planned and scored over epochs by the package's own functions.

Six suppliers, each a group of its own, are asked tasks in three epochs: a first one, one a week later, whose
number of docs the first one's rows set, and one after the slots of the first fell due. Only the answers are
drawn; which docs are asked, which of them count, the rows, the epochs' numbers and the root of a taxonomy
over all tasks are what planner, scoring and rollup make of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random

import numpy as np

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.rules import PlanningRule, PlanningSettings
from testbench_dagster.core.sampling import CompleteRow, SampleRule, common_docs, common_spread, sequence
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Sample, Window
from testbench_dagster.planning.due import CallOutcome, ClosedElsewhere, PromptRef
from testbench_dagster.planning.supplier import SupplierFacts, TaskFacts, plan_supplier
from testbench_dagster.scoring.reliability import NO_CALLS
from testbench_dagster.scoring.rows import Aggregation, task_windows
from testbench_dagster.scoring.slots import fill_slots
from testbench_dagster.stages.sample.spread import complete_row
from testbench_dagster.statistics.task_score import TaskScore, measured_tasks
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import summarize_many
from testbench_dagster_tests.scoring.registrations import of_a_mean

RULE = SampleRule(min=25, max=100, half_width=0.1)
SUPPLIERS = 6
DOCS = 1000
MAX_AGE = timedelta(days=32)
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
#: When each epoch is planned; by the last one every slot of the first has fallen due.
AT = (BEGAN, BEGAN + timedelta(days=7), BEGAN + timedelta(days=33))
_SETTINGS = PlanningSettings()


@dataclass(frozen=True)
class Asked:
    """A doc that was asked and answered."""

    prompt: PromptRef
    epoch: int
    round: int
    at: datetime


Path = tuple[int, ...]
"""The numbers of docs of the epochs so far: all that can tell two suppliers apart whose answers all come."""


@cache
def sequence_of(epoch: int) -> list[PromptRef]:
    """The prompts of an epoch, from 1."""
    order = sequence(f"seed {epoch}", DOCS)[: RULE.max]
    return [PromptRef(f"{epoch}-{place}", place, doc, 1, 1) for place, doc in enumerate(order)]


@cache
def asked(path: Path, variances: tuple[float | None, ...]) -> tuple[Asked, ...]:
    """All that a supplier was asked by the end of as many epochs, in which docs varied so much."""
    if not path:
        return ()
    before, epoch, now = asked(path[:-1], variances[:-1]), len(path), AT[len(path) - 1]
    last = {one.prompt.doc_id: one for one in before}
    task = TaskFacts(
        "task",
        PlanningRule(),
        RULE,
        prompts=sequence_of(epoch),
        outcomes=[
            CallOutcome(a.prompt.id, 0, 0, 1, Fault.OK, a.at, a.round) for a in before if a.epoch == epoch
        ],
        final_elsewhere={doc: one.at for doc, one in last.items()},
        closed_elsewhere=[ClosedElsewhere(a.prompt, a.epoch, a.round) for a in last.values()],
        variance=variances[-1],
        seed=f"seed {epoch}",
        max_age=MAX_AGE,
    )
    plan = plan_supplier(SupplierFacts("s", {"task": task}), _SETTINGS, now=now, chance=Random(0))
    due = plan.tasks["task"].plan.due
    return (
        *before,
        *(Asked(d.prompt, epoch if d.epoch is None else d.epoch, d.round, now) for d in due),
    )


@cache
def slots(path: Path, variances: tuple[float | None, ...]) -> tuple[int, ...]:
    """The docs that a score rests on at the end of an epoch."""
    newest = {a.prompt.doc_id: _sample(a.prompt.doc_id, a.at, a.epoch, 0.0) for a in asked(path, variances)}
    filled = fill_slots(newest.values(), path[-1], AT[len(path) - 1] - MAX_AGE)
    return tuple(sorted(sample.doc_id for sample in filled))


def _sample(doc_id: int, at: datetime, epoch: int, value: float) -> Sample:
    return Sample(doc_id, at, epoch, 1, Fault.OK, {"none": {"acc": value}})


_SUPPLIER = Supplier("s", "external", "http://127.0.0.1:9/v1", "chat", "m")
_SPEC = TaskSpec("task", "task", "task", None, None, None, None, None, {}, RULE)
_REGISTRATION = of_a_mean(DOCS)
_AGGREGATION = Aggregation(lambda *_: None, lambda *_: [], lambda *_: {})


@cache
def row(n: int, right: int, wanted: int) -> Window:
    """The row of a supplier of whose ``n`` docs so many are right."""
    samples = [_sample(doc, BEGAN, 1, float(doc < right)) for doc in range(n)]
    made = task_windows(_SUPPLIER, _SPEC, _REGISTRATION, samples, _AGGREGATION, NO_CALLS, wanted=wanted)
    return next(made)


@cache
def complete(supplier: int, n: int, right: int, wanted: int) -> CompleteRow | None:
    """What such a row says of how docs vary; every supplier is a group of its own."""
    return complete_row(row(n, right, wanted), f"g{supplier}", RULE.min)


@cache
def measured(n: int, right: int, wanted: int) -> TaskScore:
    """The score that such a row has in a taxonomy."""
    (score,) = measured_tasks([row(n, right, wanted)]).values()
    return score


_REPRESENTATIVES: dict[int, float | None] = {}


def representative(wanted: int, variance: float | None) -> float | None:
    """One of the variances from which a number of docs follows: plans are kept by it."""
    return _REPRESENTATIVES.setdefault(wanted, variance)


@dataclass
class Figures:
    """What came of a number of plays, at the end of one epoch.

    ``bias`` of the root and ``rmse`` of single tasks in scores, ``coverage`` of the root's 95 % interval by
    number of tasks. ``docs`` a score rests on and ``relays`` sent so far, per supplier and task.
    """

    bias: dict[int, float]
    coverage: dict[int, float]
    rmse: float
    docs: float
    relays: float


def play_epochs(shares: tuple[float, float], tasks: Sequence[int], plays: int, seed: int) -> list[Figures]:
    """Play three epochs again and again; return what came of it after each.

    Args:
        shares: true shares of right docs of the first supplier's tasks, drawn evenly between two ends; those
            of the others lie around them.
        tasks: sizes of the taxonomies to look at.
        plays: how often.
        seed: of the draws.
    """
    chance, most = np.random.default_rng(seed), max(tasks)
    names = [f"t{n}" for n in range(most)]
    trees = {n: Taxonomy(name="sim", root="all", edges=(), nodes={"all": tuple(names[:n])}) for n in tasks}
    bias, held = np.zeros((len(AT), len(tasks))), np.zeros((len(AT), len(tasks)))
    squares, docs, relays = np.zeros(len(AT)), np.zeros(len(AT)), np.zeros(len(AT))
    truths: list[np.ndarray] = []
    played: list[list[dict[str, TaskScore]]] = [[] for _ in AT]
    for _ in range(plays):
        own = chance.uniform(*shares, most)
        truths.append(own)
        around = np.clip(own + chance.normal(0, 0.08, (SUPPLIERS - 1, most)), 0.02, 0.98)
        right = chance.random((SUPPLIERS, most, DOCS)) < np.vstack([own, around])[:, :, None]
        paths: list[Path] = [()] * most
        spreads: list[tuple[float | None, ...]] = [()] * most
        rows: list[list[tuple[int, int, int]]] = [[] for _ in names]
        for epoch in range(len(AT)):
            scores: dict[str, TaskScore] = {}
            for place, name in enumerate(names):
                told = [complete(k, *figures) for k, figures in enumerate(rows[place])]
                variance = common_spread(one for one in told if one is not None).variance
                wanted = common_docs(RULE, DOCS, variance)
                spreads[place] = (*spreads[place], representative(wanted, variance))
                paths[place] = (*paths[place], wanted)
                chosen = slots(paths[place], spreads[place])
                counts = right[:, place, list(chosen)].sum(axis=1)
                rows[place] = [(len(chosen), int(count), wanted) for count in counts]
                scores[name] = measured(*rows[place][0])
                squares[epoch] += (scores[name].score - own[place]) ** 2 / most
                docs[epoch] += len(chosen) / most
                relays[epoch] += len(asked(paths[place], spreads[place])) / most
            played[epoch].append(scores)
    for epoch, of_plays in enumerate(played):
        for column, (n, tree) in enumerate(trees.items()):
            for own, summary in zip(truths, summarize_many(tree, of_plays), strict=True):
                root = summary.nodes["all"]
                assert root.score is not None and root.ci_low is not None and root.ci_high is not None
                bias[epoch, column] += root.score - own[:n].mean()
                held[epoch, column] += root.ci_low <= own[:n].mean() <= root.ci_high
    return [
        Figures(
            dict(zip(tasks, (bias[epoch] / plays).tolist(), strict=True)),
            dict(zip(tasks, (held[epoch] / plays).tolist(), strict=True)),
            float(np.sqrt(squares[epoch] / plays)),
            float(docs[epoch] / plays),
            float(relays[epoch] / plays),
        )
        for epoch in range(len(AT))
    ]
