"""Results and samples in the files that lm-eval writes with ``--log_samples``, field by field.

For each supplier ``<model>/results_<time>.json``, and beside it ``samples_<task>_<time>.jsonl`` with a line
per doc and filter. lm-eval has no place for a doc without an answer: such docs are left out, ``sample_len``
says how many are there, and a score is the one of answered docs, ``score_answered`` of ours.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any

from testbench_dagster.core.period import ALWAYS, Period
from testbench_dagster.core.prompt import TEXT_KINDS
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import LM_EVAL, TaskSpec
from testbench_dagster.core.text import escaped
from testbench_dagster.scoring.failures import is_mean
from testbench_dagster.stages.publish.interchange import ODD_DATA, file_name
from testbench_dagster.stages.read.answers import AnsweredTask, answered_tasks
from testbench_dagster.stages.read.shown import MANY, ToldDoc
from testbench_dagster.stages.score.windows import aggregated
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.files import whole_file, writing

#: Suppliers whose results are in memory at once.
_SUPPLIERS = 50
_NO_ERROR = "N/A"  # lm-eval's word for a standard error that there is none of
_ROLLING = "loglikelihood_rolling"
_SEEDS = {"random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234, "fewshot_seed": 1234}
_SOURCE = "testbench_dagster"

_log = logging.getLogger(__name__)


def write_lm_eval_logs(
    workspace: Workspace,
    out: Path,
    suppliers: Sequence[Supplier],
    tasks: Sequence[TaskSpec],
    period: Period = ALWAYS,
    now: datetime | None = None,
) -> dict[Path, int]:
    """Write results and samples of each supplier that has a scored doc in the period.

    Returns the tasks of each file of results, and the lines of each file of samples. Signatures have no score
    and are left out.

    Raises:
        StoreError: a file cannot be written.
    """
    now = now or datetime.now(UTC)
    scored = [spec for spec in tasks if not spec.signs]
    written: dict[Path, int] = {}
    taken: set[Path] = set()
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(suppliers), _SUPPLIERS):
        batch = suppliers[start : start + _SUPPLIERS]
        runs: dict[str, _Run] = {}
        for task in answered_tasks(workspace, batch, scored, period, now):
            key = task.supplier.key
            if key not in runs:
                runs[key] = _Run(workspace, out, task.supplier, now, taken)
            written |= runs[key].add(task)
        for run in runs.values():
            written |= run.finish()
    return written


class _Run:
    """The files of one supplier while they are written."""

    def __init__(
        self, workspace: Workspace, out: Path, supplier: Supplier, now: datetime, taken: set[Path]
    ) -> None:
        """``taken`` are the files of results that other suppliers' runs will write."""
        self._workspace, self._supplier, self._now, self._taken = workspace, supplier, now, taken
        self.model = supplier.model or supplier.key
        self._folder = out / file_name(self.model)
        self._at = ""
        self._results: dict[str, dict[str, Any]] = {}
        self._hashes: dict[str, str] = {}
        self._registrations: dict[str, Registration] = {}
        self._dates: list[datetime] = []

    def add(self, task: AnsweredTask) -> dict[Path, int]:
        """Write the samples of a task; return the lines of its file, nothing where no doc has a score."""
        if not task.docs:
            return {}
        name = task.spec.name
        if not self._at:
            self._at = self._unused()
        samples = _Samples(self._workspace, task)
        path = self._folder / f"samples_{file_name(name)}_{self._at}.jsonl"
        lines = samples.write(path)
        if not lines:
            return {}
        self._registrations[name] = task.registration
        self._hashes[name] = samples.hash
        self._results[name] = samples.results()
        self._dates += (min(doc.at for doc in task.docs), max(doc.at for doc in task.docs))
        return {path: lines}

    def _unused(self) -> str:
        """A time that no other run of the folder has: suppliers of one model share it."""
        at = self._now.astimezone(UTC).replace(tzinfo=None)
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                text = at.isoformat(timespec="microseconds").replace(":", "-")
                path = self._folder / f"results_{text}.json"
                if path not in self._taken and not path.exists():
                    self._taken.add(path)
                    return text
                at += timedelta(microseconds=1)

    def finish(self) -> dict[Path, int]:
        """Write the results of all tasks."""
        if not self._results:
            if self._at:
                with suppress(OSError):  # others are in it
                    self._folder.rmdir()
            return {}
        path = self._folder / f"results_{self._at}.json"
        text = json.dumps(self._everything(), indent=2, ensure_ascii=False)
        with whole_file(path) as partial:
            partial.write_bytes(_encoded(text))
        return {path: len(self._results)}

    def _everything(self) -> dict[str, Any]:
        of_tasks = self._registrations.items()
        took = (max(self._dates) - min(self._dates)).total_seconds()
        versions = {r.engine_version for r in self._registrations.values() if r.framework == LM_EVAL}
        return {
            "results": self._results,
            "group_subtasks": {},
            "configs": {name: _config(name, one) for name, one in of_tasks},
            "versions": {name: _version(one) for name, one in of_tasks},
            "n-shot": {name: one.flags.num_fewshot for name, one in of_tasks},
            "higher_is_better": {
                name: {metric: flags.higher_is_better for metric, flags in one.flags.metrics.items()}
                for name, one in of_tasks
            },
            "n-samples": {
                name: {"original": one.n_docs, "effective": self._results[name]["sample_len"]}
                for name, one in of_tasks
            },
            "config": {
                "model": _SOURCE,
                "model_args": {
                    "model": self.model,
                    "supplier": self._supplier.key,
                    "api": self._supplier.api,
                },
                "batch_size": 1,
                "batch_sizes": [],
                "device": None,
                "use_cache": None,
                "limit": None,
                "bootstrap_iters": 0,
                "gen_kwargs": {},
                **_SEEDS,
            },
            "git_hash": None,
            "date": self._now.timestamp(),
            "pretty_env_info": _NO_ERROR,
            "transformers_version": _NO_ERROR,
            "lm_eval_version": ", ".join(sorted(versions)) or _NO_ERROR,
            "upper_git_hash": None,
            "task_hashes": self._hashes,
            "model_source": _SOURCE,
            "model_name": self.model,
            "model_name_sanitized": self._folder.name,
            "system_instruction": None,
            "system_instruction_sha": None,
            "fewshot_as_multiturn": None,
            "chat_template": None,
            "chat_template_sha": None,
            "total_evaluation_time_seconds": str(took),
        }


