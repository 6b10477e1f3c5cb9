"""Where a platform keeps its data in a test: the embedded stores, or MongoDB and PostgreSQL servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from testbench_dagster_tests.servers import mongo_database, postgres_database


@contextlib.contextmanager
def both_stores(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Yield the variables for ``request.param``: ``embedded`` needs none, ``servers`` new databases."""
    if request.param == "embedded":
        yield {}
        return
    mongo: str = request.getfixturevalue("mongo_uri")
    postgres: str = request.getfixturevalue("postgres_uri")
    with (
        mongo_database(mongo) as documents,
        postgres_database(postgres) as datasets,
        postgres_database(postgres) as dagster,
    ):
        yield {
            "TESTBENCH_MONGO_URI": documents,
            "TESTBENCH_POSTGRES_URI": datasets,
            "DAGSTER_POSTGRES_URL": dagster,
        }
