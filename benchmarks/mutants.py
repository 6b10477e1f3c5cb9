"""How many small faults put into a package its own tests notice (target: 90 % of a seeded sample of 200).

    python benchmarks/mutants.py [--seed 1] [--number 200] [--packages statistics ...] [--workers 2]

cosmic-ray lists the mutants: one comparison, operator, constant, `not`, `and` or `or` changed in one place.
Of all mutants of the packages, as many as asked for are drawn with the seed. Each is put into a copy of the
checkout (the checkout itself is never touched). There those tests run, quickest first and until one fails,
that execute the mutated line, of the package's folder and of that of the stage that uses it (`STAGES`). Which
tests execute which line is measured once, with coverage.py. What a module does when it is imported concerns
the tests that use it and those that look at it: the quickest of all run too. Where no test executes the line
itself, those that start other processes run. A mutant that makes the tests hang is killed too.

Each survivor is printed as a diff. Those that cannot be told from the original by what the package promises
are named with a reason in `equivalent_mutants.yaml` beside this file, and are left out of the share. An
entry that no mutant matches any more is an error.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import yaml
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = "testbench_dagster"
TESTS = "testbench_dagster_tests"
PACKAGES = (
    "coordination",
    "evidence",
    "identity",
    "planning",
    "relays",
    "scoring",
    "statistics",
    "taxonomies",
)
#: Where else a package is tested: by the stages that bring it and the stores together.
STAGES = {
    "evidence": "stages/dispute",
    "identity": "stages/identify",
    "planning": "stages/plan",
    "relays": "stages/relay",
    "scoring": "stages/score",
    "taxonomies": "stages/summarize",
}
EQUIVALENTS = Path(__file__).with_name("equivalent_mutants.yaml")
TARGET = 0.9

# Of cosmic-ray's operators those that change the meaning least, as the least change is the hardest to notice.
OPERATORS = (
    "core/ReplaceComparisonOperator_Lt_LtE",
    "core/ReplaceComparisonOperator_LtE_Lt",
    "core/ReplaceComparisonOperator_Gt_GtE",
    "core/ReplaceComparisonOperator_GtE_Gt",
    "core/ReplaceComparisonOperator_Eq_NotEq",
    "core/ReplaceComparisonOperator_NotEq_Eq",
    "core/ReplaceComparisonOperator_Is_IsNot",
    "core/ReplaceComparisonOperator_IsNot_Is",
    "core/ReplaceBinaryOperator_Add_Sub",
    "core/ReplaceBinaryOperator_Sub_Add",
    "core/ReplaceBinaryOperator_Mul_Div",
    "core/ReplaceBinaryOperator_Div_Mul",
    "core/ReplaceBinaryOperator_FloorDiv_Div",
    "core/ReplaceBinaryOperator_FloorDiv_Mul",
    "core/ReplaceBinaryOperator_Mod_FloorDiv",
    "core/ReplaceBinaryOperator_Pow_Mul",
    "core/ReplaceBinaryOperator_LShift_RShift",
    "core/ReplaceBinaryOperator_RShift_LShift",
    "core/ReplaceBinaryOperator_BitOr_BitAnd",
    "core/ReplaceBinaryOperator_BitAnd_BitOr",
    "core/ReplaceBinaryOperator_BitXor_BitOr",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/ReplaceUnaryOperator_Delete_USub",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/AddNot",
    "core/NumberReplacer",
)

# Imported once, before each mutant's process is forked: two seconds less for each.
PRELOADED = (
    "pytest",
    "hypothesis",
    "coverage",
    "numpy",
    "scipy.stats",
    "scipy.optimize",
    "pandas",
    "pyarrow",
    "pymongo",
    "aiohttp",
    "httpx",
    "coincurve",
    "pydantic",
    "sqlalchemy",
    "rich",
    "datasets",
    "matplotlib.pyplot",
    "statsmodels.stats.api",
    "anyio.pytest_plugin",
    "trio",
)
LEAST_SECONDS = 60.0  # a mutant's tests may take this long at least
SLOWER = 5.0  # else this many times what the same tests took without a mutant
MEMORY_BYTES = 8 << 30  # address space of a mutant's process
MOST_SECONDS = 30.0  # of the quickest tests run for what is executed on import
NO_TESTS = 5  # pytest's exit code when nothing was selected


@dataclass(frozen=True)
class Mutant:
    """One change in one place of a module."""

    module: str  # relative to the checkout
    operator: str
    occurrence: int  # among the places of the module where the operator applies
    line: int

    @property
    def package(self) -> str:
        """The folder below the package that the module is in."""
        return Path(self.module).parts[1]

    def code(self, source: str) -> str | None:
        """The module's text with the change, or nothing where that is no program or the same program."""
        try:
            changed = mutate_code(source, get_operator(self.operator)(), self.occurrence)
            if changed is None or ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)):
                return None
        except SyntaxError:
            return None
        return str(changed)


