"""Values lm-eval computes, as JSON and BSON can hold them without loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from testbench_dagster.tasks.lm_eval_adapter.doc_json import tagged, untagged


def json_value(value: Any) -> Any:
    """Turn numpy scalars and arrays into Python numbers and lists, tuples into lists.

    What JSON has no form for is kept as docs keep it, integers beyond 64 bits as well.

    Raises:
        ValueError: it has no form there either.
    """
    return tagged(_without_numpy(value), for_bson=True)


def raw_values(values: Sequence[Any]) -> list[Any]:
    """What :func:`json_value` was given of each value, lists for tuples."""
    return [untagged(value) if isinstance(value, (list, dict)) else value for value in values]


def _without_numpy(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_without_numpy(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _without_numpy(v) for k, v in value.items()}
    return value
