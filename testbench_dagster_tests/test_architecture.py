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
from functools import cache
from pathlib import Path

import pytest

import testbench_dagster
from testbench_dagster_tests.core.reaching import parsed

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


@cache
def modules() -> dict[str, Path]:
    """All modules of the package by dotted name, lm-eval's own task helpers left out."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def names_in(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[str]:
    """Dotted names an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    assert not node.level, f"{path} imports relatively"
    assert node.module
    yield node.module
    yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(path: Path, *, anywhere: bool = True) -> Iterator[str]:
    """Dotted names a module imports: anywhere in it, or only what its own import executes."""
    todo: list[ast.AST] = [parsed(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from names_in(node, path)
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
        # Dagster's storages are half a second of it, and no definition needs them
        assert not sorted({name.partition(".")[0] for name in loaded} & {*HEAVY, "sqlalchemy", "alembic"})
    with capsys.disabled():
        print(f"\nCPU seconds (bare dagster, definitions): cold {figures[0]}, warm {figures[1]}")
    assert min(cost for _, cost in figures) <= max(1.0, figures[1][0])


@pytest.mark.parametrize(
    "module", ["testbench_dagster", "testbench_dagster.localnet", "testbench_dagster.core.errors"]
)
def test_child_processes_pay_for_nothing_they_do_not_need(module: str) -> None:
    script = f"import sys, {module}; print(sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(ast.literal_eval(done.stdout))
    assert not loaded & {*HEAVY, "dagster", "sqlalchemy", "pydantic"}


#: What libraries cost whoever imports them, in seconds of CPU: they are imported where they are used.
COSTS = {
    "dagster_postgres": 0.64,
    "datasets": 0.51,
    "httpx": 0.05,
    "matplotlib": 0.36,
    "nltk": 1.04,
    "numpy": 0.10,
    "pandas": 0.29,
    "pyarrow": 0.13,
    "rich": 0.02,
    "scipy": 0.24,
    "uvloop": 0.03,
    "yaml": 0.01,
}


def late_imports(module: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports inside functions."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (n for f in ast.walk(module) if isinstance(f, functions) for n in ast.walk(f))
    yield from {id(n): n for n in found if isinstance(n, (ast.Import, ast.ImportFrom))}.values()


def says_why(lines: list[str], node: ast.Import | ast.ImportFrom) -> bool:
    """Whether a comment stands at an import, or above the block of imports it stands in."""
    first, last = node.lineno - 1, node.end_lineno or node.lineno
    if any("#" in line for line in lines[first:last]):
        return True
    above = first - 1
    while lines[above].strip().startswith(("import ", "from ")):
        if "#" in lines[above]:
            return True
        above -= 1
    return lines[above].strip().startswith("#")


@pytest.mark.slow
def test_late_imports_say_what_they_cost() -> None:
    silent = []
    for name, path in modules().items():
        lines = path.read_text("utf-8").splitlines()
        for node in late_imports(parsed(path)):
            what = node.names[0].name if isinstance(node, ast.Import) else str(node.module)
            if what.partition(".")[0] not in COSTS and not says_why(lines, node):
                silent.append(f"{name}:{node.lineno} {what}")
    assert silent == [], "import it at the top, or write in a comment what that would cost"


# --------------------------------------------------------------------------------- who imports whom


def test_only_the_shell_imports_dagster() -> None:
    allowed = ("testbench_dagster.defs", "testbench_dagster.definitions", "testbench_dagster.cli")
    violations = [
        name
        for name, path in modules().items()
        if any(re.match(r"dagster($|\.|_)", i) for i in imports(path)) and not name.startswith(allowed)
    ]
    assert violations == []
    assert any("dagster" in set(imports(path)) for path in modules().values()), "the walk sees imports"


def test_only_the_adapter_imports_lm_eval() -> None:
    inside = ("testbench_dagster.tasks.lm_eval_adapter", "testbench_dagster.tasks.starter")
    violations = [
        name
        for name, path in modules().items()
        if any(re.match(r"(lm_eval|datasets)($|\.)", i) for i in imports(path))
        and not name.startswith(inside)
        and name != "testbench_dagster.tasks.lm_eval_framework"  # what the child process loads
    ]
    assert violations == []


def test_only_the_framework_imports_the_adapter() -> None:
    adapter = "testbench_dagster.tasks.lm_eval_adapter"
    users = {
        name
        for name, path in modules().items()
        if any(i.startswith(adapter) for i in imports(path)) and not name.startswith(adapter)
    }
    assert users == {
        "testbench_dagster.tasks.chat_choice.adapter",
        "testbench_dagster.tasks.lm_eval_framework",
        "testbench_dagster.tasks.twins.adapter",
    }


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
    "aiohttp": "testbench_dagster.transports.aiohttp_internals",
    "dagster": "testbench_dagster.defs.dagster_internals",
    "lm_eval": "testbench_dagster.tasks.lm_eval_adapter.internals",
}

#: Extends classes of Dagster by what is protected in them; the canary knows those parts, too.
EXTENDS = "testbench_dagster.defs.held_connections"


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
    found = {name: set(private_imports(parsed(path))) for name, path in modules().items()}
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


@pytest.mark.slow
def test_private_attributes_of_others_are_touched_in_those_modules_alone() -> None:
    """Attributes with one leading underscore that nothing in this package defines."""
    ours: set[str] = set()
    touched: set[tuple[str, str]] = set()
    for module, path in modules().items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                ours.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
            elif isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
                if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls"):
                    ours.add(node.attr)
                touched.add((module, ast.unparse(node)))
    others = {(module, use) for module, use in touched if use.rpartition(".")[2] not in ours}
    allowed = {*PRIVATE_PARTS.values(), EXTENDS}
    outside = {use for module, use in others if module not in allowed}
    documented = {"os._exit", "sys._getframe", "member._value_"}  # the last by enum, for members of __new__
    # what runs inside of the sandbox stands for types.coroutine, which makes code objects
    documented |= {"types._GeneratorWrapper"}
    assert outside == documented, "a private attribute of a library"
    assert others > {(PRIVATE_PARTS["lm_eval"], "task._instances")}, "the walk sees attributes"


#: The layers, from the ground up: a folder imports itself and the folders of layers below, none beside it.
#: The modules at the top of the package stand under their own names. See docs/design.md.
LAYERS = (
    ("core",),
    ("config", "statistics"),
    ("stores",),
    ("coordination", "sandbox"),
    ("transports", "relays", "tasks", "planning", "scoring", "identity", "taxonomies", "ranking"),
    ("evidence",),
    ("stages",),
    ("localnet", "board"),
    ("defs",),
    ("tables",),
    ("api", "testing"),
    ("cli", "definitions"),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def folder(module: str) -> str:
    """The folder of the package a module lies in, or the name of a module at its top."""
    return module.split(".")[1]


def imports_at_run_time(path: Path) -> Iterator[str]:
    """All imports of a module, late ones too, but those that only a type checker sees."""
    todo: list[ast.AST] = [parsed(path)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from names_in(node, path)
        else:
            todo += ast.iter_child_nodes(node)


def test_a_folder_imports_only_from_layers_below() -> None:
    known = {name: path for name, path in modules().items() if name != "testbench_dagster"}
    assert sum((PACKAGE / name).is_dir() for name in LAYER) <= 20
    assert {folder(name) for name in known} == set(LAYER), "give new folders a layer, and take old ones out"
    wrong = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in sorted(own(imports_at_run_time(path)))
        if folder(name) != folder(other) and LAYER[folder(other)] >= LAYER[folder(name)]
    ]
    assert wrong == []


def test_only_stages_and_faces_name_the_workspace() -> None:
    inside = {"stages", "board", "defs", "cli", "api"}
    named = {
        folder(name)
        for name, path in modules().items()
        if name != "testbench_dagster" and re.search(r"\bWorkspace\b", path.read_text("utf-8"))
    }
    assert named <= inside


#: Where transports may be told apart by name: in their registry and in the packages of each.
OF_TRANSPORTS = tuple(
    f"testbench_dagster.transports.{name}" for name in ("registry", "direct", "path", "pocket")
)
TRANSPORT_NAMES = {"direct", "path", "shannon"}


def tells_transports_apart(node: ast.AST) -> bool:
    """Whether code compares something with a transport's name, or looks something up by the names.

    That something is compared with "path" alone says nothing: other things are called that too.
    """
    parts: list[ast.expr] = []
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
        of_none = any(isinstance(part, ast.Constant) and part.value is None for part in parts)
        if not of_none and any(
            isinstance(part, ast.Attribute) and part.attr == "transport" for part in parts
        ):
            return True
    elif isinstance(node, ast.MatchValue):
        parts = [node.value]
    elif isinstance(node, ast.Dict):
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        return len(TRANSPORT_NAMES & keys) > 1
    inner = [constant for part in parts for constant in ast.walk(part) if isinstance(constant, ast.Constant)]
    return any(constant.value in TRANSPORT_NAMES - {"path"} for constant in inner)


@pytest.mark.parametrize(
    ("code", "apart"),
    [
        ("s.transport == other", True),
        ("name != 'shannon'", True),
        ("x in ('direct', 'other')", True),
        ("match t:\n case 'direct': pass", True),
        ("{'path': 1, 'direct': 2}[t]", True),
        ("s.transport in known", True),
        ("protocol.transport is None", False),
        ("Endpoint(transport='direct')", False),
        ("plug.sends_only_in_sessions", False),
    ],
)
def test_the_search_for_names_of_transports_finds_them(code: str, apart: bool) -> None:
    assert any(map(tells_transports_apart, ast.walk(ast.parse(code)))) is apart


def test_only_the_registry_and_the_plugs_tell_transports_apart() -> None:
    found = [
        f"{name}:{getattr(node, 'lineno', '?')}"
        for name, path in modules().items()
        if not name.startswith(OF_TRANSPORTS)
        for node in ast.walk(parsed(path))
        if tells_transports_apart(node)
    ]
    assert found == []
    said = [name for name, path in modules().items() if "transport ==" in path.read_text("utf-8")]
    assert said == ["testbench_dagster.transports.registry"]


def test_nothing_but_the_registry_reaches_into_a_transport() -> None:
    """What a transport does goes through its plug; its simulation speaks its language, too."""
    plugs = tuple(name for name in OF_TRANSPORTS if not name.endswith("registry"))
    inside = ("testbench_dagster.transports.", "testbench_dagster.localnet.")
    found = {
        name: sorted(reached)
        for name, path in modules().items()
        if not name.startswith(inside)
        and (reached := {i for i in own(imports_at_run_time(path)) if i.startswith(plugs)})
    }
    # names the sources that decide an attempt's fault, and imports none of them
    assert found == {}


def test_private_names_stay_in_their_folder() -> None:
    """A module may use what another one of its own folder keeps for itself, and nobody else."""
    found = [
        f"{name} imports {node.module}.{alias.name}"
        for name, path in modules().items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("testbench_dagster.")
        for alias in node.names
        if re.match(r"_[^_]", alias.name) and folder(str(node.module)) != folder(name)
    ]
    assert found == [], "give it a name without an underscore, or keep it at home"


def test_documents_are_records_above_the_stores() -> None:
    """A raw document is had from a store's own operations, these take a collection, and nobody else gets one.

    So no document can be taken apart by the names of its fields outside the stores and the records.
    """
    raw = re.compile(r"\.documents(\.contract)?\.(Document|Collection)$|\.documents\.collections\.[A-Z_]+$")
    found = set()
    for name, path in modules().items():
        if name.startswith(("testbench_dagster.stores.", "testbench_dagster.core.records")):
            continue
        named = set(imports(path))
        if not any(re.match(r"testbench_dagster\.(core\.records|stores)\b", i) for i in named):
            continue  # it gets neither documents nor records
        nodes = list(ast.walk(parsed(path)))
        imported = any(map(raw.search, named))
        # `.collection.name` is a word, `.collection` alone the key to raw documents
        words = {id(n.value) for n in nodes if isinstance(n, ast.Attribute) and n.attr == "name"}
        taken = any(
            isinstance(n, ast.Attribute) and n.attr == "collection" and id(n) not in words for n in nodes
        )
        if imported or taken:
            found.add(name)
    assert found == set()


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
    silent = [name for name, path in modules().items() if not ast.get_docstring(parsed(path))]
    assert silent == []


def test_every_package_says_what_belongs_in_it() -> None:
    packages = {name: path for name, path in modules().items() if path.name == "__init__.py"}
    assert {"testbench_dagster.core", "testbench_dagster.defs.catalog"} <= set(packages)
    silent = []
    for name, path in packages.items():
        text = " ".join((ast.get_docstring(parsed(path)) or "").split())
        if not re.search(r"\bBelongs here: \S.*\bDoes not: \S", text):
            silent.append(name)
    assert silent == [], "write `Belongs here: ... Does not: ...` into their docstrings"


#: Imported without being declared: parts of the interface of a declared package that itself needs them.
COMES_WITH = {
    "huggingface_hub": "datasets",
    "markupsafe": "jinja2",
    "yarl": "aiohttp",
    "multidict": "aiohttp",
    "alembic": "dagster",
}

#: Packages of extras: the only modules that import each, and the extra.
OF_EXTRAS = {
    "reasoning_gym": ({"testbench_dagster.tasks.fresh.items"}, "fresh"),
    "celery": ({"testbench_dagster.defs.celery_worker"}, "celery"),
    "dagster_celery": (
        {"testbench_dagster.defs.celery_launcher", "testbench_dagster.defs.celery_worker"},
        "celery",
    ),
}

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
    assert unknown == {*COMES_WITH, *OF_EXTRAS}
    for name, (allowed, extra) in OF_EXTRAS.items():
        users = {m for m, path in modules().items() if name in {i.partition(".")[0] for i in imports(path)}}
        assert users == allowed
        entries = {re.split(r"[\[=<>]", entry)[0] for entry in project["optional-dependencies"][extra]}
        assert entries == {n.replace("_", "-") for n, (_, other) in OF_EXTRAS.items() if other == extra}
    for name, parent in COMES_WITH.items():
        assert any(
            re.match(rf"{name.replace('_', '[-_]')}\b", r, re.IGNORECASE)
            for r in importlib.metadata.requires(parent) or ()
        )
    assert declared - used == set(NEEDED_UNSEEN), "declared but not imported, or listed and imported"
