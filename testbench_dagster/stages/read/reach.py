"""The configured tasks, and who can be asked them: what the catalog says of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from testbench_dagster.core.capabilities import is_unsupported
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Api
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.sample.set_aside import tasks_set_aside
from testbench_dagster.stages.workspace import Workspace


@dataclass(frozen=True)
class CatalogTask:
    """A configured task with what it was registered as, and how many suppliers it reaches.

    ``asked``: of how many active suppliers the configuration has it asked; ``able``: how many of these can
    take its requests. ``problem`` says why it is set aside.
    """

    spec: TaskSpec
    registration: Registration | None
    asked: int
    able: int
    suppliers: int
    problem: str | None

    @property
    def metric(self) -> tuple[str | None, str | None]:
        """The metric and filter that count, where they are known."""
        if self.registration is None or self.spec.signs:
            return self.spec.metric, self.spec.filter
        return primary_pair(self.spec, self.registration)


def catalog(
    workspace: Workspace, suppliers: Iterable[Supplier], name: str | None = None
) -> list[CatalogTask]:
    """Return the configured tasks in configured order, with their reach among the active suppliers.

    Only the one of that ``name``, where one is given.
    """
    active = [s for s in suppliers if s.left_at is None]
    forms = Counter((s.api, s.echo_logprobs) for s in active)
    specs = [spec for spec in workspace.specs if name in (None, spec.name)]
    current = {r.task: r for r in workspace.datasets.tasks({spec.name for spec in specs})}
    aside = tasks_set_aside(workspace, specs)
    return [
        _task(spec, current.get(spec.name), active, forms, spec.problem or aside.get(spec.name))
        for spec in specs
    ]


def _task(
    spec: TaskSpec,
    registration: Registration | None,
    active: Sequence[Supplier],
    forms: Mapping[tuple[Api, bool | None], int],
    problem: str | None,
) -> CatalogTask:
    if not spec.applies.for_everybody:
        forms = Counter((s.api, s.echo_logprobs) for s in active if spec.asked_of(s))
    asked = sum(forms.values())
    able = asked
    if registration is not None:
        able = sum(n for (api, echo), n in forms.items() if not is_unsupported(api, registration, echo))
    return CatalogTask(spec, registration, asked, able, len(active), problem)
