"""deploy/Dockerfile, as far as it can be judged where no engine builds it."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import known_implementations
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from testbench_dagster import __version__
from testbench_dagster.defs.local_runs import PROCESS_ENVIRONMENT

pytest.importorskip("dockerfile_parse", reason="the extra deploy is not installed")

from testbench_dagster_tests.deploy.dockerfile import environment, stages, values

ROOT = Path(__file__).parents[2]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out of the build: the last line that matches decides."""
    kept_out = False
    for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        again, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        parts = path.split("/")
        places = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        if pattern.startswith("**/"):
            hit = any(fnmatch.fnmatchcase(part, pattern[3:]) for part in parts)
        else:
            hit = any(fnmatch.fnmatchcase(place, pattern) for place in places)
        if hit:
            kept_out = not again
    return kept_out


def test_all_that_is_copied_is_there_and_reaches_the_build() -> None:
    sources = [source for text in values(stages()[1], "COPY") for source in text.split()[:-1]]
    assert {"pyproject.toml", "testbench_dagster"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert not ignored("testbench_dagster/cli/__init__.py")


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".testbench/documents.sqlite3",
        "testbench.yaml",
        "deploy/compose/.env",
        "docs/index.md",
        "testbench_dagster/__pycache__/api.cpython-311.pyc",
        "testbench_dagster_tests/conftest.py",
    ],
)
def test_nothing_else_reaches_the_build(path: str) -> None:
    assert ignored(path)


def test_what_the_package_is_built_from_is_copied() -> None:
    """A file that pyproject.toml or MANIFEST.in names would be missing in the build alone."""
    copied = {source for text in values(stages()[1], "COPY") for source in text.split()[:-1]}
    assert {project()["readme"], *project()["license-files"], "setup.py"} <= copied


def test_it_is_not_root_and_has_one_python() -> None:
    image = stages()[-1]
    assert values(image, "USER") == ["10001:10001"]
    steps = [step["instruction"] for step in image]
    assert "RUN" not in steps[steps.index("USER") :]
    assert values(image, "HEALTHCHECK") == ["NONE"]
    arguments = dict(text.split("=") for text in values(stages()[0], "ARG"))
    assert re.fullmatch(r"3\.[0-9]+", arguments["PYTHON"])
    assert [step["value"].split()[0] for stage in stages()[1:] for step in stage[:1]] == [
        "python:${PYTHON}-slim-${DEBIAN}"
    ] * 2
    lowest = project()["requires-python"].removeprefix(">=").split(".")
    assert [int(part) for part in arguments["PYTHON"].split(".")] >= [int(part) for part in lowest]


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def extras() -> list[str]:
    """The extras that the image has where nobody says otherwise."""
    return dict(text.split("=") for text in values(stages()[1], "ARG"))["EXTRAS"].split(",")


def test_its_extras_exist_and_its_version_is_ours() -> None:
    assert set(extras()) <= project()["optional-dependencies"].keys()
    assert f'version="{__version__}"' in values(stages()[-1], "LABEL")[0]


def named_modules() -> set[str]:
    """Modules that configurations of pods name in files and pages: of Dagster's classes, of places."""
    pages = [ROOT / "docs" / "deployment.md", ROOT / "docs" / "operations.md"]
    files = [path for path in (ROOT / "deploy").rglob("*") if path.suffix in (".yaml", ".tpl")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*pages, *files])
    classes = set(re.findall(r"^ *(?:- )?module: ([a-z0-9_]+)", text, re.MULTILINE))
    places = set(re.findall(r"\b(?:publish|bodies): ([a-z0-9]+)://", text))
    assert classes and places
    return classes | {known_implementations[place]["class"].partition(".")[0] for place in places}


def test_what_configurations_name_is_in_it() -> None:
    """Pods have no other home for files than such a place; without the package there is none."""
    wanted = [*project()["dependencies"]]
    for extra in extras():
        wanted += project()["optional-dependencies"][extra]
    installed = {canonicalize_name(Requirement(text).name) for text in wanted} | {"testbench-dagster"}
    found = packages_distributions()
    for module in named_modules():
        assert {canonicalize_name(name) for name in found[module]} & installed, module


def test_the_page_names_its_extras() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    said = re.search(r"the package with the extras (.*?), bubblewrap", page, re.DOTALL)
    assert said is not None
    assert re.findall(r"`(\w+)`", said[1]) == extras()


def test_its_variables_are_those_of_every_process_in_dagster() -> None:
    given = environment(stages()[-1])
    assert PROCESS_ENVIRONMENT.items() <= given.items()
    made = re.search(r"install --directory .*", values(stages()[-1], "RUN")[0])
    assert made is not None
    for name in ("TESTBENCH_HOME", "DAGSTER_HOME", "HOME"):
        assert given[name] in made[0].split()
    assert str(Path(given["TESTBENCH_CONFIG"]).parent) in made[0].split()


def test_its_entry_point_is_installed() -> None:
    installed = values(stages()[-1], "RUN")[0]
    assert values(stages()[-1], "ENTRYPOINT") == ['["tini", "--"]'] and " tini " in f"{installed} "
    assert values(stages()[-1], "CMD") == ['["testbench", "--help"]']
    assert "/opt/testbench/bin" in environment(stages()[-1])["PATH"]
    # a symbolic link to the Python of the stage it was made in: both stages are of one image, and one folder
    assert values(stages()[-1], "COPY") == ["--from=build /opt/testbench /opt/testbench"]


@pytest.mark.slow(minutes=0.5)
def test_the_package_builds_from_what_reaches_the_build(tmp_path: Path) -> None:
    """The steps of the first stage, by hand: copy, then pip; dependencies are those of this environment."""
    source = tmp_path / "src"
    for text in values(stages()[1], "COPY"):
        *names, _ = text.split()
        for name in names:
            for path in [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*")):
                relative = path.relative_to(ROOT)
                if path.is_file() and not ignored(str(relative)):
                    (source / relative).parent.mkdir(parents=True, exist_ok=True)
                    (source / relative).write_bytes(path.read_bytes())
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(target), str(source)], check=True, capture_output=True)
    # from there, as a user that may write nowhere: a file that is missing in the build is missing here
    said = subprocess.run(
        [sys.executable, "-m", "testbench_dagster.cli", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert __version__ in said.stdout
    packed = {
        path.relative_to(target) for path in (target / "testbench_dagster").rglob("*") if path.is_file()
    }
    ours = {
        path.relative_to(ROOT)
        for path in (ROOT / "testbench_dagster").rglob("*")
        # pages about it stay in the repository
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md"
    }
    assert {path for path in packed if "__pycache__" not in path.parts} == ours
