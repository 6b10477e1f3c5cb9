"""One configured leaf task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from testbench_dagster.core.rules import PlanningRule
from testbench_dagster.core.sampling import SampleRule

LM_EVAL = "lm_eval"
SIGNATURES = "signatures"


#: Probes of an epoch where no number is configured: so many are prepared, and as many of the first of them
#: asked as the size of the roster takes.
MOST_PROBES = 160


@dataclass(frozen=True)
class TaskSpec:
    """One leaf task as configured.

    ``name`` is the partition key and the ``task`` of every stored document; ``leaf`` is the framework's name
    and ``root`` the configured name it was reached through (they differ for groups and tags, whose overrides
    apply). ``data`` maps a split to the absolute path of its local file; None means the hub.
    Docs with the same value in their column ``cluster`` may depend on each other. ``worst`` is what a failed
    doc counts as in a primary metric that has no bounds of its own.
    ``probes`` of at most ``probe_tokens`` tokens are what the signature ``identity`` asks; where
    ``probes_by_roster``, as many of them as it takes to tell so many suppliers apart.
    """

    name: str
    leaf: str
    root: str
    group: str | None
    num_fewshot: int | None
    metric: str | None
    filter: str | None
    data: Mapping[str, str] | None
    where: Mapping[str, str]
    samples: SampleRule | None  # None: all docs
    include: tuple[str, ...] = ()
    planning: PlanningRule = field(default_factory=PlanningRule)
    framework: str = LM_EVAL
    probes: int | None = None
    probe_tokens: int | None = None
    probes_by_roster: bool = False
    cluster: str | None = None
    worst: float | None = None

    @property
    def signs(self) -> bool:
        """Whether answers give a signature (a text), not numbers."""
        return self.framework == SIGNATURES

    def max_age(self, default_days: float) -> timedelta:
        """Age after which a sample of the task no longer counts: its own rule's, else so many days."""
        return timedelta(days=self.planning.max_age_days or default_days)
