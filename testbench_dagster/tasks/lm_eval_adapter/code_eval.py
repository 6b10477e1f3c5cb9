"""Model-written code of lm-eval's tasks, run in the sandbox in place of this process.

Its tasks run code through the metric ``code_eval`` of `evaluate`, which would be loaded from the Hub and runs
answers in a forked child without walls, or through a copy of it in their own helpers (cruxeval). Both are
replaced here: what they call is :class:`CodeEval`, whose every candidate runs in
:mod:`~testbench_dagster.sandbox`. A task whose helpers run code in any other way is refused.

lm-eval asks for one doc at a time. :meth:`CodeEval.ahead` learns which programs a batch will ask for, by a
pass over it whose results are thrown away, and runs them on all processors while the batch is scored.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

from testbench_dagster.core.errors import SandboxError, ScorerUnavailable
from testbench_dagster.core.versions import CODE as CODE_VERSION
from testbench_dagster.sandbox.choice import CODE, CodeSandbox
from testbench_dagster.sandbox.programs import Limits, Ran, Reason
from testbench_dagster.sandbox.surroundings import python_version

#: What one candidate may use; part of what a score says it was made by.
LIMITS = Limits()
_METRIC = "code_eval"
#: A function of helpers that copied the metric's code, by the name of its first parameter.
_COPIED = {"check_correctness": "check_program"}
#: Calls and modules by which helpers would run code themselves.
_RUNS = frozenset({"exec", "eval"})
_STARTS = frozenset({"multiprocessing", "pty", "subprocess"})
_OF_OS = ("exec", "fork", "popen", "posix_spawn", "spawn", "startfile", "system")

#: Characters of why a program did not pass.
MAX_NOTE = 300
_WHY: Mapping[Reason, str] = {
    "done": "did not pass",
    "raised": "raised an error",
    "left early": "ended before its checks were through",
    "time": "took more time than it may",
    "memory": "wanted more memory than it may have",
    "output": "printed more than it may",
    "too large": "is larger than a program may be",
    "crashed": "crashed its Python",
    "forbidden": "was ended: it tried to trace its checks or to look into Python's own objects",
}

Program = tuple[str, str]
"""An answer and its checks."""


class CodeEval:
    """Stands in for the metric ``code_eval``: its ``compute`` gives what that one would.

    ``judged`` are the programs that run or have run for the present batch.
    """

    def __init__(self, sandbox: CodeSandbox = CODE) -> None:
        self.sandbox = sandbox
        self._asked: dict[Program, None] | None = None
        self._judged: dict[Program, Future[Ran]] = {}
        #: What came of the programs that were asked for since :meth:`told` was last called.
        self._told: list[Ran] = []
        #: Why one of them did not run; helpers may take that for an answer that fails.
        self._gone: ScorerUnavailable | None = None

    def compute(
        self,
        predictions: Sequence[Sequence[str]] = (),
        references: Sequence[str] = (),
        k: Sequence[int] = (1, 10, 100),
        **_: Any,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """Run each candidate with its reference; the shares that pass, and each candidate's result.

        pass@k is the estimate of Chen et al. 2021, "Evaluating Large Language Models Trained on Code",
        section 2.1: 1 - C(n - c, k) / C(n, k) for c of n candidates that pass, over the docs with n >= k.

        Raises:
            ScorerUnavailable: the sandbox does not work here now; says nothing of the answer.
        """
        results: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        for doc, (candidates, reference) in enumerate(zip(predictions, references, strict=True)):
            results[doc] = []
            for number, candidate in enumerate(candidates):
                ran = self._ran((str(candidate), str(reference)))
                said = "passed" if ran.passed else f"{ran.reason}: {ran.note}"
                told = {"task_id": doc, "passed": ran.passed, "result": said, "completion_id": number}
                results[doc].append((number, told))
        counts = [(len(found), sum(told["passed"] for _, told in found)) for found in results.values()]
        return {
            f"pass@{drawn}": sum(pass_at(n, c, drawn) for n, c in counts) / len(counts)
            for drawn in k
            if counts and all(n >= drawn for n, _ in counts)
        }, results

    def check(self, program: str, timeout: float = 0, **_: Any) -> bool:
        """Whether a program that holds its checks runs to its end; the limit of time is ours."""
        return self._ran((str(program), "")).passed

    def told(self) -> list[Ran]:
        """What came of the programs that were asked for since this was last called.

        Raises:
            ScorerUnavailable: one of them could not be run, whatever the helper that asked made of it.
        """
        found, gone = self._told, self._gone
        self.forget()
        if gone is not None:
            raise gone
        return found

    def forget(self) -> None:
        """What was asked for until now is of another answer."""
        self._told, self._gone = [], None

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Run nothing meanwhile: helpers try the metric while they are imported."""
        with self._asking({}):
            yield

    @contextmanager
    def ahead(self, ask: Callable[[], None]) -> Iterator[None]:
        """Run the programs that ``ask`` wants on all processors; meanwhile they are waited for, not run."""
        asked: dict[Program, None] = {}
        with self._asking(asked):
            ask()
        pool = ThreadPoolExecutor(workers(), thread_name_prefix="testbench-code")
        try:
            self._judged = {program: pool.submit(self._judge, program) for program in asked}
            yield
        finally:
            self._judged = {}
            pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def _asking(self, asked: dict[Program, None]) -> Iterator[None]:
        before, self._asked = self._asked, asked
        try:
            yield
        finally:
            self._asked = before
            self.forget()

    def _ran(self, program: Program) -> Ran:
        if self._asked is not None:
            self._asked[program] = None
            return Ran(exit=None, reason="left early")
        known = self._judged.get(program)
        try:
            ran = self._judge(program) if known is None else known.result()
        except ScorerUnavailable as gone:
            self._gone = gone
            raise
        self._told.append(ran)
        return ran

    def _judge(self, program: Program) -> Ran:
        try:
            return self.sandbox.sandbox().judge(*program, LIMITS)
        except SandboxError as error:
            raise ScorerUnavailable(f"the sandbox for model-written code does not work: {error}") from error


