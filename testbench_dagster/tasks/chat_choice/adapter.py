"""The framework: lm-eval's docs and few-shot examples, asked and scored as choices on chat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import testbench_dagster.tasks.lm_eval_framework  # noqa: F401 - sets up its process before lm-eval is imported
from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.core.ids import content_hash
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.core.wording import counted
from testbench_dagster.tasks.adapter import TaskAdapter
from testbench_dagster.tasks.chat_choice.convert import Question, Refused, question_of
from testbench_dagster.tasks.chat_choice.definition import task_refusal
from testbench_dagster.tasks.chat_choice.prompt import Asked, asked, messages
from testbench_dagster.tasks.chat_choice.scoring import ANSWERED, FLEXIBLE, METRIC, STRICT, scored
from testbench_dagster.tasks.chat_choice.version import CHAT_CHOICE_VERSION, PROMPTS_VERSION
from testbench_dagster.tasks.lm_eval_adapter.building import excludes_itself, stored_task
from testbench_dagster.tasks.lm_eval_adapter.definitions import config_of
from testbench_dagster.tasks.lm_eval_adapter.doc_json import load_doc
from testbench_dagster.tasks.lm_eval_adapter.registration import identify, register
from testbench_dagster.tasks.lm_eval_adapter.requests import stream_advance

#: How an answer is generated where the task's ``generation`` does not say otherwise.
_GENERATION = {"until": [], "max_gen_toks": 2048, "temperature": 0}
_WHAT_ELSE = "leave `mode: chat_choice` out, and ask it of suppliers that echo log-probabilities"


class ChatChoice(TaskAdapter):
    """Multiple-choice tasks of lm-eval for suppliers that only chat."""

    def register(self, spec: TaskSpec) -> Registered:
        """Load a task's docs as lm-eval does, and keep those that can be asked so.

        Raises:
            TaskError: as lm-eval's own registration; a task whose measure is not accuracy, or none of whose
                docs can be asked, is named with the reason.
        """
        if (problem := task_refusal(config_of(spec))) is not None:
            raise _refused(spec, problem)
        _check_choice(spec)
        base = register(_of_lm_eval(spec))
        task = stored_task(spec, base.data)
        found = {number: question(task, load_doc(text)) for number, text in base.data.docs.items()}
        kept = [number for number, one in found.items() if isinstance(one, Question)]
        if not kept:
            ((reason, _),) = Counter(one for one in found.values() if isinstance(one, Refused)).most_common(1)
            raise _refused(
                spec, f"of none of its {counted(len(found), 'doc')} can be made a question: {reason}"
            )
        if not _counts_right_options(task, base.data, kept[0]):
            raise _refused(spec, "its own process_results gives no accuracy")
        docs = {place: base.data.docs[number] for place, number in enumerate(kept)}
        hashes = [base.doc_hashes[number] for number in kept]
        fingerprint = content_hash([hashes, list(base.fewshot_hashes)])
        flags = replace(
            base.data.flags,
            output_type="generate_until",
            forms=["chat"],
            repeats=1,
            metrics={
                METRIC: MetricFlags(aggregation="mean", higher_is_better=True, binary=True),
                ANSWERED: MetricFlags(aggregation="mean", higher_is_better=True, binary=True),
            },
            filters=[FLEXIBLE, STRICT],
            doc_notes=_notes(found.values()) or None,
        )
        data = TaskData(docs, base.data.fewshot, flags)
        task_hash, config_hash = _hashes(spec, data, fingerprint)
        return replace(
            base,
            task_hash=task_hash,
            config_hash=config_hash,
            fingerprint=fingerprint,
            doc_hashes=hashes,
            data=data,
        )

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the chats of some docs; the order of options is drawn by ``seed`` for each doc by itself."""
        task = stored_task(spec, data)
        shots = task.config.num_fewshot or 0
        itself = excludes_itself(task)
        advance = stream_advance(task, shots)
        wanted, built = set(doc_ids), []
        for doc_id in range(max(wanted, default=-1) + 1):
            if doc_id not in wanted:
                advance(doc_id)
                continue
            doc = task.eval_docs[doc_id]
            drawn = task.sampler.sample(n=shots, eval_doc=doc if itself else None) if shots else []
            examples = [
                asked(one, seed, f"{doc_id}.{place}")
                for place, example in enumerate(drawn)
                if isinstance(one := _example(task, example), Question)
            ]
            found = question(task, doc)
            if isinstance(found, Refused):  # it was none at registration: the code is another one now
                raise TaskInputError(f"task {spec.name!r}: doc {doc_id} cannot be asked any more: {found}")
            built.append(
                _prompt(spec, doc_id, _system(spec, task, doc), examples, asked(found, seed, doc_id))
            )
        return built

    def score(self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterator[DocScore]:
        """Score answers by the letters they name; all that is needed stands in request and target."""
        for answer in answers:
            yield scored(answer)

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str]:
        """The hashes that data with this fingerprint gets here."""
        return _hashes(spec, data, fingerprint)


