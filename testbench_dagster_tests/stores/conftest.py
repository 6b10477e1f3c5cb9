"""The document store under test: SQLite and MongoDB alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbench_dagster.stores.datasets import DatasetStore
from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster_tests.stores.workers import Target


@pytest.fixture(params=["sqlite", "mongo"])
def target(request: pytest.FixtureRequest, tmp_path) -> Target:
    if request.param == "sqlite":
        return Target(str(tmp_path / "home"))
    return Target(str(tmp_path), request.getfixturevalue("mongo_database_uri"))


@pytest.fixture
def store(target: Target) -> Iterator[DocumentStore]:
    opened = target.open()
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def dataset_url(request: pytest.FixtureRequest, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'datasets.sqlite3'}"
    return request.getfixturevalue("postgres_database_uri")


@pytest.fixture
def datasets(dataset_url: str) -> Iterator[DatasetStore]:
    opened = DatasetStore(dataset_url)
    yield opened
    opened.close()