#: That of this process.
CODE_EVAL = CodeEval()


def why_not(ran: Sequence[Ran]) -> str | None:
    """Why programs did not pass, by the first that did not; None where all did, or there were none."""
    failed = [one for one in ran if not one.passed]
    if not failed:
        return None
    told = f"the program {_WHY[failed[0].reason]}"
    if len(ran) > 1:
        told = f"{len(failed)} of {len(ran)} programs did not pass; of the first of them: {told}"
    return f"{told} ({failed[0].note})" if failed[0].note else told


def workers() -> int:
    """Programs that run at once: one per processor that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pass_at(n: int, c: int, k: int) -> float:
    """The estimate of pass@k of a doc with ``c`` of ``n`` candidates that pass."""
    if n - c < k:
        return 1.0
    missed = 1.0
    for number in range(n - c + 1, n + 1):
        missed *= 1.0 - k / number
    return 1.0 - missed


def settings() -> dict[str, Any]:
    """What a verdict depends on beside answer and task: our own revision, limits, the Python that runs it."""
    return {**LIMITS.settings(), "python": python_version(), "code": CODE_VERSION.number}


def install() -> None:
    """Let helpers that load ``code_eval`` from `evaluate` get ours; all others get what they ask for."""
    # 1.9 s, which every helper that loads a metric pays anyway
    import evaluate

    own = evaluate.load
    if isinstance(own, partial) and own.func is _load:
        return
    evaluate.load = partial(_load, own)


def _load(own: Callable[..., Any], path: str, *arguments: Any, **named: Any) -> Any:
    return CODE_EVAL if path == _METRIC else own(path, *arguments, **named)


def confine(config: Mapping[str, Any]) -> str | None:
    """Lead what runs answers in a task's helpers into the sandbox; why that cannot be, or None.

    ``config`` is the merged configuration, its functions imported.
    """
    through = False
    for function in _functions(config):
        space = function.__globals__
        copied = [name for name, first in _COPIED.items() if _takes(space.get(name), first)]
        for name in copied:
            space[name] = CODE_EVAL.check
        own = any(space.get(name) == CODE_EVAL.check for name in _COPIED)
        file = inspect.getsourcefile(function)
        text = Path(file).read_text("utf-8", "replace") if file and os.path.isfile(file) else ""
        if not own and (means := runs_itself(text)):
            return f"{Path(file or '?').name} {means}"
        through = through or own or _METRIC in text
    return None if through else f"no helper of it calls {_METRIC}"


def _takes(value: object, first: str) -> bool:
    if not isinstance(value, FunctionType):
        return False
    return next(iter(inspect.signature(value).parameters), None) == first


def _functions(value: object) -> Iterator[FunctionType]:
    """The functions of a configuration, wherever they stand in it."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from _functions(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _functions(one)
    elif isinstance(value, partial):
        yield from _functions([value.func, value.args, value.keywords])
    elif isinstance(value, FunctionType):
        yield value


@lru_cache(maxsize=64)
def runs_itself(text: str) -> str | None:
    """By what a helper's code would run other code itself, in words; None where nothing of it does."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return "cannot be read"
    for node in nodes:
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in _RUNS:
                return f"calls {called.id}()"
            if (
                isinstance(called, ast.Attribute)
                and isinstance(called.value, ast.Name)
                and called.value.id == "os"
                and called.attr.startswith(_OF_OS)
            ):
                return f"calls os.{called.attr}()"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            )
            for name in names:
                if name.partition(".")[0] in _STARTS:
                    return f"imports {name}"
    return None