@dataclass
class Measured:
    """What the tests of one folder do when nothing is mutated."""

    seconds: dict[str, float] = field(default_factory=dict)  # of each test that passed
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)  # module -> line -> tests
    starting: set[str] = field(default_factory=set)  # tests that start processes

    def tests_for(self, module: str, lines: range | None) -> list[str]:
        """The tests to run for a mutant of the lines, quickest first.

        Where no test executes them in its own process, those that start others. What is executed on import
        concerns all tests: those that use the module run, and the quickest of the rest.
        """
        found = self.tests_of(module, lines)
        if found and lines is not None:
            return found
        order = sorted(self.seconds, key=lambda test: (self.seconds[test], test))
        if lines is not None:
            return [test for test in order if test in self.starting]
        total, using = accumulate(self.seconds[test] for test in order), set(found)
        return [t for t, seconds in zip(order, total, strict=True) if t in using or seconds <= MOST_SECONDS]

    def tests_of(self, module: str, lines: range | None) -> list[str]:
        """The tests that execute one of the lines (of any line where none are given), quickest first."""
        found = {
            test
            for line, tests in self.lines.get(module, {}).items()
            if lines is None or line in lines
            for test in tests
            if test in self.seconds
        }
        return sorted(found, key=lambda test: (self.seconds[test], test))


@dataclass(frozen=True)
class Result:
    """What became of one mutant."""

    mutant: Mutant
    killed: bool
    by: str  # the first test that failed, or why there is none
    seconds: float


# what can be mutated ------------------------------------------------------------------------------------


def never_run(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what is not executed: annotations, which stay text, and what only a type checker imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield node


def bare_stars(source: str) -> Iterator[tuple[int, int]]:
    """Yield where a star only says that parameters are named, which cosmic-ray takes for an operator."""
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.OP]
    yield from (
        one.start for one, following in pairwise(tokens) if (one.string, following.string) == ("*", ",")
    )


