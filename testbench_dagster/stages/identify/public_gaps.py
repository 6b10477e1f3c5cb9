"""Compares how suppliers answer public questions and fresh ones of the same kind, and stores what came of it.

What counts of a doc is its first closed outcome in the epoch. A doc that a supplier left unanswered for good
is wrong, whichever half it is: nobody can hide by failing what it has not learnt, and as nobody can tell the
halves apart, outages and slowness fall on both alike. So are docs that are still open when their epoch is
over. What is open by our own faults, or void for everybody, leaves its pair out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from testbench_dagster.core.pairs import is_public, pair_of
from testbench_dagster.core.prompt import form_of
from testbench_dagster.core.records.prompts import EpochRecord
from testbench_dagster.core.records.public_gaps import GapVerdict, PublicGapRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import PUBLIC_GAPS, scorer_version
from testbench_dagster.core.window import Sample
from testbench_dagster.core.wording import counted
from testbench_dagster.ranking.ranking import RankGroup, units_of
from testbench_dagster.scoring.rows import is_finite, primary_pair, value_of
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.sample.epochs import epoch_docs, void_by_sequence
from testbench_dagster.stages.score.groups import identity_groups
from testbench_dagster.stages.score.samples import outcomes_since
from testbench_dagster.stages.score.states import Peers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.twins import (
    FLAG_AMONG,
    Excess,
    Judged,
    Pairs,
    Shift,
    Verdict,
    excess_of,
    is_flagged,
    judge,
)
from testbench_dagster.stores.documents import document_id, typed

#: What is said of who is better, and of who is not.
BETTER = "better on public questions than on fresh ones of the kind"
_NOT_BETTER = "no better on public questions than on fresh ones of the kind"
#: Epochs that are made anew: the present one, and the one before, of which docs may have closed since.
_EPOCHS = 2
_Gap = TypeVar("_Gap", PublicGapRecord, GapVerdict)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A supplier's pairs in an epoch, and what is missing."""

    pairs: Pairs
    n_open: int
    failed_public: int
    failed_fresh: int
    final: bool
    made_by: str


def paired_tasks(workspace: Workspace) -> list[tuple[TaskSpec, Registration]]:
    """The configured tasks whose docs are pairs of a public and a fresh question."""
    found = ((spec, workspace.datasets.current(spec.name)) for spec in workspace.specs if not spec.signs)
    return [(spec, known) for spec, known in found if known is not None and known.flags.pairs]


def refresh_public_gaps(workspace: Workspace, now: datetime | None = None) -> list[PublicGapRecord]:
    """Compare the active suppliers on the newest two epochs of each task in pairs, and store what came of it.

    Returns:
        What was stored, by task and epoch.
    """
    now = now or datetime.now(UTC)
    tasks = paired_tasks(workspace)
    if not tasks:
        return []
    suppliers = active_suppliers(workspace)
    placed = identity_groups(workspace.documents, [s.key for s in suppliers])
    groups = {key: RankGroup(group.id, group.proxy) for key, group in placed.items()}
    units = units_of(groups, {s.key: s.owner for s in suppliers if s.owner is not None})
    peers = Peers(workspace, now)
    made: list[PublicGapRecord] = []
    for spec, registration in tasks:
        asked = [supplier for supplier in suppliers if spec.asked_of(supplier)]
        made += _Task(workspace, spec, registration, asked, units, peers, now).records()
    typed.upsert(workspace.documents, PublicGapRecord, made)
    return made


def newest_gaps(workspace: Workspace, suppliers: Iterable[str] | None = None) -> list[PublicGapRecord]:
    """The newest record of each supplier and task that are configured now, by supplier and task."""
    newest = _newest(_of_current_tasks(workspace, PublicGapRecord, suppliers))
    return [newest[key] for key in sorted(newest)]


def public_gaps(workspace: Workspace) -> dict[str, str]:
    """By supplier, in a word, whether it is better on public questions: only who is flagged is ``better``.

    Whoever has no verdict in any epoch has ``no verdict``, and so has who was better in its newest one but is
    not flagged yet. Without those that were asked no task in pairs.
    """
    stored = list(_of_current_tasks(workspace, GapVerdict))
    newest = _newest(stored)
    judged = {one.supplier for one in stored if one.verdict != Verdict.NONE.value}
    flagged = {one.supplier for one in newest.values() if one.flagged}
    judged -= {one.supplier for one in newest.values() if one.verdict == Verdict.BETTER.value}
    return {
        supplier: (
            Verdict.BETTER
            if supplier in flagged
            else Verdict.NOT_BETTER
            if supplier in judged
            else Verdict.NONE
        ).value
        for supplier in sorted({one.supplier for one in newest.values()})
    }


