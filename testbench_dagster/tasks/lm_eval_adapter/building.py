"""Task objects of lm-eval, with data from our files or our store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api.task import ConfigurableTask

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.prompt import TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.lm_eval_adapter.definitions import config_of
from testbench_dagster.tasks.lm_eval_adapter.doc_json import load_doc
from testbench_dagster.tasks.lm_eval_adapter.internals import only_cached_data, reuse_templates
from testbench_dagster.tasks.lm_eval_adapter.local_splits import LocalSplits
from testbench_dagster.tasks.lm_eval_adapter.outages import is_outage

FEWSHOT_SEED = 1234  # lm_eval.simple_evaluate's default

reuse_templates()
logging.getLogger("lm_eval").setLevel(logging.ERROR)


class StoredTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval is not typed
    """A task whose eval docs and few-shot pool come from the dataset store."""

    def __init__(self, config: dict[str, Any], data: TaskData) -> None:
        self._data = data
        self._docs = _Docs(data.docs, data.flags.features)
        super().__init__(config=config)
        self._docs.probing = False
        # doc 0 of the whole split decided these at registration; a subset may probe another doc
        self.features = list(data.flags.features)
        self.multiple_input = data.flags.multiple_input
        self.multiple_target = data.flags.multiple_target

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load nothing: the docs are there."""
        self.dataset = None

    @property
    def eval_docs(self) -> Any:
        """The stored, already processed docs."""
        return self._docs

    def fewshot_docs(self) -> Any:
        """The stored few-shot pool."""
        # None leaves the task without a sampler, which 0-shot never uses
        return [load_doc(text) for text in self._data.fewshot] or None


class _Hub:
    """Whether the hub could be reached lately: a vain try takes half a minute, and tasks are many."""

    def __init__(self) -> None:
        self._gone_at: float | None = None

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Load from it; where another task found it gone a moment ago, only from what is cached."""
        if self._gone_at is not None and time.monotonic() - self._gone_at < _HUB_REST_S:
            with only_cached_data():
                yield
            return
        try:
            yield
        except Exception as error:
            if is_outage(error):
                self._gone_at = time.monotonic()
            raise


_HUB_REST_S = 60.0
_HUB = _Hub()


class SourceTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval is not typed
    """A task that loads its data from local files, or from the hub as stock lm-eval does."""

    def __init__(self, config: dict[str, Any], spec: TaskSpec) -> None:
        self._spec = spec
        self._shots = shots_of(config, spec)
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Load from the files of ``data:``, else from the hub."""
        spec = self._spec
        if spec.data is None:
            try:
                with _HUB.reached():
                    super().download(dataset_kwargs, **kwargs)
            except Exception as error:
                raise TaskError(
                    f"task {spec.name!r}: its dataset {self.DATASET_PATH!r} cannot be loaded from the hub "
                    f"({type(error).__name__}: {str(error)[:300]}); "
                    "without network give local files under `tasks[].data` (docs/reference.md)"
                ) from None
        else:
            self.dataset = LocalSplits(spec)

    def fewshot_docs(self) -> Any:
        """The few-shot pool; not even looked for at 0 shots."""
        return super().fewshot_docs() if self._shots else None


class _Docs(Sequence[Any]):
    """Docs by id with the face of a ``datasets.Dataset``; every access decodes a fresh doc."""

    def __init__(self, docs: Mapping[int, str], features: Sequence[str]) -> None:
        self._docs = docs
        self.probing = True  # while lm-eval builds the task, it looks at doc 0
        self.features = dict.fromkeys(features)

    def __getitem__(self, doc_id: Any) -> Any:
        text = self._docs.get(doc_id)
        if text is None and doc_id == 0 and self.probing:
            text = self._docs[min(self._docs)]  # any doc will do: the flags it decides are restored
        if text is None:
            raise IndexError(doc_id)
        return load_doc(text)

    def __len__(self) -> int:
        return max(self._docs) + 1


def shots_of(config: Mapping[str, Any], spec: TaskSpec) -> int:
    """Number of few-shot examples by simple_evaluate's rule: a 0 in the YAML is final, unset means 0."""
    own = config.get("num_fewshot")
    if own == 0:
        return 0
    return spec.num_fewshot if spec.num_fewshot is not None else own or 0


def finish(task: ConfigurableTask, spec: TaskSpec, shots: int) -> None:
    """Apply what simple_evaluate sets after building a task: ``gen_kwargs``, shots, the few-shot seed."""
    if task.OUTPUT_TYPE == "generate_until" and spec.generation.settings():
        arguments = spec.generation.over(task.config.generation_kwargs or {})
        task.set_config(key="generation_kwargs", value=arguments)
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)


def excludes_itself(task: ConfigurableTask) -> bool:
    """Whether lm-eval keeps a doc out of its own few-shot examples; true also where neither split is set."""
    return bool(task.fewshot_cfg.split == task.config.test_split)


def stored_task(spec: TaskSpec, data: TaskData) -> ConfigurableTask:
    """Build a task over stored docs; takes about a millisecond."""
    config = config_of(spec)
    shots = shots_of(config, spec)
    task = StoredTask(config, data)
    finish(task, spec, shots)
    return task
