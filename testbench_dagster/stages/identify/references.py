"""Compares suppliers with the reference of their model, and stores what came of it (``references``)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.scores import ScoredText
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import Slots
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.wording import counted
from testbench_dagster.identity import Answer, Profile, find_groups
from testbench_dagster.identity import Evidence as AnswerEvidence
from testbench_dagster.identity.references import (
    DRAWS,
    NEWEST,
    SCORES_ALPHA,
    AsReference,
    Drawn,
    Evidence,
    Part,
    Scores,
    TaskDifference,
    judge,
)
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.compare import Comparison, compare_with_trusted
from testbench_dagster.stages.discover.roster import active_suppliers, asked_with
from testbench_dagster.stages.identify.identify import cuts_of, identity_settings
from testbench_dagster.stages.identify.reading import question_of, read_answers, said_of
from testbench_dagster.stages.sample.epochs import wanted_slots
from testbench_dagster.stages.score.samples import WindowSamples, counts_after, samples_by_task
from testbench_dagster.stages.score.states import Peers
from testbench_dagster.stages.trusted import all_references, asked_otherwise, references_of, trusted_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.draws import Draws
from testbench_dagster.statistics.f1 import f1
from testbench_dagster.stores.documents import typed

#: Metrics of answers with tools: whether there is a call, and whether all calls fit.
_CALLED, _FITS = "called", "schema_valid"


def reference_remarks(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """What there is to tell of the configured references: whom, and why little will come of comparing it."""
    suppliers = active_suppliers(workspace)
    trusted = trusted_suppliers(workspace, suppliers)
    found = all_references(workspace, suppliers)
    tasks = [spec for spec in workspace.specs if not spec.signs]
    for key, reference in trusted.items():
        others = [s for s in suppliers if found.get(s.key, [None])[0] == reference]
        later = [s.key for s in suppliers if reference in found.get(s.key, ())[1:]]
        if later:
            first = found[later[0]][0].key
            yield (
                key,
                f"it is a reference of {counted(len(later), 'supplier')}, such as {later[0]}, of which "
                f"{first} is one too and stands before it: the first one is taken; leave out one of the two",
            )
        elif not others:
            yield (
                key,
                f"nobody else names its model {reference.model!r}, so nobody is compared with it; where "
                "others call it otherwise, list their names: reference: [NAME, ...]",
            )
        own = [spec for spec in tasks if spec.asked_of(reference)]
        for supplier in others:
            lacking = [spec.name for spec in tasks if spec.asked_of(supplier) and spec not in own]
            common = sum(spec.asked_of(supplier) for spec in own)
            otherwise = asked_otherwise(supplier, reference)
            if otherwise is not None:
                yield supplier.key, f"it cannot be compared with its reference {key}: {otherwise}"
            elif not common:
                yield (
                    supplier.key,
                    f"it is asked no task that its reference {key} is asked: ask both the same",
                )
            elif lacking:
                yield (
                    supplier.key,
                    f"its reference {key} is not asked {counted(len(lacking), 'task')} that it is asked, "
                    f"such as {lacking[0]}: they take no part in the comparison",
                )
            if asked_with(workspace.config, supplier) != asked_with(workspace.config, reference):
                yield (
                    supplier.key,
                    f"its generation settings are not those of its reference {key}: what comes of that "
                    "looks like a difference of what they serve",
                )


def refresh_references(
    workspace: Workspace, keys: Collection[str] | None = None, now: datetime | None = None
) -> list[ReferenceRecord]:
    """Compare suppliers with their references and store the verdicts; of who has none any more, forget them.

    ``keys``: only these, and all of whose reference is among them.
    """
    if not workspace.config.settings.reference_keys:
        _forget(workspace, ())
        return []
    now = now or datetime.now(UTC)
    suppliers = {supplier.key: supplier for supplier in active_suppliers(workspace)}
    pairs = references_of(workspace, list(suppliers.values()))
    chosen = {
        key: reference
        for key, reference in pairs.items()
        if keys is None or key in keys or reference.key in keys
    }
    found: list[ReferenceRecord] = []
    for reference in {one.key: one for one in chosen.values()}.values():
        others = [suppliers[key] for key, one in chosen.items() if one.key == reference.key]
        found += _Compared(workspace, reference, others, now).records()
    typed.upsert(workspace.documents, ReferenceRecord, found)
    _forget(workspace, pairs)
    return found


def _forget(workspace: Workspace, known: Collection[str]) -> None:
    stored = {one.id for one in typed.find(workspace.documents, ReferenceRecord)}
    if gone := stored - set(known):
        typed.purge(workspace.documents, ReferenceRecord, {"_id": {"in": sorted(gone)}})


#: Suppliers that are compared together; what they answered is in memory at once.
_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class _Said:
    """What a supplier answered: its windows by task, and whole answers by task and doc, in no order."""

    windows: Mapping[str, WindowSamples]
    whole: Mapping[tuple[str, str], Sequence[tuple[datetime, str]]]


class _Compared:
    """A reference and those who name its model; what they answered is read once.

    What was answered before the reference last changed is compared with nothing: who follows it to a new
    model is asked anew a little later, and would differ until then.
    """

    def __init__(
        self, workspace: Workspace, reference: Supplier, others: Sequence[Supplier], now: datetime
    ) -> None:
        self._workspace, self._reference, self._now = workspace, reference, now
        self._others = [_not_before(supplier, reference.cut_at) for supplier in others]
        self._settings = identity_settings(workspace)
        everybody = [reference, *self._others]
        services = dict.fromkeys(supplier.service for supplier in everybody)
        self._answers: dict[str, list[Answer]] = {}
        for service in services:
            members = [supplier for supplier in everybody if supplier.service == service]
            for answer in read_answers(workspace, service, members, now):
                self._answers.setdefault(answer.supplier, []).append(answer)
        evidence = AnswerEvidence.of(
            [answer for answers in self._answers.values() for answer in answers],
            self._settings,
            cut_at=cuts_of(everybody),
            suppliers=[s.key for s in everybody],
        )
        self._grouping = find_groups(evidence, self._settings, [], now=now)
        current = {one.task: one for one in workspace.datasets.tasks()}
        self._tasks = [
            (spec, current[spec.name])
            for spec in workspace.specs
            if not spec.signs and spec.name in current and spec.asked_of(reference)
        ]
        self._signing = {spec.name for spec in workspace.specs if spec.signs}
        self._peers = Peers(workspace, now)
        self._wanted: dict[str, Mapping[str, Slots]] = {}
        self._theirs = self._read(reference)
        self._newest = _newest(self._theirs.whole)

    def records(self) -> Iterator[ReferenceRecord]:
        """A verdict for each."""
        margin = self._workspace.config.settings.identity.reference_margin
        for start in range(0, len(self._others), _TOGETHER):
            some = [(one, self._read(one)) for one in self._others[start : start + _TOGETHER]]
            scores = compare_with_trusted(
                self._reference,
                [(supplier, self._common(said)) for supplier, said in some],
                alpha=SCORES_ALPHA,
            )
            for (supplier, said), rows in zip(some, scores, strict=True):
                yield self._record(supplier, said, _scores(rows), margin)

    def _read(self, supplier: Supplier) -> _Said:
        """What a supplier answered of the tasks that the reference is asked too, and to probes."""
        whole: dict[tuple[str, str], list[tuple[datetime, str]]] = {}
        for answer in self._answers.get(supplier.key, ()):
            if answer.family in self._signing:
                doc = answer.family, answer.prompt
                whole.setdefault(doc, []).append((answer.at, answer.answer_prefix))
        tasks = [(spec, registration) for spec, registration in self._tasks if spec.asked_of(supplier)]
        if not tasks:
            return _Said({}, whole)
        if supplier.api not in self._wanted:
            self._wanted[supplier.api] = wanted_slots(self._workspace.documents, self._tasks, supplier.api)
        compared_by = {
            spec.name: (
                registration,
                primary_pair(spec, registration)[1],
                counts_after(self._workspace, supplier, spec, self._now),
            )
            for spec, registration in tasks
        }

        def heard(score: ScoredText) -> None:
            registration, filter_, since = compared_by[score.task]
            if score.filter == filter_ and score.error is None and score.answered_at > since:
                doc = score.task, question_of(registration, score.epoch, score.doc_id)
                whole.setdefault(doc, []).append((score.answered_at, said_of(score)))

        wanted = self._wanted[supplier.api]
        windows = dict(
            samples_by_task(self._workspace, supplier, tasks, self._now, self._peers, wanted, heard)
        )
        return _Said(windows, whole)

    def _common(self, said: _Said) -> list[tuple[TaskSpec, Registration, WindowSamples, WindowSamples]]:
        return [
            (spec, registration, said.windows[spec.name], self._theirs.windows[spec.name])
            for spec, registration in self._tasks
            if spec.name in said.windows
        ]

    def _record(self, supplier: Supplier, said: _Said, scores: Scores, margin: float) -> ReferenceRecord:
        profiles, key, of = self._grouping.profiles, supplier.key, self._reference.key
        pair = self._grouping.pair(key, of)
        noisy = (self._noisy(profiles[key]), self._noisy(profiles[of]))
        whole, parts = self._alike(said)
        judged = judge(
            Evidence(
                pair=pair,
                repeats=(profiles[key].repeats, profiles[of].repeats),
                noisy=noisy,
                whole=whole,
                scores=scores,
                parts=parts,
                beginnings=self._beginnings(key) if all(noisy) else Drawn(),
                answers=self._drawn_answers(said) if all(noisy) else Drawn(),
                asked_otherwise=asked_otherwise(supplier, self._reference),
            ),
            margin=margin,
            form_docs=self._settings.form_docs,
            form_share=self._settings.form_share,
        )
        return ReferenceRecord(
            id=key,
            service=supplier.service,
            model=supplier.model,
            reference=of,
            as_reference=judged.verdict.value,  # type: ignore[arg-type]  # never that of a reference
            finding=judged.finding,
            compared_at=self._now,
            n_prompts=pair.common,
            agreement=pair.agreement,
            n_docs=scores.docs,
            difference=scores.difference,
            difference_low=scores.low,
            difference_high=scores.high,
            n_unanswered=scores.unanswered,
            n_whole=whole[0],
            n_equal=whole[1],
            **self._tools(said.windows),
        )

    def _noisy(self, profile: Profile) -> bool:
        return profile.repeats > 0 and profile.self_high < self._settings.noisy_below

    def _beginnings(self, key: str) -> Drawn:
        """How the answers of a supplier and of the reference began, by task and prompt."""
        ours, theirs = (_by_prompt(self._answers.get(of, ())) for of in (key, self._reference.key))
        return drawn_by_both(ours, theirs)

    def _drawn_answers(self, said: _Said) -> Drawn:
        """The whole answers of both to docs of tasks; those to probes begin as they end."""
        ours, theirs = (
            {doc: texts for doc, texts in whole.items() if doc[0] not in self._signing}
            for whole in (said.whole, self._theirs.whole)
        )
        return drawn_by_both(ours, theirs)

    def _alike(self, said: _Said) -> tuple[tuple[int, int], list[Part]]:
        """Common docs and equal answers to them: of all, of each task, of the newest.

        A doc that the supplier left unanswered for good has no equal answer: else it would be spared those
        on which it would be told apart.
        """
        ours, theirs = _newest(said.whole), self._newest
        found = {doc: (at, text == theirs[doc][1]) for doc, (at, text) in ours.items() if doc in theirs}
        for spec, registration in self._tasks:
            for sample in said.windows[spec.name].samples if spec.name in said.windows else ():
                doc = spec.name, question_of(registration, sample.epoch, sample.doc_id)
                if sample.failed and doc in theirs:
                    found[doc] = sample.at, False
        by_task: dict[str, list[bool]] = {}
        for (task, _), (_, equal) in found.items():
            by_task.setdefault(task, []).append(equal)
        parts = [Part(f"docs of {task}", len(docs), sum(docs)) for task, docs in by_task.items()]
        last = sorted((at, doc, equal) for doc, (at, equal) in found.items())[-NEWEST:]
        if len(last) == NEWEST:
            parts.append(Part("of the newest docs", NEWEST, sum(equal for *_, equal in last)))
        return (len(found), sum(equal for _, equal in found.values())), parts

    def _tools(self, windows: Mapping[str, WindowSamples]) -> dict[str, Any]:
        """K2 Vendor Verifier's figures on common docs: F1 of calling, and how often calls fit."""
        ours, theirs = self._tool_values(windows), self._tool_values(self._theirs.windows)
        common = sorted(ours.keys() & theirs.keys())
        found = f1((bool(ours[doc].get(_CALLED)), bool(theirs[doc].get(_CALLED))) for doc in common)
        return {
            "n_tool_docs": len(common),
            "trigger_f1": None if found is None else found.value,
            "trigger_f1_low": None if found is None else found.low,
            "trigger_f1_high": None if found is None else found.high,
            "schema_accuracy": _mean(ours[doc].get(_FITS) for doc in common),
            "reference_schema_accuracy": _mean(theirs[doc].get(_FITS) for doc in common),
        }

    def _tool_values(
        self, windows: Mapping[str, WindowSamples]
    ) -> dict[tuple[str, int, int], Mapping[str, Any]]:
        found: dict[tuple[str, int, int], Mapping[str, Any]] = {}
        for spec, registration in self._tasks:
            flags = registration.flags
            if spec.name not in windows or _CALLED not in flags.metrics:
                continue
            for sample in windows[spec.name].samples:
                if sample.metrics:
                    values = sample.metrics.get(flags.filters[0], {})
                    found[(spec.name, *flags.question(sample.epoch, sample.doc_id))] = values
        return found


