"""What tasks that are not prepared yet will ask once they are: known of their rules, guessed of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbench_dagster.core.capabilities import cannot_answer
from testbench_dagster.core.sampling import common_docs
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import request_forms
from testbench_dagster.core.wording import counted
from testbench_dagster.planning.supplier import TaskFacts
from testbench_dagster.tasks.outline import Outline, outlines

_BOUNDLESS = 1_000_000_000  # docs of a task of which nobody knows how many it has
_PREPARED = "not prepared yet"


@dataclass(frozen=True)
class Estimate:
    """What a supplier would be asked of a task: docs and calls, or why that is not known, in words.

    ``unpriced``: it would be asked docs, and nobody knows yet how many.
    """

    docs: int
    calls: int
    reason: str
    unpriced: bool = False


class Estimates:
    """Estimates for tasks without a registration; what their definitions say is read once.

    ``probes``: how many probes the signatures of each task take that depend on the roster.
    """

    def __init__(self, specs: Sequence[TaskSpec], probes: Mapping[str, int]) -> None:
        self._outlines = outlines(specs) if specs else {}
        self._probes = probes

    def of(self, supplier: Supplier, spec: TaskSpec, facts: TaskFacts) -> Estimate:
        """Say what a supplier would be asked first of a task, everything being new."""
        outline = self._outlines[spec.name]
        if cannot_answer(
            supplier.api,
            outline.output_type,
            request_forms(outline.output_type, outline.forms),
            supplier.echo_logprobs,
        ):
            return Estimate(0, 0, f"{_PREPARED}; the supplier's API cannot answer this task")
        if facts.rule.gates:
            return Estimate(0, 0, f"{_PREPARED}; asked once its gates open")
        docs = self._docs(spec, outline)
        if docs is None:
            why = f"{_PREPARED}: all its docs are wanted, and nobody knows yet how many it has"
            return Estimate(0, 0, why, unpriced=True)
        if facts.rule.max_docs_per_run is not None:
            docs = min(docs, facts.rule.max_docs_per_run)
        about = "" if outline.known else "about "
        each = counted(outline.requests, "request")
        return Estimate(
            docs,
            docs * outline.requests,
            f"{_PREPARED}: at most {counted(docs, 'doc')} of {about}{each} each",
        )

    def _docs(self, spec: TaskSpec, outline: Outline) -> int | None:
        if spec.samples is not None:
            return common_docs(spec.samples, outline.most_docs or _BOUNDLESS, None)
        if spec.probes_by_roster:
            return min(self._probes.get(spec.name, 0), outline.most_docs or _BOUNDLESS)
        return outline.most_docs
