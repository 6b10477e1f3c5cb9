"""An installation with prompts and answers to plan for."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id
from testbench_dagster.stores.documents.collections import EPOCHS, PROMPTS
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

GATED, GATING = "starter_logic", "starter_arithmetic"
NOW = datetime.now(UTC).replace(microsecond=0)
DOCS = 10


class Stage:
    """An installation whose two tasks have prompts for both request forms, in epoch 1."""

    def __init__(
        self, folder: Path, settings: dict[str, Any], tasks: list[dict[str, Any]] | None = None
    ) -> None:
        chosen = tasks or [{"name": GATED, "samples": DOCS}, {"name": GATING, "samples": DOCS}]
        self.workspace = Workspace(configuration(folder, {"tasks": chosen, **settings}))
        self.facts = Facts(self.workspace)
        self.registrations: dict[str, Registration] = {}
        for task in (GATED, GATING):
            self.registrations[task] = self.facts.registration(task, n_docs=50)
            self.epoch(task, 1)
        for key in (ALPHA, BETA):
            self.facts.on_roster(key)

    def epoch(
        self,
        task: str,
        number: int,
        order: list[int] | None = None,
        doc_ids: list[int] | None = None,
        draw: str | None = None,
        since: int | None = None,
    ) -> None:
        """Start an epoch and store its first prompts.

        With ``draw`` it, or the one ``since``, has set the number of docs.
        """
        registration = self.registrations[task]
        documents = self.workspace.documents
        documents.upsert(
            EPOCHS,
            [
                {
                    "_id": document_id("epoch", task, number),
                    "task": task,
                    "epoch": number,
                    "seed": f"seed {number}",
                    "seed_sha256": hashlib.sha256(f"seed {number}".encode()).hexdigest(),
                    "started_at": NOW,
                    **({} if doc_ids is None else {"doc_ids": doc_ids}),
                    **(
                        {}
                        if draw is None
                        else {
                            "groups": 5,
                            "variance": 0.2,
                            "spread_epoch": since or number,
                            "spread_at": NOW,
                            "spread_draw": draw,
                        }
                    ),
                }
            ],
        )
        for api in ("chat", "completions"):
            documents.upsert(
                PROMPTS,
                [
                    {
                        "_id": f"{task}-{number}-{api}-{doc}",
                        "task": task,
                        "task_hash": registration.task_hash,
                        "epoch": number,
                        "api": api,
                        "position": position,
                        "doc_id": doc,
                        "doc_hash": "",
                        "calls": 1,
                        "relayable": True,
                        "requests": [{"type": "generate_until", "idx": 0, "generation": {"max_tokens": 9}}],
                    }
                    for position, doc in enumerate(order or range(DOCS))
                ],
            )

    def answered(
        self,
        task: str,
        docs: range,
        at: datetime = NOW,
        supplier: str = ALPHA,
        epoch: int = 1,
        value: float = 1.0,
    ) -> None:
        """Attempts and scores of some docs."""
        api = "chat" if supplier == ALPHA else "completions"
        for doc in docs:
            self.facts.attempt(
                self.registrations[task],
                doc,
                at=at,
                supplier=supplier,
                prompt_id=f"{task}-{epoch}-{api}-{doc}",
                epoch=epoch,
                text="x",
            )
            self.facts.score(self.registrations[task], doc, value, at, supplier=supplier, epoch=epoch)

    def supplier(self, key: str = ALPHA) -> Supplier:
        return next(s for s in active_suppliers(self.workspace) if s.key == key)

    def states(self, key: str = ALPHA, **options: Any) -> dict[str, tuple[str, int]]:
        """State and number of due docs by task."""
        plan = Planner(self.workspace, now=NOW, **options).plan(self.supplier(key))
        return {name: (d.state, len(d.plan.due)) for name, d in plan.tasks.items()}
