"""Prompts and answers beside the facts of :mod:`..score.facts`, as the stages write them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Api
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster_tests.stages.score.facts import ALPHA, Facts

#: When the facts are dated: young enough for every window.
NOW = datetime.now(UTC).replace(microsecond=0)


class Asked:
    """Asks docs of one task: prompts, attempts and scores that belong together."""

    def __init__(self, facts: Facts, registration: Registration) -> None:
        self.facts, self.registration = facts, registration
        self.documents = facts.workspace.documents

    def prompt(
        self,
        doc_id: int,
        requests: Sequence[dict[str, Any]] | None = None,
        target: Any = "yes",
        *,
        api: Api = "chat",
        repeats: int = 1,
        epoch: int = 1,
    ) -> str:
        """Write the prompt of a doc; return its id, which may be written again."""
        asked = list(requests or [text_request(f"Question {doc_id}?")])
        id_ = prompt_id(self.registration, doc_id, api, epoch)
        prompt = PromptRecord(
            id=id_,
            task=self.registration.task,
            task_hash=self.registration.task_hash,
            epoch=epoch,
            api=api,
            position=doc_id,
            doc_id=doc_id,
            doc_hash="d",
            calls=len(asked) * repeats,
            relayable=True,
            requests=asked,
            target=target,
            context_chars=10,
            created_at=NOW,
            repeats=repeats,
        )
        typed.put_new(self.documents, PromptRecord, [prompt])
        return id_

    def answer(
        self,
        doc_id: int,
        value: Any,
        text: str = "an answer",
        *,
        supplier: str = ALPHA,
        api: Api = "chat",
        at: datetime = NOW,
        fault: Fault = Fault.OK,
        extracted: str | None = None,
        error: str | None = None,
        texts: Sequence[str] | None = None,
        round_: int = 1,
        epoch: int = 1,
        metrics: dict[str, Any] | None = None,
        **prompt: Any,
    ) -> None:
        """An answered doc, scored unless ``value`` is None; ``texts`` are those of several samples."""
        said = [text] if texts is None else list(texts)
        id_ = self.prompt(doc_id, api=api, repeats=len(said), epoch=epoch, **prompt)
        for repeat, one in enumerate(said):
            self.facts.attempt(
                self.registration,
                doc_id,
                fault,
                at,
                supplier=supplier,
                prompt_id=id_,
                repeat=repeat,
                text=one,
                round_=round_,
                epoch=epoch,
            )
        if value is not None or error is not None:
            self.score(
                doc_id, id_, value, len(said), supplier, at, fault, extracted, error, round_, epoch, metrics
            )

    def score(
        self,
        doc_id: int,
        prompt: str,
        value: Any,
        samples: int,
        supplier: str,
        at: datetime,
        fault: Fault,
        extracted: str | None,
        error: str | None,
        round_: int = 1,
        epoch: int = 1,
        metrics: dict[str, Any] | None = None,
        calls: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """The score of an answer under the id that its attempts give it."""
        asked = calls or [(0, repeat) for repeat in range(samples)]
        attempts = [document_id("attempt", supplier, prompt, round_, *call, 1) for call in asked]
        answer = attempts[0] if len(attempts) == 1 else document_id("answer", *attempts)
        version = scorer_version(self.registration)
        name, metric = self.registration.flags.filters[0], next(iter(self.registration.flags.metrics))
        record = ScoreRecord(
            id=document_id("score", answer, name, version),
            supplier=supplier,
            service="external",
            task=self.registration.task,
            task_hash=self.registration.task_hash,
            epoch=epoch,
            round=round_,
            position=doc_id,
            doc_id=doc_id,
            filter=name,
            answer_id=answer,
            answered_at=at,
            calls=len(attempts),
            scorer_version=version,
            metrics={} if error is not None else metrics or {metric: value},
            error=error,
            extracted=extracted,
            prompt_id=prompt,
            attempt_ids=attempts,
            truncated=fault.row.cut_short,
            latency_ms=10.0 * len(attempts),
            prompt_tokens=None,
            completion_tokens=None,
            scored_at=at,
        )
        assert typed.put_new(self.documents, ScoreRecord, [record]) == 1


def prompt_id(registration: Registration, doc_id: int, api: str, epoch: int = 1) -> str:
    return document_id("prompt", registration.task_hash, doc_id, api, epoch)


def text_request(question: str) -> dict[str, Any]:
    return {
        "type": "generate_until",
        "idx": 0,
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}],
        "generation": {"until": ["\n\n"], "max_gen_toks": 32, "temperature": 0.0},
    }
