"""Installations that a board shows: real stores filled with hand-made facts, with names of one's choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.identity import ChangeRecord, IdentityGroupRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.suspicions import SuspicionRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Attempt, Relay
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.rank import make_board, store_board
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.service.quality import refresh_service_quality
from testbench_dagster.stages.snapshot import take_snapshots
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster_tests.stages.score.facts import Facts
from testbench_dagster_tests.stages.service.probed import hourly, probe, store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOCS = 30
SOURCE = "listed"
#: What others may write to break out: of markup, of attributes, of templates, of lines, of the direction.
HOSTILE = (
    "<script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "' autofocus onfocus='document.title=1",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe\N{ZERO WIDTH SPACE}",
    'a\\b\nc"d\tx\u2028</pre></bdi></table><h1>mine</h1>{{ 7*7 }}{% raw %}',
    "&lt;b&gt;&amp;<svg onload=document.title=2><style>*{display:none}</style>",
    "javascript:document.title=3//http://evil.example/x.png",
    "x" * 400 + "<iframe src=//evil.example>",
)
TAME_SUPPLIERS = ("good@external", "half@external", "twin@external", "bad@external")


@dataclass(frozen=True)
class Names:
    """What stands where, as others may choose it: keys of four suppliers, and texts of every kind."""

    suppliers: tuple[str, ...] = TAME_SUPPLIERS
    models: tuple[str, ...] = ("granite", "basalt", "granite", "chalk")
    tasks: tuple[str, ...] = ("logic", "sums")
    texts: tuple[str, ...] = ("What is the answer?",)
    keys: Mapping[str, str] = field(default_factory=dict)

    def text(self, number: int) -> str:
        """One of the texts."""
        return self.texts[number % len(self.texts)]


def hostile_names() -> Names:
    """Every name and text is an attack; keys of suppliers are those that a roster may hold."""
    return Names(
        suppliers=tuple(
            f"{text[:60]}@{other[:20]}" for text, other in zip(HOSTILE[:4], HOSTILE[4:], strict=True)
        ),
        models=HOSTILE[:4],
        tasks=(HOSTILE[0], HOSTILE[1]),
        texts=(*HOSTILE, "NUL \x00 and \x1b[31m escape"),
    )


def filled(folder: Path, names: Names | None = None) -> Workspace:
    """An installation whose every page has something to show; the caller closes it.

    Four suppliers: ``good`` is right in all docs and has a twin that answers alike, ``half`` in every other,
    ``bad`` in none, fails some and is cut in others. Two tasks of :data:`DOCS` docs.
    """
    names = names or Names()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "roster.json").write_text(json.dumps({"suppliers": []}), encoding="utf-8")
    settings = {
        "supplier_sources": [{"file": "roster.json", "name": SOURCE}],
        "tasks": [
            {
                "name": "starter_logic",
                "alias": task,
                "samples": {"min": DOCS, "max": DOCS, "half_width": None},
            }
            for task in names.tasks
        ],
        "sampling": {"window": DOCS},
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
    workspace = Workspace(load_config(path))
    facts = Facts(workspace)
    for key, model in zip(names.suppliers, names.models, strict=True):
        # the first has a price, as if its source said so
        price = {"price": {"prompt": 1.5, "completion": 6.0}} if key == names.suppliers[0] else {}
        facts.on_roster(key, source=SOURCE, model=model, joined_at=NOW - timedelta(days=30), **price)
    for task in names.tasks:
        _answered(workspace, facts.registration(task, n_docs=DOCS), names)
    _identity(workspace, names)
    _probed(workspace, names)
    refresh_window_cache(workspace, names.suppliers, now=NOW)
    for days in (2, 1, 0):
        take_snapshots(workspace, (NOW - timedelta(days=days)).date(), now=NOW - timedelta(days=days))
    store_board(workspace, make_board(workspace, now=NOW))
    return workspace


def _probed(workspace: Workspace, names: Names) -> None:
    """Service probes: the first supplier answers all, the last is down for hours and rate limited once."""
    first, _, _, last = names.suppliers
    soon = NOW - timedelta(minutes=7)
    store(workspace, hourly(first, soon, 60))
    store(workspace, hourly(first, soon, 40, "1k", seed=2))
    faults = ["unavailable"] * 4 + ["rate_limited", "internal", "supplier_timeout"]
    store(workspace, (probe(last, soon - timedelta(hours=i), fault=f) for i, f in enumerate(faults)))
    store(workspace, hourly(last, soon - timedelta(hours=6, minutes=20), 8, seed=3))
    more = {
        "sent_tokens": 32_000,
        "prompt_tokens": None,
        "found": True,
        "tokens_source": "estimated",
        "evidence": {"context": {"tokens": 35_000, "source": "listed"}},
    }
    store(workspace, [probe(first, soon, "context", **more)])
    refresh_service_quality(workspace, names.suppliers, NOW)


def _answered(workspace: Workspace, task: Registration, names: Names) -> None:
    started = NOW - timedelta(days=3)
    epoch = EpochRecord(
        id=document_id("epoch", task.task),
        task=task.task,
        epoch=1,
        started_at=started,
        seed="s",
        seed_sha256="h",
    )
    typed.put_new(workspace.documents, EpochRecord, [epoch])
    typed.put_new(workspace.documents, PromptRecord, [_prompt(task, doc, names) for doc in range(DOCS)])
    for number, key in enumerate(names.suppliers):
        for doc in range(DOCS):
            _ask(workspace, task, number, key, doc, names)


def _prompt(task: Registration, doc: int, names: Names) -> PromptRecord:
    message = {"role": "user", "content": f"Question {doc}: {names.text(doc)}"}
    return PromptRecord(
        id=_prompt_id(task, doc),
        task=task.task,
        task_hash=task.task_hash,
        epoch=1,
        api="chat",
        position=doc,
        doc_id=doc,
        doc_hash=f"h{doc}",
        calls=1,
        relayable=True,
        requests=[
            {
                "type": "generate_until",
                "idx": 0,
                "messages": [message],
                "generation": {"until": ["\n\n"], "max_gen_toks": 16, "temperature": 0.0},
            }
        ],
        target=f"target {names.text(doc + 1)}",
        context_chars=20,
        created_at=NOW,
        repeats=1,
    )


def _prompt_id(task: Registration, doc: int) -> str:
    return document_id("prompt", task.task, doc)


def _ask(workspace: Workspace, task: Registration, number: int, key: str, doc: int, names: Names) -> None:
    """One doc of a supplier: its attempts, and the score of what it answered."""
    at = NOW - timedelta(hours=1, seconds=doc)
    fails = number == 3 and doc % 5 == 0
    cut = number == 3 and doc % 5 == 1
    value = (1.0, float(doc % 2), 1.0, 0.0)[number]
    if fails:
        for occasion in range(3):
            when = at - timedelta(seconds=20 * (2 - occasion))
            _attempt(workspace, task, key, doc, Fault.SUPPLIER_REFUSED, when, names, occasion + 1)
        return
    fault = Fault.TRUNCATED if cut else Fault.OK
    record = _attempt(workspace, task, key, doc, fault, at, names, 1)
    score = ScoreRecord(
        id=document_id("score", record.id, "none", scorer_version(task)),
        supplier=key,
        service=record.service,
        task=task.task,
        task_hash=task.task_hash,
        epoch=1,
        round=1,
        position=doc,
        doc_id=doc,
        filter="none",
        answer_id=record.id,
        answered_at=at,
        calls=1,
        scorer_version=scorer_version(task),
        metrics={"exact_match": value},
        error=None,
        extracted=f"took {names.text(doc + 2)}"[:1000],
        prompt_id=record.prompt_id,
        attempt_ids=[record.id],
        truncated=cut,
        latency_ms=120.0,
        prompt_tokens=20,
        completion_tokens=9,
        scored_at=at,
    )
    typed.put_new(workspace.documents, ScoreRecord, [score])


def _attempt(
    workspace: Workspace,
    task: Registration,
    key: str,
    doc: int,
    fault: Fault,
    at: datetime,
    names: Names,
    number: int,
) -> AttemptRecord:
    said: dict[str, Any] = {
        "content": f"answer {names.text(doc + 3)}",
        "reasoning_content": f"thought {names.text(doc + 4)}",
    }
    reason = "length" if fault is Fault.TRUNCATED else "stop"
    body = orjson.dumps({"choices": [{"message": said, "finish_reason": reason}]})
    relay = Relay(
        supplier=key,
        service=key.rpartition("@")[2],
        task=task.task,
        task_hash=task.task_hash,
        epoch=1,
        round=1,
        prompt_id=_prompt_id(task, doc),
        position=doc,
        doc_id=doc,
        idx=0,
        repeat=0,
        request={},
        occasion=number,
    )
    error = None if fault.answered else f"refused: {names.text(doc)}"
    made = Attempt(fault, at, at, 120.0, status=200, body=body, body_bytes=len(body), error=error)
    record = attempt_record(relay, number, made, lease=number)
    typed.put_new(workspace.documents, AttemptRecord, [record])
    return record


def _identity(workspace: Workspace, names: Names) -> None:
    good, _, twin, _ = names.suppliers
    together = IdentityGroupRecord(
        id=good,
        service="external",
        group=f"g-{names.text(0)}"[:80],
        proxy=good,
        role="proxy",
        members=[good, twin],
        since=NOW,
        rotates_at=None,
        compared_at=NOW - timedelta(minutes=5),
        n_prompts=60,
        self_agreement=0.9,
        self_low=0.8,
        self_high=0.95,
        repeats=10,
        agreement=None,
        distance=None,
        nearest=f"g-{names.text(1)}"[:80],
        nearest_agreement=0.2,
        nearest_low=0.1,
        nearest_high=0.3,
        nearest_common=50,
        suspect=names.text(2),
        reason=f"answers like 1 other {names.text(3)}",
    )
    member = IdentityGroupRecord.from_document(
        {**together.to_document(), "_id": twin, "role": "member", "agreement": 0.97, "distance": 0.01}
    )
    typed.put_new(workspace.documents, IdentityGroupRecord, [together, member])
    against = ReferenceRecord(
        id=names.suppliers[1],
        service="external",
        model=names.models[1],
        reference=good,
        as_reference="no",
        finding=f"scores differ from the reference: {names.text(4)}",
        compared_at=NOW - timedelta(minutes=3),
        n_prompts=60,
        agreement=0.1,
        n_docs=1230,
        difference=-0.5,
        difference_low=-0.6,
        difference_high=-0.4,
        n_unanswered=4,
        n_whole=1240,
        n_equal=620,
        n_tool_docs=200,
        trigger_f1=0.84,
        trigger_f1_low=0.8,
        trigger_f1_high=0.88,
        schema_accuracy=0.91,
        reference_schema_accuracy=0.99,
    )
    typed.put_new(workspace.documents, ReferenceRecord, [against])
    slow = SuspicionRecord(
        id="suspicion-latency",
        kind="latency",
        service="external",
        supplier=twin,
        other=good,
        ordered=True,
        since=NOW - timedelta(days=9),
        until=NOW - timedelta(days=1),
        found_at=NOW - timedelta(days=3),
        seen_at=NOW - timedelta(minutes=5),
        strength=21.3,
        threshold=13.8,
        observations=310,
        share=0.71,
        share_low=None,
        share_high=None,
        lag_ms=120.0,
        reason=f"it got slower and faster with another {names.text(5)}",
    )
    routed = SuspicionRecord.from_document(
        {**slow.to_document(), "_id": "suspicion-mixture", "kind": "mixture", "other": together.nearest}
    )
    typed.put_new(workspace.documents, SuspicionRecord, [slow, routed])
    changes = [
        ChangeRecord(
            id=f"change-{number}",
            supplier=names.suppliers[number % 4],
            service="external",
            kind="score",
            task=names.tasks[0] if number % 2 else None,
            at=NOW - timedelta(days=1, minutes=number),
            detected_at=NOW - timedelta(minutes=number),
            seen_at=NOW,
            cut=False,
            reason=f"its scores fell {names.text(number)}",
            before_at=None,
            log_e=9.0,
            arl=1e5,
            observations=100,
            since_change=50,
            null_rate=0.8,
            rate_after=0.4,
            direction="down",
            certain=bool(number % 2),
        )
        for number in range(60)
    ]
    typed.put_new(workspace.documents, ChangeRecord, changes)
