"""Registers, asks and scores pairs of a public and a fresh question; runs in the framework's worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.core.pairs import is_public
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import LM_EVAL, TaskSpec
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags
from testbench_dagster.core.wording import counted
from testbench_dagster.tasks.adapter import TaskAdapter, each, identified, registered
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION
from testbench_dagster.tasks.twins import sources
from testbench_dagster.tasks.twins.scoring import EXACT, FLEXIBLE, scored
from testbench_dagster.tasks.twins.starter_form import starter_request
from testbench_dagster.tasks.twins.version import GSM8K, STARTER, TWINS_REQUESTS, TWINS_VERSION

_METRICS = {EXACT: MetricFlags(aggregation="mean", higher_is_better=True, binary=True)}
Doc = dict[str, Any]


class Twins(TaskAdapter):
    """The framework's adapter."""

    def register(self, spec: TaskSpec) -> Registered:
        """List the public questions of a task, each twice: which doc asks it is drawn in every epoch.

        Raises:
            TaskError: the data set of the questions cannot be had; nothing of it has a template.
        """
        items = _starter_docs(spec) if spec.leaf == STARTER else _gsm8k_docs(spec)
        return registered(
            spec,
            ({**item, "half": half} for item in items for half in (0, 1)),
            asked=_asked(spec),
            scored=TWINS_VERSION,
            version=f"{TWINS_VERSION} ({sources.SOURCES_VERSION})",
            metrics=_METRICS,
            filters=[FLEXIBLE],
            forms=["chat", "completions"],
            questions_of_epoch=True,
            pairs=True,
        )

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the requests of some docs: of each pair one asks the public question, the other its twin.

        They are those that the public question's own task would send without examples.
        """
        chosen = sorted(set(doc_ids))
        docs = {doc_id: json.loads(data.docs[doc_id]) for doc_id in chosen}
        items = {doc_id: _item(spec, docs[doc_id], doc_id, seed) for doc_id in chosen}
        form = _starter_prompts if spec.leaf == STARTER else _gsm8k_prompts
        return form(spec, items, api)

    def score(self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterator[DocScore]:
        """Score answers by the targets of their prompts; no doc is needed."""
        return each(answers, scored)

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str]:
        """The hashes that a registration of questions with this fingerprint gets here."""
        return identified(spec, data.flags, fingerprint, asked=_asked(spec), scored=TWINS_VERSION)


def _asked(spec: TaskSpec) -> list[Any]:
    """What decides the requests beside the questions."""
    forms = LM_EVAL_VERSION if spec.leaf == GSM8K else None
    return [TWINS_REQUESTS, sources.SOURCES_VERSION, forms]


def _item(spec: TaskSpec, doc: Doc, doc_id: int, seed: str) -> sources.Item:
    """What a doc asks in the epoch with this seed."""
    if spec.leaf == STARTER:
        public = sources.Item(doc["id"], doc["question"], doc["answer"], doc["template"], doc["kind"])
        twin: Callable[[], sources.Item] = lambda: sources.packaged_twin(doc["id"], seed)  # noqa: E731
    else:
        found = sources.gsm8k_item(doc["question"], doc["solution"])
        if found is None:  # it had a template when it was registered: the templates are others now
            raise TaskInputError(
                f"task {spec.name!r}: doc {doc_id} has no template any more; materialize task_datasets anew"
            )
        public = found
        twin = lambda: sources.gsm8k_twin(doc["question"], doc["solution"], seed)  # noqa: E731
    return public if is_public(seed, doc_id) else twin()


# ------------------------------------------------------------------------------------------------ starter


def _starter_docs(spec: TaskSpec) -> list[Doc]:
    if spec.data is not None or spec.where:
        what = "where" if spec.data is None else "data"
        raise TaskInputError(
            f"task {spec.name!r}: {what}: means nothing to {STARTER!r}, whose questions come with the "
            "package; remove it"
        )
    return [
        {
            "id": item.id,
            "question": item.question,
            "answer": item.answer,
            "template": item.template,
            "kind": item.kind,
        }
        for item in sources.packaged_items()
    ]


def _starter_prompts(spec: TaskSpec, items: dict[int, sources.Item], api: str) -> list[BuiltPrompt]:
    built = []
    for doc_id, item in items.items():
        request = starter_request(spec, item.template.partition(":")[0], item.question, api)
        chars = sum(len(message["content"]) for message in request.get("messages", ())) or len(
            request.get("prompt", "")
        )
        built.append(BuiltPrompt(doc_id, [request], item.answer, chars, True))
    return built


# -------------------------------------------------------------------------------------------------- GSM8K


def _gsm8k_docs(spec: TaskSpec) -> list[Doc]:
    # lm-eval, which the starter questions do without: 2 s
    from testbench_dagster.tasks import lm_eval_framework  # noqa: F401 - sets up its process first
    from testbench_dagster.tasks.lm_eval_adapter import register

    found, rows = [], register(_of_lm_eval(spec)).data.docs
    for number in sorted(rows):
        row = json.loads(rows[number])
        item = sources.gsm8k_item(row["question"], row["answer"])
        if item is not None:
            found.append(
                {
                    "id": item.id,
                    "question": row["question"],
                    "solution": row["answer"],
                    "answer": item.answer,
                    "template": item.template,
                    "kind": item.kind,
                }
            )
    if not found:
        raise TaskInputError(
            f"task {spec.name!r}: none of its {counted(len(rows), 'question')} is one of the "
            f"{len(sources.gsm8k_template_ids())} with a template; give GSM8K's own test split as "
            "data: {test: <file>}"
        )
    return found


def _gsm8k_prompts(spec: TaskSpec, items: dict[int, sources.Item], api: str) -> list[BuiltPrompt]:
    # as above
    from testbench_dagster.tasks import lm_eval_framework  # noqa: F401 - sets up its process first
    from testbench_dagster.tasks.lm_eval_adapter import build_prompts

    docs = {
        place: json.dumps({"question": item.question, "answer": item.answer}, ensure_ascii=False)
        for place, item in enumerate(items.values())
    }
    data = TaskData(docs, [], _GSM8K_FLAGS)
    prompts = build_prompts(_of_lm_eval(spec), data, list(docs), api)
    return [
        replace(prompt, doc_id=doc_id, target=item.answer)
        for prompt, (doc_id, item) in zip(prompts, items.items(), strict=True)
    ]


#: Of the task's docs as lm-eval is handed them.
_GSM8K_FLAGS = TaskFlags(
    output_type="generate_until",
    features=["question", "answer"],
    multiple_input=0,
    multiple_target=0,
    repeats=1,
    num_fewshot=0,
    version="",
    metrics={},
    filters=[],
)


def _of_lm_eval(spec: TaskSpec) -> TaskSpec:
    """The task of the public questions, without examples."""
    return replace(
        spec, leaf="gsm8k", root="gsm8k", framework=LM_EVAL, num_fewshot=0, metric=None, filter=None
    )