def mutants_of(checkout: Path, packages: Iterable[str]) -> Iterator[Mutant]:
    """Yield all mutants of the packages, in a fixed order."""
    for package in packages:
        for path in sorted((checkout / PACKAGE / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            lines = source.splitlines()
            spans = [
                ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
                for node in never_run(ast.parse(source))
                if isinstance(node, ast.expr | ast.stmt)
            ]
            stars = set(bare_stars(source))
            nodes = list(ast_nodes(get_ast(source)))
            for operator in OPERATORS:
                positions = get_operator(operator)().mutation_positions
                starts = [start for node in nodes for start, _ in positions(node)]
                for occurrence, (line, column) in enumerate(starts):
                    at = (line, len(lines[line - 1][:column].encode()))
                    if (line, column) not in stars and not any(first <= at < last for first, last in spans):
                        yield Mutant(str(path.relative_to(checkout)), operator, occurrence, line)


def executed_lines(source: str, line: int) -> range | None:
    """The lines of the statement that a line belongs to; nothing where it is executed on import."""
    inside, found = False, range(line, line + 1)
    statements = sorted(
        (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)),
        key=lambda node: node.lineno,
    )
    for node in statements:  # outer statements come before inner ones
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        if not first <= line <= (node.end_lineno or node.lineno):
            continue
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        found = range(first, max(first, last) + 1)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = line > last  # what stands above the body is executed with the definition
    return found if inside else None


# running tests ------------------------------------------------------------------------------------------


class Selection:
    """A pytest plugin: runs the named tests in their order and records what became of them."""

    def __init__(self, tests: list[str] | None, coverage: Any = None) -> None:
        self.order = {test: index for index, test in enumerate(tests)} if tests is not None else None
        self.coverage = coverage
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: list[str] = []
        self.starting: set[str] = set()  # tests that start processes
        self._running: str | None = None
        if coverage is not None:
            sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        # multiprocessing asks its fork server by a path
        asked = event == "socket.connect" and isinstance(arguments[1], str | bytes)
        if self._running and (asked or event in ("subprocess.Popen", "os.fork", "os.posix_spawn")):
            self.starting.add(self._running)

    def pytest_sessionstart(self, session: Any) -> None:
        """Look for failing examples only: neither the smallest is of interest nor what was found before."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate)
        parent = settings.get_profile("testbench")
        settings.register_profile("mutants", parent, phases=phases, database=None, derandomize=True)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.order is not None:
            order = self.order
            items[:] = sorted((i for i in items if i.nodeid in order), key=lambda i: order[i.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running = nodeid
        if self.coverage is not None:
            self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(f"import of {report.nodeid}")


def pytest_here(plugin: Selection, paths: Iterable[str], folder: Path, *options: str) -> int:
    """Run pytest in this process on the paths of the copy that is the current folder."""
    import pytest

    fixed = ["-o", "addopts=", "-m", "not slow", "-q", "--tb=line", "-p", "no:cacheprovider"]
    return int(pytest.main([*fixed, f"--basetemp={folder}", *options, *paths], plugins=[plugin]))


def measure(package: str, files: list[str], folder: Path) -> dict[str, Any]:
    """Run test files of the package once; returns the seconds of what passes and the tests of each line."""
    import coverage

    measured = coverage.Coverage(data_file=None, config_file=False, include=[f"{PACKAGE}/{package}/*"])
    plugin = Selection(None, measured)
    measured.start()
    pytest_here(plugin, files, folder)
    measured.stop()
    data = measured.get_data()
    lines = {
        str(Path(file).relative_to(Path.cwd())): {
            line: [test for test in tests if test] for line, tests in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    failed = set(plugin.failed)
    return {
        "seconds": {test: s for test, s in plugin.seconds.items() if test not in failed},
        "lines": lines,
        "failed": sorted(failed),
        "starting": sorted(plugin.starting),
    }


def test_folders(package: str) -> tuple[str, ...]:
    """The folders of tests that stand for a package."""
    return (package, STAGES[package]) if package in STAGES else (package,)


def compiled(packages: Iterable[str], folder: Path) -> dict[str, Any]:
    """Import the packages and their tests, which leaves their compiled code in the copy."""
    paths = [f"{TESTS}/{folder}" for package in packages for folder in test_folders(package)]
    return {"code": pytest_here(Selection(None), paths, folder, "--collect-only")}


def attempt(package: str, tests: list[str], folder: Path) -> dict[str, Any]:
    """Run the tests until one fails; says which."""
    plugin = Selection(tests)
    paths = sorted({test.partition("::")[0] for test in tests})
    code = pytest_here(plugin, paths, folder, "-x")
    return {"code": code, "by": (plugin.failed or [f"pytest ended with {code}"])[0]}


def forked(
    work: Callable[[], dict[str, Any]], copy: Path, seconds: float, *, compiling: bool = False
) -> dict[str, Any] | None:
    """What ``work`` returns in a process of its own that imports the copy; nothing when it hangs."""
    told, log = copy.parent / "told.json", copy.parent / "log.txt"
    told.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
            with log.open("wb") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            os.chdir(copy)
            sys.path.insert(0, str(copy))
            os.environ["PYTHONPATH"] = str(copy)  # the processes that tests start import the copy as well
            if not compiling:  # the compiled code of a mutant must not outlive it
                sys.dont_write_bytecode = True
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            told.write_text(json.dumps(work()), encoding="utf-8")
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGINT)  # lets pytest end what the tests started
                time.sleep(2)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.02)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what a failed test left behind
    if not told.exists():
        return {"code": 1, "by": "the process ended: " + log.read_text(errors="replace")[-200:].strip()}
    return dict(json.loads(told.read_text(encoding="utf-8")))


def judge(mutant: Mutant, measured: Measured, copy: Path) -> Result:
    """Put the mutant into the copy, run the tests, and put the module back."""
    path = copy / mutant.module
    source, times = path.read_text(encoding="utf-8"), path.stat()
    start = time.monotonic()
    tests = measured.tests_for(mutant.module, executed_lines(source, mutant.line))
    if not tests:
        return Result(mutant, False, "0 tests", 0.0)
    seconds = max(LEAST_SECONDS, SLOWER * sum(measured.seconds[test] for test in tests))
    code = mutant.code(source)
    assert code is not None
    path.write_text(code, encoding="utf-8")
    try:
        told = forked(lambda: attempt(mutant.package, tests, copy.parent / "tmp"), copy, seconds)
    finally:
        path.write_text(source, encoding="utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # its compiled code is valid again
    if told is None:
        return Result(mutant, True, f"no end within {seconds:.0f} s", time.monotonic() - start)
    killed = told["code"] not in (0, NO_TESTS)
    return Result(mutant, killed, told["by"] if killed else f"{len(tests)} tests", time.monotonic() - start)


# the whole run ------------------------------------------------------------------------------------------


def copied(checkout: Path, folder: Path) -> Path:
    """A copy of the checkout's tracked and new files."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=checkout, capture_output=True, check=True, text=True).stdout
    copy = folder / "checkout"
    for name in filter(None, names.split("\0")):
        if (checkout / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, copy / name)
    return copy


def fingerprints(checkout: Path, package: str) -> dict[str, str]:
    """For each test file of a package a hash of it, of what stands beside it, and of the package."""

    def digest(paths: Iterable[Path]) -> str:
        found = hashlib.sha256()
        for path in paths:
            found.update(f"{path.relative_to(checkout)}\0".encode() + path.read_bytes())
        return found.hexdigest()

    tests = sorted(
        path for folder in test_folders(package) for path in (checkout / TESTS / folder).rglob("*.py")
    )
    shared = [path for path in tests if not path.name.startswith("test_")]
    base = digest([*sorted((checkout / PACKAGE / package).rglob("*.py")), *shared])
    return {
        str(path.relative_to(checkout)): digest([path]) + base
        for path in tests
        if path.name.startswith("test_")
    }


def measured_package(package: str, copy: Path, keep: Path) -> Measured:
    """What the tests of a package do without a mutant: measured, or as kept where nothing changed."""
    kept_file = keep / f"{package}.json"
    kept = json.loads(kept_file.read_text(encoding="utf-8")) if kept_file.exists() else {}
    wanted = fingerprints(copy, package)
    stale = [file for file, mark in wanted.items() if kept.get(file, {}).get("mark") != mark]
    if stale:
        told = forked(lambda: measure(package, stale, copy.parent / "tmp"), copy, 3600.0)
        if not told or not told.get("seconds"):
            raise SystemExit(f"the tests of {package} cannot run: see {copy.parent / 'log.txt'}")
        for file in stale:
            kept[file] = {"mark": wanted[file], "seconds": {}, "lines": {}, "failed": [], "starting": []}
        for test, seconds in told["seconds"].items():
            kept[test.partition("::")[0]]["seconds"][test] = seconds
        for kind in ("failed", "starting"):
            for test in told[kind]:
                kept[test.partition("::")[0]][kind].append(test)
        for module, by_line in told["lines"].items():
            for line, tests in by_line.items():
                for test in tests:
                    lines = kept[test.partition("::")[0]]["lines"]
                    lines.setdefault(module, {}).setdefault(line, []).append(test)
        kept_file.write_text(json.dumps(kept), encoding="utf-8")
    found = Measured()
    for file in wanted:
        for test in kept[file]["failed"]:
            print(f"left out, as it fails without a mutant: {test}")
        found.seconds.update(kept[file]["seconds"])
        found.starting.update(kept[file]["starting"])
        for module, by_line in kept[file]["lines"].items():
            for line, tests in by_line.items():
                found.lines.setdefault(module, {}).setdefault(int(line), []).extend(tests)
    return found


def drawn(mutants: list[Mutant], seed: int, number: int, checkout: Path) -> list[Mutant]:
    """As many mutants as asked for, without those that are no program."""
    sources: dict[str, str] = {}
    shuffled = list(mutants)
    random.Random(seed).shuffle(shuffled)
    found: list[Mutant] = []
    for mutant in shuffled:
        if len(found) == number:
            break
        if mutant.module not in sources:
            sources[mutant.module] = (checkout / mutant.module).read_text(encoding="utf-8")
        if mutant.code(sources[mutant.module]) is not None:
            found.append(mutant)
    return found


def changed_lines(mutant: Mutant, checkout: Path) -> tuple[str, str]:
    """The lines that differ, before and after."""
    source = (checkout / mutant.module).read_text(encoding="utf-8")
    before, after = source.splitlines(), (mutant.code(source) or "").splitlines()
    index = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    return before[index].strip(), after[index].strip()


def diff(mutant: Mutant, checkout: Path) -> str:
    """The change as a unified diff with a line around it."""
    source = (checkout / mutant.module).read_text(encoding="utf-8")
    lines = difflib.unified_diff(
        source.splitlines(),
        (mutant.code(source) or "").splitlines(),
        mutant.module,
        mutant.module,
        "",
        "",
        1,
        "",
    )
    return "\n".join(list(lines)[2:])


def worker(original: Path, folder: Path, jobs: Any, results: Any, measured: dict[str, Measured]) -> None:
    """Judge mutants in an own copy until there are no more."""
    copy = Path(shutil.copytree(original, folder / original.name))
    while (mutant := jobs.get()) is not None:
        results.put(judge(mutant, measured[mutant.package], copy))


def judged(
    sample: list[Mutant], measured: dict[str, Measured], workers: int, original: Path
) -> Iterator[Result]:
    """Yield what became of each mutant, in the order in which they end."""
    forking = multiprocessing.get_context("fork")
    jobs, results = forking.Queue(), forking.Queue()
    for mutant in sample:
        jobs.put(mutant)
    processes = []
    for number in range(workers):
        jobs.put(None)
        folder = original.parent.with_name(f"worker{number}")
        work = (original, folder, jobs, results, measured)
        processes.append(forking.Process(target=worker, args=work))
        processes[-1].start()
    try:
        for _ in sample:
            yield results.get()
    finally:
        for process in processes:
            process.join(60)


def servers(stack: ExitStack, checkout: Path) -> None:
    """Start the databases once for all mutants; the tests would start them for each."""
    sys.path.insert(0, str(checkout))
    started = importlib.import_module(f"{TESTS}.servers")
    for name, server in (("MONGO", started.mongo_server), ("POSTGRES", started.postgres_server)):
        with suppress(started.ServerMissing):
            os.environ[f"TESTBENCH_TEST_{name}_URI"] = stack.enter_context(server())
    sys.path.remove(str(checkout))
    for name in [name for name in sys.modules if name.partition(".")[0] in (PACKAGE, TESTS)]:
        del sys.modules[name]  # a mutant's process imports its own


def main() -> None:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--number", type=int, default=200, help="mutants to draw; 0 takes all")
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--module", help="only modules whose path contains this")
    parser.add_argument(
        "--keep", type=Path, help="folder that keeps which test executes which line between runs"
    )
    parser.add_argument("--json", type=Path, help="file to write one object per mutant to")
    options = parser.parse_args()

    entries = equivalents(CHECKOUT)
    mutants = list(mutants_of(CHECKOUT, sorted(options.packages)))
    mutants = [m for m in mutants if (options.module or "") in m.module]
    sample = drawn(mutants, options.seed, options.number or len(mutants), CHECKOUT)
    print(f"{len(sample)} of {len(mutants)} mutants, seed {options.seed}", flush=True)

    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # what is there already need not be searched for garbage in each process
    results: list[Result] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))
        servers(stack, CHECKOUT)
        if (CHECKOUT.parent / "shared").is_dir():
            os.environ.setdefault("TESTBENCH_SHARED", str((CHECKOUT.parent / "shared").resolve()))
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
        packages = sorted({mutant.package for mutant in sample})
        original = copied(CHECKOUT, folder / "original")
        forked(lambda: compiled(packages, original.parent / "tmp"), original, 600.0, compiling=True)
        keep = options.keep or folder
        measured = {package: measured_package(package, original, keep) for package in packages}
        for result in judged(sample, measured, options.workers, original):
            results.append(result)
            if not len(results) % 25:
                print(f"{len(results)} judged", file=sys.stderr, flush=True)
            if not result.killed:
                print(
                    f"\nsurvived {result.by}: {result.mutant.operator}\n{diff(result.mutant, CHECKOUT)}",
                    flush=True,
                )
    if options.json:
        rows = [vars(r.mutant) | {"killed": r.killed, "by": r.by, "seconds": r.seconds} for r in results]
        options.json.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    report(results, entries)


