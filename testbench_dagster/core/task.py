"""One configured leaf task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from testbench_dagster.core.applicability import EVERYBODY, Applicability
from testbench_dagster.core.rules import PlanningRule
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.supplier import Supplier

LM_EVAL = "lm_eval"
SIGNATURES = "signatures"
#: lm-eval's multiple-choice tasks, asked as choices on chat; their names end in the mark.
CHAT_CHOICE = "chat_choice"
CHAT_CHOICE_MARK = "~chat"


#: Probes of an epoch where no number is configured: so many are prepared, and as many of the first of them
#: asked as the size of the roster takes.
MOST_PROBES = 160


#: Names of the limit of an answer's tokens in lm-eval's ``generation_kwargs``, and in what passes through it.
_LIMITS = ("max_gen_toks", "max_tokens", "max_new_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class TaskGeneration:
    """How a task is asked otherwise than its YAML says (``tasks[].generation``); None is as it says.

    ``max_tokens``, ``temperature``, ``top_p`` and ``stop`` are lm-eval's ``--gen_kwargs``: they replace what
    the YAML's ``generation_kwargs`` give, ``max_tokens`` the limit under whatever name, ``stop`` its
    ``until``. They concern requests for texts alone. ``system`` is lm-eval's ``--system_instruction``, which
    stands before every prompt, those of choices included. ``think_end_token`` says what of a text is the
    answer: with a text what follows its last occurrence, as lm-eval's model argument of this name does; with
    False all of it; else the tags that are known are looked for.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] | None = None
    system: str | None = None
    think_end_token: str | bool | None = None

    def settings(self) -> dict[str, Any]:
        """What is set, by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in found.items()
            if value is not None
        }

    def over(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """lm-eval's ``generation_kwargs`` with what is set here."""
        found = dict(arguments)
        if self.max_tokens is not None:
            found = {name: value for name, value in found.items() if name not in _LIMITS}
            found["max_gen_toks"] = self.max_tokens
        if self.temperature is not None:
            found["temperature"] = self.temperature
        if self.top_p is not None:
            found["top_p"] = self.top_p
        if self.stop is not None:
            found["until"] = list(self.stop)
        return found


@dataclass(frozen=True)
class TaskSpec:
    """One leaf task as configured.

    ``name`` is the partition key and the ``task`` of every stored document; ``leaf`` is the framework's name
    and ``root`` the configured name it was reached through (they differ for groups and tags, whose overrides
    apply). ``data`` maps a split to the absolute path of its local file; None means the hub.
    Docs with the same value in their column ``cluster`` may depend on each other. ``worst`` is what a failed
    doc counts as in a primary metric that has no bounds of its own. ``generation`` is how it is asked.
    ``options`` are what its framework is told beside all that.
    ``code_execution``: code that the model wrote may run in the sandbox (``allow_code_execution``).
    ``problem`` says why a name of the configuration, or a leaf of a group, is no task that can be prepared.
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
    generation: TaskGeneration = field(default=TaskGeneration(), repr=False)
    applies: Applicability = EVERYBODY
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    code_execution: bool = False
    problem: str | None = None

    def asked_of(self, supplier: Supplier) -> bool:
        """Whether the task is asked of a supplier, by the configuration: the one place that decides it."""
        return self.applies.why_not(supplier) is None

    @property
    def signs(self) -> bool:
        """Whether answers give a signature (a text), not numbers."""
        return self.framework == SIGNATURES

    def max_age(self, default_days: float) -> timedelta:
        """Age after which a sample of the task no longer counts: its own rule's, else so many days."""
        return timedelta(days=self.planning.max_age_days or default_days)
