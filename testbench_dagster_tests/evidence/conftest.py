"""One evaluated installation and its bundle for all tests of evidence; each test works on a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.index import CACHE_ENV
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.evidence import installations


@pytest.fixture(scope="session", autouse=True)
def _clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "TESTBENCH_CONFIG"):
            patch.delenv(name, raising=False)
        patch.setenv(CACHE_ENV, str(tmp_path_factory.mktemp("index-cache")))
        patch.setenv("LIVE_KEY", installations.SECRET)
        yield


@pytest.fixture(scope="session")
def worker(_clean_environment: None) -> Iterator[FrameworkWorker]:
    with FrameworkWorker() as started:
        yield started


@pytest.fixture(scope="session")
def workspace(worker: FrameworkWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Evaluated on the embedded stores."""
    folder = tmp_path_factory.mktemp("installation")
    with installations.answering() as url:
        opened = installations.evaluated(installations.configure(folder, url), worker)
    yield opened
    del opened.worker
    opened.close()


@pytest.fixture(scope="session")
def bundle(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "evidence.zip"
    write_bundle(workspace, installations.KEY, path)
    return path
