"""What ``testbench check`` finds of who is asked what: tasks nobody is asked or can answer, patterns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from testbench_dagster.config import unmatched_pattern
from testbench_dagster.core.capabilities import LETTERS_ARE_FOR_CHAT, cannot_answer
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.prompt import TEXT_KINDS
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import CHAT_CHOICE_MARK, LM_EVAL, TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.workspace import Workspace

_TOLD = 3  # suppliers named in a line
_SETTINGS = "tasks[].services, tasks[].suppliers or suppliers[].tasks"


def asked_findings(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    flags: Mapping[str, TaskFlags],
    echo: Mapping[str, bool | None],
) -> Iterator[Finding]:
    """What is asked of nobody, and what nobody who is asked can answer; nothing is sent for it.

    That nothing at all can be answered is a problem, everything else a warning.

    Args:
        workspace: the installation.
        suppliers: those that are active.
        flags: by task how it is asked, where that is known.
        echo: by supplier whether it echoes log-probabilities, where that was just found out; else what the
            roster knows counts.
    """
    if not suppliers:
        return
    yield from _pattern_findings(workspace, suppliers)
    known = [
        supplier if (found := echo.get(supplier.key)) is None else replace(supplier, echo_logprobs=found)
        for supplier in suppliers
    ]
    names = {spec.name for spec in workspace.specs}
    tasks = [
        _Task(spec, flags.get(spec.name), known, by_letters=f"{spec.name}{CHAT_CHOICE_MARK}" in names)
        for spec in workspace.specs
    ]
    hopeless = not any(task.able for task in tasks)
    for task in tasks:
        yield from task.findings(hopeless=hopeless)
    for supplier in known:
        yield from _supplier_findings(supplier, tasks)


class _Task:
    """A task, of whom it is asked, and who of them takes no requests of its kind."""

    def __init__(
        self, spec: TaskSpec, flags: TaskFlags | None, suppliers: Sequence[Supplier], *, by_letters: bool
    ) -> None:
        """``by_letters``: others are asked it as a choice on chat."""
        self.spec, self.suppliers, self.by_letters = spec, suppliers, by_letters
        self.kind = "" if flags is None else flags.output_type
        self.chat_alone = self.kind in TEXT_KINDS
        self.asked = [supplier for supplier in suppliers if spec.asked_of(supplier)]
        self.unable = [
            s
            for s in self.asked
            if flags is not None
            and cannot_answer(s.api, flags.output_type, flags.request_forms, s.echo_logprobs)
        ]
        self.able = {s.key for s in self.asked} - {s.key for s in self.unable}

    def findings(self, *, hopeless: bool) -> Iterator[Finding]:
        """``hopeless``: there is no task that anybody can answer."""
        what = f"task {self.spec.name}"
        if not self.asked:
            first = self.suppliers[0]
            why = f"of {first.key}, {self.spec.applies.why_not(first)}"
            remedy = f"correct {_SETTINGS}, or remove it"
            if self.spec.applies.chat_alone and all(s.api != "chat" for s in self.suppliers):
                remedy = "set api: chat for a supplier that serves it, or remove choices_on_chat"
            detail = f"is asked of no supplier ({why}); {remedy}"
            yield Finding(what, detail, ok=False, warning=not hopeless)
        elif not self.able:
            detail = f"no supplier that is asked it can answer it: {self._why()}; {self._remedy()}"
            yield Finding(what, detail, ok=False, warning=not hopeless)
        elif self.unable:
            n = f"{len(self.unable)} of {counted(len(self.asked), 'supplier')}"
            yield Finding(what, f"{n} cannot answer it: {self._why()}; their rows say unsupported")

    def _why(self) -> str:
        if self.chat_alone:
            return f"it is asked as a chat, and the API of {_listed([s.key for s in self.unable])} is another"
        chat = [s.key for s in self.unable if s.api == "chat"]
        silent = [s.key for s in self.unable if s.api != "chat"]
        parts = [
            *([f"no chat API gives ({_listed(chat)})"] if chat else []),
            *([f"{_listed(silent)} {'does' if len(silent) == 1 else 'do'} not echo"] if silent else []),
        ]
        letters = LETTERS_ARE_FOR_CHAT if silent and self.by_letters else ""
        return (
            f"its requests ({self.kind}) want log-probabilities of given texts, which {' and '.join(parts)}"
            f"{letters}"
        )

    def _remedy(self) -> str:
        if self.chat_alone:
            return "set api: chat for a supplier that serves it, or remove the task"
        by_letters = self.kind == "multiple_choice" and self.spec.framework == LM_EVAL
        first = "ask it as a choice of letters (mode: chat_choice), " if by_letters else ""
        return (
            f"{first}take a task that generates its answers (generate_until), add a supplier with api: "
            "completions that echoes log-probabilities, or remove it"
        )


def _supplier_findings(supplier: Supplier, tasks: Sequence[_Task]) -> Iterator[Finding]:
    asked = [task for task in tasks if task.spec.asked_of(supplier)]
    if not asked and tasks:
        first = tasks[0].spec
        detail = (
            f"is asked no task (of {first.name}, {first.applies.why_not(supplier)}); correct {_SETTINGS}, or "
            "remove it"
        )
        yield Finding(f"supplier {supplier.key}", detail, ok=False, warning=True)
    elif asked and not any(supplier.key in task.able for task in asked) and any(t.able for t in tasks):
        detail = (
            "can answer no task that it is asked; leave it out of them with tasks[].services or "
            "suppliers[].tasks, or give it tasks that generate their answers"
        )
        yield Finding(f"supplier {supplier.key}", detail, ok=False, warning=True)


def _pattern_findings(workspace: Workspace, suppliers: Sequence[Supplier]) -> Iterator[Finding]:
    """Patterns that match nobody whom the sources list now; where all is configured they are errors."""
    settings = workspace.config.settings
    services = [*(supplier.service for supplier in suppliers), *settings.services]
    keys = [supplier.key for supplier in suppliers]
    for position, task in enumerate(settings.tasks):
        for name, patterns, known in (
            ("services", task.services, services),
            ("suppliers", task.suppliers, keys),
        ):
            if problem := unmatched_pattern(patterns, known, f"{name} on the roster"):
                yield Finding(f"tasks[{position}].{name}", problem, ok=False, warning=True)


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _TOLD} more" if len(keys) > _TOLD else ""
    return f"{', '.join(keys[:_TOLD])}{more}"
