"""The framework ``tools``: does a supplier call tools as it should, and answer in the form it is asked for?

Five starter tasks of our own, with data: ``tools_one`` (one tool, which fits), ``tools_several`` (one of
several fits), ``tools_parallel`` (several calls are wanted), ``tools_none`` (no tool fits) and
``tools_schema`` (JSON of a given schema). Other tasks are read from files: rows of this form, or the
questions of the Berkeley Function Calling Leaderboard.

Belongs here: rows, requests and verdicts of such tasks, and the generator of the starter data. Does not: how
a request travels, and how an answer is read from a supplier's body.
"""

from __future__ import annotations

from testbench_dagster.tasks.tools.starter import TASKS, read_docs
from testbench_dagster.tasks.tools.version import TOOLS_VERSION

__all__ = ["TASKS", "TOOLS_VERSION", "read_docs"]
