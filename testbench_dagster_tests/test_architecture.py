"""What holds the layers apart: light imports, one direction of dependency, declared packages, docstrings."""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import testbench_dagster

PACKAGE = Path(testbench_dagster.__file__).parent
ROOT = PACKAGE.parent

HEAVY = (
    "lm_eval",
    "datasets",
    "pandas",
    "matplotlib",
    "pyarrow",
    "numpy",
    "aiohttp",
    "uvloop",
    "httpx",
    "coincurve",
    "pymongo",
    "torch",
    "transformers",
    "nltk",
)


def modules() -> dict[str, Path]:
    """All modules of the package by dotted name, lm-eval's own task helpers left out."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, anywhere: bool = True) -> Iterator[str]:
    """Dotted names a module imports: anywhere in it, or only what its own import executes."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse if not anywhere else [*node.body, *node.orelse]
        elif anywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


def own(names: Iterator[str]) -> set[str]:
    """The modules of this package among imported names."""
    known = modules()
    return {name for name in names if name in known and name != "testbench_dagster"}


# --------------------------------------------------------------------------------------------- cost


@pytest.mark.slow
def test_the_code_location_stays_light(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At most one second of CPU above Dagster itself; the figure is printed by ``pytest -s``."""
    script = (
        "import json, sys, time\n"
        "import dagster\n"
        "bare, before = time.process_time(), set(sys.modules)\n"
        "import testbench_dagster.definitions as front\n"
        "own = time.process_time() - bare\n"
        "assert front.defs.resolve_all_job_defs()\n"
        "print(json.dumps([bare, own, sorted(set(sys.modules) - before)]))\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TESTBENCH_", "DAGSTER_"))}
    environment["TESTBENCH_CACHE_DIR"] = str(tmp_path / "cache")
    figures = []
    for _ in range(2):  # the first fills the index cache
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        bare, own_cost, loaded = json.loads(done.stdout)
        figures.append((bare, own_cost))
        assert not sorted({name.partition(".")[0] for name in loaded} & set(HEAVY))
    with capsys.disabled():
        print(f"\nCPU seconds (bare dagster, definitions): cold {figures[0]}, warm {figures[1]}")
    assert min(cost for _, cost in figures) <= max(1.0, figures[1][0])


@pytest.mark.parametrize(
    "module", ["testbench_dagster", "testbench_dagster.localnet", "testbench_dagster.errors"]
)
def test_child_processes_pay_for_nothing_they_do_not_need(module: str) -> None:
    script = f"import sys, {module}; print(sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {*HEAVY, "dagster", "sqlalchemy", "pydantic"}


# --------------------------------------------------------------------------------- who imports whom


def test_only_the_shell_imports_dagster() -> None:
    allowed = ("testbench_dagster.defs", "testbench_dagster.definitions", "testbench_dagster.cli")
    offenders = [
        name
        for name, path in modules().items()
        if any(re.match(r"dagster($|\.|_)", i) for i in imports(path)) and not name.startswith(allowed)
    ]
    assert offenders == []
    assert any("dagster" in set(imports(path)) for path in modules().values()), "the walk sees imports"


def test_only_the_adapter_imports_lm_eval() -> None:
    inside = ("testbench_dagster.tasks.lm_eval_adapter", "testbench_dagster.tasks.starter")
    offenders = [
        name
        for name, path in modules().items()
        if any(re.match(r"(lm_eval|datasets)($|\.)", i) for i in imports(path))
        and not name.startswith(inside)
        and name != "testbench_dagster.tasks.worker"  # the child process that owns the adapter
    ]
    assert offenders == []


def test_only_the_worker_imports_the_adapter() -> None:
    adapter = "testbench_dagster.tasks.lm_eval_adapter"
    users = {
        name
        for name, path in modules().items()
        if any(i.startswith(adapter) for i in imports(path)) and not name.startswith(adapter)
    }
    assert users == {"testbench_dagster.tasks.worker"}


#: What these libraries publish: modules whose names may be imported anywhere; "*" with what lies in them.
PUBLISHED = {
    "aiohttp": ("aiohttp", "aiohttp.abc", "aiohttp.web"),
    "coincurve": ("coincurve",),
    "dagster": ("dagster",),
    "dagster_postgres": ("dagster_postgres",),
    "lm_eval": ("lm_eval", "lm_eval.api.*"),
}

#: The one module for the private parts of each; beside its tests, a canary for those who raise the pin.
PRIVATE_PARTS = {
    "aiohttp": "testbench_dagster.relays.aiohttp_internals",
    "dagster": "testbench_dagster.defs.dagster_internals",
    "lm_eval": "testbench_dagster.tasks.lm_eval_adapter.internals",
}


def is_module(name: str) -> bool:
    """Whether a dotted name is an installed module, looked up without importing what it lies in."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    folders = (spec and spec.submodule_search_locations) or ()
    paths = [Path(folder, *rest) for folder in folders]
    return any(path.is_dir() or path.with_suffix(".py").is_file() for path in paths)


def private_imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports from these libraries that they do not publish."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for where, name in names:
            published = PUBLISHED.get(where.partition(".")[0])
            if published is None:
                continue
            module = f"{where}.{name}" if name and is_module(f"{where}.{name}") else where
            known = any(fnmatch.fnmatchcase(module, pattern) for pattern in published)
            if not known or name.startswith("_"):
                yield f"{where}.{name}".rstrip(".")


def test_private_parts_of_libraries_are_imported_in_one_module_each() -> None:
    found = {
        name: set(private_imports(ast.parse(path.read_text("utf-8")))) for name, path in modules().items()
    }
    outside = {name: parts for name, parts in found.items() if parts and name not in PRIVATE_PARTS.values()}
    assert outside == {}, f"import it from one of {', '.join(PRIVATE_PARTS.values())}"
    for library, module in PRIVATE_PARTS.items():
        assert {part.partition(".")[0] for part in found[module]} == {library}


@pytest.mark.parametrize(
    ("source", "private"),
    [
        ("from dagster._core.events import X", ["dagster._core.events.X"]),
        ("import dagster._daemon", ["dagster._daemon"]),
        ("from dagster import Field, _utils", ["dagster._utils"]),
        ("from aiohttp import client_proto, web", ["aiohttp.client_proto"]),
        ("from aiohttp.web import Request", []),
        ("from lm_eval.api.task import ConfigurableTask", []),
        ("from lm_eval import simple_evaluate, utils", ["lm_eval.utils"]),
        ("from coincurve.keys import PublicKey", ["coincurve.keys.PublicKey"]),
    ],
)
def test_what_is_private_is_told_from_what_is_published(source: str, private: list[str]) -> None:
    assert list(private_imports(ast.parse(source))) == private


def test_private_attributes_of_others_are_touched_in_those_modules_alone() -> None:
    """Attributes with one leading underscore that nothing in this package defines."""
    ours: set[str] = set()
    touched: set[tuple[str, str]] = set()
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                ours.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
            elif isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
                if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls"):
                    ours.add(node.attr)
                touched.add((module, ast.unparse(node)))
    others = {(module, use) for module, use in touched if use.rpartition(".")[2] not in ours}
    outside = {use for module, use in others if module not in PRIVATE_PARTS.values()}
    assert outside == {"os._exit"}, "a private attribute of a library; os._exit is documented"
    assert others > {(PRIVATE_PARTS["lm_eval"], "task._instances")}, "the walk sees attributes"


#: Each layer may import itself and those before it; every module has its place.
LAYERS = (
    ("errors", "tasks.lm_eval_version", "tasks.starter"),
    ("stores", "statistics"),
    (
        "identity.settings",
        "identity.kernel",
        "identity.evidence",
        "identity.pairs",
        "identity.mixtures",
        "identity.groups",
        "identity.proxies",
        "identity.changes",
    ),
    ("coordination",),
    (
        "relays.faults",
        "relays.shannon",
        "relays.messages",
        "relays.payload",
        "relays.answers",
        "relays.event_streams",
        "relays.report",
        "relays.allowances",
        "planning.rules",
        "network.addresses",
    ),
    ("config", "localnet", "tasks.resources", "network.chain"),
    ("planning", "taxonomies.model", "taxonomies.load", "taxonomies.tax_format", "taxonomies.yaml_format"),
    (
        "taxonomies.summary",
        "taxonomies.plots",
        "relays.limits",
        "relays.models",
        "relays.openings",
        "relays.aiohttp_internals",
        "relays.http",
        "relays.direct",
        "relays.transports",
        "relays.path",
        "relays.shannon.sessions",
        "relays.shannon.services",
        "relays.shannon.faults",
        "relays.shannon.calls",
        "relays.shannon.replays",
        "relays.shannon.transport",
        "relays.shannon.evidence",
        "relays.shannon.allowance",
        "relays.loops",
        "relays.lanes",
        "relays.engine",
        "relays.writer",
    ),
    (
        "tasks.index",
        "tasks.sources",
        "tasks.specs",
        "tasks.gates",
        "tasks.records",
        "tasks.frameworks",
        "tasks.signatures",
        "tasks.worker",
        "tasks.lm_eval_adapter",
        "tasks.local_data",
    ),
    ("tasks.unsupported",),
    ("workspace",),
    ("network",),
    ("tasks.catalogue", "relays.outcomes"),
    (
        "scoring.score",
        "scoring.signatures",
        "scoring.samples",
        "scoring.clusters",
        "scoring.pooled",
        "scoring.rows",
        "scoring.kept",
        "scoring.windows",
        "scoring.measured",
        "relays.probe",
    ),
    (
        "planning.sessions",
        "planning.remaining",
        "planning.planner",
        "planning.kept",
        "planning.wanted",
        "taxonomies.refresh",
        "taxonomies.pooling",
    ),
    ("identity.reading", "identity.stage", "identity.views", "identity.plots"),
    ("relays.collect",),
    ("leaderboard", "comparison", "export", "snapshots", "retention", "evidence"),
    ("defs", "api"),
    ("cli", "definitions"),
)


def layer(module: str) -> int:
    """Number of the layer a module belongs to, by its longest listed prefix."""
    name = module.removeprefix("testbench_dagster.")
    ranks = {
        prefix: rank
        for rank, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or name.startswith(f"{prefix}.")
    }
    return ranks[max(ranks, key=len)] if ranks else -1


def test_dependencies_point_one_way() -> None:
    rooms = ("identity", "planning", "relays", "scoring", "taxonomies", "tasks")
    packages = {f"testbench_dagster.{n}" for n in rooms}
    placed = [m for m in modules() if m != "testbench_dagster" and m not in packages]
    assert [m for m in placed if layer(m) < 0] == [], "give new modules a place in LAYERS"
    upward = [
        f"{module} imports {other}"
        for module in placed
        for other in own(imports(modules()[module])) - packages
        if layer(other) > layer(module)
    ]
    assert upward == []


def test_stores_know_nothing_above_them() -> None:
    for module, path in modules().items():
        if module.startswith("testbench_dagster.stores"):
            above = {i for i in own(imports(path)) if not i.startswith("testbench_dagster.stores")}
            assert above <= {"testbench_dagster.errors"}, module


def test_modules_import_each_other_without_cycles() -> None:
    """At import time; an import inside a function may close a circle."""
    graph = {name: own(imports(path, anywhere=False)) for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(graph[name]):
                # a package and what lies in it import each other: its __init__ has run or is running
                if name != other and not name.startswith(f"{other}."):
                    visit(other, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


# ------------------------------------------------------------------------------------ housekeeping


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name for name, path in modules().items() if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def test_every_room_says_what_belongs_in_it() -> None:
    for room in ("catalog", "network", "evaluation", "summaries"):
        text = (
            ast.get_docstring(ast.parse((PACKAGE / "defs" / room / "__init__.py").read_text("utf-8"))) or ""
        )
        assert "Belongs here:" in text, room
        assert "Does not:" in text, room


#: Imported without being declared: parts of the interface of a declared package that itself needs them.
COMES_WITH = {"markupsafe": "jinja2", "yarl": "aiohttp", "multidict": "aiohttp"}

#: Packages that are needed though no module of ours imports them.
NEEDED_UNSEEN = {
    "dagster-webserver": "the UI: `dagster dev` starts it",
    "psycopg2-binary": "SQLAlchemy's PostgreSQL driver",
    "langdetect": "imported by lm-eval's ifeval",
    "immutabledict": "imported by lm-eval's ifeval",
}


def test_declared_dependencies_are_those_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[\s<>=!~;\[]", entry, maxsplit=1)[0].lower() for entry in project["dependencies"]}
    providers = importlib.metadata.packages_distributions()
    used: set[str] = set()
    unknown: set[str] = set()
    for path in modules().values():
        for name in imports(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == "testbench_dagster":
                continue
            names = {provider.lower().replace("_", "-") for provider in providers.get(top, ())}
            used |= names & declared
            if not names & declared:
                unknown.add(top)
    assert unknown == set(COMES_WITH)
    for name, parent in COMES_WITH.items():
        assert any(
            re.match(rf"{name}\b", r, re.IGNORECASE) for r in importlib.metadata.requires(parent) or ()
        )
    assert declared - used == set(NEEDED_UNSEEN), "declared but not imported, or listed and imported"