def is_equivalent(entries: list[dict[str, str]], module: str, before: str, after: str) -> bool:
    """Whether a change of a line is named among those that cannot be told from the original."""

    def packed(text: str) -> str:
        return "".join(text.split())  # cosmic-ray sets spaces of its own

    return any(
        re.fullmatch(entry["pattern"], after) is not None
        if "pattern" in entry
        else (entry["file"], packed(entry["line"]), packed(entry["mutant"]))
        == (Path(module).name, packed(before), packed(after))
        for entry in entries
    )


def equivalents(checkout: Path) -> list[dict[str, str]]:
    """The entries of `equivalent_mutants.yaml`; ends the program where one is of a line that is not there."""
    entries: list[dict[str, str]] = yaml.safe_load(EQUIVALENTS.read_text(encoding="utf-8"))
    lines: dict[str, set[str]] = defaultdict(set)
    for path in (checkout / PACKAGE).rglob("*.py"):
        lines[path.name].update(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    for entry in entries:
        if "pattern" not in entry and entry["line"] not in lines[entry["file"]]:
            raise SystemExit(
                f"{EQUIVALENTS.name}: no {entry['file']} has the line {entry['line']!r}; correct it"
            )
    return entries


def report(results: list[Result], entries: list[dict[str, str]]) -> None:
    """Print the table; survivors that are named as equivalent are counted apart."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        kind = "killed"
        if not result.killed:
            module, changed = result.mutant.module, changed_lines(result.mutant, CHECKOUT)
            kind = "equivalent" if is_equivalent(entries, module, *changed) else "survived"
        counts[result.mutant.package][kind] += 1
        counts["all"][kind] += 1
    print("\n| package | drawn | killed | equivalent | survived | killed of those that differ |")
    print("|---|---|---|---|---|---|")
    for package, count in sorted(counts.items(), key=lambda item: (item[0] == "all", item[0])):
        differ = count["killed"] + count["survived"]
        share = f"{count['killed'] / differ:.1%}" if differ else "-"
        figures = (package, count.total(), count["killed"], count["equivalent"], count["survived"], share)
        print("| " + " | ".join(map(str, figures)) + " |")


if __name__ == "__main__":
    main()
