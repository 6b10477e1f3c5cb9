"""Stored answers scored again, to see whether the stored scores follow from them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.sample.data import definition_changed
from testbench_dagster.stages.score.answered import answered_docs
from testbench_dagster.stages.score.batch import score_batch
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


@dataclass
class Rescored:
    """What came of it: how many scores were compared, and which answers give others than are stored.

    ``differing`` says by supplier and answer which doc it is; ``resolved`` are the answers, by supplier, of
    those that were to be looked at again that no longer differ, or count no more.
    """

    compared: int = 0
    differing: dict[str, dict[str, str]] = field(default_factory=dict)
    resolved: dict[str, set[str]] = field(default_factory=dict)


def score_again(
    workspace: Workspace, keys: Sequence[str], most: int, known: Mapping[str, Mapping[str, str]]
) -> Rescored:
    """Score a random sample of the suppliers' answers that still count again, of about ``most`` docs in all.

    ``known`` are answers, by supplier, each with the doc it is of, that are looked at whatever is drawn: they
    gave other scores before. An answer that could not be scored is left alone: it may cost its time limit
    once more.
    """
    report = Rescored()
    pairs = [(key, spec) for key in keys for spec in workspace.specs]
    random.shuffle(pairs)
    pairs.sort(key=lambda pair: not known.get(pair[0]))
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    looked: defaultdict[str, set[str]] = defaultdict(set)
    left_alone: set[str] = set()
    configured = {spec.name for spec in workspace.specs}
    for key, answers in known.items():
        looked[key] |= {id_ for id_, doc in answers.items() if doc.partition(" doc ")[0] not in configured}
    registrations = {one.task: one for one in workspace.datasets.tasks(configured)}
    for key, spec in pairs:
        again = {
            answer for answer, doc in known.get(key, {}).items() if doc.partition(" doc ")[0] == spec.name
        }
        if report.compared >= most and not again:
            continue
        registration = registrations.get(spec.name)
        if registration is None or definition_changed(spec, registration):
            left_alone |= again  # edited and not yet materialized: the worker would score by other rules
            continue
        since = datetime.now(UTC) - spec.max_age(workspace.config.settings.sampling.max_age_days)
        docs = list(answered_docs(workspace.documents, key, spec, registration, since=since))
        chosen = {d.answer_id: d for d in docs if d.answer_id in again}
        drawn = random.sample(docs, min(len(docs), max(0, most - report.compared)))
        chosen |= {d.answer_id: d for d in drawn}
        looked[key] |= again
        if not chosen:
            continue
        where = {
            "supplier": key,
            "answer_id": {"in": list(chosen)},
            "scorer_version": scorer_version(registration),
        }
        stored = [one for one in typed.find(workspace.documents, ScoreRecord, where) if one.error is None]
        ids = {one.answer_id for one in stored}
        batch = [doc for answer, doc in chosen.items() if answer in ids]
        new = {score.id: score for score in score_batch(workspace, spec, registration, batch)}
        for one in stored:
            if (score := new.get(one.id)) is None:  # put off: a service that the metric asks is gone, say
                left_alone.add(one.answer_id)
                continue
            report.compared += 1
            if (score.metrics, score.error) != (one.metrics, one.error):
                found[key][one.answer_id] = f"{spec.name} doc {one.doc_id}"
    report.differing |= found
    report.resolved |= {key: answers - found[key].keys() - left_alone for key, answers in looked.items()}
    return report
