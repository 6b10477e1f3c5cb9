"""Frameworks as everybody but their own worker knows them: plugs, which are data, found by name.

A framework says which tasks there are and how they are asked and scored. Its plug tells what may be
configured and where its adapter is; the adapter (:class:`~testbench_dagster.tasks.adapter.TaskAdapter`) is
loaded in a process of its own. Another package adds one through the entry point group :data:`ENTRY_POINTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
_LIKE = {"version": "1", "adapter": "package.module:Class"}
#: Where our own plugs are; named, not imported, as those of other packages are.
_BUILTIN = {
    "lm_eval": "testbench_dagster.tasks.plugs:LM_EVAL",
    "signatures": "testbench_dagster.tasks.plugs:SIGNATURES",
    "chat_choice": "testbench_dagster.tasks.plugs:CHAT_CHOICE",
    "tools": "testbench_dagster.tasks.plugs:TOOLS",
    "twins": "testbench_dagster.tasks.plugs:TWINS",
    "fresh": "testbench_dagster.tasks.plugs:FRESH",
}
#: Those that ``tasks[].mode`` chooses, for tasks of another framework.
_OF_MODES = frozenset({"chat_choice"})


def _no_check(name: str, options: Mapping[str, Any]) -> None:
    """Anything goes."""


def _no_remark() -> str | None:
    """Nothing to tell."""
    return None


@dataclass(frozen=True, kw_only=True)
class FrameworkPlug:
    """One framework.

    ``name`` is what ``tasks[].framework`` calls it. ``version`` stands for all that builds its requests and
    scores their answers: with another one its tasks are registered anew. ``adapter`` is where its
    :class:`~testbench_dagster.tasks.adapter.TaskAdapter` is, as ``package.module:Class``. ``keys`` are the
    fields of ``tasks[]`` that mean something to it, beside :data:`COMMON_KEYS`. ``task_names`` gives the
    names of its tasks where these are a fixed few; None where registering says which there are. ``check``
    looks at a task's name and ``options`` and raises ValueError for what is wrong with them. ``remark`` says
    in one sentence what of this machine keeps it from scoring as it does elsewhere; None where nothing does.
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
    remark: Callable[[], str | None] = field(default=_no_remark, repr=False)
    output_type: str | None = "generate_until"
    forms: tuple[str, ...] = ()
    of_lm_eval: bool = False
    process: str = ""


def framework_names() -> tuple[str, ...]:
    """The names that ``tasks[].framework`` may have, our own first; loads none."""
    return tuple(name for name in (*_BUILTIN, *sorted(_others())) if name not in _OF_MODES)


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
    for problem in _plug_problems(plug):
        raise TaskError(f"framework {name!r}: its FrameworkPlug: {problem}")
    return plug


def _plug_problems(plug: FrameworkPlug) -> Iterator[str]:
    """What of a plug has a value that cannot be, in words with field, value and remedy."""
    for name, value in (("version", plug.version), ("adapter", plug.adapter)):
        if not isinstance(value, str) or not value:
            yield f"{name} is {value!r} ({type(value).__name__}); give a text, such as {_LIKE[name]!r}"
    if isinstance(plug.adapter, str) and ":" not in plug.adapter:
        yield f"adapter {plug.adapter!r} is no 'package.module:Class'; correct it"
    for name, values in (("keys", plug.keys), ("forms", plug.forms)):
        if isinstance(values, str) or not all(isinstance(one, str) for one in values):
            yield f"{name} is {values!r} ({type(values).__name__}); give a set of texts"
    for name, function in (
        ("task_names", plug.task_names),
        ("check", plug.check),
        ("remark", plug.remark),
    ):
        if not callable(function) and not (name == "task_names" and function is None):
            yield f"{name} is {function!r} ({type(function).__name__}); give a function"
    if unknown := sorted(set(plug.forms) - {"chat", "completions"}):
        yield f"forms has {unknown[0]!r}; there are: chat, completions"


def is_framework(name: str) -> bool:
    """Whether there is a framework of this name."""
    return name in _BUILTIN or name in _others()


@cache
def _others() -> Mapping[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS) if entry.name not in _BUILTIN}