class _Samples:
    """The samples of one supplier and task: lines, and what results are made of."""

    def __init__(self, workspace: Workspace, task: AnsweredTask) -> None:
        self._workspace, self._task = workspace, task
        self._values: dict[tuple[str, str], list[Any]] = {}
        self._hashes: dict[str, list[str]] = {name: [] for name in task.registration.flags.filters}
        self._docs = 0

    def write(self, path: Path) -> int:
        """Write a line per doc and filter, filter by filter, as lm-eval does; return how many."""
        with whole_file(path) as partial:
            parts = {
                name: partial.with_name(f"{partial.name}.{number}")
                for number, name in enumerate(self._hashes)
            }
            try:
                with ExitStack() as stack:
                    self._lines({name: stack.enter_context(p.open("wb")) for name, p in parts.items()})
                with partial.open("wb") as whole:
                    for part in parts.values():
                        with part.open("rb") as one:
                            shutil.copyfileobj(one, whole)
            finally:
                for part in parts.values():
                    part.unlink(missing_ok=True)
        lines = sum(map(len, self._hashes.values()))
        if not lines:
            path.unlink()
        return lines

    @property
    def hash(self) -> str:
        """lm-eval's hash of all docs, prompts and targets."""
        return _sha256("".join(one for hashes in self._hashes.values() for one in hashes))

    def results(self) -> dict[str, Any]:
        """Scores as lm-eval aggregates the values of the samples, with its standard errors of means."""
        name = self._task.spec.name
        found: dict[str, Any] = {"name": name, "alias": name, "sample_len": self._docs}
        for (metric, by), values in self._values.items():
            if (score := self._aggregated(metric, values)) is not None:
                found[f"{metric},{by}"] = score
                found[f"{metric}_stderr,{by}"] = self._error(metric, values)
        return found

    def _aggregated(self, metric: str, values: Sequence[Any]) -> float | None:
        if is_mean(self._task.registration, metric):
            return sum(values) / len(values) if _are_numbers(values) else None
        flags = self._task.registration.flags
        return aggregated(self._workspace, self._task.spec, flags, metric, values)

    def _error(self, metric: str, values: Sequence[Any]) -> float | str:
        n = len(values)
        if n < 2 or not is_mean(self._task.registration, metric) or not _are_numbers(values):
            return _NO_ERROR
        mean = sum(values) / n
        return math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1)) / math.sqrt(n)

    # -- lines --------------------------------------------------------------------------------------------

    def _lines(self, files: Mapping[str, IO[bytes]]) -> None:
        told = self._task.told()
        while batch := list(islice(told, MANY)):
            ids = [one.row.doc_id for one in batch]
            docs = self._workspace.datasets.docs(self._task.registration.task_hash, ids)
            bodies = {doc.doc_id: doc.body for doc in docs}
            for one in batch:
                try:
                    made = dict(self._samples(one, bodies.get(one.row.doc_id)))
                    lines = {by: json.dumps(sample, ensure_ascii=False) for by, sample in made.items()}
                except ODD_DATA as error:
                    why = f"{type(error).__name__}: {escaped(str(error))}"
                    _log.warning("doc %d of task %r is left out: %s", one.row.doc_id, one.row.task, why)
                    continue
                for by, line in lines.items():
                    files[by].write(_encoded(line) + b"\n")
                    sample = made[by]
                    hashes = sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]
                    self._hashes[by].append("".join(hashes))
                    for metric in sample["metrics"]:
                        self._values.setdefault((metric, by), []).append(sample[metric])
                self._docs += bool(lines)

    def _samples(self, told: ToldDoc, body: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """By filter the sample of a doc with a score; nothing where the doc is not stored any more."""
        prompt, flags = told.prompt, self._task.registration.flags
        scores = {
            name: told.scores[name]
            for name in self._hashes
            if name in told.scores and told.scores[name].error is None and told.scores[name].metrics
        }
        if prompt is None or body is None or not scores:
            return
        doc = json.loads(body)
        target = str(prompt.target)
        arguments = [_arguments(request, flags.output_type) for request in prompt.requests]
        responses: list[list[Any]] = [[] for _ in prompt.requests]
        for idx, _, answer in told.said:
            if prompt.requests[idx].get("type") in TEXT_KINDS:
                responses[idx].append(answer.text or "")
            else:
                pair = [str(answer.logprob), str(answer.greedy)]
                responses[idx].append(pair[0] if flags.output_type == _ROLLING else pair)
        texts = prompt.requests[0].get("type") in TEXT_KINDS
        hashes = {
            "doc_hash": _sha256(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _sha256(_first(arguments[0][0])),
            "target_hash": _sha256(target),
        }
        of_requests = {
            f"gen_args_{i}": {f"arg_{j}": one for j, one in enumerate(of_one)}
            for i, of_one in enumerate(arguments)
        }
        for name, score in scores.items():
            yield (
                name,
                {
                    "doc_id": told.row.doc_id,
                    "doc": doc,
                    "target": target,
                    "arguments": of_requests,
                    "resps": responses,
                    "filtered_resps": _filtered(responses, score.extracted, texts),
                    "filter": name,
                    "metrics": list(score.metrics),
                    **hashes,
                    **score.metrics,
                },
            )


def _arguments(request: Mapping[str, Any], output_type: str) -> tuple[Any, ...]:
    """What lm-eval's models are given of a request; the messages of a chat are a list of one text there."""
    if request.get("type") == "get":
        return (str(request.get("path")),)
    if request.get("type") in TEXT_KINDS:
        context = request.get("prompt")
        if "messages" in request:
            context = [json.dumps(request["messages"], ensure_ascii=False)]
        return (context, request.get("generation", {}))
    if output_type == _ROLLING:
        return (request["continuation"],)
    return (request["context"], request["continuation"])


def _first(context: str | list[str]) -> str:
    return context if isinstance(context, str) else context[0]


def _filtered(responses: Sequence[Sequence[Any]], extracted: str | None, texts: bool) -> list[Any]:
    """What a filter left of the responses, one for each request; of log-probabilities the first.

    Of texts it is what is kept of it, cut at 1,000 characters, and nothing where nothing was kept.
    """
    if not texts:
        return [of_one[0] for of_one in responses if of_one]
    if extracted is None:
        return []
    if len(responses) == 1:
        return [extracted]
    try:
        parts = json.loads(extracted)
    except ValueError:
        parts = None
    return [str(part) for part in parts] if isinstance(parts, list) else [extracted]


def _config(name: str, registration: Registration) -> dict[str, Any]:
    """What is known here of a task's configuration, under lm-eval's names."""
    flags = registration.flags
    metrics = flags.metric_order or list(flags.metrics)
    return {
        "task": name,
        "test_split": registration.eval_split,
        "num_fewshot": flags.num_fewshot,
        "metric_list": [
            {
                "metric": metric,
                "aggregation": flags.metrics[metric].aggregation,
                "higher_is_better": flags.metrics[metric].higher_is_better,
            }
            for metric in metrics
        ],
        "output_type": flags.output_type,
        "repeats": flags.repeats,
        "filter_list": [{"name": one} for one in flags.filters],
        "metadata": {"version": _version(registration)},
    }


def _version(registration: Registration) -> float | str:
    try:
        return float(registration.flags.version)
    except ValueError:
        return registration.flags.version


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in values)


def _encoded(text: str) -> bytes:
    """JSON text as UTF-8: half a surrogate pair is its escape, which is what JSON has for it."""
    return text.encode("utf-8", "backslashreplace")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
