"""Which tasks of lm-eval can be asked as choices on chat, by their definitions; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from testbench_dagster.tasks.index import Entry, raw_definition

_ACCURACY = ("acc", "acc_norm")


def task_refusal(config: Mapping[str, Any]) -> str | None:
    """Why a task, by its merged lm-eval configuration, cannot be asked as a choice on chat; None if it can.

    Looks at the definition alone, so it may also be asked of a raw YAML. A ``process_results`` of the task's
    own may still turn out to be no accuracy, which takes a doc to see.
    """
    kind = config.get("output_type") or "generate_until"
    if kind != "multiple_choice":
        return f"its output_type is {kind}, not multiple_choice"
    if config.get("doc_to_choice") is None:
        return "it has no doc_to_choice"
    names = [_name_of(entry) for entry in config.get("metric_list") or ()]
    if names and not any(name in _ACCURACY for name in names):
        return f"its metric is not accuracy ({', '.join(names[:4])})"
    others = [name for name in names if not name.startswith(_ACCURACY)]
    if config.get("process_results") is not None and others:
        return f"its metric is not accuracy alone ({', '.join(others[:4])})"
    return None


def _name_of(entry: Any) -> str:
    metric = entry.get("metric") if isinstance(entry, Mapping) else entry
    return metric if isinstance(metric, str) else str(getattr(metric, "__name__", metric))


def is_choice(entry: Entry) -> bool:
    """Whether an indexed task can be asked so, as far as its YAML tells; not one that cannot be read."""
    if entry.kind != "task" or entry.path is None:
        return False
    try:
        return _is_choice(entry.path, Path(entry.path).stat().st_mtime_ns)
    except OSError:
        return False


@lru_cache(maxsize=16_384)  # all of lm-eval's; reading one takes a millisecond
def _is_choice(path: str, _mtime_ns: int) -> bool:
    try:
        return task_refusal(raw_definition(Path(path))) is None
    except (OSError, ValueError, RecursionError):
        return False
