"""Task objects of lm-eval: configurations merged as its factory does, data from our files or our store."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask

from testbench_dagster.core.errors import TaskError, TaskInputError
from testbench_dagster.core.prompt import TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.index import TaskIndex
from testbench_dagster.tasks.lm_eval_adapter.internals import LmEntry, LmKind, TaskFactory, reuse_templates
from testbench_dagster.tasks.local_data import read_rows
from testbench_dagster.tasks.resources import prepare_offline_resources
from testbench_dagster.tasks.sources import folders_state

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
        return [json.loads(text) for text in self._data.fewshot] or None


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
                super().download(dataset_kwargs, **kwargs)
            except Exception as error:
                raise TaskError(
                    f"task {spec.name!r}: its dataset {self.DATASET_PATH!r} cannot be loaded from the hub "
                    f"({type(error).__name__}: {str(error)[:300]}); "
                    "without network give local files under `tasks[].data` (docs/reference.md)"
                ) from None
        else:
            self.dataset = _LocalSplits(spec)

    def fewshot_docs(self) -> Any:
        """The few-shot pool; not even looked for at 0 shots."""
        return super().fewshot_docs() if self._shots else None


class _LocalSplits(dict[str, Any]):
    """Splits loaded on first use from the files of ``data:``."""

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__()
        self._spec = spec

    def __missing__(self, split: str) -> Any:
        spec = self._spec
        path = (spec.data or {}).get(split)
        if path is None:
            raise TaskInputError(
                f"task {spec.name!r} needs its split {split!r}, which data: does not give "
                f"(it gives {', '.join(spec.data or ())}); add {split}: <file>"
                + (
                    ""
                    if spec.num_fewshot == 0
                    else ", or set num_fewshot: 0 if it only serves few-shot examples"
                )
            )
        rows = read_rows(Path(path), spec.where)
        _check_columns(rows, path)
        try:
            self[split] = Dataset.from_list(rows)
        except Exception as error:  # pyarrow: values of one column have different types
            raise TaskInputError(f"{path}: the rows do not form one table: {str(error)[:300]}") from None
        return self[split]

    def __contains__(self, split: object) -> bool:
        return split in (self._spec.data or {})


def _check_columns(rows: Sequence[Mapping[str, Any]], path: str) -> None:
    # a table would silently fill the gap with null, and the prompt would then say "None"
    columns = set().union(*rows)
    for number, row in enumerate(rows, 1):
        if missing := columns.difference(row):
            raise TaskInputError(
                f"{path}: row {number} has no column {sorted(missing)[0]!r}, which other rows have; "
                "add it, or write null where it is meant to be empty"
            )


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
        return json.loads(text)

    def __len__(self) -> int:
        return max(self._docs) + 1


class _Recorder:
    """Stands in for a task class while the factory merges configurations, and only notes the result."""

    configs: dict[str, dict[str, Any]] | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        if _Recorder.configs is None:
            raise RuntimeError("configurations are recorded while the factory builds, not at other times")
        self.task_name = config["task"]
        config.pop("class", None)
        _Recorder.configs[self.task_name] = config


@functools.lru_cache(maxsize=64)
def _configs(root: str, include: tuple[str, ...], _state: str) -> dict[str, dict[str, Any]]:
    """Leaf name → merged configuration, exactly as lm-eval's factory merges groups, tags and includes.

    ``_state`` is that of the ``include`` folders: a process that lives on sees that a YAML was edited.
    """
    index = TaskIndex.load([Path(p) for p in include], [root])
    kinds = {"task": LmKind.TASK, "python": LmKind.PY_TASK, "group": LmKind.GROUP, "tag": LmKind.TAG}
    registry = {
        e.name: LmEntry(
            e.name,
            kinds[e.kind],
            Path(e.path) if e.path else None,
            tags=set(e.members) if e.kind == "tag" else set(),
        )
        for e in index.entries.values()
    }
    if root not in registry:
        raise TaskError(f"unknown task {root!r}")
    for path in {str(leaf.entry.path) for leaf in index.leaves(root) if leaf.entry}:
        prepare_offline_resources(Path(path).parent, root)
    _Recorder.configs = {}
    try:
        TaskFactory().build(registry[root], overrides={"class": _Recorder}, registry=registry)
        return _Recorder.configs
    except ImportError as error:
        raise TaskError(
            f"task {root!r} needs the Python package {error.name or str(error)!r}; install it "
            "(see lm-eval's documentation of the task)"
        ) from None
    except (AttributeError, KeyError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise TaskError(
            f"task {root!r}: lm-eval cannot build it from its YAML "
            f"({type(error).__name__}: {str(error)[:300]})"
        ) from None
    finally:
        _Recorder.configs = None


def config_of(spec: TaskSpec) -> dict[str, Any]:
    """Return the merged configuration of a leaf task, or say why it cannot be relayed."""
    configs = _configs(spec.root, spec.include, folders_state(spec.include))
    if spec.leaf not in configs:
        raise TaskError(f"task {spec.leaf!r} is not part of {spec.root!r}")
    config: dict[str, Any] = copy_config(configs[spec.leaf])
    if config.get("unsafe_code"):
        raise TaskInputError(
            f"task {spec.leaf!r} runs code that the model wrote; this version has no sandbox for it, "
            "remove the task from testbench.yaml"
        )
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise TaskInputError(
            f"task {spec.leaf!r} needs images or audio, which relays do not carry; remove it"
        )
    return config


def copy_config(value: Any) -> Any:
    """Deep copy of containers only: functions in a configuration must keep their identity."""
    if isinstance(value, dict):
        return {k: copy_config(v) for k, v in value.items()}
    return [copy_config(v) for v in value] if isinstance(value, list) else value


def shots_of(config: Mapping[str, Any], spec: TaskSpec) -> int:
    """Number of few-shot examples by simple_evaluate's rule: a 0 in the YAML is final, unset means 0."""
    own = config.get("num_fewshot")
    if own == 0:
        return 0
    return spec.num_fewshot if spec.num_fewshot is not None else own or 0


def finish(task: ConfigurableTask, shots: int) -> None:
    """Apply what simple_evaluate sets after building a task: shots and the few-shot seed."""
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
    finish(task, shots)
    return task
