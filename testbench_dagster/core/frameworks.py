"""Frameworks as everybody but their own worker knows them: plugs, which are data, found by name.

A framework says which tasks there are and how they are asked and scored. Its plug tells what may be
configured and where its adapter is; the adapter (:class:`~testbench_dagster.tasks.adapter.TaskAdapter`) is
loaded in a process of its own. Another package adds one through the entry point group :data:`ENTRY_POINTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from testbench_dagster.core.errors import TaskError

#: The entry point group in which a package names the plugs of its frameworks.
ENTRY_POINTS = "testbench_dagster.frameworks"
#: What a task of every framework may be configured with, beside the plug's own ``keys``.
COMMON_KEYS = frozenset({"name", "framework", "alias", "planning", "services", "suppliers"})
#: Where our own plugs are; named, not imported, as those of other packages are.
_BUILTIN = {
    "lm_eval": "testbench_dagster.tasks.plugs:LM_EVAL",
    "signatures": "testbench_dagster.tasks.plugs:SIGNATURES",
    "chat_choice": "testbench_dagster.tasks.plugs:CHAT_CHOICE",
    "tools": "testbench_dagster.tasks.plugs:TOOLS",
}


def _no_check(name: str, options: Mapping[str, Any]) -> None:
    """Anything goes."""


@dataclass(frozen=True, kw_only=True)
class FrameworkPlug:
    """One framework.

    ``name`` is what ``tasks[].framework`` calls it. ``version`` stands for all that builds its requests and
    scores their answers: with another one its tasks are registered anew. ``adapter`` is where its
    :class:`~testbench_dagster.tasks.adapter.TaskAdapter` is, as ``package.module:Class``. ``keys`` are the
    fields of ``tasks[]`` that mean something to it, beside :data:`COMMON_KEYS`. ``task_names`` gives the
    names of its tasks where these are a fixed few; None where registering says which there are. ``check``
    looks at a task's name and ``options`` and raises ValueError for what is wrong with them.
    ``output_type`` and ``forms`` are those of its tasks' flags, for plans before a task is prepared; None
    where they differ from task to task. ``of_lm_eval``: its tasks are those of lm-eval's index, with groups,
    tags and ``task_paths``. ``process`` names the worker process that it shares with others; its own by
    default.
    """

    name: str
    version: str
    adapter: str
    keys: frozenset[str] = frozenset({"metric", "filter", "cluster", "worst", "samples", "options"})
    task_names: Callable[[], Sequence[str]] | None = None
    check: Callable[[str, Mapping[str, Any]], None] = field(default=_no_check, repr=False)
    output_type: str | None = "generate_until"
    forms: tuple[str, ...] = ()
    of_lm_eval: bool = False
    process: str = ""


def framework_names() -> tuple[str, ...]:
    """The names of all frameworks, our own first; loads none."""
    return tuple(dict.fromkeys((*_BUILTIN, *sorted(_others()))))


@cache
def framework_plug(name: str) -> FrameworkPlug:
    """The plug of a framework.

    Raises:
        TaskError: there is none of this name, or the package that has it cannot be loaded.
    """
    if name in _BUILTIN:
        module, _, attribute = _BUILTIN[name].partition(":")
        plug: object = getattr(import_module(module), attribute)
    elif (entry := _others().get(name)) is not None:
        try:
            plug = entry.load()
        except Exception as error:  # whatever a package of others does when it is imported
            raise TaskError(
                f"framework {name!r} cannot be loaded from {entry.value!r} ({type(error).__name__}: "
                f"{error}); mend or remove the package that provides it"
            ) from error
    else:
        raise TaskError(
            f"framework {name!r} is unknown; there are: {', '.join(framework_names())}; "
            "correct the name, or install the package that provides it"
        )
    if not isinstance(plug, FrameworkPlug):
        raise TaskError(
            f"framework {name!r}: its entry point names a {type(plug).__name__}, no FrameworkPlug"
        )
    if plug.name != name:
        raise TaskError(f"framework {name!r}: the FrameworkPlug of its entry point is named {plug.name!r}")
    if ":" not in plug.adapter:
        raise TaskError(f"framework {name!r}: its adapter {plug.adapter!r} is no 'package.module:Class'")
    return plug


def is_framework(name: str) -> bool:
    """Whether there is a framework of this name."""
    return name in framework_names()


@cache
def _others() -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in _BUILTIN}
