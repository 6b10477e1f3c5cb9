"""The versions that scores, plans and stored things depend on: of this package, and of those it uses."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import testbench_dagster
from testbench_dagster.core import versions

#: Packages of others that make requests, score answers or decide what follows, the first the likeliest to
#: be told: lm-eval and what its metrics import, what draws and judges fresh questions, what computes
#: intervals, what runs it all. One that is not installed is left out.
_OTHERS = (
    "lm-eval",
    "datasets",
    "dagster",
    "evaluate",
    "jinja2",
    "numpy",
    "scipy",
    "scikit-learn",
    "jsonschema",
    "langdetect",
    "nltk",
    "immutabledict",
    "sacrebleu",
    "rouge-score",
    "sympy",
    "math-verify",
    "latex2sympy2-extended",
    "antlr4-python3-runtime",
    "reasoning-gym",
)


def stated_versions(frameworks: Mapping[str, str]) -> dict[str, str]:
    """Versions by name; ``frameworks`` are those of other packages that tasks are configured with."""
    meaning = {
        f"{name.lower()} of testbench_dagster": str(value.number)
        for name, value in vars(versions).items()
        if isinstance(value, versions.Version)
    }
    return {
        "testbench_dagster": testbench_dagster.__version__,
        **meaning,
        **_others(),
        **{f"framework {name}": number for name, number in frameworks.items()},
    }


@lru_cache(maxsize=1)
def _others() -> dict[str, str]:
    """As they were when this was first asked: what a process has imported it keeps."""
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in _OTHERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