def question(task: Any, doc: Any) -> Question | Refused:
    """A doc of a task as a question, or why it cannot be one."""
    try:
        choices, text, target = task.doc_to_choice(doc), task.doc_to_text(doc), task.doc_to_target(doc)
    except Exception:  # a template or function of the task's own, which may raise anything
        return Refused.NO_TEXT
    return question_of(text, choices, target, str(target) if task.multiple_input else None)


def _notes(found: Iterable[Question | Refused]) -> dict[str, int]:
    """How many docs are left out, why, and how many are shown in their own order."""
    counts = Counter(
        f"left out: {one}"
        if isinstance(one, Refused)
        else "asked as its text stands: the options it shows cannot be cut"
        if one.as_is
        else "in its own order: an option speaks of others"
        for one in found
        if isinstance(one, Refused) or one.ordered
    )
    return dict(sorted(counts.items()))


def _of_lm_eval(spec: TaskSpec) -> TaskSpec:
    """The task as lm-eval knows it: its metrics and filters are not ours."""
    return replace(spec, metric=None, filter=None)


def _check_choice(spec: TaskSpec) -> None:
    for kind, chosen, known in (
        ("metric", spec.metric, (METRIC, ANSWERED)),
        ("filter", spec.filter, (FLEXIBLE, STRICT)),
    ):
        if chosen is not None and chosen not in known:
            raise TaskInputError(
                f"task {spec.name!r} has no {kind} {chosen!r} as a choice on chat; it has {', '.join(known)}"
            )


def _refused(spec: TaskSpec, reason: str) -> TaskInputError:
    return TaskInputError(f"task {spec.name!r} cannot be asked as a choice on chat: {reason}; {_WHAT_ELSE}")


def _hashes(spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str]:
    """What the chats are made of, and that with what reads their answers."""
    task_hash, config_hash = identify(_of_lm_eval(spec), data, fingerprint)
    generation = spec.generation.over(_GENERATION)
    asked_for = ["chat_choice", PROMPTS_VERSION, task_hash, generation, spec.generation.settings()]
    return (
        content_hash(asked_for)[:40],
        content_hash([*asked_for, CHAT_CHOICE_VERSION, config_hash]),
    )


def _example(task: Any, doc: Any) -> Question | Refused:
    """An example of the few-shot pool as a question, by its own templates where it has some."""
    own = task.fewshot_cfg
    try:
        choices = task.doc_to_choice(doc, own.doc_to_choice)
        text, target = task.doc_to_text(doc, own.doc_to_text), task.doc_to_target(doc, own.doc_to_target)
    except Exception:  # as above
        return Refused.NO_TEXT
    return question_of(text, choices, target, str(target) if task.multiple_input else None)


def _system(spec: TaskSpec, task: Any, doc: Any) -> str:
    """The system message: what is configured, then the task's own description."""
    parts = (spec.generation.system, task.resolve_field(doc, task.config.description))
    return "\n\n".join(part.strip() for part in parts if part and part.strip())


def _prompt(spec: TaskSpec, doc_id: int, system: str, examples: Sequence[Asked], last: Asked) -> BuiltPrompt:
    chat = messages(system, examples, last)
    request: dict[str, Any] = {
        "type": "generate_until",
        "idx": 0,
        "messages": chat,
        "generation": spec.generation.over(_GENERATION),
        # what the letters stand for in this epoch, for who scores and who reads
        "options": list(last.options),
    }
    if spec.generation.think_end_token is not None:
        request["think_end_token"] = spec.generation.think_end_token
    target: Any = last.right[0] if len(last.right) == 1 else list(last.right)
    return BuiltPrompt(doc_id, [request], target, sum(len(m["content"]) for m in chat), True)


def _counts_right_options(task: Any, data: TaskData, doc_id: int) -> bool:
    """Whether a task's own ``process_results``, if it has one, gives 1 for a right option, 0 for others."""
    if task.config.process_results is None:
        return True
    doc = load_doc(data.docs[doc_id])
    found = question(task, doc)
    n = len(task.doc_to_choice(doc))
    if not isinstance(found, Question):
        return False
    try:
        for option in range(n):
            results = [(-1.0 if number == option else -9.0, False) for number in range(n)]
            metrics = task.process_results(doc, results)
            acc = metrics["acc"] if "acc" in metrics else metrics["acc_norm"]
            if float(acc) != float(option in found.right):
                return False
    except Exception:  # a function of the task's own, which may raise anything
        return False
    return True
