"""Suppliers with a known share of right docs, planned and scored over epochs by the package's own functions.

Six suppliers, each a group of its own, are asked tasks over twenty weeks: in a first epoch, in one a week
later, whose number of docs the first one's rows set, and in later ones, as slots fall due, up to the one in
which the number is set anew. Only the answers are drawn; which docs are asked, which of them count, the rows,
the epochs' numbers and the root of a taxonomy over all tasks are what planner, scoring and rollup make of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from statistics import NormalDist

import numpy as np

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.rules import PlanningRule, PlanningSettings
from testbench_dagster.core.sampling import (
    CompleteRow,
    Measurement,
    SampleRule,
    Slots,
    common_docs,
    common_spread,
    sequence,
    still_holds,
)
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
#: The days on which epochs begin and are planned: the first two, then whenever docs of an earlier one have
#: fallen due, up to the one that sets the number anew.
DAYS = (0, 7, 33, 40, 66, 73, 99, 106, 132, 139)
AT = tuple(BEGAN + timedelta(days=day) for day in DAYS)
#: Those that are looked at, from 0: the first, the one that sets the number, one after which all slots were
#: renewed, and that which sets it again.
SHOWN = (0, 1, 3, len(AT) - 1)
_SETTINGS = PlanningSettings()


@dataclass(frozen=True)
class Asked:
    """A doc that was asked and answered."""

    prompt: PromptRef
    epoch: int
    round: int
    at: datetime


Path = tuple[tuple[int, int], ...]
"""Of the epochs so far the number of docs and which one set it, from 1 (0: none); nothing else can tell two
suppliers apart whose answers all come."""


def slots_of(path: Path) -> Slots:
    """The slots of the last of these epochs."""
    docs, since = path[-1]
    return Slots(docs, since, f"draw {since}") if since else Slots(docs)


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
    since = path[-1][1]
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
        older={doc for doc, one in last.items() if one.epoch < since},
        draw=slots_of(path).draw,
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
    filled = fill_slots(newest.values(), slots_of(path), AT[len(path) - 1] - MAX_AGE)
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


@cache
def wanted_docs(variance: float | None) -> int:
    """How many docs everybody is asked where docs vary so much."""
    return common_docs(RULE, DOCS, variance)


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


def _answers(chance: np.random.Generator, shares: np.ndarray, alike: float) -> np.ndarray:
    """Which docs each supplier answers rightly: ``alike`` is how much of what decides is the doc's own."""
    if not alike:
        return chance.random((*shares.shape, DOCS)) < shares[:, :, None]
    of_docs = chance.standard_normal((shares.shape[1], DOCS), dtype=np.float32) * alike**0.5
    own = chance.standard_normal((*shares.shape, DOCS), dtype=np.float32) * (1 - alike) ** 0.5
    limits = [[NormalDist().inv_cdf(share) for share in of_one] for of_one in shares]
    return (of_docs + own) < np.array(limits)[:, :, None]


def play_epochs(
    shares: tuple[float, float],
    tasks: Sequence[int],
    plays: int,
    seed: int,
    alike: float = 0.0,
    epochs: int = len(AT),
) -> list[Figures]:
    """Play the epochs again and again; return what came of it after each of those that are shown.

    Args:
        shares: true shares of right docs of the first supplier's tasks, drawn evenly between two ends; those
            of the others lie around them.
        tasks: sizes of the taxonomies to look at.
        plays: how often.
        seed: of the draws.
        alike: how much of what makes an answer right is the doc's own, the same for all suppliers.
        epochs: how many are played.
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
        right = _answers(chance, np.vstack([own, around]), alike)
        paths: list[Path] = [()] * most
        measured_in: list[Measurement | None] = [None] * most
        spreads: list[tuple[float | None, ...]] = [()] * most
        rows: list[list[tuple[int, int, int]]] = [[] for _ in names]
        for epoch in range(epochs):
            scores: dict[str, TaskScore] = {}
            for place, name in enumerate(names):
                if still_holds(measured_in[place], AT[epoch], MAX_AGE):
                    spreads[place] = (*spreads[place], spreads[place][-1])
                    paths[place] = (*paths[place], paths[place][-1])
                else:
                    told = [complete(k, *figures) for k, figures in enumerate(rows[place])]
                    variance = common_spread(one for one in told if one is not None).variance
                    since = 0 if variance is None else epoch + 1
                    measured_in[place] = Measurement(since, AT[epoch], "") if since else None
                    wanted = wanted_docs(variance)
                    spreads[place] = (*spreads[place], representative(wanted, variance))
                    paths[place] = (*paths[place], (wanted, since))
                if epoch not in SHOWN and epoch + 2 < len(AT):
                    continue
                chosen = slots(paths[place], spreads[place])
                counts = right[:, place, list(chosen)].sum(axis=1)
                rows[place] = [(len(chosen), int(count), paths[place][-1][0]) for count in counts]
                scores[name] = measured(*rows[place][0])
                squares[epoch] += (scores[name].score - own[place]) ** 2 / most
                docs[epoch] += len(chosen) / most
                relays[epoch] += len(asked(paths[place], spreads[place])) / most
            played[epoch].append(scores)
    shown = [epoch for epoch in SHOWN if epoch < epochs]
    for epoch in shown:
        of_plays = played[epoch]
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
        for epoch in shown
    ]
