"""Installations on the embedded stores, filled with hand-made facts: no supplier, no lm-eval."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import yaml

from testbench_dagster.config import Config, load_config
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.relay import Attempt, Relay
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import content_hash, document_id, typed
from testbench_dagster.stores.documents.collections import SCORES, SUPPLIERS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALPHA = "alpha@external"
BETA = "beta@external"


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def configuration(folder: Path, settings: Mapping[str, Any]) -> Config:
    path = folder / "testbench.yaml"
    suppliers = [
        {"address": "alpha", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "chat"},
        {"address": "beta", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "completions"},
    ]
    path.write_text(yaml.safe_dump({"suppliers": suppliers, **settings}, sort_keys=False), encoding="utf-8")
    return load_config(path)


class Facts:
    """Writes registrations, scores and attempts the way the stages do."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._scores: list[dict[str, Any]] | None = None

    def registration(
        self,
        task: str,
        n_docs: int = 200,
        metrics: Mapping[str, str] | None = None,
        filters: tuple[str, ...] = ("none",),
        output_type: str = "generate_until",
        higher_is_better: bool = True,
        forms: list[str] | None = None,
    ) -> Registration:
        aggregations = metrics or {"exact_match": "mean"}
        docs = [StoredDoc(i, f'{{"n": {i}}}', content_hash(f'{{"n": {i}}}')) for i in range(n_docs)]
        registration = Registration(
            task=task,
            task_hash=content_hash([task, n_docs, list(aggregations), list(filters)])[:40],
            framework="lm_eval",
            lm_task=task,
            engine_version="0.0",
            config_hash="c" * 64,
            fingerprint="f",
            eval_split="test",
            splits={"test": n_docs},
            flags=TaskFlags(
                output_type=output_type,
                features=[],
                multiple_input=False,
                multiple_target=False,
                repeats=1,
                num_fewshot=0,
                version="1.0",
                metrics={
                    name: MetricFlags(aggregation=how, higher_is_better=higher_is_better)
                    for name, how in aggregations.items()
                },
                filters=list(filters),
                metric_order=list(aggregations),
                forms=forms,
            ),
            n_docs=n_docs,
            n_fewshot=0,
            registered_at=NOW,
        )
        self.workspace.datasets.register(registration, docs, [])
        stored = self.workspace.datasets.current(task)
        assert stored is not None
        return stored

    def score(
        self,
        registration: Registration,
        doc_id: int,
        value: Any = 1.0,
        at: datetime = NOW,
        *,
        supplier: str = ALPHA,
        metrics: Mapping[str, Mapping[str, Any]] | None = None,
        epoch: int = 1,
        round_: int = 1,
        error: str | None = None,
        truncated: bool = False,
        latency_ms: float = 10.0,
        version: str | None = None,
        tokens: tuple[int | None, int | None] = (100, 5),
    ) -> None:
        """One answered and scored doc; ``metrics`` by filter, by default exact_match of filter none."""
        answer = document_id("answer", supplier, registration.task, doc_id, epoch, round_, at.isoformat())
        by_filter = metrics or {"none": {"exact_match": value}}
        if error is not None:
            by_filter = {name: {} for name in registration.flags.filters}
        documents = [
            {
                "_id": document_id("score", answer, name, version or ""),
                "supplier": supplier,
                "service": "external",
                "task": registration.task,
                "task_hash": registration.task_hash,
                "epoch": epoch,
                "round": round_,
                "position": doc_id,
                "doc_id": doc_id,
                "filter": name,
                "answer_id": answer,
                "answered_at": at,
                "calls": 1,
                "scorer_version": version or scorer_version(registration),
                "metrics": dict(values),
                "error": error,
                "prompt_id": f"{registration.task}-{doc_id}",
                "attempt_ids": [answer],
                "truncated": truncated,
                "latency_ms": latency_ms,
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "scored_at": at,
            }
            for name, values in by_filter.items()
        ]
        if self._scores is None:
            assert self.workspace.documents.put_new(SCORES, documents) == len(documents)
        else:
            self._scores += documents

    @contextlib.contextmanager
    def in_bulk(self) -> Iterator[None]:
        """Write the scores of a block together, at its end."""
        self._scores = scores = []
        yield
        self._scores = None
        assert self.workspace.documents.put_new(SCORES, scores) == len(scores)

    def attempt(
        self,
        registration: Registration,
        doc_id: int,
        fault: Fault = Fault.OK,
        at: datetime = NOW,
        *,
        supplier: str = ALPHA,
        prompt_id: str | None = None,
        epoch: int = 1,
        round_: int = 1,
        idx: int = 0,
        repeat: int = 0,
        number: int = 1,
        text: str | None = None,
        height: int | None = None,
        lease: int | None = None,
        latency_ms: float = 10.0,
        occasion: int = 1,
        canary: bool = False,
        position: int | None = None,
        tokens: tuple[int | None, int | None] = (None, None),
    ) -> None:
        """One attempt with a chat answer as its body, written as the relay stage writes it."""
        reason = "length" if fault is Fault.TRUNCATED else "stop"
        answer = {"choices": [{"message": {"content": text}, "finish_reason": reason}]}
        body = b"" if text is None else orjson.dumps(answer)
        relay = Relay(
            supplier=supplier,
            service="external",
            task=registration.task,
            task_hash=registration.task_hash,
            epoch=epoch,
            round=round_,
            prompt_id=prompt_id or f"{registration.task}-{doc_id}",
            position=doc_id if position is None else position,
            doc_id=doc_id,
            idx=idx,
            repeat=repeat,
            request={},
            occasion=occasion,
            canary=canary,
        )
        attempt = Attempt(
            fault,
            at,
            at,
            latency_ms,
            status=200,
            body=body,
            body_bytes=len(body),
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
        )
        record = attempt_record(relay, number, attempt, height=height, lease=lease)
        assert typed.put_new(self.workspace.documents, AttemptRecord, [record]) == 1

    def fail(
        self,
        registration: Registration,
        doc_id: int,
        fault: Fault = Fault.SUPPLIER_REFUSED,
        at: datetime = NOW,
        *,
        supplier: str = ALPHA,
        prompt_id: str | None = None,
        epoch: int = 1,
        round_: int = 1,
    ) -> None:
        """A doc closed as failed: unanswered in as many runs as it takes, while a canary was answered."""
        for run in range(fault.row.occasions):
            when = at - timedelta(minutes=15) * (fault.row.occasions - 1 - run)
            common = {"epoch": epoch, "round_": round_, "supplier": supplier, "lease": 1000 + run}
            self.attempt(registration, doc_id, fault, when, prompt_id=prompt_id, number=run + 1, **common)
            self.attempt(
                registration,
                doc_id,
                Fault.OK,
                when,
                prompt_id=f"canary-{registration.task}-{doc_id}-{epoch}-{round_}-{fault}",
                number=run + 1,
                canary=True,
                text="yes",
                **common,
            )

    def echo(self, supplier: str, supported: bool | None) -> None:
        """What a capability probe found out about a supplier."""
        self.on_roster(supplier, echo_logprobs=supported)

    def on_roster(self, supplier: str, **changes: Any) -> None:
        """A document of the roster."""
        address, service = supplier.split("@")
        document = {
            "_id": supplier,
            "address": address,
            "service": service,
            "status": "active",
            "source": "configuration",
            "joined_at": NOW,
            "left_at": None,
            "cut_at": None,
            "echo_logprobs": None,
            "transport": "direct",
            "base_url": "http://127.0.0.1:9/v1",
            "api": "chat",
            "model": "m",
            "version": 1,
            "history": [],
            **changes,
        }
        self.workspace.documents.upsert(SUPPLIERS, [document])