def _of_current_tasks(
    workspace: Workspace, view: type[_Gap], suppliers: Iterable[str] | None = None
) -> Iterator[_Gap]:
    """What is stored of tasks in pairs as they are configured now, of all suppliers or some."""
    current = {spec.name: registration.task_hash for spec, registration in paired_tasks(workspace)}
    if not current:
        return
    where: dict[str, Any] = {"task": {"in": sorted(current)}}
    if suppliers is not None:
        where["supplier"] = {"in": sorted(suppliers)}
    for one in typed.find(workspace.documents, view, where):
        if current[one.task] == one.task_hash:
            yield one


def _newest(found: Iterable[_Gap]) -> dict[tuple[str, str], _Gap]:
    """By supplier and task that of the newest epoch."""
    newest: dict[tuple[str, str], _Gap] = {}
    for one in found:
        key = one.supplier, one.task
        if key not in newest or newest[key].epoch < one.epoch:
            newest[key] = one
    return newest


class _Task:
    """One task in pairs, and the suppliers that are asked it."""

    def __init__(
        self,
        workspace: Workspace,
        spec: TaskSpec,
        registration: Registration,
        suppliers: Sequence[Supplier],
        units: Mapping[str, str],
        peers: Peers,
        now: datetime,
    ) -> None:
        self._workspace, self._spec, self._registration = workspace, spec, registration
        self._suppliers = {supplier.key: supplier for supplier in suppliers}
        self._units, self._peers, self._now = units, peers, now
        self._pair = primary_pair(spec, registration)
        self._void = void_by_sequence(workspace.documents, [spec.name])
        stored = typed.find(
            workspace.documents,
            PublicGapRecord,
            {"task": spec.name, "task_hash": registration.task_hash},
        )
        self._known: dict[str, dict[int, PublicGapRecord]] = {}
        for one in stored:
            self._known.setdefault(one.supplier, {})[one.epoch] = one

    def records(self) -> Iterator[PublicGapRecord]:
        """What the newest epochs say of each supplier, the older one first."""
        where = {"task": self._spec.name}
        found = typed.find(self._workspace.documents, EpochRecord, where, sort=[("epoch", -1)], limit=_EPOCHS)
        epochs = sorted(found, key=lambda one: one.epoch)
        outcomes = self._outcomes(epochs)
        for epoch in epochs:
            over = epoch is not epochs[-1]
            counted_ = {
                key: one
                for key in self._suppliers
                if (one := self._counted(key, epoch, over, outcomes)) is not None
            }
            for record in self._judged(epoch, counted_):
                self._known.setdefault(record.supplier, {})[record.epoch] = record
                yield record

    def _made_by(self, supplier: Supplier) -> str:
        cut = "" if supplier.cut_at is None else supplier.cut_at.isoformat()
        return f"{PUBLIC_GAPS.number}/{scorer_version(self._registration)}/{'/'.join(self._pair)}/{cut}"

    def _outcomes(self, epochs: Sequence[EpochRecord]) -> dict[str, dict[int, list[Sample]]]:
        """By supplier and epoch its outcomes; only of those whose counts are not known for good."""
        found: dict[str, dict[int, list[Sample]]] = {}
        task = [(self._spec, self._registration)]
        for key, supplier in self._suppliers.items():
            wanted = [epoch for epoch in epochs if self._stored_for_good(supplier, epoch) is None]
            if not wanted:
                continue
            since = min(epoch.started_at for epoch in wanted)
            read = outcomes_since(self._workspace, supplier, task, since, self._now, self._peers)
            by_epoch: dict[int, list[Sample]] = {epoch.epoch: [] for epoch in wanted}
            for sample in read[self._spec.name]:
                if sample.epoch in by_epoch:
                    by_epoch[sample.epoch].append(sample)
            found[key] = by_epoch
        return found

    def _stored_for_good(self, supplier: Supplier, epoch: EpochRecord) -> PublicGapRecord | None:
        """What is stored of an epoch, where its counts stay as they are."""
        known = self._known.get(supplier.key, {}).get(epoch.epoch)
        if known is None or not known.final or known.n_open or known.made_by != self._made_by(supplier):
            return None
        return known

    def _counted(
        self,
        key: str,
        epoch: EpochRecord,
        over: bool,
        outcomes: Mapping[str, Mapping[int, Sequence[Sample]]],
    ) -> _Counted | None:
        supplier = self._suppliers[key]
        if (known := self._stored_for_good(supplier, epoch)) is not None:
            pairs = Pairs(known.both, known.public_only, known.fresh_only, known.neither)
            return _Counted(pairs, 0, known.failed_public, known.failed_fresh, True, known.made_by)
        samples = outcomes[key][epoch.epoch]
        if not samples:
            return None
        docs = first_outcomes(samples, over=over)
        wanted = self._wanted(supplier, epoch)
        right = {doc: self._right(sample) for doc, sample in docs.items()}
        pairs, n_failed = paired(epoch.seed, docs, right)
        waiting = [s for s in samples if s.doc_id not in docs]
        closed = sum(not s.void for s in docs.values())
        return _Counted(
            pairs,
            0 if over else max(0, wanted // 2 - pairs.n),
            *n_failed,
            over or (closed >= wanted and not waiting),
            self._made_by(supplier),
        )

    def _wanted(self, supplier: Supplier, epoch: EpochRecord) -> int:
        """How many docs everybody who takes its requests is asked in an epoch."""
        form = form_of(supplier.api, self._registration.flags)
        sequence = self._spec.name, self._registration.task_hash, epoch.epoch, form
        return epoch_docs(self._spec, self._registration, epoch.variance, self._void.get(sequence, 0))

    def _right(self, sample: Sample) -> bool:
        value = value_of(sample, self._pair) if sample.scored else 0.0
        return is_finite(value) and value >= 0.5

    # -- verdicts -----------------------------------------------------------------------------------------

    def _judged(self, epoch: EpochRecord, counted_: Mapping[str, _Counted]) -> Iterator[PublicGapRecord]:
        own = {key: one.pairs for key, one in counted_.items() if one.final}
        families = {key: self._suppliers[key].service for key in own}
        earlier = {key: self._earlier(key, epoch.epoch) for key in own}
        judged = judge(own, self._units, families, earlier)
        for key, one in counted_.items():
            yield self._record(epoch, key, one, judged.get(key))

    def _earlier(self, key: str, epoch: int) -> list[Shift]:
        """The shifts of a supplier's peers in the epochs before."""
        return [
            Shift(known.peers, known.peers_public_only, known.peers_fresh_only)
            for number, known in self._known.get(key, {}).items()
            if number < epoch and known.peers
        ]

    def _record(
        self,
        epoch: EpochRecord,
        key: str,
        one: _Counted,
        judged: Judged | None,
    ) -> PublicGapRecord:
        pairs = one.pairs
        verdict = Verdict.NONE
        why: str | None = f"the epoch is not over, and {counted(one.n_open, 'pair')} wait"
        shift: Shift | None = None
        known: Shift | None = None
        excess: Excess | None = None
        p: float | None = None
        if judged is not None:
            verdict, why, shift, known, p = judged.verdict, judged.why, judged.shift, judged.known, judged.p
            excess = self._excess(key, epoch.epoch, pairs, shift) if shift.units else None
        return PublicGapRecord(
            id=document_id("public gap", key, self._spec.name, self._registration.task_hash, epoch.epoch),
            supplier=key,
            service=self._suppliers[key].service,
            task=self._spec.name,
            task_hash=self._registration.task_hash,
            epoch=epoch.epoch,
            compared_at=self._now,
            verdict=verdict.value,
            flagged=is_flagged(self._verdicts(key, epoch.epoch, verdict)),
            finding=finding(pairs, verdict, why, excess, shift),
            why=why,
            final=one.final,
            made_by=one.made_by,
            n_pairs=pairs.n,
            n_open=one.n_open,
            both=pairs.both,
            public_only=pairs.public_only,
            fresh_only=pairs.fresh_only,
            neither=pairs.neither,
            failed_public=one.failed_public,
            failed_fresh=one.failed_fresh,
            public_share=pairs.public_share,
            fresh_share=pairs.fresh_share,
            peers=0 if shift is None else shift.units,
            peers_public_only=0 if shift is None else shift.public_only,
            peers_fresh_only=0 if shift is None else shift.fresh_only,
            peers_public_share=None if shift is None else shift.public_share,
            peers_fresh_share=None if shift is None else shift.fresh_share,
            peers_shift=shift.log_odds if shift is not None and shift.units else None,
            peers_shift_error=shift.error if shift is not None and shift.units else None,
            known_shift=known.log_odds if known is not None and known.units else None,
            known_shift_error=known.error if known is not None and known.units else None,
            excess=None if excess is None else excess.excess,
            excess_low=None if excess is None else excess.low,
            excess_high=None if excess is None else excess.high,
            p=p,
        )

    def _excess(self, key: str, epoch: int, pairs: Pairs, shift: Shift) -> Excess:
        """The excess with its interval; what is stored, if that holds: it takes some fifty tails."""
        known = self._known.get(key, {}).get(epoch)
        if (
            known is not None
            and known.excess is not None
            and (known.public_only, known.fresh_only) == (pairs.public_only, pairs.fresh_only)
            and (known.peers_shift, known.peers_shift_error) == (shift.log_odds, shift.error)
        ):
            return Excess(known.excess, known.excess_low, known.excess_high)
        return excess_of(pairs, shift)

    def _verdicts(self, key: str, epoch: int, verdict: Verdict) -> Iterator[Verdict]:
        """A supplier's verdicts from an epoch back."""
        yield verdict
        earlier = self._known.get(key, {})
        for number in sorted(earlier, reverse=True):
            if number < epoch:
                yield Verdict(earlier[number].verdict)


def first_outcomes(samples: Iterable[Sample], *, over: bool) -> dict[int, Sample]:
    """Of each doc of an epoch its first closed outcome; docs that wait are left out.

    ``over``: the epoch is, so nobody is asked any more: what a supplier left open then is as good as failed.
    """
    found: dict[int, Sample] = {}
    for sample in samples:
        counts = sample.closed or (over and sample.open)
        known = found.get(sample.doc_id)
        if counts and (known is None or (sample.round, sample.at) < (known.round, known.at)):
            found[sample.doc_id] = sample
    return found


def paired(seed: str, docs: Mapping[int, Sample], right: Mapping[int, bool]) -> tuple[Pairs, tuple[int, int]]:
    """The pairs of which both halves count, and how many public and fresh halves of them are failed."""
    halves: dict[int, dict[bool, int]] = {}
    for doc, sample in docs.items():
        if not sample.void:
            halves.setdefault(pair_of(doc), {})[is_public(seed, doc)] = doc
    whole = [(pair[True], pair[False]) for pair in halves.values() if len(pair) == 2]
    failed = [sum(not docs[pair[half]].scored for pair in whole) for half in (0, 1)]
    return Pairs.from_answers((right[public], right[fresh]) for public, fresh in whole), (
        failed[0],
        failed[1],
    )


def finding(
    pairs: Pairs,
    verdict: Verdict,
    why: str | None,
    excess: Excess | None,
    peers: Shift | None,
) -> str:
    """What was seen, in words."""
    if pairs.public_share is None or pairs.fresh_share is None:
        return f"no verdict: {why}"
    shares = f"{pairs.public_share:.0%} of public and {pairs.fresh_share:.0%} of fresh ones right"
    if verdict is Verdict.NONE or excess is None or peers is None:
        return f"no verdict: {why}; {shares} in {counted(pairs.n, 'pair')}"
    low = "-∞" if excess.low is None else f"{excess.low:.2f}"
    high = "∞" if excess.high is None else f"{excess.high:.2f}"
    said = BETTER if verdict is Verdict.BETTER else _NOT_BETTER
    by = f"{excess.excess:+.2f} logits ({low} to {high})"
    return f"{said}: {shares} in {counted(pairs.n, 'pair')}, {by} beside {counted(peers.units, 'peer')}"


def flag_words(record: PublicGapRecord) -> str:
    """What is told of who is flagged."""
    among = f"in two of its last {FLAG_AMONG} epochs with a verdict"
    return f"{BETTER} {among}; epoch {record.epoch}: {record.finding}"
