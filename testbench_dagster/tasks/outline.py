"""What the YAML of a task says of its requests, before anything of it is loaded; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.task import MOST_PROBES, TaskSpec
from testbench_dagster.tasks.index import TaskIndex, raw_definition
from testbench_dagster.tasks.signatures.framework import PAGES

#: Options of a multiple-choice doc where the YAML does not name them, as most tasks have.
USUAL_CHOICES = 4


@dataclass(frozen=True)
class Outline:
    """The requests of a task that is not prepared yet.

    ``output_type`` is their kind, ``forms`` are the request forms that its framework names. ``requests`` is
    how many a doc has, and ``known`` whether that is what its definition says: options of a choice may stand
    in the data. ``most_docs``: it has no more, if that is known.
    """

    output_type: str
    requests: int = 1
    known: bool = True
    most_docs: int | None = None
    forms: tuple[str, ...] = ()


def outlines(specs: Sequence[TaskSpec]) -> dict[str, Outline]:
    """What is known of tasks by their names; of those whose definition cannot be read a guess."""
    of_lm_eval = [spec for spec in specs if framework_plug(spec.framework).of_lm_eval]
    index = TaskIndex.load([Path(p) for p in dict.fromkeys(p for s in of_lm_eval for p in s.include)])
    return {spec.name: _signature(spec) if spec.signs else _outline(index, spec) for spec in specs}


def _signature(spec: TaskSpec) -> Outline:
    if spec.leaf in PAGES:
        return Outline("get", most_docs=1)
    return Outline("generate_until", most_docs=spec.probes or MOST_PROBES)


def _outline(index: TaskIndex, spec: TaskSpec) -> Outline:
    plug = framework_plug(spec.framework)
    if plug.output_type is not None:
        return Outline(plug.output_type, forms=plug.forms)
    entry = index.entries.get(spec.leaf)
    try:
        raw = {} if entry is None or entry.path is None else raw_definition(Path(entry.path))
    except (OSError, ValueError, RecursionError):  # preparing it says what is wrong
        raw = {}
    kind, repeats, choices = raw.get("output_type"), raw.get("repeats"), raw.get("doc_to_choice")
    output_type = kind if isinstance(kind, str) else "generate_until"
    times = repeats if isinstance(repeats, int) and repeats > 0 else 1
    if output_type != "multiple_choice":
        return Outline(output_type, times, known=bool(raw))
    if isinstance(choices, list) and choices:
        return Outline(output_type, times * len(choices))
    return Outline(output_type, times * USUAL_CHOICES, known=False)
