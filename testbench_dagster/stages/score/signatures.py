"""Keeps what each signature stands for, so that an operator can look a hash up."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from testbench_dagster.core.errors import BodyUnavailable, StoreError
from testbench_dagster.core.records.attempts import RawAnswer
from testbench_dagster.core.records.prompts import AskedPrompt
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.signatures import SignatureId, SignatureRecord
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.tasks.signatures import METRIC, Signatures
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.readings import reading_of

#: Characters kept of what a signature stands for: configurations whole, of tokenizers the beginning.
MAX_BODY_CHARS = 65_536


def remember_signatures(documents: DocumentStore, spec: TaskSpec, scores: Iterable[ScoreRecord]) -> int:
    """Store what the signatures of fresh scores stand for, where it is not known; return how many.

    It is made again from the stored answer, one at a time: a new signature is rare and a page may be large.
    One whose answer cannot be read now is left to the next score that has it.
    """
    first: dict[str, ScoreRecord] = {}
    for score in sorted(scores, key=lambda s: s.answered_at):
        if score.error is None:
            first.setdefault(f"{spec.leaf}:{score.metrics[METRIC]}", score)
    for known in list(typed.find(documents, SignatureId, {"_id": {"in": sorted(first)}})):
        del first[known.id]
    stored = 0
    for key, score in first.items():
        with suppress(BodyUnavailable):
            stored += typed.put_new(documents, SignatureRecord, [_meaning(documents, spec, key, score)])
    return stored


def _meaning(documents: DocumentStore, spec: TaskSpec, key: str, score: ScoreRecord) -> SignatureRecord:
    attempt = typed.get(documents, RawAnswer, score.attempt_ids[0])
    prompt = typed.get(documents, AskedPrompt, score.prompt_id)
    if attempt is None or prompt is None:
        raise StoreError(f"score {score.id}: its prompt or attempt is not stored; fresh scores have both")
    if attempt.status is None:
        raise StoreError(f"score {score.id}: its attempt {attempt.id} has no status, so it was not answered")
    request, reading = prompt.requests[attempt.idx], reading_of(attempt)
    answer = parse_answer(request, prompt.api, attempt.status, attempt.body, **reading)
    signature, body = Signatures().signed(spec, answer.text or "")
    return SignatureRecord(
        id=key,
        signature=signature,
        task=spec.leaf,
        first_seen_at=score.answered_at,
        supplier=score.supplier,
        attempt_id=attempt.id,
        body=body[:MAX_BODY_CHARS],
        body_chars=len(body),
    )
