"""Answers of a bundle that its scorer did not digest: what trying again shows, and what is taken on word.

Whose doing it is shows the scorer at other answers (:mod:`testbench_dagster.stages.score.undecided`). Those
of the supplier are in the bundle, those of others are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbench_dagster.core.records.scores import UNSCORABLE, ScoreRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.evidence.report import Finding
from testbench_dagster.stages.score.answered import AnsweredDoc
from testbench_dagster.stages.score.batch import score_batch
from testbench_dagster.stages.score.score import BATCH
from testbench_dagster.stages.score.undecided import decided
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import canonical_json, typed

_MOST_CHARS = 400


@dataclass
class Tried:
    """What came of the answers that are said not to be digested.

    ``unshown``: of so many nothing shows that the scorer was well, so that they are taken on word.
    """

    findings: list[Finding] = field(default_factory=list)
    unshown: int = 0


def try_again(
    workspace: Workspace,
    spec: TaskSpec,
    registration: Registration,
    docs: Sequence[AnsweredDoc],
    claims: Mapping[str, Sequence[ScoreRecord]],
) -> Tried:
    """Try to score answers that are said not to be digested, and store what they are.

    To be called once the supplier's scores are stored, which show that the scorer is well. ``claims`` are the
    records of such answers by the answers' ids: these are stored where nothing shows it.
    """
    tried = Tried()
    for start in range(0, len(docs), BATCH):
        batch = docs[start : start + BATCH]
        again = score_batch(workspace, spec, registration, batch)
        known = {score.answer_id for score in again}
        unshown = [doc.answer_id for doc in batch if doc.answer_id not in known]
        typed.put_new(workspace.documents, ScoreRecord, [*again, *(r for i in unshown for r in claims[i])])
        tried.unshown += len(unshown)
        for score in {score.answer_id: score for score in decided(again)}.values():
            found = canonical_json(score.metrics) if score.error is None else score.error
            what = "it is said that the scorer cannot digest the answer"
            tried.findings.append(
                Finding("score", what, spec.name, score.doc_id, "open", found[:_MOST_CHARS])
            )
    return tried


def unscorable_elsewhere(
    again: Sequence[ScoreRecord], said: Mapping[str, Mapping[str, ScoreRecord]]
) -> set[str]:
    """The answers not digested here either that are said to be unscorable: others' answers showed it."""
    undecided = {score.answer_id for score in again} - {score.answer_id for score in decided(again)}
    return {
        id_
        for id_ in undecided
        if all((score.error or "").startswith(UNSCORABLE) for score in said[id_].values())
    }
