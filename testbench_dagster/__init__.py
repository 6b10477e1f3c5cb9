"""Measures language-model suppliers continuously: lm-eval scores with evidence, as Dagster assets.

Belongs here: the front door: `Testbench`, `rescore`, what metrics raise, and the version, imported on demand.
Does not: code of its own; what each folder holds says its own page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["ScorerUnavailable", "Testbench", "__version__", "rescore"]

if TYPE_CHECKING:
    from testbench_dagster.api import Testbench
    from testbench_dagster.core.errors import ScorerUnavailable
    from testbench_dagster.stages.dispute.rescore import rescore


def __getattr__(name: str) -> Any:
    # on demand: child processes that need one submodule should not pay for the stores
    if name == "Testbench":
        from testbench_dagster.api import Testbench  # 0.2 s

        return Testbench
    if name == "rescore":
        from testbench_dagster.stages.dispute.rescore import rescore  # 0.2 s

        return rescore
    if name == "ScorerUnavailable":
        from testbench_dagster.core.errors import ScorerUnavailable  # 1 ms

        return ScorerUnavailable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
