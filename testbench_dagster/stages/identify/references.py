"""Compares suppliers with the reference of their model, and stores what came of it (``references``)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from testbench_dagster.core.records.identity import GroupAssignment
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.wording import counted
from testbench_dagster.identity import Answer, GradedAnswer, Profile, find_groups
from testbench_dagster.identity import Evidence as AnswerEvidence
from testbench_dagster.identity.references import (
    NEWEST,
    SCORES_ALPHA,
    AsReference,
    Evidence,
    Part,
    Scores,
    TaskDifference,
    judge,
)
from testbench_dagster.stages.compare import compare_with_trusted
from testbench_dagster.stages.discover.roster import active_suppliers, asked_with
from testbench_dagster.stages.identify.identify import cuts_of, identity_settings
from testbench_dagster.stages.identify.reading import question_of, read_answers, read_graded
from testbench_dagster.stages.sample.epochs import wanted_docs
from testbench_dagster.stages.score.samples import WindowSamples, samples_by_task
from testbench_dagster.stages.score.states import Peers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.draws import Draws
from testbench_dagster.statistics.f1 import f1
from testbench_dagster.stores.documents import typed

#: Metrics of answers with tools: whether there is a call, and whether all calls fit.
_CALLED, _FITS = "called", "schema_valid"


def references_of(workspace: Workspace, suppliers: Sequence[Supplier]) -> dict[str, Supplier]:
    """By supplier the reference of its model, where it has one and is not one itself.

    Of several references of a model the one that stands first in the configuration.
    """
    return {key: trusted[0] for key, trusted in _all_references(workspace, suppliers).items()}


def _trusted(workspace: Workspace, suppliers: Sequence[Supplier]) -> dict[str, Supplier]:
    """The references among suppliers by key, in the order of the configuration."""
    known = {supplier.key: supplier for supplier in suppliers}
    said = (one for one in workspace.config.settings.suppliers if one.reference is not False)
    return {one.key: known[one.key] for one in said if one.key in known}


def _all_references(workspace: Workspace, suppliers: Sequence[Supplier]) -> dict[str, list[Supplier]]:
    """By supplier that is no reference all that there are of its model."""
    trusted = _trusted(workspace, suppliers)
    said = {one.key: one.reference for one in workspace.config.settings.suppliers}
    found: dict[str, list[Supplier]] = {}
    for supplier in suppliers:
        for key, reference in trusted.items() if supplier.key not in trusted else ():
            names = said[key]
            patterns = (reference.model,) if isinstance(names, bool) else names
            if any(fnmatchcase(supplier.model, pattern) for pattern in patterns):
                found.setdefault(supplier.key, []).append(reference)
    return found


def reference_remarks(workspace: Workspace) -> Iterator[tuple[str, str]]:
    """What there is to tell of the configured references: whom, and why little will come of comparing it."""
    suppliers = active_suppliers(workspace)
    trusted = _trusted(workspace, suppliers)
    found = _all_references(workspace, suppliers)
    placed = typed.by_id(workspace.documents, GroupAssignment, trusted)
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
        assigned = placed.get(key)
        if assigned is not None and assigned.proxy != key:
            yield (
                key,
                f"{assigned.proxy} stands for it, so it is asked a part of the docs only, and verdicts take "
                "longer; in a service of its own it is asked all of them",
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
    if not any(one.reference is not False for one in workspace.config.settings.suppliers):
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
    found = []
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
        self._peers = Peers(workspace, now)
        self._wanted: dict[str, Mapping[str, int]] = {}
        self._theirs = self._windows(reference)
        # the newest answer to each doc
        self._whole: dict[str, dict[tuple[str, str], GradedAnswer]] = {}
        for one in [*read_graded(workspace, everybody, now), *self._probes()]:
            known = self._whole.setdefault(one.supplier, {})
            doc = one.task, one.doc
            if doc not in known or known[doc].at < one.at:
                known[doc] = one

    def records(self) -> list[ReferenceRecord]:
        """A verdict for each."""
        margin = self._workspace.config.settings.identity.reference_margin
        return [self._record(supplier, margin) for supplier in self._others]

    def _probes(self) -> Iterable[GradedAnswer]:
        signing = {spec.name for spec in self._workspace.specs if spec.signs}
        return (
            GradedAnswer(one.supplier, one.family, one.prompt, one.at, one.answer_prefix, None)
            for answers in self._answers.values()
            for one in answers
            if one.family in signing
        )

    def _windows(self, supplier: Supplier) -> dict[str, WindowSamples]:
        """A supplier's samples of the tasks that the reference is asked too."""
        tasks = [(spec, registration) for spec, registration in self._tasks if spec.asked_of(supplier)]
        if not tasks:
            return {}
        if supplier.api not in self._wanted:
            self._wanted[supplier.api] = wanted_docs(self._workspace.documents, self._tasks, supplier.api)
        wanted = self._wanted[supplier.api]
        return dict(samples_by_task(self._workspace, supplier, tasks, self._now, self._peers, wanted))

    def _record(self, supplier: Supplier, margin: float) -> ReferenceRecord:
        profiles, key, of = self._grouping.profiles, supplier.key, self._reference.key
        pair = self._grouping.pair(key, of)
        noisy = (self._noisy(profiles[key]), self._noisy(profiles[of]))
        ours = self._windows(supplier)
        scores = self._scores(supplier, ours)
        whole, parts = self._alike(key, ours)
        judged = judge(
            Evidence(
                pair=pair,
                repeats=(profiles[key].repeats, profiles[of].repeats),
                noisy=noisy,
                whole=whole,
                draws=_draws([*self._answers.get(key, ()), *self._answers.get(of, ())], key, of)
                if all(noisy)
                else (),
                scores=scores,
                parts=parts,
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
            **self._tools(ours),
        )

    def _noisy(self, profile: Profile) -> bool:
        return profile.repeats > 0 and profile.self_high < self._settings.noisy_below

    def _scores(self, supplier: Supplier, ours: Mapping[str, WindowSamples]) -> Scores:
        common = [
            (spec, registration, ours[spec.name], self._theirs[spec.name])
            for spec, registration in self._tasks
            if spec.name in ours
        ]
        task_alpha = SCORES_ALPHA / max(1, len(common))
        *rows, overall = compare_with_trusted(
            supplier, self._reference, common, alpha=SCORES_ALPHA, task_alpha=task_alpha
        )
        return Scores(
            overall.n_common,
            overall.difference,
            overall.ci_low,
            overall.ci_high,
            overall.only_a_failed,
            [
                TaskDifference(row.task, row.n_common, row.difference, row.ci_low, row.ci_high)
                for row in rows
                if row.n_common
            ],
        )

    def _alike(self, key: str, ours: Mapping[str, WindowSamples]) -> tuple[tuple[int, int], list[Part]]:
        """Common docs and equal answers to them: of all, of each task, of the newest.

        A doc that the supplier left unanswered for good has no equal answer: else it would be spared those
        on which it would be told apart.
        """
        said, theirs = self._whole.get(key, {}), self._whole.get(self._reference.key, {})
        found = {doc: (one.at, one.text == theirs[doc].text) for doc, one in said.items() if doc in theirs}
        for spec, registration in self._tasks:
            for sample in ours[spec.name].samples if spec.name in ours else ():
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
        ours, theirs = self._tool_values(windows), self._tool_values(self._theirs)
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


def asked_otherwise(supplier: Supplier, reference: Supplier) -> str | None:
    """Why what two suppliers answer cannot be compared; None where it can."""
    if supplier.api == reference.api:
        return None
    return f"it is asked by {supplier.api}, the reference by {reference.api}, which makes other prompts"


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [float(value) for value in values if isinstance(value, (int, float))]
    return sum(numbers) / len(numbers) if numbers else None


def _draws(answers: Iterable[Answer], one: str, other: str) -> list[Draws]:
    """What two suppliers answered to the same prompts, those first that both were asked first."""
    by_prompt: dict[str, tuple[list[str], list[str]]] = {}
    first: dict[str, datetime] = {}
    for answer in sorted(answers, key=lambda a: (a.at, a.prompt)):
        if answer.supplier in (one, other):
            drawn = by_prompt.setdefault(answer.prompt, ([], []))
            drawn[answer.supplier == other].append(answer.answer_prefix)
            if all(len(side) >= 2 for side in drawn):
                first.setdefault(answer.prompt, answer.at)
    return [by_prompt[prompt] for prompt in sorted(first, key=lambda prompt: (first[prompt], prompt))]


def as_reference(workspace: Workspace) -> dict[str, str]:
    """By supplier whether it is as its reference, ``reference`` for these; without who has none."""
    said = {
        one.key: AsReference.REFERENCE.value
        for one in workspace.config.settings.suppliers
        if one.reference is not False
    }
    return {one.id: one.as_reference for one in typed.find(workspace.documents, ReferenceRecord)} | said
