"""One evaluated installation and its bundle for all tests of evidence; each test works on a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.dispute import installations


@pytest.fixture(scope="session", autouse=True)
def _key_of_the_supplier() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVE_KEY", installations.SECRET)
        yield


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
