"""Definitions of tasks, merged exactly as lm-eval's factory does; one that cannot be read stops no other."""

from __future__ import annotations

import ast
import difflib
import functools
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.core.errors import TaskError, TaskInputError
from testbench_dagster.core.task import LM_EVAL, TaskSpec
from testbench_dagster.tasks.index import TaskIndex, lm_eval_tasks, raw_definition
from testbench_dagster.tasks.lm_eval_adapter import code_eval
from testbench_dagster.tasks.lm_eval_adapter.internals import (
    LmEntry,
    LmKind,
    RecordingFactory,
    missing_function,
)
from testbench_dagster.tasks.resources import mentions, prepare_offline_resources
from testbench_dagster.tasks.sources import folders_state

_RUNS_CODE = (
    "task {name!r} runs code that the model wrote, and allow_code_execution is false; set it to true in "
    "testbench.yaml to run that code in a sandbox (docs/code.md), or remove the task"
)
_RUNS_CODE_ITSELF = (
    "task {name!r} runs code that the model wrote by means of its own, which no sandbox holds ({why}); "
    "remove the task from testbench.yaml, or let its helpers run code through evaluate's code_eval"
)
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    yaml.YAMLError,
)


def config_of(spec: TaskSpec) -> dict[str, Any]:
    """Return the merged configuration of a leaf task, or say why it cannot be relayed.

    Raises:
        TaskError: the task is unknown, cannot be read, or is of a kind that cannot be asked.
    """
    if spec.problem is not None:
        raise TaskInputError(spec.problem)
    code_execution = spec.framework == LM_EVAL and spec.code_execution
    found, of_code = _definitions(spec.root, spec.include, folders_state(spec.include), code_execution)
    if spec.leaf in found.problems:
        raise _problem(spec.leaf, found.problems[spec.leaf])
    if spec.leaf not in found.configs:
        raise TaskError(f"task {spec.leaf!r} is not part of {spec.root!r}")
    config: dict[str, Any] = copy_config(found.configs[spec.leaf])
    if config.get("unsafe_code") or spec.leaf in of_code:
        if not code_execution:
            raise TaskInputError(_RUNS_CODE.format(name=spec.leaf))
        if (why := code_eval.confine(config)) is not None:
            raise TaskInputError(_RUNS_CODE_ITSELF.format(name=spec.leaf, why=why))
        config["unsafe_code"] = True  # some of lm-eval's code tasks do not say so
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise TaskInputError(
            f"task {spec.leaf!r} needs images or audio, which relays do not carry; remove it"
        )
    return config


def copy_config(value: Any) -> Any:
    """Deep copy of containers only: functions in a configuration must keep their identity."""
    if isinstance(value, dict):
        return {k: copy_config(v) for k, v in value.items()}
    return [copy_config(v) for v in value] if isinstance(value, list) else value


@functools.lru_cache(maxsize=64)
def _definitions(
    root: str, include: tuple[str, ...], _state: str, code_execution: bool
) -> tuple[RecordingFactory, frozenset[str]]:
    """The configurations of the leaves of a name, what is wrong with the others, and which run code.

    ``_state`` is that of the ``include`` folders: a process that lives on sees that a YAML was edited.
    """
    index = TaskIndex.load([Path(p) for p in include], [root])
    kinds = {"task": LmKind.TASK, "python": LmKind.PY_TASK, "group": LmKind.GROUP, "tag": LmKind.TAG}
    registry = {
        e.name: LmEntry(
            e.name,
            kinds[e.kind],
            Path(e.path) if e.path else None,
            tags=set(e.members) if e.kind == "tag" else set(),
        )
        for e in index.entries.values()
    }
    leaves = index.leaves(root)
    of_code: set[str] = set()

    def check(name: str, path: Path | None) -> None:
        if check_before_import(name, path, code_execution=code_execution):
            of_code.add(name)

    factory = RecordingFactory(check)
    for leaf in leaves:
        if leaf.problem is not None:
            factory.problems[leaf.name] = TaskInputError(leaf.problem)
            registry.setdefault(leaf.name, LmEntry(leaf.name, LmKind.TASK, None))
    try:
        with code_eval.CODE_EVAL.idle():
            factory.record(registry[root], registry)
    except (ImportError, *_UNREADABLE) as error:
        raise _problem(root, error) from None
    return factory, frozenset(of_code)


def check_before_import(name: str, path: Path | None, *, code_execution: bool = False) -> bool:
    """Refuse what needs no look at its code, before that is imported: it may download things.

    Returns whether it runs code that the model wrote, as far as that is seen yet, which is refused unless
    ``code_execution``.
    """
    if path is None:
        return False
    # some of lm-eval's code tasks do not say so, but each has a folder of its own
    theirs = path.is_relative_to(lm_eval_tasks())
    of_code = bool(raw_definition(path).get("unsafe_code")) or (theirs and mentions(path.parent, "code_eval"))
    if of_code and not code_execution:
        raise TaskInputError(_RUNS_CODE.format(name=name))
    if code_execution:
        code_eval.install()  # also where the definition that it includes is of code
    prepare_offline_resources(path.parent, name)
    return of_code


def _problem(name: str, error: Exception) -> TaskError:
    if isinstance(error, TaskError):
        return error
    told = f"{type(error).__name__}: {str(error)[:300]}"
    if (named := missing_function(error)) is not None:
        return TaskInputError(f"task {name!r}: {_function_text(*named)}")
    if isinstance(error, ImportError):
        return TaskError(
            f"task {name!r} needs the Python package {error.name or str(error)!r}; install it "
            "(see lm-eval's documentation of the task)"
        )
    return TaskError(f"task {name!r}: lm-eval cannot build it from its YAML ({told})")


def _function_text(module: str, function: str, folder: Path) -> str:
    """What is wrong with a ``!function module.function`` of a YAML in a folder, and what may be meant."""
    said = f"its YAML in {folder} says `!function {module}.{function}`"
    file = folder / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        here = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
        hint = _near(module, here) or (f" (there is {', '.join(here[:5])})" if here else "")
        return f"{said}, but there is neither a file {file.name} beside it nor a module {module}{hint}"
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError):
        body = []
    functions = [part.name for part in body if isinstance(part, ast.FunctionDef)]
    hint = _near(function, functions) or (f" (it has {', '.join(functions[:5])})" if functions else "")
    return f"{said}, but {file.name} has no function {function}{hint}"


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
