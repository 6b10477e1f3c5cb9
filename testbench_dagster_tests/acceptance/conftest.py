"""Fixtures of the acceptance tests: working folders and recorded answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbench_dagster_tests.acceptance.harness import Answers, Installation


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """A working folder on the embedded stores."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Installation(folder)


@pytest.fixture
def server_installation(
    installation: Installation, mongo_database_uri: str, postgres_database_uri: str
) -> Iterator[Installation]:
    """A working folder on MongoDB and PostgreSQL, Dagster's own storage included."""
    installation.environment |= {
        "TESTBENCH_MONGO_URI": mongo_database_uri,
        "TESTBENCH_POSTGRES_URI": postgres_database_uri,
        "DAGSTER_POSTGRES_URL": postgres_database_uri,
    }
    return installation


@pytest.fixture(scope="session")
def answers(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Recorded answers as the replay server reads them."""
    return Answers(tmp_path_factory.mktemp("answers"))