def _not_before(supplier: Supplier, at: datetime | None) -> Supplier:
    """A supplier of which only what it answered after an instant counts, and after its own changes."""
    if at is None or (supplier.cut_at is not None and supplier.cut_at >= at):
        return supplier
    return replace(supplier, cut_at=at)


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    return sum(numbers) / len(numbers) if numbers else None


Texts = Mapping[tuple[str, str], Sequence[tuple[datetime, str]]]


def _newest(whole: Texts) -> dict[tuple[str, str], tuple[datetime, str]]:
    """The newest answer to each doc; of equally new ones the first that was stored."""
    return {doc: max(texts, key=lambda one: one[0]) for doc, texts in whole.items()}


def _by_prompt(answers: Iterable[Answer]) -> dict[tuple[str, str], list[tuple[datetime, str]]]:
    found: dict[tuple[str, str], list[tuple[datetime, str]]] = {}
    for one in answers:
        found.setdefault((one.family, one.prompt), []).append((one.at, one.answer_prefix))
    return found


def drawn_by_both(ours: Texts, theirs: Texts) -> Drawn:
    """What two suppliers drew, by task and prompt with the instants of their answers."""
    common = {doc: (sorted(ours[doc]), sorted(theirs[doc])) for doc in ours.keys() & theirs.keys()}
    first = {}
    for number in DRAWS:
        complete = sorted(
            (max(side[number - 1][0] for side in both), doc)
            for doc, both in common.items()
            if min(map(len, both)) >= number
        )
        first[number] = [_texts(*(side[:number] for side in common[doc])) for _, doc in complete]
    repeated = {doc: both for doc, both in common.items() if min(map(len, both)) >= 2}
    parts: dict[str, list[Draws]] = {}
    for (task, _), both in sorted(repeated.items()):
        parts.setdefault(f"in {task}", []).append(_texts(*both))
    newest = sorted((both[0][-1][0], doc) for doc, both in repeated.items())[-NEWEST:]
    if len(newest) == NEWEST:
        # of who turned not long ago the newest answers say so, not those before
        both_of = (repeated[doc] for _, doc in newest)
        parts["at the newest prompts"] = [_texts(ours[-2:], theirs) for ours, theirs in both_of]
    return Drawn(first, parts)


def _texts(ours: Sequence[tuple[datetime, str]], theirs: Sequence[tuple[datetime, str]]) -> Draws:
    return [text for _, text in ours], [text for _, text in theirs]


def _scores(rows: Sequence[Comparison]) -> Scores:
    """What is said of a comparison, a row a task, then one over all of them."""
    *tasks, overall = rows
    return Scores(
        overall.n_common,
        overall.difference,
        overall.ci_low,
        overall.ci_high,
        overall.only_a_failed,
        [
            TaskDifference(row.task, row.n_common, row.difference, row.ci_low, row.ci_high)
            for row in tasks
            if row.n_common
        ],
    )


def as_reference(workspace: Workspace) -> dict[str, str]:
    """By supplier whether it is as its reference, ``reference`` for these; without who has none."""
    said = dict.fromkeys(workspace.config.settings.reference_keys, AsReference.REFERENCE.value)
    return {one.id: one.as_reference for one in typed.find(workspace.documents, ReferenceRecord)} | said
