"""Building requests: per doc, what ``simple_evaluate`` would send in a full run, as plain JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import ConfigurableTask

from testbench_dagster.core.prompt import BuiltPrompt, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.lm_eval_adapter.building import excludes_itself, stored_task
from testbench_dagster.tasks.lm_eval_adapter.values import json_value


def build_prompts(spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str) -> list[BuiltPrompt]:
    """Build the requests of the given docs as ``simple_evaluate`` would in a full run.

    Args:
        spec: the task as configured.
        data: all docs of the eval split, the few-shot pool and the flags.
        doc_ids: positions in the eval split, any order; the result is ascending.
        api: ``chat`` (messages, few-shot examples as turns) or ``completions`` (one text).
    """
    task = stored_task(spec, data)
    shots = task.config.num_fewshot or 0
    chat = api == "chat" and task.OUTPUT_TYPE == "generate_until"
    template = _messages if chat else None
    advance = stream_advance(task, shots)
    wanted, built = set(doc_ids), []
    for doc_id in range(max(wanted, default=-1) + 1):
        if doc_id not in wanted:
            advance(doc_id)
            continue
        doc = task.eval_docs[doc_id]
        context = task.fewshot_context(
            doc,
            num_fewshot=shots,
            system_instruction=spec.generation.system,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            chat_template=template,
            gen_prefix=task.doc_to_prefix(doc),
        )
        instances = task.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(task.config.task, doc_id, task.config.repeats),
            apply_chat_template=chat,
            chat_template=template,
        )
        instances = instances if isinstance(instances, list) else [instances]
        requests = [_request(instance, spec.generation.think_end_token) for instance in instances]
        built.append(
            BuiltPrompt(
                doc_id,
                requests,
                json_value(task.doc_to_target(doc)),
                max(len(_visible(r)) for r in requests),
                all(_relayable(r, task.OUTPUT_TYPE) for r in requests),
            )
        )
    return built


def _messages(history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
    return history


def stream_advance(task: ConfigurableTask, shots: int) -> Callable[[int], None]:
    """Return what moves the few-shot random stream past one doc, as building its prompt would."""
    if not shots or isinstance(task.sampler, FirstNSampler):
        return lambda doc_id: None
    itself = excludes_itself(task)
    return lambda doc_id: (
        task.sampler.sample(n=shots, eval_doc=task.eval_docs[doc_id] if itself else None) and None
    )


def _request(instance: Instance, think_end_token: str | bool | None) -> dict[str, Any]:
    head = {"type": instance.request_type, "idx": instance.idx}
    args = instance.args
    if instance.request_type == "generate_until":
        context, generation = args
        key = "messages" if isinstance(context, list) else "prompt"
        request = {**head, key: context, "generation": generation}
        return request if think_end_token is None else {**request, "think_end_token": think_end_token}
    if instance.request_type == "loglikelihood":
        return {**head, "context": args[0], "continuation": args[1]}
    # a whole text goes on from nothing
    return {**head, "type": "loglikelihood", "context": "", "continuation": args[0]}


def _visible(request: Mapping[str, Any]) -> str:
    if "messages" in request:
        return "".join(str(m["content"]) for m in request["messages"])
    return "".join(request.get(part, "") for part in ("prompt", "context", "continuation"))


def _relayable(request: Mapping[str, Any], output_type: str) -> bool:
    """Whether HTTP can ask it: options of an empty context need the model's own first token, which it hides.

    A whole text has that need too. There lm-eval's own clients put a first token in front, and so do servers
    whose tokenizers have one: their answers show it, and an answer that does not is told at once.
    """
    if output_type == "loglikelihood_rolling":
        return bool(request["continuation"])
    if request["type"] == "loglikelihood":
        return bool(request["context"].rstrip())
    return bool(request["type"] == "generate_until")


def arguments_of(request: Mapping[str, Any], output_type: str) -> tuple[Any, ...]:
    """Return the ``Instance.arguments`` a stored request of a task of this type came from."""
    if output_type == "loglikelihood_rolling":
        return (request["continuation"],)
    if request["type"] == "generate_until":
        if "messages" in request:
            return (json.dumps(request["messages"], ensure_ascii=False), request["generation"])
        return (request["prompt"], request["generation"])
    return (request["context"], request["continuation"])
