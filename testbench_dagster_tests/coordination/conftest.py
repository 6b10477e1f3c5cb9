"""The stores that processes coordinate through: both kinds, or SQLite where only time matters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster_tests.stores.conftest import store, target
from testbench_dagster_tests.stores.workers import Target

__all__ = ["store", "target"]


@pytest.fixture
def local_target(tmp_path: Path) -> Target:
    return Target(str(tmp_path / "home"))


@pytest.fixture
def local(local_target: Target) -> Iterator[DocumentStore]:
    opened = local_target.open()
    yield opened
    opened.close()
